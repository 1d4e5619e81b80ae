// SPDX-License-Identifier: Apache-2.0
//! The page of any engine in the table of [`collector_engines`]: the series of its quantities, with numbers
//! that make the quantities true.

use std::collections::BTreeMap;
use std::sync::Arc;

use collector_engines::{
    Engine, Expression, LabelMatcher, MatchOperator, Quantity, Series as Described,
};

use crate::engine::exposition::{Numbers, labels};
use crate::engine::template::Layout;
use crate::spec::EngineSpec;

use super::{PodView, Whose};

/// A number of one engine of a pod.
type Truth = Arc<dyn Fn(&PodView, usize) -> f64 + Send + Sync>;
/// Labels with their values.
type Pairs = Vec<(String, String)>;

/// The page of a described server.
pub(super) fn layout(model: &str, spec: &EngineSpec, described: &Engine) -> Layout<PodView> {
    let mut plan = Plan::default();
    for (quantity, alternatives) in described.metrics() {
        let truth = truth(quantity, spec);
        if let (Some(expression), Some(truth)) = (alternatives.first(), truth) {
            plan.tell(expression, &truth);
        }
    }
    plan.fill_with_zeros();
    let mut layout = Layout::new(Numbers::Python);
    let names = Names { model, described };
    for (name, sample) in plan.numbers {
        for (matchers, truth) in sample {
            for engine in 0..spec.engines as usize {
                let label = names.of(engine, &matchers, &[]);
                let truth = Arc::clone(&truth);
                layout.sample(&name, &[&label], move |view| truth(view, engine));
            }
        }
    }
    for (name, numbers) in plan.labels {
        for engine in 0..spec.engines as usize {
            layout.constant(&name, &[&names.of(engine, &[], &numbers)], 1.0);
        }
    }
    for name in
        described.required.iter().filter(|name| !described.sample_names().any(|it| it == &***name))
    {
        layout.constant(name, &[&names.of(0, &[], &[])], 1.0);
    }
    layout
}

/// The names of the page's series.
struct Names<'a> {
    model: &'a str,
    described: &'a Engine,
}

impl Names<'_> {
    fn of(&self, engine: usize, more: &[(String, String)], numbers: &[(String, f64)]) -> String {
        let mut pairs: BTreeMap<&str, String> = BTreeMap::new();
        if let Some(label) = self.described.model_labels.first() {
            pairs.insert(label, self.model.to_owned());
        }
        if let Some(label) = self.described.rank_labels.first() {
            pairs.insert(label, engine.to_string());
        }
        for (label, number) in numbers {
            pairs.insert(label, number.to_string());
        }
        for (label, value) in more {
            pairs.insert(label, value.clone());
        }
        let pairs: Vec<(&str, &str)> =
            pairs.iter().map(|(label, value)| (*label, value.as_str())).collect();
        labels(&pairs)
    }
}

/// The series of a page, each with its number.
#[derive(Default)]
struct Plan {
    /// By name, and by the labels that distinguish series of one name.
    numbers: BTreeMap<String, Vec<(Pairs, Truth)>>,
    /// Series with numbers in their labels.
    labels: BTreeMap<String, Vec<(String, f64)>>,
    /// Additional series in expressions.
    others: Vec<Described>,
}

impl Plan {
    /// Adds the series of an expression, so that it has this value. The first series without a number
    /// provides the value; other new ones are 0.
    fn tell(&mut self, expression: &Expression, truth: &Truth) {
        let all = expression.series();
        if let [series] = all.as_slice()
            && let Some(label) = &series.number_in
        {
            // A configuration is constant, and a counter is in no label.
            let number = truth(&PodView::nothing(), 0);
            self.labels
                .entry(series.name.to_string())
                .or_default()
                .push((label.to_string(), number));
            return;
        }
        let Some(free) = all.iter().find(|series| self.of(series).is_none()) else { return };
        let free = (*free).clone();
        self.others.extend(all.iter().map(|series| (*series).clone()));
        let known: Vec<(Described, Truth)> =
            all.iter().filter_map(|series| Some(((*series).clone(), self.of(series)?))).collect();
        let (expression, truth, solved) = (expression.clone(), Arc::clone(truth), free.clone());
        self.insert(
            &free,
            Arc::new(move |view: &PodView, engine| {
                let with = |number: f64| {
                    let value = expression.evaluate(&mut |series: &Described| {
                        let of_others = || {
                            let other = known.iter().find(|(known, _)| known == series);
                            other.map_or(0.0, |(_, truth)| truth(view, engine))
                        };
                        Some(if *series == solved { number } else { of_others() })
                    });
                    value.unwrap_or(0.0)
                };
                // The expression is linear in its one free series.
                let (at_0, at_1) = (with(0.0), with(1.0));
                let number = (truth(view, engine) - at_0) / (at_1 - at_0);
                if number.is_finite() { number.max(0.0) } else { 0.0 }
            }),
        );
    }

