//! Which kinds of queries there are, and what each is about.

use collector_core::Field;
use collector_engines::Quantity;

use crate::labels::Level;

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
