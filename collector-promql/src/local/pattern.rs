// SPDX-License-Identifier: Apache-2.0
//! Matchers, where they mean the same here and in a PromQL server.
//!
//! Regular expressions of Go and Rust differ in rare constructs, and for text that is not ASCII. Queries with those go
//! to the server.

use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::VectorSelector;

use super::{Labels, NotLocal};

/// Checks the regular expressions of a selector.
pub(super) fn check(selector: &VectorSelector) -> Result<(), NotLocal> {
    let matchers = selector.matchers.matchers.iter();
    matchers.filter(|it| is_pattern(it)).try_for_each(|matcher| check_pattern(&matcher.value))
}

/// Checks that Go and Rust read a regular expression in the same way.
pub(super) fn check_pattern(pattern: &str) -> Result<(), NotLocal> {
    let differs = || {
        NotLocal::new(format!("the regular expression {pattern:?} may mean something else here"))
    };
    // Braces that are no repetition, operations on classes, and nested classes.
    let rare = ["{,", "&&", "--", "~~"];
    if !pattern.is_ascii() || rare.iter().any(|rare| pattern.contains(rare)) {
        return Err(differs());
    }
    let mut characters = pattern.chars().peekable();
    let mut is_class = false;
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('<' | '>') | None => return Err(differs()),
                Some('b') if characters.peek() == Some(&'{') => return Err(differs()),
                Some(escaped) if escaped.is_ascii_punctuation() => {}
                Some('d' | 'D' | 'w' | 'W' | 's' | 'S' | 'b' | 'B' | 'n' | 't' | 'r') => {}
                Some(_) => return Err(differs()),
            },
            '[' if is_class => return Err(differs()),
            '[' => {
                is_class = true;
                characters.next_if_eq(&'^');
                // The first bracket of a class is an ordinary character.
                characters.next_if_eq(&']');
            }
            ']' => is_class = false,
            '(' if !is_class => {
                let has_flags = characters.next_if_eq(&'?').is_some();
                if has_flags && characters.next() != Some(':') {
                    return Err(differs());
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns whether labels match all of these.
pub(super) fn all_match<'a>(
    matchers: impl Iterator<Item = &'a Matcher>,
    labels: &Labels,
) -> Result<bool, NotLocal> {
    for matcher in matchers {
        let value = labels.get(&matcher.name);
        if is_pattern(matcher) {
            check_value(&matcher.name, value)?;
        }
        if !matcher.is_match(value) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns whether a value matches, or would have to be refused.
pub(super) fn may_match(matcher: &Matcher, value: &str) -> bool {
    (is_pattern(matcher) && !is_plain(value)) || matcher.is_match(value)
}

/// Checks that a value can be matched with regular expressions.
pub(super) fn check_value(label: &str, value: &str) -> Result<(), NotLocal> {
    if is_plain(value) {
        return Ok(());
    }
    Err(NotLocal::new(format!(
        "a value of the label {label:?} is not plain ASCII, and regular expressions differ for it"
    )))
}

fn is_pattern(matcher: &Matcher) -> bool {
    matches!(matcher.op, MatchOp::Re(_) | MatchOp::NotRe(_))
}

/// Returns whether all regular expressions treat a text alike: newlines match `.` in some versions of Prometheus only.
fn is_plain(value: &str) -> bool {
    value.is_ascii() && !value.contains('\n')
}
