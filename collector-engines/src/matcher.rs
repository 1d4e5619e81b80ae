// SPDX-License-Identifier: Apache-2.0
//! Label matchers, as PromQL has them: `=`, `!=`, `=~` and `!~`, patterns anchored at both ends.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use regex_lite::{Regex, RegexBuilder};

/// Bytes of a compiled pattern.
const PATTERN_BYTES_MAX: usize = 1 << 16;

/// A condition on one label. An absent label is empty.
#[derive(Clone, Debug)]
pub struct LabelMatcher {
    /// The label's whole name.
    pub label: Box<str>,
    /// How its value is compared.
    pub operator: MatchOperator,
    /// The value, or the pattern.
    pub value: Box<str>,
    /// The compiled pattern, if it is one.
    pattern: Option<Arc<Regex>>,
}

/// How a label is compared.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum MatchOperator {
    /// `=`
    Is,
    /// `!=`
    IsNot,
    /// `=~`
    Matches,
    /// `!~`
    MatchesNot,
}

impl MatchOperator {
    /// The operator as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Is => "=",
            Self::IsNot => "!=",
            Self::Matches => "=~",
            Self::MatchesNot => "!~",
        }
    }
}

impl LabelMatcher {
    /// A matcher.
    ///
    /// # Errors
    /// The pattern cannot be compiled, or would take too much memory.
    pub fn new(
        label: impl Into<Box<str>>,
        operator: MatchOperator,
        value: impl Into<Box<str>>,
    ) -> Result<Self, regex_lite::Error> {
        let value = value.into();
        let pattern = match operator {
            MatchOperator::Is | MatchOperator::IsNot => None,
            MatchOperator::Matches | MatchOperator::MatchesNot => {
                let anchored = format!("^(?s:{value})$");
                let regex = RegexBuilder::new(&anchored).size_limit(PATTERN_BYTES_MAX).build()?;
                Some(Arc::new(regex))
            }
        };
        Ok(Self { label: label.into(), operator, value, pattern })
    }

    /// Whether a label with this value matches; an absent label is empty.
    pub fn accepts(&self, value: &str) -> bool {
        let matches = self.pattern.as_ref().is_some_and(|pattern| pattern.is_match(value));
        match self.operator {
            MatchOperator::Is => value == &*self.value,
            MatchOperator::IsNot => value != &*self.value,
            MatchOperator::Matches => matches,
            MatchOperator::MatchesNot => !matches,
        }
    }
}

impl PartialEq for LabelMatcher {
    fn eq(&self, other: &Self) -> bool {
        (&self.label, self.operator, &self.value) == (&other.label, other.operator, &other.value)
    }
}

impl Eq for LabelMatcher {}

impl Hash for LabelMatcher {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.label, self.operator, &self.value).hash(state);
    }
}

/// In the form of PromQL: `label=~"value"`.
impl fmt::Display for LabelMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:?}", self.label, self.operator.as_str(), self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operator_accepts_what_promql_does() {
        let accepts = |operator, value: &str| {
            let matcher = LabelMatcher::new("l", operator, value).unwrap();
            ["", "a", "ab", "a\nb"].map(|text| matcher.accepts(text))
        };
        assert_eq!(accepts(MatchOperator::Is, "a"), [false, true, false, false]);
        assert_eq!(accepts(MatchOperator::Is, ""), [true, false, false, false]);
        assert_eq!(accepts(MatchOperator::IsNot, "a"), [true, false, true, true]);
        assert_eq!(accepts(MatchOperator::Matches, "a"), [false, true, false, false]);
        assert_eq!(accepts(MatchOperator::Matches, "a.*"), [false, true, true, true]);
        assert_eq!(accepts(MatchOperator::Matches, "a|ab"), [false, true, true, false]);
        assert_eq!(accepts(MatchOperator::MatchesNot, "a.*"), [true, false, false, false]);
    }

    #[test]
    fn a_pattern_that_cannot_be_compiled_or_is_huge_is_refused() {
        assert!(LabelMatcher::new("l", MatchOperator::Matches, "(").is_err());
        assert!(LabelMatcher::new("l", MatchOperator::Matches, "(a{999}){999}").is_err());
        assert!(LabelMatcher::new("l", MatchOperator::Is, "(").is_ok());
    }
}
