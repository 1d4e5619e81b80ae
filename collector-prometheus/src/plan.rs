//! The queries of one look, made from the description of an engine and from what the server holds.
//!
//! A look at a fleet costs the same number of queries for ten variants and for a thousand: each query
//! brings one quantity of all pods or models at once. Of vLLM, where `F` is the filter of a group of
//! models, `W` the window, and the labels are those that the server has:
//!
//! | field | query |
//! |---|---|
//! | liveness and true sample age | `max by (namespace,model_name,pod,engine,instance) (timestamp(vllm:num_requests_running{F}))` |
//! | KV-cache usage, peak | `max by (namespace,model_name,pod,engine) (max_over_time(vllm:kv_cache_usage_perc{F}[W]))` |
//! | queue length, peak | `max by (…) (max_over_time(vllm:num_requests_waiting{F}[W]))` |
//! | running requests and sleep state, latest | `max by (…) (vllm:num_requests_running{F})` |
//! | arrivals, tokens, latencies | `sum by (namespace,model_name) (rate(vllm:request_prompt_tokens_count{F}[W]))`, and so on |
//! | prefix cache, each minute | `sum by (namespace,model_name,pod) (rate(vllm:prefix_cache_hits_total{F}[5m]))` |
//! | capacity, for new pods and each minute | `count by (namespace,pod,engine,…)(vllm:cache_config_info{F})` |
//!
//! Several series of one quantity, the terms of an expression or the names of two releases, travel in
//! one query, told apart by the label `what`; expressions are evaluated by the reader, rank by rank, as
//! they are on a metrics page. Liveness goes first: its rows are the pods that exist, because a dead pod
//! leaves `timestamp()` within a scrape or two and lingers in everything that looks over a window. Sums
//! and counts are divided by the reader, because servers disagree about 0/0.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use collector_core::Field;
use collector_engines::{Engine, Expression, Quantity, Series};

use crate::labels::{Labels, Level};
use crate::promql::{Filter, Matcher, Window};

/// What a query asks for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub(crate) enum QueryKind {
    /// When each pod was last scraped.
    Liveness,
    /// KV-cache usage of each rank.
    KvCache,
    /// Queue length of each rank.
    QueueLength,
    /// Running requests, and whether it sleeps, of each rank.
    RunningRequests,
    /// Arrivals per second.
    RequestCount,
    /// Prompt tokens per second.
    InputTokens,
    /// Generated tokens per second.
    OutputTokens,
    /// Seconds to first tokens, per second.
    TtftSum,
    /// First tokens per second.
    TtftCount,
    /// Seconds between tokens, per second.
    ItlSum,
    /// Gaps between tokens per second.
    ItlCount,
    /// Hits and look-ups of the prefix cache, per second.
    PrefixCache,
    /// The capacity of each rank, where gauges report it.
    Capacity,
    /// The capacity of each rank, where labels of an info series report it.
    CacheConfig,
    /// Counters of each rank as they stand, to tell copies from servers and idle ranks from silent ones.
    Counters,
    /// Whether anything of a model without live pods is there after all, or lately was.
    Presence,
    /// When a missing model was last there.
    LastSeen,
    /// The server's clock.
    ServerTime,
    /// Which engines' names exist.
    Names,
    /// Which series and labels of an engine exist, how many pods there are, and whether series are
    /// doubled.
    Shape,
    /// One series with all of its labels.
    Example,
    /// The samples of one series, to learn how often it is scraped.
    Scrapes,
    /// Which models exist.
    Models,
}

impl QueryKind {
    /// Every kind.
    pub(crate) const ALL: [Self; 23] = [
        Self::Liveness,
        Self::KvCache,
        Self::QueueLength,
        Self::RunningRequests,
        Self::RequestCount,
        Self::InputTokens,
        Self::OutputTokens,
        Self::TtftSum,
        Self::TtftCount,
        Self::ItlSum,
        Self::ItlCount,
        Self::PrefixCache,
        Self::Capacity,
        Self::CacheConfig,
        Self::Counters,
        Self::Presence,
        Self::LastSeen,
        Self::ServerTime,
        Self::Names,
        Self::Shape,
        Self::Example,
        Self::Scrapes,
        Self::Models,
    ];

