// SPDX-License-Identifier: Apache-2.0
//! Vocabulary and traits of the metrics collector under autoscalers of LLM-inference fleets.
//!
//! Data flows one way, `Backend -> engine -> MetricsCache -> reader`. This crate holds what the
//! rooms on that way have in common and does no I/O:
//!
//! - write a [`Backend`] to collect from somewhere new,
//! - write a [`MetricsCache`] to keep readings elsewhere,
//! - call a [`MetricsCollector`] to read.
//!
//! Missing, zero and error are three different things in every type here: what was not measured is
//! `None`, a model without series is [`Answer::Missing`], and a failed fetch is a [`BackendError`].

mod answer;
mod ask;
mod backend;
mod cache;
mod clock;
mod collector;
mod directory;
pub mod duration;
mod endpoint_picker;
mod error;
mod field;
mod freshness;
mod gauges;
mod interval;
mod key;
mod latency;
mod load;
mod metrics;
mod model;
mod nearest;
mod pace;
mod reading;
mod record;
pub mod sanitize;
pub mod supply;
pub mod text;
mod trace;
pub mod window;
mod wire;

pub use answer::{Absent, Answer, Answers, LoadRow, LoadRows, ModelSample};
pub use ask::{Ask, ListAsk, Permit, Permits, ProbeAsk, Unlimited, Urgency};
pub use backend::{
    Backend, Check, CheckStatus, KnownModel, Limits, LiveContext, LiveSource, Probe, Supports,
    UpdateSink,
};
pub use cache::{CacheStats, MetricsCache};
pub use clock::{Clock, ManualClock, SystemClock, Tick};
pub use collector::{
    Availability, AvailabilityReason, BackendState, BreakerState, BudgetState, CollectError,
    CollectorState, DiscoveryState, ListingState, MetricsCollector, SnapshotState, TrackedModel,
};
pub use directory::{DEFAULT_COST, NoVariants, Variant, VariantDirectory};
pub use endpoint_picker::{EndpointPicker, EndpointPickerLoad, Saturation};
pub use error::{Advice, BackendError, ErrorKind, Operation};
pub use field::{Field, FieldReasons, FieldSet, Mark};
pub use freshness::{Freshness, FreshnessThresholds, ThresholdsError};
pub use gauges::{GaugePage, GaugeSample, PageGauges, PodGauges, PodsGauges};
pub use interval::IntervalError;
pub use key::{CacheKey, KeyKind, Scope, ScopeError};
pub use latency::{Latencies, LatencyHistogram};
pub use load::{Load, LoadRates, mean_over_window};
pub use metrics::{Allocation, LoraAdapters, ReplicaMetrics, ReplicaState, Replicas};
pub use model::{
    AcceleratorName, BackendName, EngineName, ModelId, ModelRef, Namespace, PodName, Role,
    VariantName, VariantRef,
};
pub use nearest::Nearest;
pub use pace::{Pace, PaceReason};
pub use reading::{Part, Reading, Source};
pub use record::{Deadlines, ModelRecord, ModelValue, Outcome, Published};
pub use supply::{PodCounts, Supplied, Supply};
pub use trace::TraceRow;

/// Types that the crates of this workspace share. They change without notice.
pub mod raw {
    #[cfg(feature = "test-util")]
    pub use crate::clock::simulate_suspend;
    pub use crate::reading::Label;
    pub use crate::record::{Cold, SourceAnswer, SourceState};
    /// Answers in a form that outlives the process.
    pub mod wire {
        pub use crate::wire::*;
    }
}
