// SPDX-License-Identifier: Apache-2.0
//! The decision whether a query may be answered: each selector that it needs has data, or is known to be empty.

use std::collections::HashMap;
use std::time::Duration;

use collector_core::duration;

use crate::anchor::{AnchorProbe, Anchors, Strength};
use crate::guard::Empty;
use crate::probe::{Matched, Probe};
use crate::query::{Need, Query};
use crate::refusal::{Reason, Refusal};
use crate::selector::Selector;

/// The selectors of a query with their anchors, and everything that the probe must cover.
pub(crate) struct Probed {
    /// The selectors to probe, each once.
    pub(crate) texts: Vec<Probe>,
    selectors: Vec<ProbedSelector>,
}

/// A selector, with its index in `texts`.
struct ProbedSelector {
    selector: Selector,
    index: usize,
    strong: Option<ProbedAnchor>,
    alive: Option<ProbedAnchor>,
}

/// An anchor, with the indices of what is counted and of what has an age.
struct ProbedAnchor {
    count: usize,
    series: usize,
    anchor: AnchorProbe,
}

/// The result for a query that may be answered.
#[derive(PartialEq, Debug, Default)]
pub(crate) struct Verdict {
    /// A selector is known to be empty.
    pub(crate) is_known_empty: bool,
    /// A selector matches series.
    pub(crate) has_data: bool,
    pub(crate) warnings: Vec<String>,
}

/// What counts as data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) max_age: Duration,
    pub(crate) empty: Empty,
}

impl Probed {
    /// `by_model` says which selectors are probed model by model.
    pub(crate) fn of(
        query: &Query,
        anchors: &Anchors,
        by_model: impl Fn(&Selector) -> bool,
    ) -> Self {
        let mut texts: Vec<Probe> = Vec::new();
        let mut index_of = |text: &str, by_model: bool, is_named: bool| {
            let known = texts.iter().position(|known| known.text == text);
            let index = known.unwrap_or_else(|| {
                texts.push(Probe { text: text.to_owned(), by_model, is_named });
                texts.len() - 1
            });
            texts[index].by_model |= by_model;
            index
        };
        let selectors = query.selectors.iter().enumerate().map(|(number, selector)| {
            let mut anchor = |strength| {
                let anchor = anchors.of(selector, strength)?;
                let count = index_of(&anchor.count, false, true);
                let series = index_of(&anchor.series, false, true);
                Some(ProbedAnchor { count, series, anchor })
            };
            let strong = anchor(Strength::Strong);
            let alive = has_default(&query.need, number).then(|| anchor(Strength::Alive)).flatten();
            let index = index_of(selector.text(), by_model(selector), selector.name().is_some());
            ProbedSelector { selector: selector.clone(), index, strong, alive }
        });
        let selectors = selectors.collect();
        Self { texts, selectors }
    }

    /// Decides by what each selector and anchor matches.
    pub(crate) fn judge(
        &self,
        need: &Need,
        matched: &HashMap<String, Matched>,
        terms: Terms,
    ) -> Result<Verdict, Refusal> {
        let of = |index: usize| matched.get(&self.texts[index].text).cloned().unwrap_or_default();
        judge(need, &mut |index, has_default| self.selectors[index].judge(has_default, &of, terms))
    }
}

/// Decides by the verdict on each selector, which gets its index and whether the query has a default for it.
pub(crate) fn judge(
    need: &Need,
    of_selector: &mut dyn FnMut(usize, bool) -> Result<Verdict, Refusal>,
) -> Result<Verdict, Refusal> {
    match need {
        Need::Nothing => Ok(Verdict::default()),
        Need::Selector { index, has_default } => of_selector(*index, *has_default),
        Need::All(needs) => {
            let mut all = Verdict::default();
            for need in needs {
                all.add(judge(need, of_selector)?);
            }
            Ok(all)
        }
        Need::Any(needs) => {
            let mut refused = None;
            let mut any: Option<Verdict> = None;
            for need in needs {
                match judge(need, of_selector) {
                    Ok(verdict) => any.get_or_insert_default().add(verdict),
                    // The other operand replaces missing series, and not those that are old or unknown.
                    Err(refusal) if refusal.reason != Reason::Missing => return Err(refusal),
                    Err(refusal) => refused = refused.or(Some(refusal)),
                }
            }
            match (any, refused) {
                (None, Some(refusal)) => Err(refusal),
                (any, _) => Ok(any.unwrap_or_default()),
            }
        }
    }
}

impl ProbedSelector {
    fn judge(
        &self,
        has_default: bool,
        of: &dyn Fn(usize) -> Matched,
        terms: Terms,
    ) -> Result<Verdict, Refusal> {
        let Matched { series, age, known_empty: reason, .. } = of(self.index);
        let text = self.selector.text();
        if series > 0 {
            return match age {
                Some(age) if age > terms.max_age => {
                    Err(Refusal::new(Reason::Stale, stale(text, age, terms.max_age)))
                }
                None => {
                    let text = format!("no sample of {text} is known to be recent");
                    Err(Refusal::new(Reason::Stale, text))
                }
                Some(_) => Ok(Verdict { has_data: true, ..Verdict::default() }),
            };
        }
        if let Some(reason) = reason {
            return Ok(known_empty(format!("0: {reason}")));
        }
        if terms.empty == Empty::Zero {
            return Ok(known_empty(format!("0 because of empty=zero: no series match {text}")));
        }
        let proved_by = |probed: &Option<ProbedAnchor>| {
            let ProbedAnchor { count, series, anchor } = probed.as_ref()?;
            let is_recent = of(*series).age.is_some_and(|age| age <= terms.max_age);
            (is_recent && anchor.is_proof(of(*count).series)).then(|| anchor.name.clone())
        };
        if let Some(anchor) = proved_by(&self.strong) {
            return Ok(known_empty(format!(
                "0: no series match {text}, and its exporter is up ({anchor} is present)"
            )));
        }
        if has_default && proved_by(&self.alive).is_some() {
            return Ok(known_empty(format!(
                "the query's own default: no series match {text}, and its exporter is up"
            )));
        }
        Err(Refusal::new(Reason::Missing, missing(text)))
    }
}

impl Verdict {
    fn add(&mut self, other: Self) {
        self.is_known_empty |= other.is_known_empty;
        self.has_data |= other.has_data;
        self.warnings.extend(other.warnings);
    }
}

pub(crate) fn known_empty(warning: String) -> Verdict {
    Verdict { is_known_empty: true, has_data: false, warnings: vec![warning] }
}

pub(crate) fn stale(text: &str, age: Duration, limit: Duration) -> String {
    format!(
        "the newest sample of {text} is {} old; the limit is {} (promql.max_age)",
        duration::format_seconds(age),
        duration::format(limit)
    )
}

pub(crate) fn missing(text: &str) -> String {
    format!(
        "no series match {text}, and missing is not 0. To take it for 0, ask with empty=zero (KEDA: queryParameters: \
         \"empty=zero\"); dashboards ask under /raw"
    )
}

fn has_default(need: &Need, selector: usize) -> bool {
    match need {
        Need::Nothing => false,
        Need::Selector { index, has_default } => *index == selector && *has_default,
        Need::All(needs) | Need::Any(needs) => needs.iter().any(|need| has_default(need, selector)),
    }
}

#[cfg(test)]
mod tests;