    /// What every look asks of living pods, besides liveness. The gauges go first: they are what
    /// nobody can decide without when time runs out.
    pub(crate) const EACH_LOOK: [Self; 10] = [
        Self::QueueLength,
        Self::KvCache,
        Self::RunningRequests,
        Self::RequestCount,
        Self::InputTokens,
        Self::OutputTokens,
        Self::TtftSum,
        Self::TtftCount,
        Self::ItlSum,
        Self::ItlCount,
    ];

    /// The value of the label `query_type`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Liveness => "liveness",
            Self::KvCache => "kv_cache",
            Self::QueueLength => "queue_length",
            Self::RunningRequests => "running_requests",
            Self::RequestCount => "request_count",
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
            Self::TtftSum => "ttft_sum",
            Self::TtftCount => "ttft_count",
            Self::ItlSum => "itl_sum",
            Self::ItlCount => "itl_count",
            Self::PrefixCache => "prefix_cache",
            Self::Capacity => "capacity",
            Self::CacheConfig => "cache_config",
            Self::Counters => "counters",
            Self::Presence => "presence",
            Self::LastSeen => "last_seen",
            Self::ServerTime => "server_time",
            Self::Names => "names",
            Self::Shape => "shape",
            Self::Example => "example",
            Self::Scrapes => "scrapes",
            Self::Models => "models",
        }
    }

    /// The fields that are unknown when this query failed. Without the arrivals the token averages
    /// have no denominator of their own time.
    pub(crate) const fn fields(self) -> &'static [Field] {
        match self {
            Self::KvCache => &[Field::KvCacheUsage],
            Self::QueueLength => &[Field::QueueLength],
            Self::RunningRequests => &[Field::RunningRequests],
            Self::RequestCount => {
                &[Field::ArrivalRate, Field::AvgInputTokens, Field::AvgOutputTokens]
            }
            Self::InputTokens => &[Field::AvgInputTokens],
            Self::OutputTokens => &[Field::AvgOutputTokens],
            Self::TtftSum | Self::TtftCount => &[Field::TtftAverage],
            Self::ItlSum | Self::ItlCount => &[Field::ItlAverage],
            Self::PrefixCache => &[Field::PrefixCacheHitRate],
            Self::Capacity | Self::CacheConfig => &[Field::CacheConfig],
            _ => &[],
        }
    }

    /// The quantities that the query is about: of each list the first that the server holds.
    pub(crate) const fn quantities(self) -> &'static [&'static [Quantity]] {
        use Quantity as Q;
        match self {
            Self::KvCache => &[&[Q::KvCacheUsage]],
            Self::QueueLength => &[&[Q::Waiting]],
            Self::RunningRequests => &[&[Q::Running], &[Q::Sleeping], &[Q::PrefixCacheHitRate]],
            Self::RequestCount => {
                &[&[Q::PromptTokensCount, Q::RequestsTotal, Q::RequestSuccessTotal]]
            }
            Self::InputTokens => &[&[Q::PromptTokensSum, Q::PromptTokensTotal]],
            Self::OutputTokens => &[&[Q::GenerationTokensSum, Q::GenerationTokensTotal]],
            Self::TtftSum => &[&[Q::TtftSum]],
            Self::TtftCount => &[&[Q::TtftCount]],
            Self::ItlSum => &[&[Q::ItlSum]],
            Self::ItlCount => &[&[Q::ItlCount]],
            Self::PrefixCache => {
                &[&[Q::PrefixHits, Q::CachedTokensTotal], &[Q::PrefixQueries, Q::PromptTokensTotal]]
            }
            Self::Capacity | Self::CacheConfig => {
                &[&[Q::KvCapacityTokens], &[Q::BlockSize], &[Q::NumGpuBlocks]]
            }
            Self::Counters => &[
                &[Q::RequestSuccessTotal, Q::PromptTokensCount, Q::RequestsTotal],
                &[Q::GenerationTokensTotal, Q::PromptTokensTotal],
            ],
            _ => &[],
        }
    }

    /// What the rows of the query are about, at least.
    pub(crate) const fn level(self) -> Level {
        match self {
            Self::RequestCount
            | Self::InputTokens
            | Self::OutputTokens
            | Self::TtftSum
            | Self::TtftCount
            | Self::ItlSum
            | Self::ItlCount => Level::Model,
            Self::PrefixCache => Level::Pod,
            _ => Level::Rank,
        }
    }

    /// Whether the query is over a window, so that it must end where the samples do.
    pub(crate) const fn is_over_window(self) -> bool {
        !matches!(
            self,
            Self::Liveness
                | Self::RunningRequests
                | Self::Capacity
                | Self::CacheConfig
                | Self::Counters
                | Self::LastSeen
        )
    }
}

