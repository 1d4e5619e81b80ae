// SPDX-License-Identifier: Apache-2.0
//! How values came about, for `explain`: the query, the series name and the raw value.

use std::sync::Arc;

use collector_core::{Field, ModelSample, PodName, Tick, TraceRow};

use crate::labels::KEY_SEPARATOR;
use crate::plan::{Plan, QueryKind};
use crate::rows::Rows;

/// An answered query of a traced fetch.
#[derive(Clone, Debug)]
pub(crate) struct TracedQuery {
    /// The text of the query.
    pub(crate) text: Arc<str>,
    /// The series that was queried; `None` for several names.
    pub(crate) series: Option<Arc<str>>,
    pub(crate) sent_at: Tick,
    pub(crate) arrived_at: Tick,
}

impl TracedQuery {
    fn row(
        &self,
        field: Field,
        pod: Option<PodName>,
        raw: Option<f64>,
        series: Option<&str>,
    ) -> TraceRow {
        TraceRow {
            pod,
            field,
            asked: self.text.as_ref().into(),
            matched: raw.and(series).map(Into::into),
            raw,
            sampled_at: None,
            asked_at: self.sent_at,
            answered_at: self.arrived_at,
        }
    }
}

/// Returns the rows of an answer with the indices of their models. A model without a row gets one that says
/// so.
pub(crate) fn rows(
    kind: QueryKind,
    models: &[usize],
    rows: &Rows,
    query: &TracedQuery,
    plan: &Plan,
) -> Vec<(usize, TraceRow)> {
    let Some(field) = kind.fields().first() else { return Vec::new() };
    let Rows::Samples(samples) = rows else { return Vec::new() };
    let mut traced: Vec<(usize, TraceRow)> = samples
        .iter()
        .map(|sample| {
            let own = sample.replica.split(KEY_SEPARATOR).next().unwrap_or_default();
            let pod = Some(own).filter(|replica| !replica.is_empty());
            let series = plan.series_of(sample.leaf).map(|series| &*series.name);
            let row = query.row(*field, pod.map(PodName::from), Some(sample.value), series);
            (sample.model, row)
        })
        .collect();
    let without_rows = models.iter().filter(|model| samples.iter().all(|s| s.model != **model));
    traced.extend(without_rows.map(|model| (*model, query.row(*field, None, None, None))));
    traced
}

/// Completes a trace when the fetch has ended: sample times, live pods, and cache sizes, whose series carry
/// no model.
pub(crate) fn complete(sample: &mut ModelSample, config: Option<&TracedQuery>) {
    let sampled_at = |row: &TraceRow| {
        let pod = row.pod.as_ref()?;
        sample.replicas.iter().find(|replica| replica.pod_name == *pod).map(|r| r.sampled_at)
    };
    for row in &mut sample.trace {
        row.sampled_at = row.sampled_at.or_else(|| sampled_at(row));
    }
    sample.trace.retain(|row| row.pod.is_none() || row.sampled_at.is_some());
    if let Some(query) = config {
        sample.trace.extend(sample.replicas.iter().map(|replica| {
            let raw = replica.num_gpu_blocks.or(replica.kv_capacity_tokens).map(|it| it as f64);
            let pod = Some(replica.pod_name.clone());
            let row = query.row(Field::CacheConfig, pod, raw, query.series.as_deref());
            TraceRow { sampled_at: Some(replica.sampled_at), ..row }
        }));
    }
    sample.trace.sort_by(|a, b| (&a.pod, a.field, &a.asked).cmp(&(&b.pod, b.field, &b.asked)));
}
