// SPDX-License-Identifier: Apache-2.0
//! The picker's flow control: requests are queued while none of their pods has room.

use std::collections::VecDeque;
use std::time::Duration;

use super::counters::BYTES_PER_TOKEN;
use crate::engine::Histogram;
use crate::load::Request;

/// Requests use these ids in turn, so that a reader has to sum a queue over them.
pub(crate) const FAIRNESS_IDS: [&str; 2] = ["tenant-a", "tenant-b"];

/// Further requests are rejected, which bounds memory under any load.
const MAX_HELD: usize = 10_000;

/// The queued requests of one variant.
#[derive(Debug)]
pub(crate) struct FlowControl {
    held: VecDeque<Held>,
    /// The flow of the next request.
    next: usize,
    flows: [Flow; 2],
}

#[derive(Debug)]
struct Held {
    request: Request,
    since: Duration,
    flow: usize,
}

/// The requests of one fairness id.
#[derive(Debug, Clone)]
pub(crate) struct Flow {
    /// Queued now.
    pub(crate) requests: u64,
    /// Their size.
    pub(crate) bytes: u64,
    /// The queueing times of dispatched requests.
    pub(crate) waited: Histogram,
}

impl Flow {
    pub(crate) fn new() -> Self {
        Self { requests: 0, bytes: 0, waited: Histogram::of_times(QUEUE_DURATION) }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.waited.add(&other.waited);
    }
}

impl FlowControl {
    pub(crate) fn new() -> Self {
        Self { held: VecDeque::new(), next: 0, flows: [Flow::new(), Flow::new()] }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub(crate) fn held(&self) -> u64 {
        self.held.len() as u64
    }

    pub(crate) fn flows(&self) -> [Flow; 2] {
        self.flows.clone()
    }

    /// Queues a request. Returns false if there are too many.
    pub(crate) fn hold(&mut self, at: Duration, request: Request) -> bool {
        if self.held.len() == MAX_HELD {
            return false;
        }
        let flow = self.turn();
        self.flows[flow].requests += 1;
        self.flows[flow].bytes += bytes(&request);
        self.held.push_back(Held { request, since: at, flow });
        true
    }

    /// Counts a request that was not queued.
    pub(crate) fn pass(&mut self) {
        let flow = self.turn();
        self.flows[flow].waited.observe(Duration::ZERO);
    }

    /// Dispatches the first request.
    pub(crate) fn release(&mut self, at: Duration) -> Option<Request> {
        let Held { request, since, flow } = self.held.pop_front()?;
        let flow = &mut self.flows[flow];
        flow.requests -= 1;
        flow.bytes -= bytes(&request);
        flow.waited.observe(at.saturating_sub(since));
        Some(request)
    }

    fn turn(&mut self) -> usize {
        let flow = self.next;
        self.next = (flow + 1) % FAIRNESS_IDS.len();
        flow
    }
}

fn bytes(request: &Request) -> u64 {
    u64::from(request.prompt_tokens) * u64::from(BYTES_PER_TOKEN)
}

const QUEUE_DURATION: &[f64] = &[
    0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];