/// A set of kinds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct QueryKinds(u32);

impl QueryKinds {
    pub(crate) fn insert(&mut self, kind: QueryKind) {
        self.0 |= 1 << kind as u8;
    }

    pub(crate) fn contains(self, kind: QueryKind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }
}

/// The prefix-cache hit rate moves slowly and is read over this many times the usual minute.
pub(crate) const PREFIX_WINDOW: Duration = Duration::from_secs(300);
/// How far back a missing model is looked for.
const LAST_SEEN: &str = "[1h:1m]";

/// What is made of the samples of a series.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
enum Function {
    Latest,
    Peak,
    Rate,
    /// Over the window of the prefix cache.
    SlowRate,
}

/// One series of an engine, and what is asked of it.
#[derive(Clone, PartialEq, Debug)]
struct Leaf {
    series: Series,
    function: Function,
    /// The histogram that it is a part of is stored as a native one.
    native: Option<Native>,
}

/// A part of a native histogram.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Native {
    /// Its function, `histogram_sum` or `histogram_count`.
    call: &'static str,
    base: Box<str>,
}

/// Whether a quantity is read with each look, or over the longer window of the prefix cache.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Pace {
    Each,
    Slow,
}

impl Pace {
    fn of(kind: QueryKind) -> Self {
        if kind == QueryKind::PrefixCache { Self::Slow } else { Self::Each }
    }
}

/// The position of a leaf in its plan.
pub(crate) type LeafId = u8;

/// What a quantity may be made of, with its place among all of the engine's alternatives.
type Alternative = (usize, Expression<LeafId>);

/// A query, without filter and labels.
#[derive(Clone, PartialEq, Debug)]
struct Ask {
    kind: QueryKind,
    leaves: Vec<LeafId>,
    /// Rows must be of pods, for the sum over a fleet of two releases to be right.
    per_pod: bool,
}

/// Writes the queries for one engine on one server.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Plan {
    leaves: Vec<Leaf>,
    asks: Vec<Ask>,
    /// What each quantity is made of, in order of preference.
    quantities: BTreeMap<(Pace, Quantity), Vec<Alternative>>,
    /// The series whose timestamp says who lives.
    pub(crate) liveness: Series,
    /// The labels that hold numbers of the info series.
    info: Option<Info>,
    pub(crate) window: Window,
}

/// An info series, and the labels in which it has numbers.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Info {
    pub(crate) series: Series,
    /// Each with the leaf that it is.
    pub(crate) numbers: Vec<(LeafId, Box<str>)>,
}

/// What a plan is made of.
#[derive(Clone, Copy)]
pub(crate) struct Held<'a> {
    /// Sample names that the server holds.
    pub(crate) names: &'a HashSet<Box<str>>,
    /// Names of native histograms that it holds.
    pub(crate) native: &'a HashSet<Box<str>>,
}

impl Held<'_> {
    fn has(self, series: &Series) -> bool {
        self.names.contains(&series.name) || self.native_of(series).is_some()
    }

    fn native_of(self, series: &Series) -> Option<Native> {
        if self.names.contains(&series.name) {
            return None;
        }
        let parts = [("_sum", "histogram_sum"), ("_count", "histogram_count")];
        parts.into_iter().find_map(|(suffix, call)| {
            let base = series.name.strip_suffix(suffix)?;
            self.native.contains(base).then(|| Native { call, base: base.into() })
        })
    }
}

impl Plan {
    /// The plan for what a server holds of an engine; `None` where it holds nothing that says who
    /// lives.
    pub(crate) fn new(engine: &Engine, held: Held<'_>, window: Duration) -> Option<Self> {
        let liveness = liveness(engine, |series| held.names.contains(&series.name))?;
        let mut plan = Self {
            leaves: Vec::new(),
            asks: Vec::new(),
            quantities: BTreeMap::new(),
            liveness,
            info: None,
            window: Window(window),
        };
        for kind in QueryKind::ALL {
            plan.add(kind, engine, held);
        }
        Some(plan)
    }

