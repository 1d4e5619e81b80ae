// SPDX-License-Identifier: Apache-2.0
//! A model's figures, from those of its replicas. If one is unknown, so is the total.

use collector_core::ReplicaMetrics;

/// The requests that wait at all replicas; `None` where it is unknown of one of them, or there is none.
pub(in crate::commands) fn total_queue(replicas: &[ReplicaMetrics]) -> Option<u64> {
    sum(replicas, |replica| replica.queue_length)
}

/// The requests that all replicas answer, likewise.
pub(in crate::commands) fn total_running(replicas: &[ReplicaMetrics]) -> Option<u64> {
    sum(replicas, |replica| replica.running_requests)
}

/// The mean share of the KV cache in use, likewise.
pub(in crate::commands) fn mean_usage(replicas: &[ReplicaMetrics]) -> Option<f64> {
    let sum = replicas.iter().map(|replica| replica.kv_cache_usage).sum::<Option<f64>>()?;
    (!replicas.is_empty()).then(|| sum / replicas.len() as f64)
}

fn sum(replicas: &[ReplicaMetrics], of: fn(&ReplicaMetrics) -> Option<u64>) -> Option<u64> {
    let sum = replicas.iter().map(of).sum::<Option<u64>>();
    sum.filter(|_| !replicas.is_empty())
}

#[cfg(test)]
mod tests {
    use collector_core::Tick;

    use super::*;

    fn row(queue: Option<u64>, usage: Option<f64>) -> ReplicaMetrics {
        let mut row = ReplicaMetrics::new("pod", Tick::from_nanos(0));
        (row.queue_length, row.kv_cache_usage) = (queue, usage);
        row
    }

    #[test]
    fn unknown_replicas_make_a_total_unknown_and_never_zero() {
        let known = [row(Some(0), Some(0.5)), row(Some(3), Some(1.0))];
        assert_eq!((total_queue(&known), mean_usage(&known)), (Some(3), Some(0.75)));
        let unknown = [row(Some(4), None), row(None, Some(1.0))];
        assert_eq!((total_queue(&unknown), mean_usage(&unknown)), (None, None));
        assert_eq!((total_queue(&[]), total_running(&[]), mean_usage(&[])), (None, None, None));
    }
}
