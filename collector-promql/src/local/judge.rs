// SPDX-License-Identifier: Apache-2.0
//! The decision whether a local query may be answered: the series of its selectors are complete and recent.

use super::labels::NAME;
use super::selection::{Selected, Selection};
use crate::guard::Empty;
use crate::query::Query;
use crate::refusal::{Reason, Refusal};
use crate::selector::Selector;
use crate::verdict::{self, Terms, Verdict};

/// Decides by what is held for each selector that the query needs, and for those of `unless`: if their series are
/// unknown, too many samples of the other operand would stay.
///
/// # Errors
/// When a selector has no data, old data or only a part of its data.
pub(crate) fn judge(
    query: &Query,
    selection: &Selection,
    terms: Terms,
) -> Result<Verdict, Refusal> {
    let needed: Vec<&str> = query.selectors.iter().map(Selector::text).collect();
    for (text, selected) in &selection.selected {
        if selected.decides && !needed.contains(&text.as_str()) {
            let unknown = selected.old(text, terms).or_else(|| selected.unknown(text));
            unknown.map_or(Ok(()), Err)?;
        }
    }
    verdict::judge(&query.need, &mut |index, has_default| {
        let text = needed[index];
        match selection.selected.get(text) {
            Some(selected) => selected.judge(text, has_default, terms),
            None => Err(Refusal::new(Reason::Missing, verdict::missing(text))),
        }
    })
}

impl Selected {
    fn judge(&self, text: &str, has_default: bool, terms: Terms) -> Result<Verdict, Refusal> {
        if let Some(refusal) = self.old(text, terms) {
            return Err(refusal);
        }
        // `empty=zero` is about series that there are not, and says nothing of those that are unknown.
        let is_missing = self.gaps.iter().all(|gap| gap.reason == Reason::Missing);
        if self.samples.is_empty() && is_missing && terms.empty == Empty::Zero {
            return Ok(verdict::known_empty(format!(
                "0 because of empty=zero: no series match {text}"
            )));
        }
        if let Some(refusal) = self.unknown(text) {
            return Err(refusal);
        }
        if !self.samples.is_empty() {
            return Ok(Verdict { has_data: true, ..Verdict::default() });
        }
        if let Some(empty) = self.empty.first() {
            return Ok(verdict::known_empty(format!("0: {}", empty.part.text)));
        }
        if has_default && self.alive.is_some_and(|age| age <= terms.max_age) {
            return Ok(verdict::known_empty(format!(
                "the query's own default: no series match {text}, and its model has others"
            )));
        }
        Err(Refusal::new(Reason::Missing, verdict::missing(text)))
    }

    /// Returns a refusal if any data is too old, and not only the newest: an old part would make a wrong sum of the
    /// fleet.
    fn old(&self, text: &str, terms: Terms) -> Option<Refusal> {
        let samples = self.samples.iter().map(|it| (&it.labels, it.age));
        let of_empty = self.empty.iter().map(|it| (&it.part.labels, it.age));
        let oldest = samples.chain(of_empty).max_by_key(|(_, age)| *age);
        let (labels, age) = oldest.filter(|(_, age)| *age > terms.max_age)?;
        let labels = labels.iter().filter(|(name, _)| *name != NAME);
        let labels = labels.map(|(name, value)| format!("{name}={value:?}"));
        let series = format!("{text} for {}", labels.collect::<Vec<_>>().join(","));
        Some(Refusal::new(Reason::Stale, verdict::stale(&series, age, terms.max_age)))
    }

    /// Returns a refusal if a part of the selected series is unknown.
    fn unknown(&self, text: &str) -> Option<Refusal> {
        let gap = self.gaps.first()?;
        if self.samples.is_empty() && self.empty.is_empty() {
            return Some(Refusal::new(gap.reason, gap.part.text.clone()));
        }
        let others = match self.gaps.len() - 1 {
            0 => String::new(),
            others => format!(" (and {others} more)"),
        };
        let text = format!(
            "only a part of the series that {text} selects is known, and a result of them would be wrong: {}{others}",
            gap.part.text
        );
        Some(Refusal::new(Reason::Partial, text))
    }
}