    fn add(&mut self, kind: QueryKind, engine: &Engine, held: Held<'_>) {
        let mut leaves: Vec<LeafId> = Vec::new();
        let mut per_pod = false;
        for candidates in kind.quantities() {
            let complete = |expression: &&Expression| {
                expression.is_constant() || expression.is_complete(|series| held.has(series))
            };
            let there = |quantity: &&Quantity| {
                engine.alternatives(**quantity).iter().any(|it| complete(&it))
            };
            let Some(quantity) = candidates.iter().find(there) else { continue };
            let function = function_of(kind, *quantity);
            let alternatives: Vec<(usize, &Expression)> = engine
                .alternatives(*quantity)
                .iter()
                .enumerate()
                .filter(|(_, expression)| complete(expression))
                .collect();
            per_pod |= alternatives.len() > 1 && kind.level() == Level::Model;
            let mut compiled = Vec::new();
            for (index, expression) in alternatives {
                let expression = expression.map(&mut |series: &Series| {
                    let id = self.leaf(series, function, held);
                    let is_info = series.number_in.is_some();
                    let exists = held.has(series);
                    if exists
                        && is_info == (kind == QueryKind::CacheConfig)
                        && !leaves.contains(&id)
                    {
                        leaves.push(id);
                    }
                    id
                });
                compiled.push((index, expression));
            }
            if kind != QueryKind::Counters {
                self.quantities.insert((Pace::of(kind), *quantity), compiled);
            }
        }
        if kind == QueryKind::CacheConfig {
            self.info = self.info_of(&leaves);
        }
        if !leaves.is_empty() {
            self.asks.push(Ask { kind, leaves, per_pod });
        }
    }

    fn leaf(&mut self, series: &Series, function: Function, held: Held<'_>) -> LeafId {
        let leaf = Leaf { series: series.clone(), function, native: held.native_of(series) };
        let place = self.leaves.iter().position(|known| *known == leaf).unwrap_or_else(|| {
            self.leaves.push(leaf);
            self.leaves.len() - 1
        });
        // Engines have some sixty series at most.
        LeafId::try_from(place).unwrap_or(LeafId::MAX)
    }

    /// The info series of these leaves; of several names the first.
    fn info_of(&self, leaves: &[LeafId]) -> Option<Info> {
        let first = &self.leaves[usize::from(*leaves.first()?)].series;
        let number = |id: &LeafId| {
            let series = &self.leaves[usize::from(*id)].series;
            let same = series.name == first.name && series.matchers == first.matchers;
            Some((*id, series.number_in.clone().filter(|_| same)?))
        };
        let numbers = leaves.iter().filter_map(number).collect();
        Some(Info { series: Series { number_in: None, ..first.clone() }, numbers })
    }

    /// Whether the server holds what a query asks for.
    pub(crate) fn asks(&self, kind: QueryKind) -> bool {
        self.asks.iter().any(|ask| ask.kind == kind)
    }

    /// What the rows of a query are about, where `wanted` is wanted at least.
    pub(crate) fn level(&self, kind: QueryKind, wanted: Level) -> Level {
        let per_pod = self.asks.iter().any(|ask| ask.kind == kind && ask.per_pod);
        match (kind.level(), wanted) {
            (Level::Model, Level::Model) if !per_pod => Level::Model,
            (Level::Model, _) => Level::Pod,
            (level, _) => level,
        }
    }

    /// How many kinds of queries there are besides liveness.
    pub(crate) fn len(&self) -> usize {
        self.asks.len()
    }

    /// The greatest number of selectors in one query.
    pub(crate) fn selectors(&self) -> usize {
        // Those of the query for presence are four.
        self.asks.iter().map(|ask| ask.leaves.len()).max().unwrap_or(1).max(4)
    }

    /// The info series that reports capacities.
    pub(crate) fn info(&self) -> Option<&Info> {
        self.info.as_ref()
    }

    /// The leaf that a row without the label `what` is of.
    pub(crate) fn only_leaf(&self, kind: QueryKind) -> LeafId {
        let ask = self.asks.iter().find(|ask| ask.kind == kind);
        ask.and_then(|ask| ask.leaves.first()).copied().unwrap_or(0)
    }

    /// The leaves of a query.
    pub(crate) fn leaves(&self, kind: QueryKind) -> &[LeafId] {
        let ask = self.asks.iter().find(|ask| ask.kind == kind);
        ask.map(|ask| ask.leaves.as_slice()).unwrap_or_default()
    }

