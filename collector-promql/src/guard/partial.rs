// SPDX-License-Identifier: Apache-2.0
//! Queries over several models: a sum without one of them is too small.
//!
//! A model belongs to a selector if the selector has matched it before, or if it has pods that export the metric and
//! the selector selects by nothing but its name and namespace. If it has no series now, and is not known to have no
//! pods, the query is refused for some time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use collector_core::{ModelRef, Tick, duration};

use super::{Empty, InstantQuery, Partial, Shared, lock};
use crate::probe::Matched;
use crate::query::{Need, Query};
use crate::refusal::{Reason, Refusal};
use crate::selector::Selector;

/// When each model was last matched.
pub(super) type LastMatched = Arc<HashMap<ModelRef, Tick>>;

/// Selectors whose models are remembered.
pub(super) const SELECTORS_MAX: usize = 256;
/// Models of one selector. If it matches more, none is missed.
const MODELS_MAX: usize = 1000;

/// A model of which a selector has no recent samples.
struct Absent {
    model: ModelRef,
    why: Why,
}

/// Why a model is absent. The worst comes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    /// Its samples are in the result, and this old.
    Stale(Duration),
    /// The selector last matched it this long ago.
    Vanished(Duration),
    /// It has pods, and the selector has never matched it.
    NeverMatched,
}

impl Shared {
    /// Returns whether a selector may select several models whose servers export its metric.
    pub(super) fn selects_models(&self, selector: &Selector) -> bool {
        let names_one = selector.named_models().is_some_and(|models| models.len() == 1);
        !names_one && selector.name().is_some_and(|name| self.models.is_of_model_servers(name))
    }

    /// Marks the selectors without series whose models are all known to have no pods.
    pub(super) async fn find_known_empty(
        &self,
        query: &Query,
        matched: &mut HashMap<String, Matched>,
    ) {
        for selector in &query.selectors {
            let is_of_model_servers =
                selector.name().is_some_and(|name| self.models.is_of_model_servers(name));
            let Some(of_selector) = matched.get_mut(selector.text()) else { continue };
            let Some(models) = selector.named_models().filter(|_| is_of_model_servers) else {
                continue;
            };
            if of_selector.series == 0 && self.have_no_pods(&models).await {
                let more = match models.len() - 1 {
                    0 => String::new(),
                    more => format!(" (and {more} more)"),
                };
                let text = format!("{}{more} has no pods (directory)", shown(&models[0]));
                of_selector.known_empty = Some(text.into());
            }
        }
    }

    async fn have_no_pods(&self, models: &[ModelRef]) -> bool {
        for model in models {
            if !self.models.has_no_pods(model).await {
                return false;
            }
        }
        true
    }

    /// Returns warnings about models that a result lacks.
    ///
    /// # Errors
    /// When the result would be too small because of them.
    pub(super) async fn missing_models(
        &self,
        query: &Query,
        matched: &HashMap<String, Matched>,
        question: &InstantQuery,
        max_age: Duration,
    ) -> Result<Vec<String>, Refusal> {
        let mut warnings = Vec::new();
        let of = |selector: &Selector| matched.get(selector.text())?.models.clone();
        for selector in &query.selectors {
            let Some(models) = of(selector).filter(|models| !models.is_empty()) else { continue };
            let mut absent = self.absent(selector, &models, question, max_age);
            if question.empty == Empty::Zero {
                absent.retain(|absent| matches!(absent.why, Why::Stale(_)));
            }
            if has_alternatives(&query.need) {
                // Another alternative has it, under the name of another version for example.
                let others = query.selectors.iter().filter_map(of);
                let others: Vec<_> = others.flat_map(|models| models.to_vec()).collect();
                let is_elsewhere = |absent: &Absent| {
                    others.iter().any(|(model, age)| *model == absent.model && *age <= max_age)
                };
                absent.retain(|it| matches!(it.why, Why::Stale(_)) || !is_elsewhere(it));
            }
            let mut missing = Vec::new();
            for absent in absent {
                let model = shown(&absent.model);
                match absent.why {
                    Why::Stale(_) => missing.push(absent),
                    _ if self.models.has_no_pods(&absent.model).await => {
                        warnings.push(format!("0: {model} has no pods (directory)"));
                    }
                    Why::Vanished(since) if since > self.settings.vanished_after => {
                        warnings.push(format!(
                            "without {model}, which {} has not matched for {}",
                            selector.text(),
                            duration::format_seconds(since)
                        ));
                    }
                    _ => missing.push(absent),
                }
            }
            if let Some(text) = text_of(selector, &missing) {
                match self.settings.partial {
                    Partial::Error => return Err(Refusal::new(Reason::Partial, text)),
                    Partial::Warn => warnings.push(text),
                }
            }
        }
        Ok(warnings)
    }

