// SPDX-License-Identifier: Apache-2.0
//! Anchors: series that an exporter always has while it is up.
//!
//! An idle endpoint picker deletes the series of its queues, so an empty answer is normal. It means 0 only if an
//! anchor, a series of the same exporter that is always present, has recent samples.

use regex::Regex;

use crate::selector::{Selector, selector_text};

/// What an anchor proves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strength {
    /// The metric has series exactly while something happens: without series, its sum is 0.
    Strong,
    /// The exporter is up, so a default that the query contains (`or vector(0)`) is right.
    Alive,
}

/// One anchor.
#[derive(Clone, Debug)]
struct Anchor {
    /// The names of metrics that it is an anchor of.
    metrics: Regex,
    /// Its own name, which may use the groups of `metrics`.
    name: String,
    /// The labels that it has in common with them, in addition to those of the scrape configuration.
    labels: &'static [&'static str],
    strength: Strength,
    /// Every exporter has it.
    is_any_exporter: bool,
}

/// The fields of a built-in [`Anchor`].
type BuiltIn = (&'static str, &'static str, &'static [&'static str], Strength);

/// The labels that distinguish exporters.
const EXPORTER: &str = "cluster, namespace, service, job, instance, pod, inference_pool";

/// These are single metrics and not families, because a metric that a version does not have is not 0.
const BUILT_IN: [BuiltIn; 6] = [
    // The saturation of a pool exists only if flow control is enabled, and then always.
    (
        "(llm_d_epp|llm_d_router_epp|inference_extension)_flow_control_queue_(?:size|bytes)",
        "${1}_flow_control_pool_saturation",
        &[],
        Strength::Strong,
    ),
    // Metrics by model appear with the first request for the model.
    ("(llm_d_epp|llm_d_router_epp)_request_(?:running|total)", "${1}_info", &[], Strength::Strong),
    ("vllm:.*", "vllm:num_requests_running", &["model_name"], Strength::Alive),
    ("(sglang[:_]).*", "${1}num_running_reqs", &["model_name"], Strength::Alive),
    ("(llm_d_epp|llm_d_router_epp)_.*", "${1}_info", &[], Strength::Alive),
    (".*", UP, &[], Strength::Alive),
];

/// What a server has of each exporter: 1 while it answers.
const UP: &str = "up";

/// Anchors, in the order in which they are tried.
#[derive(Clone, Debug)]
pub struct Anchors(Vec<Anchor>);

impl Anchors {
    /// Returns the built-in anchors.
    ///
    /// # Panics
    /// Never: a test compiles them.
    pub fn built_in() -> Self {
        let anchors = BUILT_IN.iter().map(|(metrics, name, labels, strength)| Anchor {
            metrics: whole(metrics).expect("a test compiles it"),
            name: (*name).to_owned(),
            labels,
            strength: *strength,
            is_any_exporter: *name == UP,
        });
        Self(anchors.collect())
    }

    /// Adds an anchor before the others. `metrics` is a regular expression for complete names of metrics, and `name`
    /// may use its groups (`${1}`).
    ///
    /// # Errors
    /// When `metrics` is not a valid regular expression.
    pub fn prepend(
        &mut self,
        metrics: &str,
        name: &str,
        strength: Strength,
    ) -> Result<(), regex::Error> {
        let (metrics, name) = (whole(metrics)?, name.to_owned());
        let anchor = Anchor { metrics, name, labels: &[], strength, is_any_exporter: false };
        self.0.insert(0, anchor);
        Ok(())
    }

    /// Returns the anchor of a selector, of this strength.
    pub(crate) fn of(&self, selector: &Selector, strength: Strength) -> Option<AnchorProbe> {
        let metric = selector.name()?;
        let is_it =
            |anchor: &&Anchor| anchor.strength == strength && anchor.metrics.is_match(metric);
        let anchor = self.0.iter().find(is_it)?;
        let mut name = anchor.metrics.replace(metric, &anchor.name).into_owned();
        // Some exporter is always up, so it or its namespace must be named; else other series of the metric prove that its
        // own is.
        let is_named = selector.names_exporter() || selector.names_namespace();
        if anchor.is_any_exporter && !is_named {
            metric.clone_into(&mut name);
        }
        // A strong anchor turns nothing into 0: a matcher that may be misspelt must hold for it as well.
        let matchers = match strength {
            Strength::Strong => selector.exporter_matchers()?,
            Strength::Alive => selector.scrape_matchers(anchor.labels)?,
        };
        let series = selector_text(&name, matchers);
        let mut count = series.clone();
        if name == UP {
            count.push_str(" == 1");
        }
        // An anchor of another exporter proves nothing.
        let of_one_exporter = strength == Strength::Strong && !selector.names_exporter();
        if of_one_exporter {
            count = format!("count by ({EXPORTER}) ({count})");
        }
        Some(AnchorProbe { count, series, name, of_one_exporter })
    }
}

