// SPDX-License-Identifier: Apache-2.0
//! The selectors of a query that may be local, and the series that are held for them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use collector_core::ModelRef;
use promql_parser::label::Matcher;
use promql_parser::parser::{Expr, VectorSelector};

use super::labels::NAME;
use super::{
    Gap, Held, HeldSeries, KnownEmpty, KnownLabels, Labels, NotLocal, Part, Wanted, pattern,
};
use crate::probe::Matched;
use crate::selector::Selector;

/// The maximum number of different selectors: each is a pass over the held series.
const SELECTORS_MAX: usize = 16;
/// The maximum number of samples that the selectors of a query select.
const SAMPLES_MAX: usize = 50_000;
/// The maximum number of bytes of their labels: usual series have some 100 each.
const LABEL_BYTES_MAX: usize = 8 << 20;

/// What is held for the selectors of a query, by their texts.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    pub(super) selected: HashMap<String, Selected>,
}

/// What is held for one selector.
#[derive(Debug)]
pub(crate) struct Selected {
    /// The labels that are known of its series.
    pub(super) labels: KnownLabels,
    /// The selected samples, with the name of the metric among their labels.
    pub(super) samples: Vec<Sample>,
    /// Unknown series that it would select.
    pub(super) gaps: Vec<Gap>,
    /// What it would select, and is known to have no series.
    pub(super) empty: Vec<KnownEmpty>,
    /// The result depends on its samples, and not only on whether there are any, as in `absent`.
    pub(super) decides: bool,
    /// The age of the newest series of the metric with the same place in the fleet, without regard to other matchers.
    pub(super) alive: Option<Duration>,
}

/// A sample that a selector selects.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Sample {
    pub(super) labels: Labels,
    pub(super) value: f64,
    pub(super) age: Duration,
}

impl Selection {
    /// Selects the samples for a query.
    ///
    /// # Errors
    /// When a part of the query cannot be local.
    pub(crate) fn of(expression: &Expr, held: &dyn HeldSeries) -> Result<Self, NotLocal> {
        let mut found = Vec::new();
        selectors(expression, true, &mut found)?;
        let mut wanted: Vec<(String, Selected, Wanted<'_>)> = Vec::new();
        for (selector, decides) in found {
            let text = Selector::new(selector).text().to_owned();
            if let Some((_, known, _)) = wanted.iter_mut().find(|(known, ..)| *known == text) {
                known.decides |= decides;
                continue;
            }
            if wanted.len() == SELECTORS_MAX {
                return Err(NotLocal::new(format!("it has more than {SELECTORS_MAX} selectors")));
            }
            let metric = metric_of(selector)?;
            let only = Wanted { metric, selector };
            let Some(labels) = held.labels(&only) else {
                return Err(NotLocal::new(format!(
                    "the collector does not hold all series that {text} may select"
                )));
            };
            let names = selector.matchers.matchers.iter().map(|matcher| matcher.name.as_str());
            labels.check_of(names, metric)?;
            pattern::check(selector)?;
            wanted.push((text, Selected::new(labels, decides), only));
        }
        let only: Vec<Wanted<'_>> = wanted.iter().map(|(.., wanted)| *wanted).collect();
        let mut all = HashMap::new();
        let (mut samples, mut bytes) = (0, 0);
        for ((text, mut selected, wanted), held) in wanted.into_iter().zip(held.select(&only)) {
            selected.take(&wanted, held)?;
            samples += selected.samples.len();
            bytes += selected.samples.iter().map(|it| it.labels.bytes()).sum::<usize>();
            if samples > SAMPLES_MAX || bytes > LABEL_BYTES_MAX {
                return Err(NotLocal::new("it selects too many series"));
            }
            all.insert(text, selected);
        }
        Ok(Self { selected: all })
    }

    /// Returns what is held for a selector.
    pub(super) fn selected(&self, text: &str) -> Result<&Selected, NotLocal> {
        self.selected.get(text).ok_or_else(|| NotLocal::new(format!("{text} was not selected")))
    }

    /// Returns whether the query has no selectors.
    pub(crate) fn is_empty(&self) -> bool {
        self.selected.is_empty()
    }

    /// Returns whether a selector reaches a part of the fleet that is known, although it may have no series.
    pub(crate) fn is_known(&self, text: &str) -> bool {
        let is_known =
            |it: &Selected| !(it.samples.is_empty() && it.gaps.is_empty() && it.empty.is_empty());
        self.selected.get(text).is_some_and(is_known)
    }

    /// Returns what a selector matches, as a probe does.
    pub(crate) fn matched(&self, text: &str, by_model: bool) -> Option<Matched> {
        let samples = &self.selected.get(text)?.samples;
        let mut models: BTreeMap<ModelRef, Duration> = BTreeMap::new();
        for sample in samples.iter().filter(|_| by_model) {
            let [namespace, model] = MODEL.map(|label| sample.labels.get(label));
            let newest = models.entry(ModelRef::new(model, namespace)).or_insert(sample.age);
            *newest = sample.age.min(*newest);
        }
        Some(Matched {
            series: samples.len() as u64,
            age: samples.iter().map(|sample| sample.age).min(),
            models: by_model.then(|| models.into_iter().collect()),
            known_empty: None,
        })
    }

    /// Returns the age of the oldest selected data.
    pub(crate) fn oldest(&self) -> Option<Duration> {
        let ages = self.selected.values().flat_map(|selected| {
            let samples = selected.samples.iter().map(|sample| sample.age);
            samples.chain(selected.empty.iter().map(|empty| empty.age))
        });
        ages.max()
    }
}

impl Selected {
    fn new(labels: KnownLabels, decides: bool) -> Self {
        Self {
            labels,
            samples: Vec::new(),
            gaps: Vec::new(),
            empty: Vec::new(),
            decides,
            alive: None,
        }
    }

