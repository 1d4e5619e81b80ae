// SPDX-License-Identifier: Apache-2.0
//! The dashboards name series that exist.

use std::collections::BTreeSet;

use serde_json::Value;

use super::page::{Families, exported, family_of};
use super::selected::selected;
use super::{Everything, METRICS_PAGE};
use crate::own_metrics::page::documented;

const OF_COLLECTOR: &str = include_str!("../../../../deploy/monitoring/grafana-collector.json");
const OF_FLEET: &str = include_str!("../../../../deploy/monitoring/grafana-fleet.json");

/// The queries of a dashboard: of its panels, and of its variables.
fn queries(dashboard: &str) -> Vec<String> {
    let dashboard: Value = serde_json::from_str(dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    let of_panels = panels.iter().flat_map(|panel| {
        let targets = panel["targets"].as_array().unwrap().iter();
        targets.map(|target| target["expr"].as_str().unwrap().to_owned())
    });
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let of_variables = variables.filter(|variable| variable["type"] == "query").map(|variable| {
        let query = variable["query"].as_str().unwrap();
        let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        // Its value is a label, and so is one that the selector is grouped by.
        let (selector, label) = inner.unwrap().rsplit_once(", ").unwrap();
        format!("sum by ({label}) ({selector})")
    });
    of_panels.chain(of_variables).collect()
}

/// What Prometheus adds to series.
const ADDED: [&str; 2] = ["instance", "job"];

/// Fails unless each series is one of these, with the labels that an expression knows it by.
#[track_caller]
pub(super) fn assert_exported(expression: &str, families: &Families) {
    let selected = selected(expression);
    let mut known: BTreeSet<&str> = ADDED.into();
    for series in &selected.series {
        // Prometheus writes it itself, for each target.
        if series == "up" {
            continue;
        }
        let family = family_of(series, families);
        let family = family.unwrap_or_else(|| panic!("{expression}: there is no {series}"));
        known.extend(families[&family].labels.iter().map(String::as_str));
        if series.ends_with("_bucket") {
            known.insert("le");
        }
    }
    for label in &selected.labels {
        assert!(known.contains(label.as_str()), "{expression}: there is no label {label}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_collectors_dashboard_names_series_and_labels_that_are_exported() {
    // Labels that only some events add are in the documentation, which agrees with the page.
    let families = documented(METRICS_PAGE);
    let page = exported(&Everything::start().await.page("running"));
    for query in queries(OF_COLLECTOR) {
        assert_exported(&query, &families);
        assert_exported(&query, &page);
    }
}

#[test]
fn the_documentations_queries_name_series_and_labels_that_are_exported() {
    let families = documented(METRICS_PAGE);
    let blocks = METRICS_PAGE.split("```").filter_map(|block| block.strip_prefix("promql\n"));
    let queries: Vec<&str> =
        blocks.flat_map(str::lines).filter(|line| !line.starts_with('#')).collect();
    assert!(queries.len() > 5, "{queries:?}");
    for query in queries {
        assert_exported(query, &families);
    }
}

#[test]
fn the_fleets_dashboard_names_series_that_engines_export() {
    let mut families =
        exported(include_str!("../../../../collector-epp/tests/captures/vllm_v1.txt"));
    families.extend(exported(include_str!("../../../../collector-epp/tests/captures/sglang.txt")));
    for family in families.values_mut() {
        // A scrape job adds it.
        family.labels.insert("namespace".to_owned());
    }
    for query in queries(OF_FLEET) {
        assert_exported(&query, &families);
    }
}

#[test]
#[should_panic = "there is no collector_reading_upp"]
fn a_series_that_is_not_exported_is_noticed() {
    assert_exported("sum(collector_reading_upp) > 0", &documented(METRICS_PAGE));
}

#[test]
#[should_panic = "there is no label model"]
fn a_label_that_is_not_exported_is_noticed() {
    assert_exported("max by (model) (collector_reading_up)", &documented(METRICS_PAGE));
}