    /// The value of a quantity in a row of which `value` has the leaves, and the place of the
    /// alternative that counts. Partners are taken from one place.
    pub(crate) fn value(
        &self,
        kind: QueryKind,
        quantity: Quantity,
        value: &dyn Fn(LeafId) -> Option<f64>,
    ) -> Option<f64> {
        let pace = Pace::of(kind);
        let values = |quantity: Quantity| {
            let alternatives = self.quantities.get(&(pace, quantity)).map(Vec::as_slice);
            alternatives.unwrap_or_default().iter().filter_map(|(place, expression)| {
                Some((*place, expression.evaluate(&mut |leaf| value(*leaf))?))
            })
        };
        let partner = quantity.partner().filter(|it| self.quantities.contains_key(&(pace, *it)));
        let Some(partner) = partner else {
            return values(quantity).next().map(|(_, value)| value);
        };
        let paired = |place: usize| values(partner).any(|(other, _)| other == place);
        let first = values(quantity).next();
        values(quantity).find(|(place, _)| paired(*place)).or(first).map(|(_, value)| value)
    }

    /// The value of a query: of what it asks for first, the quantity that the server holds.
    pub(crate) fn rate(
        &self,
        kind: QueryKind,
        value: &dyn Fn(LeafId) -> Option<f64>,
    ) -> Option<f64> {
        let candidates = kind.quantities().first()?;
        candidates.iter().find_map(|quantity| self.value(kind, *quantity, value))
    }

    /// Whether the engine reports a quantity here at all.
    pub(crate) fn has(&self, quantity: Quantity) -> bool {
        [Pace::Each, Pace::Slow].iter().any(|pace| self.quantities.contains_key(&(*pace, quantity)))
    }

    /// The first series of a query, for messages and `explain`; `None` where it is over several names.
    pub(crate) fn series(&self, kind: QueryKind) -> Option<&str> {
        if kind == QueryKind::Liveness {
            return Some(&self.liveness.name);
        }
        match self.leaves(kind) {
            [only] => Some(&self.leaves[usize::from(*only)].series.name),
            _ if kind == QueryKind::CacheConfig => self.info.as_ref().map(|it| &*it.series.name),
            _ => None,
        }
    }

    /// The series of one leaf.
    pub(crate) fn series_of(&self, leaf: LeafId) -> Option<&Series> {
        self.leaves.get(usize::from(leaf)).map(|leaf| &leaf.series)
    }

    /// The text of a query.
    pub(crate) fn query(
        &self,
        kind: QueryKind,
        labels: &Labels,
        filter: &Filter,
        level: Level,
        apart: bool,
    ) -> String {
        let by = labels.by(level, apart).join(",");
        match kind {
            // Age is lost when `timestamp()` wraps an aggregation: then it is the evaluation time.
            QueryKind::Liveness => format!(
                "max by ({}) (timestamp({}))",
                labels.by_liveness().join(","),
                select(&self.liveness, filter)
            ),
            QueryKind::Models => {
                let models = labels.by(Level::Model, false).join(",");
                let pods = labels.by(Level::Pod, false).join(",");
                let series = select(&self.liveness, filter);
                match level {
                    Level::Model => format!("count by ({models}) (count by ({pods}) ({series}))"),
                    Level::Pod | Level::Rank => format!("count by ({pods}) ({series})"),
                }
            }
            QueryKind::LastSeen => format!(
                "max by ({}) (max_over_time(timestamp({}){LAST_SEEN}))",
                labels.by(Level::Model, false).join(","),
                select(&self.liveness, filter)
            ),
            QueryKind::Presence => self.presence(labels, filter),
            _ => {
                let leaves = self.leaves(kind);
                let aggregate = |leaf: &LeafId| {
                    let leaf = &self.leaves[usize::from(*leaf)];
                    let inner = self.inner(leaf, filter);
                    let fold = match leaf.function {
                        Function::Rate | Function::SlowRate => "sum",
                        Function::Latest if kind == QueryKind::Counters => "sum",
                        Function::Latest | Function::Peak => "max",
                    };
                    format!("{fold} by ({by}) ({inner})")
                };
                match leaves {
                    [only] => aggregate(only),
                    several => {
                        let named = |leaf: &LeafId| what(&aggregate(leaf), usize::from(*leaf));
                        several.iter().map(named).collect::<Vec<_>>().join(" or ")
                    }
                }
            }
        }
    }