    /// Adds the series whose number does not matter.
    fn fill_with_zeros(&mut self) {
        for series in std::mem::take(&mut self.others) {
            if self.of(&series).is_none() {
                self.insert(&series, Arc::new(|_, _| 0.0));
            }
        }
    }

    fn of(&self, series: &Described) -> Option<Truth> {
        let labels = common_labels(&series.matchers)?;
        let (_, truth) =
            self.numbers.get(&*series.name)?.iter().find(|(known, _)| *known == labels)?;
        Some(Arc::clone(truth))
    }

    fn insert(&mut self, series: &Described, truth: Truth) {
        if let Some(labels) = common_labels(&series.matchers) {
            self.numbers.entry(series.name.to_string()).or_default().push((labels, truth));
        }
    }
}

/// Returns labels that the matchers accept; `None` if there is no obvious choice.
fn common_labels(matchers: &[LabelMatcher]) -> Option<Pairs> {
    let mut labels = Vec::new();
    for matcher in matchers {
        if matcher.accepts("") {
            continue;
        }
        let mut values = match matcher.operator {
            MatchOperator::Matches => matcher.value.split('|').map(str::to_owned).collect(),
            MatchOperator::Is => vec![matcher.value.to_string()],
            MatchOperator::IsNot | MatchOperator::MatchesNot => vec!["other".to_owned()],
        };
        values.retain(|value| matcher.accepts(value));
        labels.push((matcher.label.to_string(), values.into_iter().next()?));
    }
    Some(labels)
}

/// Returns the true value of a quantity; `None` if the simulation does not know it.
fn truth(quantity: Quantity, spec: &EngineSpec) -> Option<Truth> {
    let (size, blocks) = (f64::from(spec.block_size), f64::from(spec.num_gpu_blocks));
    let counted = |read: fn(&crate::engine::counters::Counters) -> f64| -> Truth {
        Arc::new(move |view, engine| read(view.counters(Whose::Engine(engine))))
    };
    Some(match quantity {
        Quantity::Waiting | Quantity::WaitingForCapacity => Arc::new(PodView::waiting),
        Quantity::Running => Arc::new(PodView::running),
        Quantity::KvCacheUsage => Arc::new(PodView::kv_cache_usage),
        Quantity::KvCapacityTokens => Arc::new(move |_, _| size * blocks),
        Quantity::BlockSize => Arc::new(move |_, _| size),
        Quantity::NumGpuBlocks => Arc::new(move |_, _| blocks),
        Quantity::RequestSuccessTotal => counted(|counters| counters.finished as f64),
        Quantity::RequestsTotal => counted(|counters| counters.arrived as f64),
        Quantity::PromptTokensSum => counted(|counters| counters.request_prompt_tokens.sum()),
        Quantity::PromptTokensCount => {
            counted(|counters| counters.request_prompt_tokens.count() as f64)
        }
        Quantity::PromptTokensTotal => counted(|counters| counters.prompt_tokens as f64),
        Quantity::GenerationTokensSum => {
            counted(|counters| counters.request_generation_tokens.sum())
        }
        Quantity::GenerationTokensCount => {
            counted(|counters| counters.request_generation_tokens.count() as f64)
        }
        Quantity::GenerationTokensTotal => counted(|counters| counters.generation_tokens as f64),
        Quantity::TtftSum => counted(|counters| counters.time_to_first_token.sum()),
        Quantity::TtftCount => counted(|counters| counters.time_to_first_token.count() as f64),
        Quantity::ItlSum => counted(|counters| counters.inter_token_latency.sum()),
        Quantity::ItlCount => counted(|counters| counters.inter_token_latency.count() as f64),
        Quantity::PrefixHits => counted(|counters| counters.prefix_hits as f64),
        Quantity::PrefixQueries => counted(|counters| counters.prefix_queries as f64),
        Quantity::CachedTokensTotal => counted(|counters| counters.cached_prompt_tokens as f64),
        Quantity::PrefixCacheHitRate => counted(|counters| {
            let queries = counters.prefix_queries;
            if queries == 0 { 0.0 } else { counters.prefix_hits as f64 / queries as f64 }
        }),
        Quantity::QueueTimeSum => counted(|counters| counters.queue_time.sum()),
        Quantity::QueueTimeCount => counted(|counters| counters.queue_time.count() as f64),
        Quantity::PrefillTimeSum => counted(|counters| counters.prefill_time.sum()),
        Quantity::PrefillTimeCount => counted(|counters| counters.prefill_time.count() as f64),
        Quantity::DecodeTimeSum => counted(|counters| counters.decode_time.sum()),
        Quantity::DecodeTimeCount => counted(|counters| counters.decode_time.count() as f64),
        _ => return None,
    })
}
