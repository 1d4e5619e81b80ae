// SPDX-License-Identifier: Apache-2.0
//! The queries about endpoint pickers.

use std::time::Duration;

use collector_engines::endpoint_picker::{Owner, Series};

use crate::labels::{INSTANCE, LabelsConfig};
use crate::plan::{WHAT, numbered};
use crate::promql::{Filter, Matcher, Window};

/// How far back an endpoint picker is searched that is gone.
pub(super) const LOOK_BACK: Duration = Duration::from_secs(60 * 60);
/// The value of the label `what` for the time of an endpoint picker's samples.
pub(super) const AT: &str = "at";
/// The numbers that readings have, by their keys, and those that show where requests are routed to.
const KEYS: [&str; 13] = [
    "ready",
    "requests_total",
    "running",
    "flow_control_queue_size",
    "flow_control_queue_bytes",
    "saturation_effective",
    "saturation_prefill",
    "saturation_decode",
    "stale_endpoints",
    "rejected",
    "per_pod_queue",
    "in_flight_requests",
    "in_flight_tokens",
];
/// Labels by which an endpoint picker has several series of one row. All other labels are of a copy of the server.
const OF_SERIES: [&str; 4] = ["fairness_id", "priority", "error_code", "detector"];

/// A generation of names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Generation {
    /// The beginning of its names.
    prefix: &'static str,
    /// A series that each of its endpoint pickers has.
    always: &'static str,
}

/// The newest first. Newer builds write the oldest names as well.
const GENERATIONS: [Generation; 3] = [
    Generation { prefix: "llm_d_epp_", always: "llm_d_epp_info" },
    Generation { prefix: "llm_d_router_epp_", always: "llm_d_router_epp_info" },
    Generation { prefix: "inference_", always: "inference_pool_ready_pods" },
];

impl Generation {
    /// Returns the one with this number in [`presence`].
    pub(super) fn numbered(number: &str) -> Option<Self> {
        GENERATIONS.get(number.parse::<usize>().ok()?).copied()
    }
}

/// The labels that name the namespace and the server of a row, each list in order of preference.
#[derive(Debug)]
pub(super) struct RowNames {
    pub(super) namespace: Vec<Box<str>>,
    pub(super) server: Vec<Box<str>>,
}

impl RowNames {
    pub(super) fn new(labels: &LabelsConfig) -> Self {
        let boxed = |names: &[String]| names.iter().map(|name| Box::from(name.as_str())).collect();
        let mut server: Vec<Box<str>> = boxed(&labels.pod);
        server.push(INSTANCE.into());
        Self { namespace: boxed(&labels.namespace), server }
    }
}

/// The query that shows which generations of names each namespace has had within [`LOOK_BACK`].
pub(super) fn presence(names: &RowNames, filter: &Filter) -> String {
    let by: Vec<&str> = names.namespace.iter().map(|label| &**label).collect();
    let by = by.join(",");
    let counts = GENERATIONS.iter().enumerate().map(|(number, generation)| {
        let Generation { always, .. } = generation;
        let count =
            format!("count by ({by}) (count_over_time({always}{filter}{}))", Window(LOOK_BACK));
        numbered(&count, number)
    });
    counts.collect::<Vec<_>>().join(" or ")
}

/// The query for all numbers in these generations of names: each row has in the label `what` the index of its series.
pub(super) fn rows(
    all: &[Series],
    generations: &[Generation],
    names: &RowNames,
    filter: &Filter,
) -> String {
    let is_of =
        |name: &str| generations.iter().any(|generation| name.starts_with(generation.prefix));
    let wanted = all
        .iter()
        .enumerate()
        .filter(|(_, series)| is_of(&series.name) && KEYS.contains(&series.key));
    let identity: Vec<&str> =
        names.namespace.iter().chain(&names.server).map(|label| &**label).collect();
    let number = |(index, series): (usize, &Series)| {
        let own = series.labels.iter().copied().filter(|label| !label.is_empty());
        let outcome = matches!(series.owner, Owner::Rejected).then_some("outcome");
        let mut by: Vec<&str> = identity.iter().copied().chain(own).chain(outcome).collect();
        by.sort_unstable();
        by.dedup();
        let by = by.join(",");
        let matcher = series.matcher.map(|(label, value)| Matcher::is(label, value));
        let select = format!("{}{}", series.name, filter.and(matcher));
        // A server that is scraped or stored twice has equal series but for labels of the copy.
        let each = format!("max by ({by},{}) ({select})", OF_SERIES.join(","));
        let query = match series.owner {
            Owner::Pool | Owner::Pod => format!("max by ({by}) ({select})"),
            _ => format!("sum by ({by}) ({each})"),
        };
        numbered(&query, index)
    };
    let by = identity.join(",");
    let times = generations.iter().map(|generation| {
        let time = format!("max by ({by}) (timestamp({}{filter}))", generation.always);
        format!("label_replace({time},\"{WHAT}\",\"{AT}\",\"namespace\",\".*\")")
    });
    wanted.map(number).chain(times).collect::<Vec<_>>().join(" or ")
}