    /// One row for each replica that any instant series has (0, 1), and for each model that has had any
    /// within the window (2, 3).
    fn presence(&self, labels: &Labels, filter: &Filter) -> String {
        let replicas = labels.by(Level::Pod, false).join(",");
        let models = labels.by(Level::Model, false).join(",");
        let others: Vec<&Series> = self.gauges().take(2).collect();
        let alive = others.iter().enumerate().map(|(i, series)| {
            what(&format!("max by ({replicas}) (timestamp({}))", select(series, filter)), i)
        });
        let first = std::iter::once(&self.liveness).chain(others.iter().copied().take(1));
        let lately = first.enumerate().map(|(i, series)| {
            let window = self.window;
            let series = select(series, filter);
            what(&format!("max by ({models}) (max_over_time({series}{window}))"), 2 + i)
        });
        alive.chain(lately).collect::<Vec<_>>().join(" or ")
    }

    /// The gauges besides that of liveness that every living server has, the queue's and the cache's.
    pub(crate) fn gauges(&self) -> impl Iterator<Item = &Series> {
        let kinds = [QueryKind::QueueLength, QueryKind::KvCache, QueryKind::RunningRequests];
        let first = kinds.into_iter().filter_map(|kind| self.leaves(kind).first());
        let series = first.map(|leaf| &self.leaves[usize::from(*leaf)].series);
        series.filter(|series| **series != self.liveness)
    }

    /// The text of [`QueryKind::CacheConfig`]: `filter` holds no model, which the series may not
    /// carry; `pods` narrows it to these, where there are any.
    pub(crate) fn cache_config(
        &self,
        labels: &Labels,
        filter: &Filter,
        apart: bool,
        pods: &[&str],
    ) -> Option<String> {
        let info = self.info.as_ref()?;
        // Where pods may stand under several labels, each is asked for.
        let narrowed: Vec<Filter> = if pods.is_empty() || labels.replica.is_some() {
            vec![filter.clone()]
        } else {
            let of =
                |label: &str| filter.and([Matcher::any_of(label.to_owned(), pods.iter().copied())]);
            labels.pod.iter().map(|label| of(label)).collect()
        };
        let without_model = Labels { model: Vec::new(), ..labels.clone() };
        let mut by = without_model.by(Level::Rank, apart);
        by.extend(info.numbers.iter().map(|(_, label)| &**label));
        let by = by.join(",");
        // The value of a series is always 1; counting it shows doubled series for free.
        let count = |filter: &Filter| format!("count by ({by}) ({})", select(&info.series, filter));
        Some(narrowed.iter().map(count).collect::<Vec<_>>().join(" or "))
    }

    fn inner(&self, leaf: &Leaf, filter: &Filter) -> String {
        let series = &leaf.series;
        let window = match leaf.function {
            Function::Latest => return select(series, filter),
            Function::Peak => {
                return format!("max_over_time({}{})", select(series, filter), self.window);
            }
            Function::Rate => self.window,
            Function::SlowRate => Window(self.window.0.max(PREFIX_WINDOW)),
        };
        match &leaf.native {
            None => format!("rate({}{window})", select(series, filter)),
            Some(Native { call, base }) => {
                let base = Series { name: base.clone(), ..series.clone() };
                format!("{call}(rate({}{window}))", select(&base, filter))
            }
        }
    }
}

/// The series whose timestamp says who lives: the first gauge of these that is there.
pub(crate) fn liveness(engine: &Engine, is_there: impl Fn(&Series) -> bool) -> Option<Series> {
    [Quantity::Running, Quantity::Waiting, Quantity::KvCacheUsage, Quantity::RequestSuccessTotal]
        .into_iter()
        .flat_map(|quantity| engine.alternatives(quantity))
        .flat_map(Expression::required)
        .find(|series| series.number_in.is_none() && is_there(series))
        .cloned()
}

fn function_of(kind: QueryKind, quantity: Quantity) -> Function {
    match kind {
        QueryKind::KvCache | QueryKind::QueueLength => Function::Peak,
        QueryKind::PrefixCache => Function::SlowRate,
        QueryKind::Counters => Function::Latest,
        _ if quantity.is_counter() => Function::Rate,
        _ => Function::Latest,
    }
}

/// A selector.
pub(crate) fn select(series: &Series, filter: &Filter) -> String {
    let filter = filter.and(series.matchers.iter().map(Matcher::given));
    format!("{}{filter}", series.name)
}

/// The rows of a query, each with this number as the label `what`.
pub(crate) fn what(query: &str, number: usize) -> String {
    format!("label_replace({query},\"{WHAT}\",\"{number}\",\"namespace\",\".*\")")
}

/// The label that tells apart what travels in one query.
pub(crate) const WHAT: &str = "what";

#[cfg(test)]
mod tests;