    /// Takes what a selector selects of what is held.
    fn take(&mut self, wanted: &Wanted<'_>, held: Held) -> Result<(), NotLocal> {
        let matchers = &wanted.selector.matchers.matchers;
        let of_labels = |names: &'static [&str]| {
            matchers.iter().filter(move |it| names.contains(&it.name.as_str()))
        };
        // A series of the selected models exists.
        let mut has_models = false;
        for sample in held.samples {
            let mut labels = sample.labels;
            labels.set(NAME.into(), wanted.metric.to_owned());
            let is_newest = self.alive.is_none_or(|age| sample.age < age);
            if is_newest && pattern::all_match(of_labels(&PLACE), &labels)? {
                self.alive = Some(sample.age);
            }
            if !has_models {
                has_models = pattern::all_match(of_labels(&MODEL), &labels)?;
            }
            if pattern::all_match(matchers.iter(), &labels)? {
                let (value, age) = (sample.value, sample.age);
                self.samples.push(Sample { labels, value, age });
            }
        }
        for gap in held.gaps {
            if reaches(matchers, &gap.part)? {
                self.gaps.push(gap);
            }
        }
        for empty in held.empty {
            // A misspelt pod is not empty because some model has no pods: the selector must name nothing but the part,
            // or select empty models alone.
            let is_determined = || {
                let mut others = matchers.iter().filter(|it| it.name != NAME);
                others.all(|it| !empty.part.labels.get(&it.name).is_empty())
            };
            if reaches(matchers, &empty.part)? && (!has_models || is_determined()) {
                self.empty.push(empty);
            }
        }
        Ok(())
    }
}

/// The labels that name models.
const MODEL: [&str; 2] = ["namespace", "model_name"];
/// The labels that name a place in the fleet.
const PLACE: [&str; 3] = ["namespace", "model_name", "pod"];

/// Returns whether matchers may match series of a part of the fleet.
fn reaches(matchers: &[Matcher], part: &Part) -> Result<bool, NotLocal> {
    let is_known = |name: &str| part.is_one_series || !part.labels.get(name).is_empty();
    let known = matchers.iter().filter(|it| it.name != NAME && is_known(&it.name));
    pattern::all_match(known, &part.labels)
}

/// Finds the selectors of an expression, each with whether the result depends on its samples (`decides`).
fn selectors<'a>(
    expression: &'a Expr,
    decides: bool,
    found: &mut Vec<(&'a VectorSelector, bool)>,
) -> Result<(), NotLocal> {
    let mut all = |parts: &[&'a Expr], decides| {
        parts.iter().try_for_each(|part| selectors(part, decides, found))
    };
    match expression {
        Expr::VectorSelector(selector) if selector.offset.is_some() || selector.at.is_some() => {
            Err(NotLocal::new("it has offset or @, and only current samples are held"))
        }
        Expr::VectorSelector(selector) => {
            found.push((selector, decides));
            Ok(())
        }
        Expr::MatrixSelector(_) | Expr::Subquery(_) => {
            Err(NotLocal::new("it selects a range, and only current samples are held"))
        }
        Expr::Extension(_) => Err(NotLocal::new("it has an extension of PromQL")),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Ok(()),
        Expr::Paren(inner) => all(&[&inner.expr], decides),
        Expr::Unary(inner) => all(&[&inner.expr], decides),
        Expr::Aggregate(aggregate) => {
            let parameter = aggregate.param.iter().map(|it| &**it);
            let parts: Vec<&Expr> = parameter.chain([&*aggregate.expr]).collect();
            all(&parts, decides)
        }
        Expr::Binary(binary) => all(&[&binary.lhs, &binary.rhs], decides),
        Expr::Call(call) => {
            let parts: Vec<&Expr> = call.args.args.iter().map(|it| &**it).collect();
            all(&parts, decides && call.func.name != "absent")
        }
    }
}

/// Returns the metrics that an expression selects from.
///
/// # Errors
/// When a selector does not name its metric, or does not select current samples.
pub(crate) fn metrics_of(expression: &Expr) -> Result<BTreeSet<&str>, NotLocal> {
    let mut found = Vec::new();
    selectors(expression, true, &mut found)?;
    found.into_iter().map(|(selector, _)| metric_of(selector)).collect()
}

/// Returns the one metric that a selector selects.
fn metric_of(selector: &VectorSelector) -> Result<&str, NotLocal> {
    if !selector.matchers.or_matchers.is_empty() {
        return Err(NotLocal::new("a selector has alternatives (or)"));
    }
    let names = selector.matchers.matchers.iter().filter(|matcher| matcher.name == NAME);
    let equal = names.filter(|it| it.op == promql_parser::label::MatchOp::Equal);
    let equal = equal.map(|matcher| matcher.value.as_str()).next();
    selector
        .name
        .as_deref()
        .or(equal)
        .ok_or_else(|| NotLocal::new("a selector does not name its metric"))
}
