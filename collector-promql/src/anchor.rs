//! Anchors: series that an exporter always has, by which "nothing happens" is told from "nobody measures".
//!
//! An idle Endpoint Picker deletes the series of its queues, so an empty answer is normal there. It is 0 only if a
//! series that always speaks, its anchor, is heard from the same exporter.

use regex::Regex;

use crate::selector::{Selector, selector_text};

/// How much an anchor proves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strength {
    /// Series of that name exist exactly while something happens: without one, their sum is 0.
    Strong,
    /// The exporter is alive. That makes a default which the query itself writes (`or vector(0)`) a true one.
    Alive,
}

/// Which series vouch for others.
#[derive(Clone, Debug)]
pub struct Anchor {
    vouches_for: Regex,
    is_named: String,
    carries: &'static [&'static str],
    strength: Strength,
}

/// A built-in anchor: the names that it vouches for (a regular expression, whole), its own name (`$1` is the first group
/// of that expression), and the labels that both have besides those of the scrape configuration.
type BuiltIn = (&'static str, &'static str, &'static [&'static str], Strength);

/// What tells exporters apart.
const EXPORTER: &str = "cluster, namespace, service, job, instance, pod, inference_pool";

/// Names and not families: a name that a version of an exporter does not have is no 0.
const BUILT_IN: [BuiltIn; 6] = [
    // The saturation of a pool exists only where flow control is switched on, and then always.
    (
        "(llm_d_epp|llm_d_router_epp|inference_extension)_flow_control_queue_(?:size|bytes)",
        "${1}_flow_control_pool_saturation",
        &[],
        Strength::Strong,
    ),
    // Gauges and counters by model appear with a model's first request.
    ("(llm_d_epp|llm_d_router_epp)_request_(?:running|total)", "${1}_info", &[], Strength::Strong),
    ("vllm:.*", "vllm:num_requests_running", &["model_name"], Strength::Alive),
    ("(sglang[:_]).*", "${1}num_running_reqs", &["model_name"], Strength::Alive),
    ("(llm_d_epp|llm_d_router_epp)_.*", "${1}_info", &[], Strength::Alive),
    (".*", "up", &[], Strength::Alive),
];

/// The anchors of an installation, in the order in which they are tried.
#[derive(Clone, Debug)]
pub struct Anchors(Vec<Anchor>);

impl Anchors {
    /// The built-in anchors.
    ///
    /// # Panics
    /// Never: a test compiles them.
    pub fn built_in() -> Self {
        let anchors = BUILT_IN.iter().map(|(name, anchor, carries, strength)| Anchor {
            vouches_for: whole(name).expect("a test compiles it"),
            is_named: (*anchor).to_owned(),
            carries,
            strength: *strength,
        });
        Self(anchors.collect())
    }

    /// Puts an anchor before the others: `name` is a regular expression for whole names of metrics, whose groups
    /// `anchor` may use (`${1}`).
    ///
    /// # Errors
    /// When `name` is no regular expression.
    pub fn prepend(
        &mut self,
        name: &str,
        anchor: &str,
        strength: Strength,
    ) -> Result<(), regex::Error> {
        let (vouches_for, is_named) = (whole(name)?, anchor.to_owned());
        self.0.insert(0, Anchor { vouches_for, is_named, carries: &[], strength });
        Ok(())
    }

    /// What to ask in order to know whether the exporter of a selector speaks, by an anchor of this strength.
    pub(crate) fn of(&self, selector: &Selector, strength: Strength) -> Option<Asked> {
        let name = selector.name()?;
        let is_it =
            |anchor: &&Anchor| anchor.strength == strength && anchor.vouches_for.is_match(name);
        let anchor = self.0.iter().find(is_it)?;
        let matchers = selector.scrape_matchers(anchor.carries)?;
        // One exporter's silence is no other exporter's: without a label that names it, there must be one alone.
        let is_alone = strength == Strength::Strong && !selector.names_exporter();
        let anchor_name = anchor.vouches_for.replace(name, &anchor.is_named).into_owned();
        let plain = selector_text(&anchor_name, matchers);
        let mut text = plain.clone();
        if anchor_name == "up" {
            text.push_str(" == 1");
        }
        if is_alone {
            // An exporter may have several series of it.
            text = format!("count by ({EXPORTER}) ({text})");
        }
        Some(Asked { text, plain, name: anchor_name, is_alone })
    }
}