    /// Returns the models that a selector lacks, and remembers those that it has.
    fn absent(
        &self,
        selector: &Selector,
        models: &[(ModelRef, Duration)],
        question: &InstantQuery,
        max_age: Duration,
    ) -> Vec<Absent> {
        // Series without a model belong to none, and cannot be missed.
        let models = || models.iter().filter(|(model, _)| !model.model.as_str().is_empty());
        if models().nth(MODELS_MAX).is_some() {
            return Vec::new();
        }
        let now = self.clock.now();
        let key = self.scoped(selector.text(), question);
        let mut last_matched = lock(&self.last_matched);
        let before = last_matched.get(&key, now).cloned().unwrap_or_default();
        let is_remembered = |at: Tick| at.age(now) < self.settings.vanished_after * 2;
        let before = before.iter().filter(|(_, at)| is_remembered(**at));
        let mut known: HashMap<ModelRef, Tick> =
            before.map(|(model, at)| (model.clone(), *at)).take(MODELS_MAX).collect();
        let mut absent = Vec::new();
        let mut present: HashMap<&ModelRef, Duration> = HashMap::new();
        for (model, age) in models() {
            present.insert(model, *age);
            if *age > max_age {
                absent.push(Absent { model: model.clone(), why: Why::Stale(*age) });
            } else {
                known.insert(model.clone(), now);
            }
        }
        for (model, at) in &known {
            if !present.contains_key(model) {
                absent.push(Absent { model: model.clone(), why: Why::Vanished(at.age(now)) });
            }
        }
        last_matched.insert(key, Arc::new(known.clone()), now);
        drop(last_matched);
        for model in self.expected(selector, &present) {
            if !known.contains_key(&model) && !present.contains_key(&model) {
                absent.push(Absent { model, why: Why::NeverMatched });
            }
        }
        absent.sort_unstable_by(|one, other| (one.why, &one.model).cmp(&(other.why, &other.model)));
        absent
    }

    /// Returns the models with pods that a selector selects by their names.
    fn expected(
        &self,
        selector: &Selector,
        present: &HashMap<&ModelRef, Duration>,
    ) -> Vec<ModelRef> {
        let Some(name) = selector.name() else { return Vec::new() };
        let mut expected = self.models.with_pods(name, self.settings.vanished_after);
        expected.retain(|model| selector.selects_model(model) == Some(true));
        // Else the server's labels may mean something else: its own namespace, for example.
        let is_comparable = expected.iter().any(|model| present.contains_key(model));
        expected.retain(|_| is_comparable);
        expected
    }
}

fn has_alternatives(need: &Need) -> bool {
    match need {
        Need::Any(_) => true,
        Need::All(needs) => needs.iter().any(has_alternatives),
        Need::Nothing | Need::Selector { .. } => false,
    }
}

/// Returns the text of a refusal, or of a warning in its place. It describes the first model, and counts the others.
fn text_of(selector: &Selector, missing: &[Absent]) -> Option<String> {
    let first = missing.first()?;
    let model = shown(&first.model);
    let what = match first.why {
        Why::Stale(age) => {
            format!("the newest sample of {model} is {} old", duration::format_seconds(age))
        }
        Why::Vanished(since) => {
            format!("nothing is known of {model} since {}", duration::format_seconds(since))
        }
        Why::NeverMatched => format!("{model} has pods and no series: does the server scrape it?"),
    };
    let more = match missing.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more are missing)"),
    };
    let selector = selector.text();
    Some(format!(
        "of the models that {selector} selects, {what}{more}; a result without it would be wrong (promql.partial)"
    ))
}

fn shown(model: &ModelRef) -> String {
    format!("{:?} in {:?}", model.model.as_str(), model.namespace.as_str())
}

#[cfg(test)]
mod tests;
