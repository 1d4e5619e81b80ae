// SPDX-License-Identifier: Apache-2.0
//! The kinds of queries, and what each is about.

use collector_core::Field;
use collector_engines::Quantity;

use crate::labels::Level;

/// Declares the kinds, each with its value of the label `query_type`.
macro_rules! query_kinds {
    ($($(#[$doc:meta])+ $kind:ident = $name:literal,)+) => {
        /// What a query asks for.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub(crate) enum QueryKind {
            $($(#[$doc])+ $kind,)+
        }

        impl QueryKind {
            /// Every kind.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$kind,)+];

            /// The value of the label `query_type`.
            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $name,)+ }
            }
        }
    };
}

query_kinds! {
    /// When each pod was last scraped.
    Liveness = "liveness",
    /// KV-cache usage of each rank.
    KvCache = "kv_cache",
    /// Queue length of each rank.
    QueueLength = "queue_length",
    /// Running requests and sleep state of each rank.
    RunningRequests = "running_requests",
    /// Arrivals per second.
    RequestCount = "request_count",
    /// Prompt tokens per second.
    InputTokens = "input_tokens",
    /// Generated tokens per second.
    OutputTokens = "output_tokens",
    /// Seconds to first tokens, per second.
    TtftSum = "ttft_sum",
    /// First tokens per second.
    TtftCount = "ttft_count",
    /// Seconds between tokens, per second.
    ItlSum = "itl_sum",
    /// Gaps between tokens per second.
    ItlCount = "itl_count",
    /// Hits and lookups of the prefix cache, per second.
    PrefixCache = "prefix_cache",
    /// The capacity of each rank, from gauges.
    Capacity = "capacity",
    /// The capacity of each rank, from labels of an info series.
    CacheConfig = "cache_config",
    /// Servers whose series are stored more than once, for engines without an info series that shows it.
    Copies = "copies",
    /// Counters of each rank, to distinguish copies from servers and idle ranks from unmeasured ones.
    Counters = "counters",
    /// Whether a model without live pods has other series, or had any within the window.
    Presence = "presence",
    /// When a missing model was last there.
    LastSeen = "last_seen",
    /// Which endpoint pickers there are, and what they report.
    EndpointPickers = "endpoint_pickers",
    /// The server's clock.
    ServerTime = "server_time",
    /// Which names of engines exist.
    Names = "names",
    /// Which series and labels of an engine exist, how many pods there are, and whether series are stored
    /// more than once.
    Shape = "shape",
    /// One series with all of its labels.
    Example = "example",
    /// The samples of one series, to discover its scrape interval.
    Scrapes = "scrapes",
    /// Which models exist.
    Models = "models",
}

impl QueryKind {
    /// The gauges of every fetch.
    pub(crate) const GAUGES: [Self; 3] = [Self::QueueLength, Self::KvCache, Self::RunningRequests];

    /// The rates of every fetch, in the order of [`LoadRates`](collector_core::LoadRates).
    pub(crate) const RATES: [Self; 7] = [
        Self::RequestCount,
        Self::InputTokens,
        Self::OutputTokens,
        Self::TtftSum,
        Self::TtftCount,
        Self::ItlSum,
        Self::ItlCount,
    ];

    /// Returns the fields that are unknown if this query fails. Without arrivals the token averages have no
    /// denominator of their own time.
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

    /// Returns the quantities of the query: of each list the first that the server holds.
    pub(crate) const fn quantities(self) -> &'static [&'static [Quantity]] {
        use Quantity as Q;
        match self {
            Self::KvCache => &[&[Q::KvCacheUsage]],
            Self::QueueLength => &[&[Q::Waiting], &[Q::WaitingForCapacity]],
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

    /// Returns the least level of the query's rows.
    pub(crate) fn level(self) -> Level {
        match self {
            Self::PrefixCache => Level::Pod,
            kind if Self::RATES.contains(&kind) => Level::Model,
            _ => Level::Rank,
        }
    }

    /// Returns whether the query covers a window, which must end at the newest sample.
    pub(crate) const fn is_over_window(self) -> bool {
        !matches!(
            self,
            Self::Liveness
                | Self::RunningRequests
                | Self::Capacity
                | Self::CacheConfig
                | Self::Copies
                | Self::Counters
                | Self::LastSeen
        )
    }
}
