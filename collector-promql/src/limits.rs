// SPDX-License-Identifier: Apache-2.0
//! Limits that are checked before a query is parsed: length, nesting, operators and regular expressions.
//!
//! The parser takes quadratic time for chains of operators, recurses into brackets and compiles regular expressions,
//! so a query of some kilobytes could block a thread for seconds or overflow its stack. Within the limits, parsing
//! takes milliseconds.

use std::iter::Peekable;
use std::str::CharIndices;

use regex::RegexBuilder;

/// The limits of a query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Size in bytes. Default 16 KiB.
    pub bytes: usize,
    /// Nesting depth of brackets. Default 64.
    pub depth: usize,
    /// Number of operators. Default 256.
    pub operators: usize,
}

/// The maximum size of a regular expression.
const REGEX_BYTES_MAX: usize = 1 << 10;
/// The maximum size of a compiled regular expression: `.*` and Unicode classes take a fraction of it, and nested
/// repetitions exceed it within a millisecond.
const COMPILED_BYTES_MAX: usize = 256 << 10;
/// The maximum number of regular expressions in a query: each may take a millisecond.
pub(crate) const REGEXES_MAX: usize = 16;
/// Operators that are words.
const WORDS: [&str; 4] = ["and", "or", "unless", "atan2"];

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 16 << 10, depth: 64, operators: 256 }
    }
}

impl Limits {
    /// Checks the text of a query. The error names the limit that it exceeds.
    pub(crate) fn check(&self, query: &str) -> Result<(), String> {
        if query.len() > self.bytes {
            return Err(format!("it has {} bytes; the limit is {}", query.len(), self.bytes));
        }
        let mut characters = query.char_indices().peekable();
        let (mut depth, mut operators, mut regexes) = (0_usize, 0_usize, 0_usize);
        let mut is_regex = false;
        while let Some((start, character)) = characters.next() {
            match character {
                '"' | '\'' | '`' => {
                    let text = string(query, &mut characters, character);
                    if is_regex {
                        regexes += 1;
                        if regexes > REGEXES_MAX {
                            return Err(format!(
                                "it has more than {REGEXES_MAX} regular expressions"
                            ));
                        }
                        check_regex(&unescaped(text, character)?)?;
                    }
                }
                '#' => {
                    while characters.next_if(|(_, next)| *next != '\n').is_some() {}
                    // A comment between an operator and its string counts as a space.
                    continue;
                }
                '(' | '[' | '{' => {
                    depth += 1;
                    if depth > self.depth {
                        let limit = self.depth;
                        return Err(format!("its brackets are nested deeper than {limit}"));
                    }
                }
                ')' | ']' | '}' => depth = depth.saturating_sub(1),
                '+' | '-' | '*' | '/' | '%' | '^' | '=' | '<' | '>' | '!' | '@' => {
                    let second = characters.next_if(|(_, next)| matches!(next, '=' | '~'));
                    is_regex = second.is_some_and(|(_, second)| second == '~');
                    operators += 1;
                }
                _ if character.is_alphabetic() || character == '_' || character == ':' => {
                    let is_name = |next: char| next.is_alphanumeric() || matches!(next, '_' | ':');
                    let mut end = start + character.len_utf8();
                    while let Some((at, next)) = characters.next_if(|(_, next)| is_name(*next)) {
                        end = at + next.len_utf8();
                    }
                    let word = &query[start..end];
                    operators +=
                        usize::from(WORDS.iter().any(|known| word.eq_ignore_ascii_case(known)));
                }
                _ => {}
            }
            if operators > self.operators {
                return Err(format!("it has more than {} operators", self.operators));
            }
            let starts_value = matches!(character, '=' | '!') || character.is_whitespace();
            is_regex &= starts_value;
        }
        Ok(())
    }
}

/// Returns the text of a string literal whose opening quote was just read.
fn string<'a>(query: &'a str, characters: &mut Peekable<CharIndices<'_>>, quote: char) -> &'a str {
    let start = characters.peek().map_or(query.len(), |(at, _)| *at);
    while let Some((at, character)) = characters.next() {
        if character == quote {
            return &query[start..at];
        }
        if character == '\\' && quote != '`' {
            characters.next();
        }
    }
    &query[start..]
}

