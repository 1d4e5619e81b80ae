// SPDX-License-Identifier: Apache-2.0
//! Typed parts of a query, and the only place that escapes.
//!
//! A name comes from a user or a pod and may hold anything: a quote must not end the literal, and a regex
//! metacharacter must match itself. A name that is too long for a query is matched by its beginning; readers
//! of the rows compare full names in any case.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::time::Duration;

use collector_engines::LabelMatcher;

/// Bytes that one escaped name may take in a query.
const NAME_BYTES_MAX: usize = 2_000;

/// One condition on a label.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Matcher {
    label: Cow<'static, str>,
    operator: &'static str,
    /// Escaped, without its quotes.
    literal: String,
}

impl Matcher {
    /// Matches this value, or every value with the beginning of a very long one.
    pub(crate) fn is(label: impl Into<Cow<'static, str>>, value: &str) -> Self {
        let literal = escape(value);
        if literal.len() <= NAME_BYTES_MAX {
            Self { label: label.into(), operator: "=", literal }
        } else {
            Self::regex(label, &pattern(value))
        }
    }

    /// Matches one of these values.
    pub(crate) fn any_of<'a>(
        label: impl Into<Cow<'static, str>>,
        values: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let values: Vec<&str> = values.into_iter().collect();
        match values.as_slice() {
            [only] => Self::is(label, only),
            values => {
                let patterns: Vec<String> = values.iter().map(|value| pattern(value)).collect();
                Self::regex(label, &patterns.join("|"))
            }
        }
    }

    /// Matches any non-empty value.
    pub(crate) fn present(label: impl Into<Cow<'static, str>>) -> Self {
        Self { label: label.into(), operator: "!=", literal: String::new() }
    }

    fn regex(label: impl Into<Cow<'static, str>>, pattern: &str) -> Self {
        Self { label: label.into(), operator: "=~", literal: escape(pattern) }
    }

    /// Matches one of these values, or any that ends in one of `ends`.
    pub(crate) fn ends_or_is<'a>(
        label: &'static str,
        ends: &[&str],
        values: impl Iterator<Item = &'a str>,
    ) -> Self {
        let ends: Vec<String> = ends.iter().map(|end| pattern(end)).collect();
        let all = std::iter::once(format!(".*(?:{})", ends.join("|")));
        let all: Vec<String> = all.chain(values.map(pattern)).collect();
        Self::regex(label, &all.join("|"))
    }

    /// Converts a matcher of the user or of an engine.
    pub(crate) fn from_engine(matcher: &LabelMatcher) -> Self {
        Self {
            label: matcher.label.to_string().into(),
            operator: matcher.operator.as_str(),
            literal: escape(&matcher.value),
        }
    }

    /// Returns the bytes of a value in [`any_of`](Self::any_of), including its separator.
    pub(crate) fn bytes_of(value: &str) -> usize {
        escape(&pattern(value)).len() + 1
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}\"{}\"", self.label, self.operator, self.literal)
    }
}

/// The conditions of a selector; prints as `{a="b",c=~"d"}`, or as nothing if there are none.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Filter(pub(crate) Vec<Matcher>);

impl Filter {
    /// Returns these conditions and more.
    pub(crate) fn and(&self, more: impl IntoIterator<Item = Matcher>) -> Self {
        let mut matchers = self.0.clone();
        matchers.extend(more);
        Self(matchers)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        f.write_str("{")?;
        for (i, matcher) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            matcher.fmt(f)?;
        }
        f.write_str("}")
    }
}

/// A range such as `[60s]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Window(pub(crate) Duration);

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis().max(1);
        if millis.is_multiple_of(1000) {
            write!(f, "[{}s]", millis / 1000)
        } else {
            write!(f, "[{millis}ms]")
        }
    }
}

/// An evaluation time, in milliseconds since the epoch on the server's clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct EvalTime(pub(crate) u64);

impl EvalTime {
    /// Returns the time in seconds, as samples have it.
    pub(crate) fn seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }
}

