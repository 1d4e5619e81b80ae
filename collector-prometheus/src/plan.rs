//! The queries of one look.
//!
//! A look at a fleet costs the same number of queries for ten variants and for a thousand: each
//! query brings one quantity of all pods or models at once. `F` is the filter of a shard, `W` the
//! window; `P` groups by namespace, model and pod, `B` by namespace and model.
//!
//! | field | query |
//! |---|---|
//! | liveness and true sample age | `max P (timestamp(vllm:num_requests_running{F}))` |
//! | KV-cache usage, peak | `max P (max_over_time(vllm:kv_cache_usage_perc{F}[W]))` |
//! | queue length, peak | `sum P (max_over_time(vllm:num_requests_waiting{F}[W]))` |
//! | running requests, latest | `sum P (vllm:num_requests_running{F})` |
//! | arrivals | `sum B (rate(vllm:request_prompt_tokens_count{F}[W]))` |
//! | input tokens | `sum B (rate(vllm:request_prompt_tokens_sum{F}[W]))` |
//! | output tokens | `sum B (rate(vllm:request_generation_tokens_sum{F}[W]))` |
//! | time to first token | `sum B (rate(vllm:time_to_first_token_seconds_{sum,count}{F}[W]))` |
//! | inter-token latency | `sum B (rate(vllm:inter_token_latency_seconds_{sum,count}{F}[W]))` |
//! | prefix-cache hits, each minute | `sum P (rate(vllm:prefix_cache_{hits,queries}_total{F}[5m]))` |
//! | cache size, for new pods and each minute | `count by (…)(vllm:cache_config_info{F})` |
//!
//! Liveness goes first: its rows are the pods that exist, because a dead pod leaves `timestamp()`
//! within a scrape or two and lingers in everything that looks over a window. Sums and counts travel
//! apart and are divided by the reader, because servers disagree about 0/0.

use collector_core::Field;

use crate::names::{Alias, ITL, KV_CACHE, Names, PROBED, PodLabel, RUNNING};
use crate::promql::{Filter, Matcher, Window};

/// What a query asks for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub(crate) enum QueryKind {
    /// When each pod was last scraped.
    Liveness,
    /// KV-cache usage of each pod.
    KvCache,
    /// Queue length of each pod.
    QueueLength,
    /// Running requests of each pod.
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
    /// Tokens found in the prefix cache, per second.
    PrefixHits,
    /// Tokens looked up there, per second.
    PrefixQueries,
    /// Blocks and block size of each engine.
    CacheConfig,
    /// The server's clock.
    ServerTime,
    /// Which metric names exist, which labels name pods, how many pods there are, and whether
    /// series are doubled.
    Shape,
    /// Which models exist.
    Models,
    /// How many scrapes the window holds.
    ScrapeSamples,
}

impl QueryKind {
    /// Every kind.
    pub(crate) const ALL: [Self; 18] = [
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
        Self::PrefixHits,
        Self::PrefixQueries,
        Self::CacheConfig,
        Self::ServerTime,
        Self::Shape,
        Self::Models,
        Self::ScrapeSamples,
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
            Self::PrefixHits => "prefix_cache_hits",
            Self::PrefixQueries => "prefix_cache_queries",
            Self::CacheConfig => "cache_config",
            Self::ServerTime => "server_time",
            Self::Shape => "shape",
            Self::Models => "models",
            Self::ScrapeSamples => "scrape_samples",
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
            Self::PrefixHits | Self::PrefixQueries => &[Field::PrefixCacheHitRate],
            Self::CacheConfig => &[Field::CacheConfig],
            Self::Liveness
            | Self::ServerTime
            | Self::Shape
            | Self::Models
            | Self::ScrapeSamples => &[],
        }
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

/// How rates are grouped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Grouping {
    /// One row for each model.
    Model,
    /// One row for each pod, where variants share a model.
    Pod,
}

/// The prefix-cache hit rate moves slowly and is read over this many times the usual minute.
const PREFIX_WINDOW: std::time::Duration = std::time::Duration::from_secs(300);

/// Values of the label `what` in the answer to [`QueryKind::Shape`], besides metric names.
pub(crate) const POD: &str = "pod";
pub(crate) const POD_NAME: &str = "pod_name";
pub(crate) const DUPLICATES: &str = "duplicates";

