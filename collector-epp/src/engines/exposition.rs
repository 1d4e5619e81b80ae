// SPDX-License-Identifier: Apache-2.0
//! The content of a metrics page, as rows of numbers.

use std::ops::{Index, IndexMut};
use std::sync::Arc;

use collector_core::{EngineName, ModelId, Role};
use collector_engines::{Expression, Quantity};

use crate::endpoint_picker::EndpointPickerMetrics;

/// The content of one metrics page.
#[derive(Clone, PartialEq, Debug)]
pub enum Exposition {
    /// The page of a model server.
    Server(ServerExposition),
    /// The page of an endpoint picker.
    EndpointPicker(EndpointPickerMetrics),
}

/// A metrics page of no known engine, or not of the expected one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownExposition {
    /// The expected engine; `None` if any is accepted.
    pub expected: Option<EngineName>,
    /// The engine that its series belong to.
    pub looks_like: Option<EngineName>,
    /// The name of the router or gateway, if the page belongs to one instead of a model server.
    pub router: Option<&'static str>,
}

/// The content of a model server's metrics page.
#[derive(Clone, PartialEq, Debug)]
pub struct ServerExposition {
    /// The engine that its series are read as.
    pub engine: EngineName,
    /// Ordered by model, replica and rank. Numbers given per server have no rank and come last of their model.
    pub rows: Vec<EngineRow>,
    /// Why its model is unknown; the rows then hold the content of its labels.
    pub no_model: Option<NoModel>,
    /// Whether ids of its models are compared without case.
    pub ignore_case: bool,
    /// The quantities that its engine may report.
    pub reports: Arc<[Quantity]>,
    /// Why quantities that its engine reports are unknown, if the page shows it.
    pub reasons: Vec<(Quantity, Arc<str>)>,
    /// Start of the server's process, in seconds since 1970 by its own clock.
    pub process_start: Option<f64>,
    /// The LoRA adapters of the server, if it reports them.
    pub lora: Option<LoraAdapters>,
    /// The alternatives that were on the page.
    pub matched: Arc<[Matched]>,
    /// Whether the buckets of histograms were read.
    pub has_buckets: bool,
    /// Samples of a series that was on the page before. The first one counts, as in Prometheus.
    pub repeated: u64,
    /// Samples beyond the number of samples and rows that are read. Where there are any, sums are unknown.
    pub beyond_limit: u64,
}

/// Why a server's page names no model.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoModel {
    /// No label of its series holds an id.
    NoLabel,
    /// The label holds something that is no model's id.
    NoId(Box<str>),
    /// The model was given, and the page names several others.
    Several(Vec<Box<str>>),
}

/// Which alternative a quantity was read from.
///
/// No rate spans two pages that matched differently, because their counters are different counters.
#[derive(Clone, PartialEq, Debug)]
pub struct Matched {
    /// The quantity.
    pub quantity: Quantity,
    /// What it was read from.
    pub spec: Arc<Expression>,
}

/// The numbers of one model on one data-parallel rank of one replica.
///
/// `None`: it is not on the page. Numbers are as the page has them, NaN included:
/// [`collector_core::sanitize`] judges them.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct EngineRow {
    /// `None` if no series of the row names a model.
    pub model: Option<ModelId>,
    /// The data-parallel rank; `None` for numbers given per server.
    pub rank: Option<Arc<str>>,
    /// The replica, if the page has several.
    pub replica: Option<Arc<str>>,
    /// `prefill` or `decode`, if the series say so.
    pub role: Option<Role>,
    /// Its numbers, as the page has them.
    pub numbers: Numbers,
    /// Increase of each counter since the previous page, series by series; only for readers
    /// [with increases](super::ExpositionReader::with_increases).
    pub increases: Option<Box<Numbers>>,
    /// The usable histograms of latencies, each by the [count](Quantity::LATENCY_COUNTS) of its observations; only if
    /// [buckets were read](ServerExposition::has_buckets).
    pub buckets: Vec<(Quantity, Buckets)>,
    /// Timestamps of quantities whose samples carry one, the oldest of each: milliseconds since 1970.
    pub times: Vec<(Quantity, i64)>,
    /// Why numbers are unknown though their series are there.
    pub reasons: Vec<(Quantity, Arc<str>)>,
}

/// The buckets of one histogram of a row.
#[derive(Clone, PartialEq, Debug)]
pub struct Buckets {
    /// The upper bounds in seconds, as [`LatencyHistogram`](collector_core::LatencyHistogram) has them.
    pub bounds: Arc<[f64]>,
    /// Each series, by a hash of its labels: the observations of each bucket alone, since its server started.
    pub series: Vec<(u64, Box<[u64]>)>,
}

/// A number for each quantity. `None`: not on the page.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Numbers([Option<f64>; Quantity::ALL.len()]);

impl Index<Quantity> for Numbers {
    type Output = Option<f64>;

    fn index(&self, quantity: Quantity) -> &Option<f64> {
        &self.0[quantity as usize]
    }
}

impl IndexMut<Quantity> for Numbers {
    fn index_mut(&mut self, quantity: Quantity) -> &mut Option<f64> {
        &mut self.0[quantity as usize]
    }
}

impl EngineRow {
    /// Share of prompt tokens found in the prefix cache since the server was started: hits over
    /// look-ups, cached over all prompt tokens, or what the server says.
    pub fn hit_rate_since_start(&self) -> Option<f64> {
        let share = |part, whole| {
            let whole = self.numbers[whole].filter(|whole| *whole > 0.0)?;
            Some(self.numbers[part]? / whole).filter(|share| share.is_finite())
        };
        share(Quantity::PrefixHits, Quantity::PrefixQueries)
            .or_else(|| share(Quantity::CachedTokensTotal, Quantity::PromptTokensTotal))
            .or(self.numbers[Quantity::PrefixCacheHitRate])
    }

    /// Tokens the KV cache holds: as the server reports them, else blocks times their size.
    pub fn capacity(&self) -> Option<f64> {
        let [tokens, blocks, size] =
            [Quantity::KvCapacityTokens, Quantity::NumGpuBlocks, Quantity::BlockSize]
                .map(|quantity| self.numbers[quantity]);
        tokens.or_else(|| Some(blocks? * size?))
    }
}

/// The LoRA adapters of a server: `vllm:lora_requests_info`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoraAdapters {
    /// Adapters with running requests.
    pub running: Vec<Box<str>>,
    /// Adapters with waiting requests.
    pub waiting: Vec<Box<str>>,
    /// Adapters that fit into one batch.
    pub max: Option<u64>,
}
