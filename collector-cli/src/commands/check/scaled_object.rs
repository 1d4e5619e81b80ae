//! `check --scaled-object`: what KEDA makes of a ScaledObject, and what its triggers say now.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use collector_core::{Check, CheckStatus, duration};
use collector_promql::{Described, Door, Empty, InstantQuery, Kind, Limits, Request, describe};
use serde_json::{Map, Value};

use crate::exit::Failure;

/// Bytes of a file: what a cluster's API takes of one object, times a thousand.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// What KEDA assumes where nothing is written.
const POLLING_SECONDS: u64 = 30;
const COOLDOWN_SECONDS: u64 = 300;
/// Labels that name a model, or what stands for one.
const MODEL: [&str; 9] = [
    "model_name",
    "target_model_name",
    "model",
    "inference_pool",
    "deployment",
    "statefulset",
    "pod",
    "service",
    "endpoint_name",
];

/// Names of metrics that pods of model servers have.
const ENGINES: [&str; 5] = ["vllm:", "sglang:", "sglang_", "trtllm_", "tgi_"];

/// A ScaledObject, as far as its scaling depends on it.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct ScaledObject {
    name: String,
    polling: Duration,
    cooldown: Duration,
    min: u64,
    fallback: Option<Fallback>,
    triggers: Vec<Trigger>,
}

#[derive(Clone, PartialEq, Debug)]
struct Fallback {
    failures: u64,
    replicas: u64,
    behavior: String,
}

/// A trigger with its place among the others, from 1 on.
#[derive(Clone, PartialEq, Debug)]
struct Trigger {
    place: usize,
    kind: String,
    metric_type: String,
    has_authentication: bool,
    metadata: Map<String, Value>,
}

/// Reads the ScaledObjects of a file, or of standard input (`-`): several documents, or a list.
pub(super) fn read(path: &Path) -> Result<Vec<ScaledObject>, Failure> {
    let shown = path.display();
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(FILE_BYTES_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
    };
    read.map_err(|error| Failure::usage(format!("--scaled-object: cannot read {shown}: {error}")))?;
    let objects = parse(&text)
        .map_err(|error| Failure::usage(format!("--scaled-object: {shown} is no YAML: {error}")))?;
    if objects.is_empty() {
        return Err(Failure::usage(format!(
            "--scaled-object: there is no ScaledObject in {shown}"
        )));
    }
    Ok(objects)
}

fn parse(text: &str) -> Result<Vec<ScaledObject>, String> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|error| error.to_string())?;
    let mut objects = Vec::new();
    for document in documents {
        match document["items"].as_array() {
            Some(items) => objects.extend(items.iter().filter_map(ScaledObject::of)),
            None => objects.extend(ScaledObject::of(&document)),
        }
    }
    Ok(objects)
}

impl ScaledObject {
    fn of(document: &Value) -> Option<Self> {
        if document["kind"] != "ScaledObject" {
            return None;
        }
        let (metadata, spec) = (&document["metadata"], &document["spec"]);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let name = text(&metadata["name"]).unwrap_or_else(|| "without a name".to_owned());
        let name = match text(&metadata["namespace"]) {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name,
        };
        let seconds =
            |key: &str, default| Duration::from_secs(spec[key].as_u64().unwrap_or(default));
        let fallback = spec["fallback"].as_object().map(|fallback| Fallback {
            failures: fallback.get("failureThreshold").and_then(Value::as_u64).unwrap_or(0),
            replicas: fallback.get("replicas").and_then(Value::as_u64).unwrap_or(0),
            behavior: fallback
                .get("behavior")
                .and_then(text)
                .unwrap_or_else(|| "static".to_owned()),
        });
        let triggers = spec["triggers"].as_array().into_iter().flatten().enumerate();
        let triggers = triggers.map(|(index, trigger)| Trigger {
            place: index + 1,
            kind: text(&trigger["type"]).unwrap_or_default(),
            metric_type: text(&trigger["metricType"]).unwrap_or_else(|| "AverageValue".to_owned()),
            has_authentication: trigger["authenticationRef"].is_object(),
            metadata: trigger["metadata"].as_object().cloned().unwrap_or_default(),
        });
        Some(Self {
            polling: seconds("pollingInterval", POLLING_SECONDS),
            cooldown: seconds("cooldownPeriod", COOLDOWN_SECONDS),
            min: spec["minReplicaCount"].as_u64().unwrap_or(0),
            fallback,
            triggers: triggers.collect(),
            name,
        })
    }

