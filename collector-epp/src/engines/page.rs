//! What a page says.

use std::ops::{Index, IndexMut};
use std::sync::Arc;

use collector_core::{EngineName, ModelId, Role};
use collector_engines::{Expression, Quantity};

use crate::endpoint_picker::EndpointPickerMetrics;

/// What one page says, once its last sample is read.
#[derive(Clone, PartialEq, Debug)]
pub enum Page {
    /// It is a model server's.
    Server(ServerPage),
    /// It is an endpoint picker's.
    EndpointPicker(EndpointPickerMetrics),
    /// It is of no engine, or not of the one that it should be of.
    Unknown(UnknownPage),
}

/// A page on which nothing was found that was looked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownPage {
    /// The engine that it should be of; `None` when any would do.
    pub expected: Option<EngineName>,
    /// The engine that its series are of.
    pub looks_like: Option<EngineName>,
    /// What shows the page, where it is no model server but a router or gateway in front of several.
    pub router: Option<&'static str>,
}

/// What a model server's page says.
#[derive(Clone, PartialEq, Debug)]
pub struct ServerPage {
    /// What its series are read as.
    pub engine: EngineName,
    /// By model, replica and rank; what is given per server has no rank, and comes last of its model.
    pub rows: Vec<EngineRow>,
    /// Why nobody can say which model it serves; the rows then have what stands in its labels.
    pub no_model: Option<NoModel>,
    /// Ids of its models are compared without case.
    pub ignore_case: bool,
    /// The quantities that its engine may report.
    pub reports: Arc<[Quantity]>,
    /// Why quantities that its engine reports are unknown, where the page says.
    pub reasons: Vec<(Quantity, Arc<str>)>,
    /// When the process was started that shows the page, in seconds since 1970 by its own clock.
    pub process_start: Option<f64>,
    /// The LoRA adapters of the server, where it tells.
    pub lora: Option<LoraAdapters>,
    /// The alternatives that were on the page.
    pub matched: Arc<[Matched]>,
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
    /// The label holds what is no model's id.
    NoId(Box<str>),
    /// The model was given, and the page names several, none of which is that one.
    Several(Vec<Box<str>>),
}

/// Which alternative a quantity was read from.
///
/// Between pages that matched differently, a counter is not the same counter: no rate spans them.
#[derive(Clone, PartialEq, Debug)]
pub struct Matched {
    /// The quantity.
    pub quantity: Quantity,
    /// What it was read from.
    pub spec: Arc<Expression>,
}

/// What a page says of one model on one data-parallel rank of one replica.
///
/// `None`: it is not on the page. Numbers are as the page has them, NaN included:
/// [`collector_core::sanitize`] judges them.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct EngineRow {
    /// `None` where no series of the row names a model.
    pub model: Option<ModelId>,
    /// The data-parallel engine; `None` for what is given per server.
    pub rank: Option<Arc<str>>,
    /// The replica, where the page has several.
    pub replica: Option<Arc<str>>,
    /// `prefill` or `decode`, where the series say so.
    pub role: Option<Role>,
    /// Its numbers, as the page has them.
    pub numbers: Numbers,
    /// By how much each counter went up since the page before, series by series; only where the reader
    /// was asked for it.
    pub increases: Option<Box<Numbers>>,
    /// When what carries a timestamp was sampled, the oldest of its samples: milliseconds since 1970.
    pub times: Vec<(Quantity, i64)>,
    /// Why numbers are unknown though their series are there.
    pub reasons: Vec<(Quantity, Arc<str>)>,
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