/// Writes queries for what is known about a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// The names to ask under.
    pub(crate) names: Names,
    /// The label to group pods by.
    pub(crate) pod_label: PodLabel,
    /// Series are stored more than once, by a pair of servers or two monitors of one pod.
    pub(crate) duplicates: bool,
    /// `W`.
    pub(crate) window: Window,
}

impl Plan {
    /// The text of one query of a look.
    pub(crate) fn query(&self, kind: QueryKind, filter: &Filter, grouping: Grouping) -> String {
        let rate = |series: &str| self.rate(series, filter, grouping);
        match kind {
            // Age is lost when `timestamp()` wraps an aggregation: then it is the evaluation time.
            QueryKind::Liveness => {
                format!("max by ({}) (timestamp({RUNNING}{filter}))", self.pods())
            }
            QueryKind::KvCache => self.kv_cache(filter),
            QueryKind::QueueLength => self.sum_of_pods(&format!(
                "max_over_time(vllm:num_requests_waiting{filter}{})",
                self.window
            )),
            QueryKind::RunningRequests => self.sum_of_pods(&format!("{RUNNING}{filter}")),
            QueryKind::RequestCount => rate("vllm:request_prompt_tokens_count"),
            QueryKind::InputTokens => rate("vllm:request_prompt_tokens_sum"),
            QueryKind::OutputTokens => rate("vllm:request_generation_tokens_sum"),
            QueryKind::TtftSum => rate("vllm:time_to_first_token_seconds_sum"),
            QueryKind::TtftCount => rate("vllm:time_to_first_token_seconds_count"),
            QueryKind::ItlSum => self.itl("sum", filter, grouping),
            QueryKind::ItlCount => self.itl("count", filter, grouping),
            QueryKind::PrefixHits => self.prefix("hits", filter),
            QueryKind::PrefixQueries => self.prefix("queries", filter),
            QueryKind::CacheConfig => self.cache_config(filter, &[]),
            QueryKind::ServerTime => "time()".to_owned(),
            QueryKind::Shape => shape_probe(filter),
            QueryKind::Models => format!(
                "count by (namespace,model_name) (count by ({}) ({RUNNING}{filter}))",
                self.pods()
            ),
            QueryKind::ScrapeSamples => {
                format!("max(count_over_time({RUNNING}{filter}{}))", self.window)
            }
        }
    }