    /// What can be said without asking anybody. `port` is that of this collector's API.
    pub(super) fn rules(&self, port: u16) -> Vec<Check> {
        let mut checks = vec![self.when_triggers_fail()];
        checks.extend(self.fallback.as_ref().map(|fallback| self.of_fallback(fallback)));
        for trigger in &self.triggers {
            checks.extend(trigger.rules(port, self.min == 0).into_iter().map(|mut check| {
                check.detail =
                    format!("{}, trigger {}: {}", self.name, trigger.place, check.detail);
                check
            }));
        }
        if self.triggers.is_empty() {
            checks.push(self.check("trigger", CheckStatus::Fail, "it has no triggers"));
        }
        checks
    }

    fn check(&self, name: &str, status: CheckStatus, detail: impl std::fmt::Display) -> Check {
        Check::new(format!("scaled-object.{name}"), status, format!("{}: {detail}", self.name))
    }

    fn when_triggers_fail(&self) -> Check {
        if self.min > 0 {
            let detail = format!("at least {} replicas stay while its triggers fail", self.min);
            return self.check("minimum", CheckStatus::Pass, detail);
        }
        if self.fallback.is_some() {
            let detail = "it scales to zero, and has a fallback for when its triggers fail";
            return self.check("minimum", CheckStatus::Pass, detail);
        }
        let detail = format!(
            "it scales to zero without a fallback: if its triggers fail for longer than the cooldown ({}), a running \
             model may be scaled to zero",
            duration::format(self.cooldown)
        );
        self.check("minimum", CheckStatus::Fail, detail).with_remedy(
            "set spec.minReplicaCount: 1, or spec.fallback: {failureThreshold: 3, replicas: 1, behavior: \
             currentReplicasIfHigher}",
        )
    }

    fn of_fallback(&self, fallback: &Fallback) -> Check {
        let Fallback { failures, replicas, behavior } = fallback;
        let failed_for = self.polling.saturating_mul(u32::try_from(*failures).unwrap_or(u32::MAX));
        let [begins, cooldown] = [failed_for, self.cooldown].map(duration::format);
        if *failures == 0 {
            let detail = "fallback.failureThreshold is missing, or 0";
            return self.check("fallback", CheckStatus::Fail, detail);
        }
        if *replicas == 0 {
            let detail =
                "fallback.replicas is 0: a trigger that fails scales a running model to zero";
            return self
                .check("fallback", CheckStatus::Fail, detail)
                .with_remedy("set fallback.replicas: 1");
        }
        if self.min == 0 && failed_for >= self.cooldown {
            let detail = format!(
                "the fallback begins after {begins} ({failures} polls), when the cooldown of {cooldown} is over"
            );
            return self.check("fallback", CheckStatus::Fail, detail).with_remedy(
                "failureThreshold x pollingInterval must be less than cooldownPeriod",
            );
        }
        if behavior == "static" {
            let detail = format!(
                "after {failures} failed polls it sets {replicas} replicas, also where more are running"
            );
            return self
                .check("fallback", CheckStatus::Warn, detail)
                .with_remedy("set fallback.behavior: currentReplicasIfHigher");
        }
        let detail = format!("it begins after {begins}, before the cooldown of {cooldown} is over");
        self.check("fallback", CheckStatus::Pass, detail)
    }

    /// What each trigger's query says now: through the collector, and what the server itself answers.
    pub(super) async fn values(&self, door: &Door) -> Vec<Check> {
        let mut checks = Vec::new();
        for trigger in self.triggers.iter().filter(|trigger| trigger.kind == "prometheus") {
            let Some(query) = trigger.text("query") else { continue };
            if describe(query, &Limits::default()).is_err() {
                continue;
            }
            let (status, detail) = trigger.value(door, query).await;
            let detail = format!("trigger {}: {detail}", trigger.place);
            checks.push(self.check("value", status, detail));
        }
        checks
    }
}

