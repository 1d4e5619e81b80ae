//! What a query may cost before it is parsed: its length, its nesting, its operators and its regular expressions.
//!
//! The parser is quadratic in chains of operators, recurses over brackets and compiles regular expressions, so a
//! query of some kilobytes could hold a thread for seconds or end the process. What stays within these limits is
//! refused or parsed within milliseconds.

use std::iter::Peekable;
use std::str::CharIndices;

use regex::RegexBuilder;

/// The limits of queries that are guarded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of a query. Default 16 KiB.
    pub bytes: usize,
    /// Brackets within brackets. Default 64.
    pub depth: usize,
    /// Operators. Default 256.
    pub operators: usize,
}

/// Bytes of one regular expression.
const REGEX_BYTES_MAX: usize = 1 << 10;
/// Bytes of one regular expression once compiled: `.*` and classes of Unicode take a fraction of it, repetitions of
/// repetitions exceed it within a millisecond.
const COMPILED_BYTES_MAX: usize = 256 << 10;
/// Regular expressions of one query: each may take a millisecond.
const REGEXES_MAX: usize = 16;
/// Operators that are words.
const WORDS: [&str; 4] = ["and", "or", "unless", "atan2"];

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 16 << 10, depth: 64, operators: 256 }
    }
}

impl Limits {
    /// Checks a query that was not parsed. The error says which limit it exceeds.
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
                    // A comment stands between an operator and its string as a space does.
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

/// The text of a string whose quote was just read, up to the quote that ends it.
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

/// The text of a string as the parser reads it. Escapes of characters by number could hide a regular expression from
/// this check, and nobody needs them in one.
fn unescaped(text: &str, quote: char) -> Result<String, String> {
    if quote == '`' {
        return Ok(text.to_owned());
    }
    let mut characters = text.chars();
    let mut plain = String::with_capacity(text.len());
    while let Some(character) = characters.next() {
        match (character, (character == '\\').then(|| characters.next()).flatten()) {
            ('\\', Some('x' | 'u' | 'U' | '0'..='7')) => {
                return Err(
                    "its regular expressions have escapes of characters by number".to_owned()
                );
            }
            ('\\', Some(escaped)) => plain.push(escaped),
            _ => plain.push(character),
        }
    }
    Ok(plain)
}

fn check_regex(regex: &str) -> Result<(), String> {
    let shown: String = regex.chars().take(40).collect();
    if regex.len() > REGEX_BYTES_MAX {
        return Err(format!(
            "its regular expression {shown:?}… has {} bytes; the limit is {REGEX_BYTES_MAX}",
            regex.len()
        ));
    }
    let compiled = RegexBuilder::new(regex).size_limit(COMPILED_BYTES_MAX).build();
    match compiled {
        // What is no regular expression here may be one for the parser, which says so if not.
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
    fn what_is_too_long_too_deep_or_too_much_is_refused() {
        check_refused(&"a".repeat((16 << 10) + 1), "the limit is 16384");
        check_refused(&"(".repeat(65), "nested deeper than 64");
        check_refused(&format!("up{}", " + up".repeat(257)), "more than 256 operators");
        check_refused(&format!("up{}", " or up".repeat(257)), "more than 256 operators");
        let limits = Limits::default();
        assert_eq!(limits.check(&format!("{}up{}", "(".repeat(64), ")".repeat(64))), Ok(()));
        assert_eq!(limits.check(&format!("up{}", " + up".repeat(256))), Ok(()));
    }

    #[test]
    fn a_regular_expression_that_explodes_is_refused_and_a_wide_one_is_not() {
        check_refused(r#"up{a=~"(((a{99}){99}){99}){99}"}"#, "too large once compiled");
        check_refused(r"up{a !~ '(\\w{99}){99}'}", "too large once compiled");
        check_refused(&format!("up{{a=~\"{}\"}}", "a".repeat(1025)), "the limit is 1024");
        // Hidden behind a comment, or in escapes.
        check_refused("up{a=~#\n\"(((a{99}){99}){99}){99}\"}", "too large once compiled");
        check_refused(r#"up{a=~"(a\x7b99\x7d)"}"#, "escapes of characters");
        check_refused(r#"up{a=~"a\173"}"#, "escapes of characters");
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
    fn what_stands_in_strings_and_comments_is_no_operator() {
        let text = "+".repeat(300);
        for query in [
            format!("up{{a=\"{text}\"}}"),
            format!("up{{a='\\'{text}'}}"),
            format!("up{{a=`\\`}} # {text}"),
        ] {
            assert_eq!(Limits::default().check(&query), Ok(()), "{query}");
        }
        check_refused(&format!("up{{a=`\\`}} {text}"), "operators");
        assert_eq!(Limits::default().check("up{a=\"no end"), Ok(()), "the parser says so");
    }
}