/// How the anchor of one selector is probed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AnchorProbe {
    /// What is counted: series, or exporters.
    pub(crate) count: String,
    /// The anchor's series, which have an age.
    pub(crate) series: String,
    pub(crate) name: String,
    /// It is a proof only if exactly one exporter has it.
    of_one_exporter: bool,
}

impl AnchorProbe {
    /// Returns whether this count proves that the exporter is up.
    pub(crate) fn is_proof(&self, count: u64) -> bool {
        if self.of_one_exporter { count == 1 } else { count > 0 }
    }
}

fn whole(pattern: &str) -> Result<Regex, regex::Error> {
    Regex::new(&format!("^(?:{pattern})$"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::query::Query;

    #[track_caller]
    fn check(selector: &str, strength: Strength, expected: Option<&str>) {
        let query = Query::parse(selector, &Limits::default()).unwrap();
        let anchor = Anchors::built_in().of(&query.selectors[0], strength);
        assert_eq!(anchor.map(|anchor| anchor.count).as_deref(), expected);
    }

    #[test]
    fn the_anchor_of_a_queue_is_the_saturation_of_the_same_generation() {
        check(
            r#"llm_d_epp_flow_control_queue_size{namespace="prod",service="epp",model_name="m"}"#,
            Strength::Strong,
            Some(r#"llm_d_epp_flow_control_pool_saturation{namespace="prod",service="epp"}"#),
        );
        check(
            r#"inference_extension_flow_control_queue_bytes{inference_pool="a"}"#,
            Strength::Strong,
            Some(r#"inference_extension_flow_control_pool_saturation{inference_pool="a"}"#),
        );
        // A label that is not the metric's own may name another exporter.
        check(
            r#"llm_d_epp_flow_control_queue_size{exported_namespace="typo",job="epp",fairness_id="f"}"#,
            Strength::Strong,
            Some(r#"llm_d_epp_flow_control_pool_saturation{exported_namespace="typo",job="epp"}"#),
        );
        let running = r#"llm_d_router_epp_request_running{job="epp"}"#;
        check(running, Strength::Strong, Some(r#"llm_d_router_epp_info{job="epp"}"#));
    }

    #[test]
    fn engines_and_unlisted_metrics_have_no_strong_anchor() {
        check("vllm:num_requests_waiting", Strength::Strong, None);
        check("llm_d_epp_flow_control_queue_duration_seconds_count", Strength::Strong, None);
        check(r#"{__name__=~"llm_d_epp.*"}"#, Strength::Strong, None);
    }

    #[test]
    fn an_exporter_is_up_by_its_own_anchor_or_by_up() {
        check(
            r#"vllm:kv_cache_usage_perc{namespace="prod",model_name="m",reason="x"}"#,
            Strength::Alive,
            Some(r#"vllm:num_requests_running{model_name="m",namespace="prod"}"#),
        );
        check("sglang_num_queue_reqs", Strength::Alive, Some("sglang_num_running_reqs"));
        check(r#"gpu{job="dcgm",serving="m"}"#, Strength::Alive, Some(r#"up{job="dcgm"} == 1"#));
    }

    #[test]
    fn of_an_exporter_that_is_not_named_other_series_of_the_metric_are_the_proof() {
        check(r#"gpu{serving="m"}"#, Strength::Alive, Some("gpu"));
        check(r#"gpu{serving="m",job=~".+"}"#, Strength::Alive, Some(r#"gpu{job=~".+"}"#));
        let of_namespace = Some(r#"up{namespace="prod"} == 1"#);
        check(r#"gpu{serving="m",namespace="prod"}"#, Strength::Alive, of_namespace);
    }

    #[test]
    fn without_a_label_that_names_the_exporter_there_must_be_one() {
        let query = Query::parse("llm_d_epp_request_running", &Limits::default()).unwrap();
        let anchor = Anchors::built_in().of(&query.selectors[0], Strength::Strong).unwrap();
        assert!(anchor.is_proof(1) && !anchor.is_proof(2) && !anchor.is_proof(0));
        // A matcher that excludes nothing, or a namespace, does not name an exporter.
        for text in [
            r#"llm_d_epp_request_running{namespace="prod"}"#,
            r#"llm_d_epp_request_running{service=~".+"}"#,
            r#"llm_d_epp_request_running{pod!=""}"#,
        ] {
            let query = Query::parse(text, &Limits::default()).unwrap();
            let anchor = Anchors::built_in().of(&query.selectors[0], Strength::Strong).unwrap();
            assert!(
                anchor.count.starts_with("count by (") && anchor.of_one_exporter,
                "{}",
                anchor.count
            );
        }
    }

    #[test]
    fn a_configured_anchor_is_tried_first() {
        let mut anchors = Anchors::built_in();
        anchors.prepend("(gpu)_busy", "${1}_info", Strength::Strong).unwrap();
        let query = Query::parse(r#"gpu_busy{job="dcgm"}"#, &Limits::default()).unwrap();
        let anchor = anchors.of(&query.selectors[0], Strength::Strong).unwrap();
        assert_eq!(anchor.count, r#"gpu_info{job="dcgm"}"#);
        assert!(anchors.prepend("(", "x", Strength::Alive).is_err());
    }
}