impl Trigger {
    fn text(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).and_then(Value::as_str).filter(|text| !text.trim().is_empty())
    }

    fn rules(&self, port: u16, to_zero: bool) -> Vec<Check> {
        let check = |name: &str, status, detail: String| {
            Check::new(format!("scaled-object.{name}"), status, detail)
        };
        if self.kind != "prometheus" {
            let detail = format!("a trigger of type {:?} is not checked", self.kind);
            return vec![check("trigger", CheckStatus::Skip, detail)];
        }
        let mut checks = Vec::new();
        for (key, value) in self.metadata.iter().filter(|(_, value)| !value.is_string()) {
            let detail = format!("metadata.{key} is {value}, and Kubernetes takes text alone");
            checks.push(
                check("trigger", CheckStatus::Fail, detail)
                    .with_remedy(format!("write {key}: \"{value}\"")),
            );
        }
        for key in ["serverAddress", "query", "threshold"] {
            if !self.metadata.contains_key(key) {
                checks.push(check(
                    "trigger",
                    CheckStatus::Fail,
                    format!("metadata.{key} is missing"),
                ));
            }
        }
        if let Some(query) = self.text("query") {
            match describe(query, &Limits::default()) {
                Ok(described) => checks.extend(self.of_query(query, &described, to_zero)),
                Err(error) => {
                    let detail = format!("its query cannot be read: {error}");
                    checks.push(check("query", CheckStatus::Fail, detail));
                }
            }
        }
        if let Some(address) = self.text("serverAddress")
            && !is_guarded(address, port)
            && self.text("ignoreNullValues") != Some("false")
        {
            let detail =
                format!("an empty answer of {address} counts as 0 (ignoreNullValues is not false)");
            checks.push(check("address", CheckStatus::Warn, detail).with_remedy(
                "let serverAddress be this collector (promql.enabled), or set ignoreNullValues: \"false\"",
            ));
        }
        if self.has_authentication && self.text("authModes").is_none() {
            let detail =
                "a CA or a token of authenticationRef is not used without authModes".to_owned();
            checks.push(
                check("trigger", CheckStatus::Warn, detail)
                    .with_remedy("set authModes: bearer, tls, basic or custom"),
            );
        }
        checks
    }

    fn of_query(&self, query: &str, described: &Described, to_zero: bool) -> Vec<Check> {
        let check = |status, detail: String| Check::new("scaled-object.query", status, detail);
        let mut checks = Vec::new();
        for (selector, labels) in &described.selectors {
            let has = |wanted: &[&str]| labels.iter().any(|label| wanted.contains(&label.as_str()));
            let unpinned = match (has(&["namespace"]), has(&MODEL)) {
                (false, false) => "namespace and model",
                (false, true) => "namespace",
                (true, false) => "model",
                (true, true) => continue,
            };
            let detail =
                format!("{selector} selects every {unpinned}: others' load scales this one");
            let label = if unpinned == "model" { "model_name" } else { "namespace" };
            checks.push(
                check(CheckStatus::Warn, detail).with_remedy(format!("add a matcher on {label}")),
            );
        }
        let is_of_engine =
            |selector: &str| ENGINES.iter().any(|prefix| selector.starts_with(prefix));
        let of_engine = described.selectors.iter().find(|(selector, _)| is_of_engine(selector));
        if let Some((selector, _)) = of_engine
            && to_zero
            && !self.text("queryParameters").is_some_and(|text| text.contains("empty=zero"))
        {
            let detail = format!(
                "without a pod there are no series of {selector}: at zero this trigger fails, and a fallback wakes a replica"
            );
            let remedy = "set queryParameters: \"empty=zero\" here, and let another trigger wake it (the picker's queue)";
            checks.push(check(CheckStatus::Warn, detail).with_remedy(remedy));
        }
        let (fits, why) = match described.kind {
            Kind::Sum => ("AverageValue", "a sum is divided by the replicas"),
            Kind::Ratio => ("Value", "a ratio is not divided by the replicas"),
            _ => (self.metric_type.as_str(), ""),
        };
        if fits != self.metric_type {
            let detail = format!("metricType is {}, and {why}", self.metric_type);
            checks.push(
                check(CheckStatus::Warn, detail).with_remedy(format!("set metricType: {fits}")),
            );
        }
        if checks.is_empty() {
            checks.push(check(CheckStatus::Pass, format!("{query} is read as it should be")));
        }
        checks
    }

    /// What its query says now.
    async fn value(&self, door: &Door, query: &str) -> (CheckStatus, String) {
        let mut parameters = vec![("query".to_owned(), query.to_owned())];
        let mut question = InstantQuery { query: query.to_owned(), ..InstantQuery::default() };
        for pair in self.text("queryParameters").unwrap_or_default().split(',') {
            match pair.trim().split_once('=') {
                Some(("empty", "zero")) => question.empty = Empty::Zero,
                Some(("empty", "pass")) => question.empty = Empty::Pass,
                Some(("max_age", age)) => question.max_age = duration::parse(age).ok(),
                Some((name, value)) => parameters.push((name.to_owned(), value.to_owned())),
                None => {}
            }
        }
        question.parameters.clone_from(&parameters);
        let direct = match door.pass(Request::new("api/v1/query", parameters)).await {
            Ok(passed) if passed.status == 200 => {
                read_by_keda(&passed.body).unwrap_or_else(|why| why)
            }
            Ok(passed) => format!("an error (status {})", passed.status),
            Err(error) => return (CheckStatus::Fail, error.message),
        };
        let reply = door.query(question).await;
        if reply.status == 200 {
            let (status, ours) = match read_by_keda(&reply.body) {
                Ok(value) => (CheckStatus::Pass, value),
                Err(why) => (CheckStatus::Fail, why),
            };
            return (status, format!("through the collector {ours}; directly {direct}"));
        }
        let document: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let error = document["error"].as_str().unwrap_or("no answer").to_owned();
        (CheckStatus::Fail, format!("{error} (directly: {direct})"))
    }
}