impl fmt::Display for EvalTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// Returns a pattern that matches `value` alone, or its beginning if it is very long.
fn pattern(value: &str) -> String {
    let mut pattern = String::with_capacity(value.len());
    for (at, c) in value.char_indices() {
        // A backslash is escaped again inside the string literal, so each counts twice.
        if pattern.len() * 2 > NAME_BYTES_MAX && at + c.len_utf8() < value.len() {
            // `.` alone stops at a newline.
            pattern.push_str("(?s:.*)");
            return pattern;
        }
        if is_metacharacter(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

/// RE2's metacharacters, as Go's `regexp.QuoteMeta` has them.
fn is_metacharacter(c: char) -> bool {
    matches!(c, '\\' | '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$')
}

/// Escapes the inside of a double-quoted string literal.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '"' => escaped.push_str("\\\""),
            '\n' => escaped.push_str("\\n"),
            c if c.is_ascii_control() => {
                // Writing to a string cannot fail.
                let _ = write!(escaped, "\\x{:02x}", u32::from(c));
            }
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads one double-quoted PromQL literal at the start of `text`: its value and the rest.
    fn literal(text: &str) -> Option<(String, &str)> {
        let mut value = String::new();
        let mut chars = text.strip_prefix('"')?.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => return Some((value, &text[at + 2..])),
                '\n' => return None,
                '\\' => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    'x' => {
                        let hex: String = [chars.next()?.1, chars.next()?.1].iter().collect();
                        value.push(char::from(u8::from_str_radix(&hex, 16).ok()?));
                    }
                    c @ ('"' | '\\') => value.push(c),
                    _ => return None,
                },
                c => value.push(c),
            }
        }
        None
    }

    /// Returns the names that a pattern of [`pattern`] matches, without a regex engine: metacharacters may
    /// only follow a backslash, except the separator.
    fn alternatives(pattern: &str) -> Vec<String> {
        let mut all = vec![String::new()];
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            let last = all.last_mut().unwrap();
            match c {
                '\\' => last.push(chars.next().expect("a backslash quotes something")),
                '|' => all.push(String::new()),
                c => {
                    assert!(!is_metacharacter(c), "{c:?} is not quoted in {pattern:?}");
                    last.push(c);
                }
            }
        }
        all
    }

    proptest! {
        #[test]
        fn any_name_comes_back_from_its_literal(name in any::<String>()) {
            let printed = Matcher::is("model_name", &name).to_string();
            let (value, rest) = literal(printed.strip_prefix("model_name=").unwrap()).unwrap();
            prop_assert_eq!(value, name);
            prop_assert_eq!(rest, "");
        }

        #[test]
        fn any_names_come_back_from_their_pattern(names in prop::collection::vec(any::<String>(), 2..5)) {
            let printed = Matcher::any_of("model_name", names.iter().map(String::as_str)).to_string();
            let (value, rest) = literal(printed.strip_prefix("model_name=~").unwrap()).unwrap();
            prop_assert_eq!(alternatives(&value), names);
            prop_assert_eq!(rest, "");
        }
    }

    #[track_caller]
    fn check(name: &str, expected: &str) {
        assert_eq!(Matcher::is("m", name).to_string(), expected);
    }

    #[test]
    fn names_are_literals_whatever_they_hold() {
        check("meta/llama:8b", r#"m="meta/llama:8b""#);
        check(r#"a"b\c"#, r#"m="a\"b\\c""#);
        check("a\nb\0\u{1b}", r#"m="a\nb\x00\x1b""#);
        check("} or up{", r#"m="} or up{""#);
        assert_eq!(Matcher::any_of("m", ["a.b", "c\\d"]).to_string(), r#"m=~"a\\.b|c\\\\d""#);
    }

    #[test]
    fn a_name_too_long_for_a_query_is_matched_by_its_beginning() {
        for name in ["x".repeat(20_000), "\\\"".repeat(10_000), "語".repeat(9_000)] {
            let printed = Matcher::is("m", &name).to_string();
            assert!(printed.starts_with("m=~\""), "{}", &printed[..40]);
            assert!(printed.ends_with("(?s:.*)\""));
            assert!(printed.len() < 2 * NAME_BYTES_MAX, "{}", printed.len());
            let (value, _) = literal(&printed[3..]).unwrap();
            let beginning = alternatives(value.strip_suffix("(?s:.*)").unwrap()).remove(0);
            assert!(name.starts_with(&beginning));
            assert!(beginning.len() >= NAME_BYTES_MAX / 8);
        }
    }

    #[test]
    fn windows_and_times_print_as_promql_reads_them() {
        assert_eq!(Window(Duration::from_secs(60)).to_string(), "[60s]");
        assert_eq!(Window(Duration::from_millis(1500)).to_string(), "[1500ms]");
        assert_eq!(EvalTime(1_732_000_000_007).to_string(), "1732000000.007");
        assert_eq!(Filter::default().to_string(), "");
    }
}