    /// The series that a query is over; `None` where it is over two names of one quantity, or none.
    pub(crate) fn series(&self, kind: QueryKind) -> Option<&'static str> {
        let under = |alias, [new, old]: [&'static str; 2]| match alias {
            Alias::New => Some(new),
            Alias::Old => Some(old),
            Alias::Both => None,
        };
        match kind {
            QueryKind::Liveness | QueryKind::RunningRequests => Some(RUNNING),
            QueryKind::KvCache => under(self.names.kv_cache, KV_CACHE),
            QueryKind::QueueLength => Some("vllm:num_requests_waiting"),
            QueryKind::RequestCount => Some("vllm:request_prompt_tokens_count"),
            QueryKind::InputTokens => Some("vllm:request_prompt_tokens_sum"),
            QueryKind::OutputTokens => Some("vllm:request_generation_tokens_sum"),
            QueryKind::TtftSum => Some("vllm:time_to_first_token_seconds_sum"),
            QueryKind::TtftCount => Some("vllm:time_to_first_token_seconds_count"),
            QueryKind::ItlSum | QueryKind::ItlCount => under(self.names.itl, ITL),
            QueryKind::PrefixHits => Some("vllm:prefix_cache_hits_total"),
            QueryKind::PrefixQueries => Some("vllm:prefix_cache_queries_total"),
            QueryKind::CacheConfig => Some("vllm:cache_config_info"),
            QueryKind::ServerTime
            | QueryKind::Shape
            | QueryKind::Models
            | QueryKind::ScrapeSamples => None,
        }
    }

    /// The text of [`QueryKind::CacheConfig`] for these pods, or for all where there are none.
    pub(crate) fn cache_config(&self, filter: &Filter, pods: &[&str]) -> String {
        let by_name = |filter: &Filter, label| {
            let filter = filter.and(Matcher::any_of(label, pods.iter().copied()));
            format!("vllm:cache_config_info{filter}")
        };
        let series = match self.pod_label {
            _ if pods.is_empty() => format!("vllm:cache_config_info{filter}"),
            PodLabel::Pod => by_name(filter, POD),
            PodLabel::PodName => by_name(filter, POD_NAME),
            PodLabel::Either => format!(
                "{} or {}",
                by_name(filter, POD),
                by_name(&filter.and(Matcher::absent(POD)), POD_NAME)
            ),
        };
        // The value of a series is always 1; counting it shows doubled series for free.
        format!(
            "count by (namespace,{},engine,num_gpu_blocks,block_size) ({series})",
            self.pod_label.labels()
        )
    }

    /// `P`.
    fn pods(&self) -> String {
        format!("namespace,model_name,{}", self.pod_label.labels())
    }

    fn kv_cache(&self, filter: &Filter) -> String {
        let peak = |name: &str| {
            format!("max by ({}) (max_over_time({name}{filter}{}))", self.pods(), self.window)
        };
        under_names(self.names.kv_cache, KV_CACHE, &peak)
    }

    fn itl(&self, part: &str, filter: &Filter, grouping: Grouping) -> String {
        if self.names.itl == Alias::Both && grouping == Grouping::Model {
            // `or` between sums over models would lose the old pods of a model that has new ones
            // too; between sums over pods it is exact.
            format!("sum by (namespace,model_name) ({})", self.itl(part, filter, Grouping::Pod))
        } else {
            under_names(self.names.itl, ITL, &|name| {
                self.rate(&format!("{name}_{part}"), filter, grouping)
            })
        }
    }

    fn prefix(&self, part: &str, filter: &Filter) -> String {
        let window = Window(self.window.0.max(PREFIX_WINDOW));
        self.sum_of_pods(&format!("rate(vllm:prefix_cache_{part}_total{filter}{window})"))
    }

    fn rate(&self, series: &str, filter: &Filter, grouping: Grouping) -> String {
        let rate = format!("rate({series}{filter}{})", self.window);
        match grouping {
            Grouping::Pod => self.sum_of_pods(&rate),
            Grouping::Model => format!("sum by (namespace,model_name) ({})", self.once(&rate)),
        }
    }

    /// Sums over the data-parallel engines of each pod.
    fn sum_of_pods(&self, inner: &str) -> String {
        format!("sum by ({}) ({})", self.pods(), self.once(inner))
    }

    /// Each engine's series once, however often it is stored.
    fn once(&self, inner: &str) -> String {
        if self.duplicates {
            format!("max by ({},engine) ({inner})", self.pods())
        } else {
            inner.to_owned()
        }
    }
}

/// A query under whichever names exist. One selector over several names is no way out: range
/// functions refuse it, because the series would be equal without their names.
fn under_names(alias: Alias, [new, old]: [&str; 2], query: &dyn Fn(&str) -> String) -> String {
    match alias {
        Alias::New => query(new),
        Alias::Old => query(old),
        Alias::Both => format!("{} or {}", query(new), query(old)),
    }
}