impl Default for Anchors {
    fn default() -> Self {
        Self::built_in()
    }
}

/// An anchor of one selector.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Asked {
    /// What to count.
    pub(crate) text: String,
    /// The anchor's series themselves, which have an age.
    pub(crate) plain: String,
    pub(crate) name: String,
    /// It vouches only if one exporter has it.
    pub(crate) is_alone: bool,
}

impl Asked {
    /// Whether so many series, or exporters of them, prove that the exporter speaks.
    pub(crate) fn is_proved_by(&self, series: u64) -> bool {
        if self.is_alone { series == 1 } else { series > 0 }
    }
}

fn whole(name: &str) -> Result<Regex, regex::Error> {
    Regex::new(&format!("^(?:{name})$"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::query::Query;

    #[track_caller]
    fn check(selector: &str, strength: Strength, expected: Option<&str>) {
        let query = Query::parse(selector, &Limits::default()).unwrap();
        let asked = Anchors::built_in().of(&query.selectors[0], strength);
        assert_eq!(asked.map(|asked| asked.text).as_deref(), expected);
    }

    #[test]
    fn a_queue_of_the_picker_is_vouched_for_by_the_saturation_of_its_generation() {
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
        let running = r#"llm_d_router_epp_request_running{job="epp"}"#;
        check(running, Strength::Strong, Some(r#"llm_d_router_epp_info{job="epp"}"#));
    }

    #[test]
    fn nothing_strong_vouches_for_an_engine_or_for_a_name_that_is_not_listed() {
        check("vllm:num_requests_waiting", Strength::Strong, None);
        check("llm_d_epp_flow_control_queue_duration_seconds_count", Strength::Strong, None);
        check(r#"{__name__=~"llm_d_epp.*"}"#, Strength::Strong, None);
    }

    #[test]
    fn an_exporter_is_alive_by_its_own_anchor_or_by_up() {
        check(
            r#"vllm:kv_cache_usage_perc{namespace="prod",model_name="m",reason="x"}"#,
            Strength::Alive,
            Some(r#"vllm:num_requests_running{model_name="m",namespace="prod"}"#),
        );
        check("sglang_num_queue_reqs", Strength::Alive, Some("sglang_num_running_reqs"));
        check(r#"gpu{job="dcgm",serving="m"}"#, Strength::Alive, Some(r#"up{job="dcgm"} == 1"#));
    }

    #[test]
    fn an_anchor_without_a_label_that_names_its_exporter_must_be_alone() {
        let query = Query::parse("llm_d_epp_request_running", &Limits::default()).unwrap();
        let asked = Anchors::built_in().of(&query.selectors[0], Strength::Strong).unwrap();
        assert!(asked.is_proved_by(1) && !asked.is_proved_by(2) && !asked.is_proved_by(0));
        // What pins nothing, and a namespace with several pickers, names none.
        for text in [
            r#"llm_d_epp_request_running{namespace="prod"}"#,
            r#"llm_d_epp_request_running{service=~".+"}"#,
            r#"llm_d_epp_request_running{pod!=""}"#,
        ] {
            let query = Query::parse(text, &Limits::default()).unwrap();
            let asked = Anchors::built_in().of(&query.selectors[0], Strength::Strong).unwrap();
            assert!(asked.text.starts_with("count by (") && asked.is_alone, "{}", asked.text);
        }
    }

    #[test]
    fn an_anchor_of_ones_own_comes_first() {
        let mut anchors = Anchors::built_in();
        anchors.prepend("(gpu)_busy", "${1}_info", Strength::Strong).unwrap();
        let query = Query::parse(r#"gpu_busy{job="dcgm"}"#, &Limits::default()).unwrap();
        let asked = anchors.of(&query.selectors[0], Strength::Strong).unwrap();
        assert_eq!(asked.text, r#"gpu_info{job="dcgm"}"#);
        assert!(anchors.prepend("(", "x", Strength::Alive).is_err());
    }
}
