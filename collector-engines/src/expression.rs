// SPDX-License-Identifier: Apache-2.0
//! Expressions over series that supply a quantity, in the syntax of users and of the built-in table.
//!
//! ```text
//! vllm:num_requests_waiting                            a series
//! nv_trt_llm_request_metrics{request_type=waiting}     selected by labels: = != =~ !~; "" quotes
//! vllm:cache_config_info[num_gpu_blocks]               the number in one of its labels
//! sglang:num_queue_reqs + sglang:num_paused_reqs?      the second is 0 if it is absent
//! (acme_used + acme_pinned) / acme_size * 100          + - * / and brackets
//! 16                                                   a number
//! ```

use std::fmt;

use crate::matcher::LabelMatcher;

/// An expression that supplies a quantity: read with [`FromStr`](std::str::FromStr), written back by `Display`.
///
/// `S` is what a leaf reads: a [`Series`], or whatever a backend compiles one into.
#[derive(Clone, PartialEq, Debug)]
pub enum Expression<S = Series> {
    /// The same number everywhere. Finite, not negative.
    Number(f64),
    /// Series of one name.
    Series {
        /// Which.
        series: S,
        /// It is 0 if it is absent and another series of the expression is present.
        optional: bool,
    },
    /// Two parts, combined.
    Combined(Box<Self>, Operator, Box<Self>),
}

/// How two parts are combined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operator {
    /// `+`
    Plus,
    /// `-`
    Minus,
    /// `*`
    Times,
    /// `/`
    Per,
}

/// Series of one sample name, selected by labels.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Series {
    /// The whole sample name.
    pub name: Box<str>,
    /// The matchers of its labels.
    pub matchers: Box<[LabelMatcher]>,
    /// The label whose text is the number; `None`: the sample's value.
    pub number_in: Option<Box<str>>,
}

impl<S> Expression<S> {
    /// The series it reads, from left to right.
    pub fn series(&self) -> Vec<&S> {
        let mut all = Vec::new();
        self.visit(&mut |series, _| all.push(series));
        all
    }

    /// The series without which it has no value.
    pub fn required(&self) -> Vec<&S> {
        let mut required = Vec::new();
        self.visit(&mut |series, optional| {
            if !optional {
                required.push(series);
            }
        });
        required
    }

    fn visit<'a>(&'a self, visit: &mut impl FnMut(&'a S, bool)) {
        match self {
            Self::Number(_) => {}
            Self::Series { series, optional } => visit(series, *optional),
            Self::Combined(left, _, right) => {
                left.visit(visit);
                right.visit(visit);
            }
        }
    }

    /// Whether everything it needs is present: all that is not optional, and at least one series.
    pub fn is_complete(&self, mut is_present: impl FnMut(&S) -> bool) -> bool {
        let (mut any, mut lacks) = (false, false);
        self.visit(&mut |series, optional| {
            let present = is_present(series);
            any |= present;
            lacks |= !present && !optional;
        });
        any && !lacks
    }

    /// Whether it reads a series for which `is` returns true.
    pub fn reads_any(&self, mut is: impl FnMut(&S) -> bool) -> bool {
        let mut any = false;
        self.visit(&mut |series, _| any |= is(series));
        any
    }

    /// The same expression over other leaves.
    pub fn map<T>(&self, compile: &mut impl FnMut(&S) -> T) -> Expression<T> {
        match self {
            Self::Number(number) => Expression::Number(*number),
            Self::Series { series, optional } => {
                Expression::Series { series: compile(series), optional: *optional }
            }
            Self::Combined(left, operator, right) => {
                let (left, right) = (left.map(compile), right.map(compile));
                Expression::Combined(Box::new(left), *operator, Box::new(right))
            }
        }
    }

    /// Returns its value, given the value of each series. `None` if a required series has none, if no series has one,
    /// and for a division by zero.
    pub fn evaluate(&self, value: &mut impl FnMut(&S) -> Option<f64>) -> Option<f64> {
        let (result, present) = self.part(value)?;
        (present || matches!(self, Self::Number(_))).then_some(result)
    }

    /// The value of a part, and whether any of its series is present.
    fn part(&self, value: &mut impl FnMut(&S) -> Option<f64>) -> Option<(f64, bool)> {
        match self {
            Self::Number(number) => Some((*number, false)),
            Self::Series { series, optional } => match value(series) {
                Some(value) => Some((value, true)),
                None if *optional => Some((0.0, false)),
                None => None,
            },
            Self::Combined(left, operator, right) => {
                let (left, has_left) = left.part(value)?;
                let (right, has_right) = right.part(value)?;
                Some((operator.apply(left, right)?, has_left || has_right))
            }
        }
    }

