// SPDX-License-Identifier: Apache-2.0
//! How a value came about, for `explain`.

use crate::clock::Tick;
use crate::field::Field;
use crate::model::PodName;

/// Where the value of one field came from: the query, what matched, its value and its time.
///
/// A fetch makes these only when [`Ask::trace`](crate::Ask::trace) says so.
#[derive(Clone, PartialEq, Debug)]
pub struct TraceRow {
    /// The pod; `None` for the model as a whole.
    pub pod: Option<PodName>,
    /// The field.
    pub field: Field,
    /// The query that was sent, or the series that was searched for on the page.
    pub asked: Box<str>,
    /// Of several names that were searched for, the one that was there; `None` when none was.
    pub matched: Option<Box<str>>,
    /// What the server wrote, before it was judged, summed or divided; `None` when it wrote nothing.
    pub raw: Option<f64>,
    /// When the value was sampled from the pod, by us or by the server; `None` when there is none.
    pub sampled_at: Option<Tick>,
    /// When it was asked for.
    pub asked_at: Tick,
    /// When the answer had arrived.
    pub answered_at: Tick,
}