/// Resolves the escapes of a string literal. Numeric escapes could hide a regular expression from this check, and are
/// rejected.
fn unescaped(text: &str, quote: char) -> Result<String, String> {
    if quote == '`' {
        return Ok(text.to_owned());
    }
    let mut characters = text.chars();
    let mut plain = String::with_capacity(text.len());
    while let Some(character) = characters.next() {
        match (character, (character == '\\').then(|| characters.next()).flatten()) {
            ('\\', Some('x' | 'u' | 'U' | '0'..='7')) => {
                return Err("its regular expressions have numeric escapes".to_owned());
            }
            ('\\', Some(escaped)) => plain.push(escaped),
            _ => plain.push(character),
        }
    }
    Ok(plain)
}

/// Checks the size of a regular expression. The error names the limit that it exceeds.
pub(crate) fn check_regex(regex: &str) -> Result<(), String> {
    let shown: String = regex.chars().take(40).collect();
    if regex.len() > REGEX_BYTES_MAX {
        return Err(format!(
            "its regular expression {shown:?}… has {} bytes; the limit is {REGEX_BYTES_MAX}",
            regex.len()
        ));
    }
    let compiled = RegexBuilder::new(regex).size_limit(COMPILED_BYTES_MAX).build();
    match compiled {
        // The parser accepts some forms that are invalid here, and reports the others.
        Ok(_) | Err(regex::Error::Syntax(_)) => Ok(()),
        Err(_) => Err(format!("its regular expression {shown:?} is too large once compiled")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_refused(query: &str, why: &str) {
        let error = Limits::default().check(query).unwrap_err();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn a_query_over_a_limit_is_refused() {
        check_refused(&"a".repeat((16 << 10) + 1), "the limit is 16384");
        check_refused(&"(".repeat(65), "nested deeper than 64");
        check_refused(&format!("up{}", " + up".repeat(257)), "more than 256 operators");
        check_refused(&format!("up{}", " or up".repeat(257)), "more than 256 operators");
        let limits = Limits::default();
        assert_eq!(limits.check(&format!("{}up{}", "(".repeat(64), ")".repeat(64))), Ok(()));
        assert_eq!(limits.check(&format!("up{}", " + up".repeat(256))), Ok(()));
    }

    #[test]
    fn an_expensive_regular_expression_is_refused_and_a_common_one_is_not() {
        check_refused(r#"up{a=~"(((a{99}){99}){99}){99}"}"#, "too large once compiled");
        check_refused(r"up{a !~ '(\\w{99}){99}'}", "too large once compiled");
        check_refused(&format!("up{{a=~\"{}\"}}", "a".repeat(1025)), "the limit is 1024");
        // Hidden behind a comment, or in escapes.
        check_refused("up{a=~#\n\"(((a{99}){99}){99}){99}\"}", "too large once compiled");
        check_refused(r#"up{a=~"(a\x7b99\x7d)"}"#, "numeric escapes");
        check_refused(r#"up{a=~"a\173"}"#, "numeric escapes");
        let many = r#"a=~"b","#.repeat(17);
        check_refused(&format!("up{{{many}}}"), "more than 16 regular expressions");
        for regex in [".*decode.*", r"(?i)\\w+-\\d{1,5}", "a|b|c", "[^/]+/[^/]+", "sglang[:_].*"] {
            assert_eq!(
                Limits::default().check(&format!("up{{a=~\"{regex}\"}}")),
                Ok(()),
                "{regex}"
            );
        }
    }

    #[test]
    fn strings_and_comments_contain_no_operators() {
        let text = "+".repeat(300);
        for query in [
            format!("up{{a=\"{text}\"}}"),
            format!("up{{a='\\'{text}'}}"),
            format!("up{{a=`\\`}} # {text}"),
        ] {
            assert_eq!(Limits::default().check(&query), Ok(()), "{query}");
        }
        check_refused(&format!("up{{a=`\\`}} {text}"), "operators");
        assert_eq!(Limits::default().check("up{a=\"no end"), Ok(()), "the parser reports it");
    }
}
