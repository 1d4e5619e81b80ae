// SPDX-License-Identifier: Apache-2.0
//! Records that tests put into caches, and recognise again.

use std::sync::Arc;
use std::time::Duration;

use collector_core::raw::Cold;
use collector_core::{
    AcceleratorName, Allocation, Clock as _, Deadlines, ManualClock, ModelRecord, ModelRef,
    ModelValue, Outcome, Replicas, Tick, VariantName,
};

/// What a test's record is made of: [`SampleRecord::new`], some fields changed, [`build`](Self::build).
#[derive(Clone, Debug)]
pub struct SampleRecord {
    /// The model.
    pub model: ModelRef,
    /// What [`number_of`](Self::number_of) finds again.
    pub number: u64,
    /// The variants that it has allocations of.
    pub allocations: Vec<(VariantName, Option<AcceleratorName>)>,
    /// Whether it is refreshed in the background.
    pub tracked: bool,
    /// When it was last read. Default: the start of a [`ManualClock`].
    pub last_read: Tick,
    /// Until when it is of use. Default: 5 minutes after that start.
    pub keep_until: Tick,
    /// How long it survives unread after that. Default 10 minutes.
    pub keep_unread: Duration,
}

impl SampleRecord {
    /// A tracked record without allocations.
    pub fn new(model: &ModelRef) -> Self {
        let start = ManualClock::new().now();
        Self {
            model: model.clone(),
            number: 0,
            allocations: Vec::new(),
            tracked: true,
            last_read: start,
            keep_until: start + Duration::from_secs(300),
            keep_unread: Duration::from_secs(600),
        }
    }

    /// The record.
    pub fn build(self) -> Arc<ModelRecord> {
        let start = ManualClock::new().now();
        let sampled = start + Duration::from_nanos(self.number);
        let allocation = |(variant, accelerator): (VariantName, Option<AcceleratorName>)| {
            let model = self.model.clone();
            let mut allocation = Allocation::new(model, variant, 1, "test".into(), sampled);
            allocation.accelerator = accelerator;
            allocation
        };
        let allocations = self.allocations.into_iter().map(allocation).collect();
        let replicas = Replicas::new(self.model.clone(), Vec::new(), "test".into(), sampled);
        let due = start + Duration::from_secs(1);
        Arc::new(ModelRecord::new(
            self.model,
            Some(Arc::new(ModelValue::new(replicas, allocations))),
            Outcome::Found,
            Arc::new(Cold::default()),
            Deadlines {
                current_until: due,
                refresh_after: due,
                keep_until: self.keep_until,
                keep_unread: self.keep_unread,
            },
            self.tracked,
            self.last_read,
        ))
    }

    /// The number that a record was made with.
    pub fn number_of(record: &ModelRecord) -> u64 {
        let start = ManualClock::new().now();
        let sampled = record.value.as_ref().map_or(start, |value| value.replicas.oldest);
        u64::try_from(start.age(sampled).as_nanos()).unwrap_or(u64::MAX)
    }
}