/// Whether an address is the guarded door of a collector: on its port, and not below `/raw`.
fn is_guarded(address: &str, port: u16) -> bool {
    url::Url::parse(address).is_ok_and(|url| {
        let path = url.path().trim_matches('/');
        url.port() == Some(port) && (path.is_empty() || path == "prometheus")
    })
}

/// An answer as KEDA reads it: a number, or why it is none.
fn read_by_keda(body: &[u8]) -> Result<String, String> {
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    let data = &document["data"];
    match (data["resultType"].as_str(), data["result"].as_array()) {
        (Some("vector"), Some(result)) => match result.as_slice() {
            [] => Err("nothing, which is taken for 0".to_owned()),
            [sample] => match sample["value"][1].as_str() {
                Some(value @ ("NaN" | "+Inf" | "-Inf")) => {
                    Err(format!("{value}, which is taken for 0"))
                }
                Some(value) => Ok(value.to_owned()),
                None => Err("a histogram, which is taken for 0".to_owned()),
            },
            several => Err(format!("{} elements, which is an error", several.len())),
        },
        (Some("scalar" | "string"), _) => Err("a scalar, which is an error".to_owned()),
        _ => Err("no answer, which is taken for 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It scales to zero; its trigger is on the picker's queue.
    const GOOD: &str = r#"
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: llama, namespace: prod}
spec:
  scaleTargetRef: {name: llama}
  minReplicaCount: 0
  cooldownPeriod: 300
  fallback: {failureThreshold: 3, replicas: 1, behavior: currentReplicasIfHigher}
  triggers:
    - type: prometheus
      metricType: AverageValue
      metadata:
        serverAddress: http://collector.monitoring:9464
        query: sum(llm_d_epp_flow_control_queue_size{namespace="prod",model_name="org/llama"})
        threshold: "5"
"#;

    /// What is not well with the good object after these changes: status and text.
    fn found(changes: &[(&str, &str)]) -> Vec<(CheckStatus, String)> {
        let mut text = GOOD.to_owned();
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        let object = parse(&text).unwrap().remove(0);
        let checks = object.rules(9464).into_iter();
        checks
            .filter(|check| check.status != CheckStatus::Pass)
            .map(|check| (check.status, check.detail))
            .collect()
    }

    #[track_caller]
    fn check_found(changes: &[(&str, &str)], status: CheckStatus, says: &str) {
        let found = found(changes);
        let [(is, text)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((*is, text.contains(says)), (status, true), "{text}");
        assert!(text.starts_with("prod/llama"), "{text}");
    }

    #[test]
    fn a_good_object_has_nothing_against_it() {
        assert_eq!(found(&[]), []);
    }

    #[test]
    fn what_scales_a_running_model_to_zero_in_an_outage_is_found() {
        use CheckStatus::{Fail, Warn};
        let fallback =
            "  fallback: {failureThreshold: 3, replicas: 1, behavior: currentReplicasIfHigher}\n";
        check_found(&[(fallback, "")], Fail, "longer than the cooldown (5m)");
        assert_eq!(found(&[(fallback, ""), ("minReplicaCount: 0", "minReplicaCount: 1")]), []);
        check_found(&[("failureThreshold: 3, ", "")], Fail, "failureThreshold is missing");
        check_found(&[("replicas: 1,", "replicas: 0,")], Fail, "fallback.replicas is 0");
        check_found(
            &[("cooldownPeriod: 300", "cooldownPeriod: 90")],
            Fail,
            "begins after 1m30s (3 polls)",
        );
        check_found(
            &[(", behavior: currentReplicasIfHigher", "")],
            Warn,
            "also where more are running",
        );
    }

    #[test]
    fn what_reads_nothing_as_zero_or_others_load_as_its_own_is_found() {
        use CheckStatus::{Fail, Skip, Warn};
        let address = "http://collector.monitoring:9464";
        check_found(&[(address, "http://prometheus:9090")], Warn, "counts as 0");
        check_found(&[(address, "http://collector.monitoring:9464/raw")], Warn, "counts as 0");
        check_found(&[(r#"namespace="prod","#, "")], Warn, "selects every namespace");
        check_found(&[(r#",model_name="org/llama""#, "")], Warn, "selects every model");
        let queue = "llm_d_epp_flow_control_queue_size";
        let running = "vllm:num_requests_running";
        check_found(&[(queue, running)], Warn, "at zero this trigger fails");
        let zero =
            ("threshold: \"5\"", "threshold: \"5\"\n        queryParameters: \"empty=zero\"");
        assert_eq!(found(&[(queue, running), zero]), []);
        assert_eq!(found(&[(queue, running), ("minReplicaCount: 0", "minReplicaCount: 1")]), []);
        check_found(&[("AverageValue", "Value")], Warn, "metricType is Value");
        check_found(&[("sum(", "max(")], Warn, "metricType is AverageValue");
        check_found(&[("sum(", "sum((")], Fail, "its query cannot be read");
        check_found(&[("\"5\"", "5")], Fail, "metadata.threshold is 5");
        check_found(&[("threshold", "treshold")], Fail, "metadata.threshold is missing");
        check_found(&[("type: prometheus", "type: cpu")], Skip, "not checked");
    }

    #[test]
    fn an_answer_is_a_number_or_why_it_is_none() {
        let vector = |result: &str| {
            let body = format!(r#"{{"data":{{"resultType":"vector","result":[{result}]}}}}"#);
            read_by_keda(body.as_bytes())
        };
        let sample = |value: &str| format!(r#"{{"metric":{{}},"value":[1,"{value}"]}}"#);
        assert_eq!(vector(&sample("7")), Ok("7".to_owned()));
        assert!(vector("").unwrap_err().contains("taken for 0"));
        assert!(vector(&sample("NaN")).unwrap_err().contains("taken for 0"));
        assert!(vector(&[sample("1"), sample("2")].join(",")).unwrap_err().contains("2 elements"));
        assert!(read_by_keda(br#"{"data":{"resultType":"scalar","result":[1,"2"]}}"#).is_err());
        assert!(read_by_keda(b"<html>").is_err());
    }

    #[test]
    fn the_example_passes() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/scaledobject.yaml");
        let objects = read(Path::new(file)).unwrap();
        assert_eq!(objects.len(), 2);
        for check in objects.iter().flat_map(|object| object.rules(9464)) {
            assert_eq!(check.status, CheckStatus::Pass, "{check:?}");
        }
    }

    #[test]
    fn objects_come_in_documents_and_lists() {
        let two = format!("{GOOD}---\nkind: Deployment\n---{GOOD}");
        assert_eq!(parse(&two).unwrap().len(), 2);
        let list =
            r#"{"kind": "List", "items": [{"kind": "ScaledObject", "metadata": {"name": "a"}}]}"#;
        let object = parse(list).unwrap().remove(0);
        assert_eq!((object.name.as_str(), object.min, object.triggers.len()), ("a", 0, 0));
        assert!(parse("a: [").is_err());
    }
}
