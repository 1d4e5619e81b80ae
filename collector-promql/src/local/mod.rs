// SPDX-License-Identifier: Apache-2.0
//! Instant queries over series that the program holds itself, answered without a server.
//!
//! A query is *local* if every series that it selects is held, and if its labels are known here: a label that only a
//! scrape configuration adds (`job`, `instance`) would match nothing. Whatever else a query needs, a rate or a range
//! for example, is not evaluated here. Such queries go to the server as a whole.
//!
//! `selection` finds what is held for the selectors, `evaluate` computes the result, with `matching` for operations on
//! two vectors and `functions` for calls, `pattern` limits regular expressions to those that mean the same in a server,
//! and `judge` decides whether the selected data are complete and recent.

use std::time::Duration;

use promql_parser::label::MatchOp;
use promql_parser::parser::VectorSelector;

use crate::refusal::Reason;

mod evaluate;
mod functions;
mod judge;
mod labels;
mod matching;
mod pattern;
mod selection;

#[cfg(test)]
mod tests;

pub(crate) use evaluate::{Value, evaluate};
pub(crate) use judge::judge;
pub(crate) use labels::NAME;
pub use labels::{KnownLabels, Labels};
pub(crate) use selection::{Selection, metrics_of};

/// The series that the program holds itself.
pub trait HeldSeries: Send + Sync + 'static {
    /// Returns the labels that are known of the series of a selector. `None` if a server
    /// may have series for it that the program does not hold.
    fn labels(&self, wanted: &Wanted<'_>) -> Option<KnownLabels>;

    /// Returns what is held now for each of these selectors, in their order. Series that a selector does not match
    /// may be included.
    fn select(&self, wanted: &[Wanted<'_>]) -> Vec<Held>;
}

/// A selector of one metric, for [`HeldSeries`].
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The name of the metric.
    pub metric: &'a str,
    pub(crate) selector: &'a VectorSelector,
}

impl Wanted<'_> {
    /// Returns the value that a label must equal, if the selector demands one.
    pub fn equal(&self, label: &str) -> Option<&str> {
        let mut matchers = self.selector.matchers.matchers.iter();
        let matcher = matchers.find(|it| it.name == label && it.op == MatchOp::Equal)?;
        Some(&matcher.value)
    }

    /// Returns whether a series may have this value of a label. Cheap, so that what is not selected need not be
    /// collected.
    pub fn accepts(&self, label: &str, value: &str) -> bool {
        let matchers = self.selector.matchers.matchers.iter();
        matchers.filter(|matcher| matcher.name == label).all(|it| pattern::may_match(it, value))
    }

    /// Returns whether a series may have these labels.
    pub(crate) fn accepts_all(&self, labels: &Labels) -> bool {
        let mut matchers = self.selector.matchers.matchers.iter().filter(|it| it.name != NAME);
        matchers.all(|it| pattern::may_match(it, labels.get(&it.name)))
    }
}

/// What is held of a metric at one moment.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Held {
    /// The newest sample of each series.
    pub samples: Vec<HeldSample>,
    /// Parts of the fleet whose series are unknown.
    pub gaps: Vec<Gap>,
    /// Parts of the fleet that are known to have no series.
    pub empty: Vec<KnownEmpty>,
}

/// A sample that is held.
#[derive(Clone, PartialEq, Debug)]
pub struct HeldSample {
    /// The labels of the series, without the name of the metric.
    pub labels: Labels,
    /// The value.
    pub value: f64,
    /// The age of the value.
    pub age: Duration,
}

/// A part of the fleet: a model, a variant or a pod.
#[derive(Clone, PartialEq, Debug)]
pub struct Part {
    /// The labels that its series would have.
    pub labels: Labels,
    /// Its series would have no other labels. If not set, their other labels are unknown.
    pub is_one_series: bool,
    /// What is known of it, for people.
    pub text: String,
}

/// A part of the fleet whose series are unknown.
#[derive(Clone, PartialEq, Debug)]
pub struct Gap {
    /// The part, and why its series are unknown.
    pub part: Part,
    /// The reason of a refusal if there is nothing else.
    pub reason: Reason,
}

/// A part of the fleet that is known to have no series.
#[derive(Clone, PartialEq, Debug)]
pub struct KnownEmpty {
    /// The part, and how this is known.
    pub part: Part,
    /// The age of this knowledge.
    pub age: Duration,
}

/// Why a query cannot be answered here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NotLocal(pub(crate) String);

impl NotLocal {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}