    /// Whether the increase of the expression is the same expression of the increases: sums and
    /// differences of series, and series times or over numbers.
    pub fn is_linear(&self) -> bool {
        match self {
            Self::Number(_) => false,
            Self::Series { .. } => true,
            Self::Combined(left, Operator::Plus | Operator::Minus, right) => {
                left.is_linear() && right.is_linear()
            }
            Self::Combined(left, Operator::Times, right) => {
                (left.is_linear() && right.is_constant())
                    || (left.is_constant() && right.is_linear())
            }
            Self::Combined(left, Operator::Per, right) => left.is_linear() && right.is_constant(),
        }
    }

    /// Whether it reads no series.
    pub fn is_constant(&self) -> bool {
        !self.reads_any(|_| true)
    }
}

impl Operator {
    /// Combines two values; `None` for a division by zero.
    pub fn apply(self, left: f64, right: f64) -> Option<f64> {
        match self {
            Self::Plus => Some(left + right),
            Self::Minus => Some(left - right),
            Self::Times => Some(left * right),
            Self::Per => (right != 0.0).then(|| left / right),
        }
    }

    /// The operator as it is written.
    pub const fn sign(self) -> char {
        match self {
            Self::Plus => '+',
            Self::Minus => '-',
            Self::Times => '*',
            Self::Per => '/',
        }
    }

    fn is_sum(self) -> bool {
        matches!(self, Self::Plus | Self::Minus)
    }
}

impl Series {
    /// All series of a name.
    pub fn named(name: impl Into<Box<str>>) -> Self {
        Self { name: name.into(), matchers: Box::default(), number_in: None }
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Series { series, optional } => {
                write!(f, "{series}{}", if *optional { "?" } else { "" })
            }
            Self::Combined(left, operator, right) => {
                // Operators of one rank are read from left to right.
                let needs = |part: &Self, also_same_rank: bool| match part {
                    Self::Combined(_, inner, _) => {
                        (inner.is_sum() && !operator.is_sum())
                            || (also_same_rank && inner.is_sum() == operator.is_sum())
                    }
                    _ => false,
                };
                let show = |part: &Self, brackets: bool| {
                    if brackets { format!("({part})") } else { part.to_string() }
                };
                write!(
                    f,
                    "{} {} {}",
                    show(left, needs(left, false)),
                    operator.sign(),
                    show(right, needs(right, true))
                )
            }
        }
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Name(&self.name))?;
        for (i, matcher) in self.matchers.iter().enumerate() {
            let before = if i == 0 { '{' } else { ',' };
            let operator = matcher.operator.as_str();
            write!(f, "{before}{}{operator}{}", Name(&matcher.label), Value(&matcher.value))?;
        }
        if !self.matchers.is_empty() {
            f.write_str("}")?;
        }
        match &self.number_in {
            Some(label) => write!(f, "[{}]", Name(label)),
            None => Ok(()),
        }
    }
}

/// Whether a name of a metric or label may begin with this character.
pub(crate) fn starts_name(c: char) -> bool {
    c.is_ascii_alphabetic() || matches!(c, '_' | ':')
}

/// Whether a name may contain this character.
pub(crate) fn in_name(c: char) -> bool {
    starts_name(c) || c.is_ascii_digit()
}

/// Whether the value of a label may contain this character without quotes.
pub(crate) fn in_bare_value(c: char) -> bool {
    in_name(c) || matches!(c, '.' | '-' | '/' | '+')
}

/// Displays a name, in quotes unless it is a classic name.
struct Name<'a>(&'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let classic = self.0.starts_with(starts_name) && self.0.chars().all(in_name);
        if classic { f.write_str(self.0) } else { quoted(self.0, f) }
    }
}

/// Displays the value of a label, in quotes if it needs them.
struct Value<'a>(&'a str);

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = !self.0.is_empty() && self.0.chars().all(in_bare_value);
        if bare { f.write_str(self.0) } else { quoted(self.0, f) }
    }
}

fn quoted(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '\\' => f.write_str("\\\\")?,
            '"' => f.write_str("\\\"")?,
            '\n' => f.write_str("\\n")?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}

#[cfg(test)]
mod tests;
