// SPDX-License-Identifier: Apache-2.0
//! Metrics about what is watched, through the `metrics` facade.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

use crate::kind::Kind;

const OBJECTS: &str = "collector_kubernetes_objects";
const CONDITIONS: &str = "collector_kubernetes_conditions";
const LAST_HEARD: &str = "collector_kubernetes_last_heard_seconds";
const RESTARTS: &str = "collector_kubernetes_watch_restarts_total";

/// Describes and creates the families, so that each exists before its first event.
pub(crate) fn register() {
    describe_gauge!(OBJECTS, Unit::Count, "Objects of the cluster that are known, by kind");
    describe_gauge!(
        CONDITIONS,
        Unit::Count,
        "Things that are wrong with objects of the cluster, as `check` lists them"
    );
    describe_gauge!(
        LAST_HEARD,
        Unit::Seconds,
        "Time since the watch of a kind was last heard, of several the longest"
    );
    describe_counter!(
        RESTARTS,
        Unit::Count,
        "Lists and watches that failed and were begun again, by kind"
    );
    for kind in Kind::ALL {
        objects(kind, 0);
        counter!(RESTARTS, "kind" => kind.name()).increment(0);
    }
    conditions(0);
}

/// Sets how many objects of a kind are known.
pub(crate) fn objects(kind: Kind, count: usize) {
    gauge!(OBJECTS, "kind" => kind.name()).set(count as f64);
}

/// Sets how many conditions there are.
pub(crate) fn conditions(count: usize) {
    gauge!(CONDITIONS).set(count as f64);
}

/// Sets how long ago a kind was last heard of.
pub(crate) fn last_heard(kind: Kind, age: Duration) {
    gauge!(LAST_HEARD, "kind" => kind.name()).set(age.as_secs_f64());
}

/// Counts a list or a watch that failed.
pub(crate) fn restarted(kind: Kind) {
    counter!(RESTARTS, "kind" => kind.name()).increment(1);
}
