//! Whether the answer to a query may be given: what it needs is heard, or is known to be empty.

use std::collections::HashMap;
use std::time::Duration;

use collector_core::duration;

use crate::anchor::{Anchors, Asked, Strength};
use crate::door::Empty;
use crate::probe::Heard;
use crate::query::{Need, Query};
use crate::refusal::{Reason, Refusal};
use crate::selector::Selector;

/// What must be known about a query before its answer is judged: its selectors and their anchors.
pub(crate) struct Questions {
    /// What to ask about, each once.
    pub(crate) texts: Vec<String>,
    selectors: Vec<Question>,
}

struct Question {
    selector: Selector,
    /// Places in `texts`.
    at: usize,
    strong: Option<Placed>,
    alive: Option<Placed>,
}

/// An anchor with its places in `texts`: what is counted, and what has an age.
struct Placed {
    count: usize,
    plain: usize,
    asked: Asked,
}

/// An answer that may be given.
#[derive(PartialEq, Debug, Default)]
pub(crate) struct Judged {
    /// Something that the query needs is known to be empty.
    pub(crate) is_empty: bool,
    /// Something that it needs was heard.
    pub(crate) is_heard: bool,
    pub(crate) warnings: Vec<String>,
}

/// The limits of what counts as heard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) max_age: Duration,
    pub(crate) empty: Empty,
}

impl Questions {
    pub(crate) fn of(query: &Query, anchors: &Anchors) -> Self {
        let mut texts: Vec<String> = Vec::new();
        let mut place = |text: String| {
            let known = texts.iter().position(|known| *known == text);
            known.unwrap_or_else(|| {
                texts.push(text);
                texts.len() - 1
            })
        };
        let selectors = query.selectors.iter().enumerate().map(|(index, selector)| {
            let mut anchor = |strength| {
                let asked = anchors.of(selector, strength)?;
                let (count, plain) = (place(asked.text.clone()), place(asked.plain.clone()));
                Some(Placed { count, plain, asked })
            };
            let strong = anchor(Strength::Strong);
            let alive = has_default(&query.need, index).then(|| anchor(Strength::Alive)).flatten();
            Question {
                at: place(selector.text().to_owned()),
                selector: selector.clone(),
                strong,
                alive,
            }
        });
        let selectors = selectors.collect();
        Self { texts, selectors }
    }

    /// Judges a query by what was heard of each text.
    pub(crate) fn judge(
        &self,
        need: &Need,
        heard: &HashMap<String, Heard>,
        terms: Terms,
    ) -> Result<Judged, Refusal> {
        let of = |place: usize| heard.get(&self.texts[place]).copied().unwrap_or_default();
        match need {
            Need::Nothing => Ok(Judged::default()),
            Need::Selector { index, has_default } => {
                self.selectors[*index].judge(*has_default, &of, terms)
            }
            Need::All(needs) => {
                let mut all = Judged::default();
                for need in needs {
                    all.add(self.judge(need, heard, terms)?);
                }
                Ok(all)
            }
            Need::Any(needs) => {
                let mut refused = None;
                let mut any: Option<Judged> = None;
                for need in needs {
                    match self.judge(need, heard, terms) {
                        Ok(judged) => any.get_or_insert_default().add(judged),
                        // What is old is there, and the server would answer with it.
                        Err(refusal) if refusal.reason == Reason::Stale => return Err(refusal),
                        Err(refusal) => refused = refused.or(Some(refusal)),
                    }
                }
                any.map_or_else(|| refused.map_or_else(|| Ok(Judged::default()), Err), Ok)
            }
        }
    }
}

impl Question {
    fn judge(
        &self,
        has_default: bool,
        of: &dyn Fn(usize) -> Heard,
        terms: Terms,
    ) -> Result<Judged, Refusal> {
        let Heard { series, age } = of(self.at);
        let text = self.selector.text();
        if series > 0 {
            return match age {
                Some(age) if age > terms.max_age => {
                    Err(Refusal::new(Reason::Stale, stale(text, age, terms.max_age)))
                }
                _ => Ok(Judged { is_heard: true, ..Judged::default() }),
            };
        }
        if terms.empty == Empty::Zero {
            return Ok(empty(format!("0 because empty=zero says so: no series match {text}")));
        }
        let proved = |anchor: &Option<Placed>| {
            let Placed { count, plain, asked } = anchor.as_ref()?;
            let is_young = of(*plain).age.is_some_and(|age| age <= terms.max_age);
            (is_young && asked.is_proved_by(of(*count).series)).then(|| asked.name.clone())
        };
        if let Some(anchor) = proved(&self.strong) {
            return Ok(empty(format!(
                "0: no series match {text} while nothing happens, and {anchor} is heard"
            )));
        }
        if has_default && proved(&self.alive).is_some() {
            return Ok(empty(format!(
                "the query's own default, because no series match {text}, and its exporter is up"
            )));
        }
        Err(Refusal::new(Reason::Missing, missing(text)))
    }
}

impl Judged {
    fn add(&mut self, other: Self) {
        self.is_empty |= other.is_empty;
        self.is_heard |= other.is_heard;
        self.warnings.extend(other.warnings);
    }
}

fn empty(warning: String) -> Judged {
    Judged { is_empty: true, is_heard: false, warnings: vec![warning] }
}

fn stale(text: &str, age: Duration, limit: Duration) -> String {
    let whole = Duration::from_secs(age.as_secs());
    format!(
        "the newest sample of {text} is {} old; the limit is {} (promql.max_age)",
        duration::format(whole),
        duration::format(limit)
    )
}

fn missing(text: &str) -> String {
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
