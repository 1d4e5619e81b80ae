// SPDX-License-Identifier: Apache-2.0
//! The supply of a model or of a variant, in the documents of readings.

use collector_core::{Part, PodCounts, Reading, Supplied, VariantName};
use serde::Serialize;

use crate::named::Named;
use crate::seconds;

document! {
    /// The pods that the cluster lists. Each counts once.
    pub(crate) SupplyDocument<'a> of (supplied: Supplied<'a>, counts: PodCounts, age: std::time::Duration);
    /// Pods that are Ready, and not known to sleep.
    ready: u32 = counts.ready;
    /// Pods that have not been Ready yet.
    starting: u32 = counts.starting;
    /// Pods that were Ready, and are not any more.
    not_ready: u32 = counts.not_ready;
    /// Pods whose servers say that they sleep.
    sleeping: u32 = counts.sleeping;
    /// Pods that are being deleted.
    terminating: u32 = counts.terminating;
    /// Whether these are all its pods. Otherwise it may have more, and a count of 0 is no known zero.
    lists_pods: bool = supplied.lists_pods();
    /// Replicas that the specification of the workload asks for; null if it does not say.
    wanted: Option<u32> = supplied.wanted();
    /// Time since the cluster last confirmed it.
    age_seconds: f64 = seconds(age);
    /// Pods that are Ready and of which no backend has metrics, ordered by name.
    silent: Vec<&'a str> = {
        let mut silent: Vec<&str> = supplied.silent().map(|pod| pod.name.as_str()).collect();
        silent.sort_unstable();
        silent
    };
    /// Why fields are null.
    #[serde(skip_serializing_if = "Named::is_empty")]
    reasons: Named<&'static str> = {
        let unknown = supplied.wanted().is_none();
        unknown.then_some(("wanted", "a workload does not say how many")).into_iter().collect()
    };
}

impl<'a> SupplyDocument<'a> {
    /// The document of a model, or of one of its variants; `None` if no cluster lists it.
    pub(crate) fn of<T: Part>(
        reading: &'a Reading<T>,
        variant: Option<&'a VariantName>,
    ) -> Option<Self> {
        let supplied = reading.model().replicas.supplied(variant)?;
        Some(Self::new(supplied, supplied.counts(), reading.age_of(supplied.as_of())))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use collector_core::supply::{Pod, PodState, Workload};
    use collector_core::{
        Clock as _, FreshnessThresholds, ManualClock, ModelRef, ReplicaMetrics, ReplicaState,
        Replicas, Source, Supply,
    };
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn pods_are_counted_once_and_the_age_is_the_clusters() {
        let now = ManualClock::new().now() + Duration::from_secs(60);
        let names = ["m-0", "m-1", "m-2", "m-3"];
        let states = [PodState::Ready, PodState::Ready, PodState::Ready, PodState::Starting];
        let pods = names.iter().zip(states);
        let pods = pods.map(|(name, state)| Pod::new((*name).into(), state, now)).collect();
        let supply = Supply::new(
            now - Duration::from_millis(800),
            vec![Workload::new(Some("v".into()), Some(4), pods)],
        );
        let mut asleep = ReplicaMetrics::new("m-1", now);
        asleep.state = ReplicaState::Sleeping;
        let rows = vec![ReplicaMetrics::new("m-0", now), asleep];
        let mut replicas = Replicas::new(ModelRef::new("m", "n"), rows, "test".into(), now);
        let document = |replicas: &Replicas, variant: Option<&str>| {
            let thresholds = FreshnessThresholds::default();
            let reading = Reading::new(replicas.clone(), now, &thresholds, Source::Backend);
            let variant = variant.map(Into::into);
            serde_json::to_value(SupplyDocument::of(&reading, variant.as_ref())).unwrap()
        };
        assert_eq!(document(&replicas, None), Value::Null);
        replicas.supply = Some(Arc::new(supply.clone()));
        let expected = json!({
            "ready": 2, "starting": 1, "notReady": 0, "sleeping": 1, "terminating": 0, "listsPods": false,
            "wanted": 4, "ageSeconds": 0.8, "silent": ["m-2"],
        });
        assert_eq!(document(&replicas, None), expected);
        assert_eq!(document(&replicas, Some("v")), expected);
        assert_eq!(
            document(&replicas, Some("other")),
            Value::Null,
            "the cluster has no such variant"
        );

        let mut unknown = supply;
        unknown.workloads[0].lists_pods = true;
        unknown.workloads[0].wanted = None;
        replicas.supply = Some(Arc::new(unknown));
        let unknown = document(&replicas, None);
        assert_eq!(
            (&unknown["wanted"], unknown["reasons"]["wanted"].is_string(), &unknown["listsPods"]),
            (&Value::Null, true, &json!(true))
        );
    }
}