/// One row for each thing that is so, told by the label `what`: each metric name that exists, the
/// number of pods named by each label, and the number of engines that are stored more than once.
fn shape_probe(filter: &Filter) -> String {
    let row = |what: &str, count: &str| {
        format!("label_replace(count({count}),\"what\",\"{what}\",\"namespace\",\".*\")")
    };
    let pods = |label: &'static str, filter: &Filter| {
        let filter = filter.and(Matcher::present(label));
        format!("count by (namespace,{label}) ({RUNNING}{filter})")
    };
    [
        format!(
            "label_replace(count by (__name__) ({}),\"what\",\"$1\",\"__name__\",\"(.*)\")",
            filter.and(Matcher::any_of("__name__", PROBED))
        ),
        row(POD, &pods(POD, filter)),
        row(POD_NAME, &pods(POD_NAME, &filter.and(Matcher::absent(POD)))),
        row(
            DUPLICATES,
            &format!("count by (namespace,model_name,pod,pod_name,engine) ({RUNNING}{filter}) > 1"),
        ),
    ]
    .join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Plan = Plan {
        names: Names { kv_cache: Alias::New, itl: Alias::New, prefix_cache: true, any: true },
        pod_label: PodLabel::Pod,
        duplicates: false,
        window: Window(std::time::Duration::from_secs(60)),
    };

    fn filter() -> Filter {
        Filter(vec![Matcher::is("namespace", "prod")])
    }

    #[track_caller]
    fn check(plan: &Plan, kind: QueryKind, grouping: Grouping, expected: &str) {
        assert_eq!(plan.query(kind, &filter(), grouping), expected);
    }

    #[test]
    fn the_queries_are_those_of_the_table() {
        use Grouping::Model;
        check(
            &PLAIN,
            QueryKind::Liveness,
            Model,
            r#"max by (namespace,model_name,pod) (timestamp(vllm:num_requests_running{namespace="prod"}))"#,
        );
        check(
            &PLAIN,
            QueryKind::KvCache,
            Model,
            r#"max by (namespace,model_name,pod) (max_over_time(vllm:kv_cache_usage_perc{namespace="prod"}[60s]))"#,
        );
        check(
            &PLAIN,
            QueryKind::QueueLength,
            Model,
            r#"sum by (namespace,model_name,pod) (max_over_time(vllm:num_requests_waiting{namespace="prod"}[60s]))"#,
        );
        check(
            &PLAIN,
            QueryKind::RequestCount,
            Model,
            r#"sum by (namespace,model_name) (rate(vllm:request_prompt_tokens_count{namespace="prod"}[60s]))"#,
        );
        check(
            &PLAIN,
            QueryKind::PrefixHits,
            Model,
            r#"sum by (namespace,model_name,pod) (rate(vllm:prefix_cache_hits_total{namespace="prod"}[300s]))"#,
        );
    }

    #[test]
    fn rates_are_grouped_by_pod_where_variants_share_a_model() {
        check(
            &PLAIN,
            QueryKind::TtftSum,
            Grouping::Pod,
            r#"sum by (namespace,model_name,pod) (rate(vllm:time_to_first_token_seconds_sum{namespace="prod"}[60s]))"#,
        );
    }

    #[test]
    fn a_fleet_of_two_versions_is_asked_under_both_names_and_nothing_counts_twice() {
        let mixed = Plan { names: Names::UNKNOWN, ..PLAIN };
        check(
            &mixed,
            QueryKind::KvCache,
            Grouping::Model,
            r#"max by (namespace,model_name,pod) (max_over_time(vllm:kv_cache_usage_perc{namespace="prod"}[60s])) or max by (namespace,model_name,pod) (max_over_time(vllm:gpu_cache_usage_perc{namespace="prod"}[60s]))"#,
        );
        check(
            &mixed,
            QueryKind::ItlCount,
            Grouping::Model,
            r#"sum by (namespace,model_name) (sum by (namespace,model_name,pod) (rate(vllm:inter_token_latency_seconds_count{namespace="prod"}[60s])) or sum by (namespace,model_name,pod) (rate(vllm:time_per_output_token_seconds_count{namespace="prod"}[60s])))"#,
        );
    }

    #[test]
    fn doubled_series_are_taken_once() {
        let doubled = Plan { duplicates: true, ..PLAIN };
        check(
            &doubled,
            QueryKind::RunningRequests,
            Grouping::Model,
            r#"sum by (namespace,model_name,pod) (max by (namespace,model_name,pod,engine) (vllm:num_requests_running{namespace="prod"}))"#,
        );
        check(
            &doubled,
            QueryKind::OutputTokens,
            Grouping::Model,
            r#"sum by (namespace,model_name) (max by (namespace,model_name,pod,engine) (rate(vllm:request_generation_tokens_sum{namespace="prod"}[60s])))"#,
        );
    }

    #[test]
    fn every_kind_has_its_own_name() {
        let names: std::collections::HashSet<_> =
            QueryKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(names.len(), QueryKind::ALL.len());
        assert!(QueryKind::ALL.iter().enumerate().all(|(i, kind)| *kind as usize == i));
    }
}
