// SPDX-License-Identifier: Apache-2.0
//! `check --fix`: makes the changes that rules propose, in the text of each file.

use std::collections::BTreeMap;

use collector_core::{Check, CheckStatus};
use serde_json::Value;

use super::objects::{File, Finding, Kind, Object, name_of};
use super::yaml::{self, To};
use crate::exit::Failure;

/// A change may show another mistake; no rule needs more rounds.
const ROUNDS_MAX: usize = 5;

/// What became of a file.
pub(super) struct Fixed {
    pub(super) file: File,
    /// What was changed, and what could not be.
    pub(super) checks: Vec<Check>,
}

/// Makes the changes of `rules` until none is left. What the text means otherwise stays the same: the result is parsed
/// and compared.
pub(super) fn fix(file: File, rules: impl Fn(&Object) -> Vec<Finding>) -> Result<Fixed, Failure> {
    let (mut file, mut checks) = (file, Vec::new());
    // By the position of an object, which no change moves.
    let mut comments: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for _ in 0..ROUNDS_MAX {
        let (mut edits, mut values) = (Vec::new(), values(&file));
        for (position, object) in file.objects().iter().enumerate() {
            let node = yaml::find(&file.documents[object.document], &object.path);
            let Some(node) = node else { continue };
            for finding in rules(object) {
                let changes = finding.changes.into_iter();
                let changes: Vec<_> =
                    changes.map(|change| yaml::resolved(&file.text, node, change)).collect();
                let made: Result<Vec<_>, String> =
                    changes.iter().map(|change| yaml::edit(&file.text, node, change)).collect();
                match made {
                    Ok(made) => {
                        let mut done = Vec::new();
                        for (change, edit) in changes.iter().zip(made) {
                            // Two findings may change the same value: the next round sees what is left.
                            let is_taken = |(from, to, by): &yaml::Edit| {
                                edit.0 < *to && *from < edit.1 || (*from, by) == (edit.0, &edit.2)
                            };
                            if edits.iter().any(is_taken) {
                                continue;
                            }
                            edits.push(edit);
                            let value = value_at(&mut values[object.document], object);
                            yaml::change_value(value, change);
                            done.push(described(change));
                        }
                        if done.is_empty() {
                            continue;
                        }
                        let (what, why) = (done.join(", "), reason(&finding.check, &object.value));
                        let comment = format!("collector check --fix: {what} ({why})");
                        comments.entry(position).or_default().push(comment);
                        let detail = format!("{}: {what}", name_of(&object.value));
                        checks.push(check(object.kind, CheckStatus::Pass, detail));
                    }
                    Err(why) => {
                        let detail = format!(
                            "{}: {} cannot be changed here: {why}",
                            name_of(&object.value),
                            changes
                                .iter()
                                .map(|change| yaml::shown(&change.path))
                                .collect::<Vec<_>>()
                                .join(", ")
                        );
                        let check = check(object.kind, CheckStatus::Warn, detail);
                        if !checks.contains(&check) {
                            checks.push(check);
                        }
                    }
                }
            }
        }
        if edits.is_empty() {
            break;
        }
        file = replaced(&file, edits, &values)?;
    }
    let mut edits = Vec::new();
    for (position, object) in file.objects().iter().enumerate() {
        let node = yaml::find(&file.documents[object.document], &object.path);
        if let (Some(lines), Some(node)) = (comments.get(&position), node) {
            edits.extend(yaml::comment(&file.text, node, lines));
        }
    }
    let values = values(&file);
    let file = replaced(&file, edits, &values)?;
    Ok(Fixed { file, checks })
}

/// Returns the file with edits, if it then means these values.
fn replaced(file: &File, edits: Vec<yaml::Edit>, expected: &[Value]) -> Result<File, Failure> {
    let text = yaml::apply(&file.text, edits);
    let new = file.with_text(text).ok().filter(|new| values(new) == expected);
    new.ok_or_else(|| {
        Failure::other(format!(
            "--fix: {} is written in a form that cannot be changed in place; nothing was printed",
            file.name
        ))
        .with_hint("make the changes that check without --fix proposes")
    })
}

fn values(file: &File) -> Vec<Value> {
    file.documents.iter().map(|node| node.value.value()).collect()
}

fn value_at<'a>(document: &'a mut Value, object: &Object) -> &'a mut Value {
    object.path.iter().fold(document, |value, step| match step {
        yaml::Step::Key(key) => &mut value[key.as_str()],
        yaml::Step::Index(index) => &mut value[*index],
    })
}

fn check(kind: Kind, status: CheckStatus, detail: String) -> Check {
    let group = match kind {
        Kind::ScaledObject => "scaled-object",
        Kind::Hpa => "hpa",
    };
    Check::new(format!("{group}.fixed"), status, detail)
}

fn described(change: &yaml::Change) -> String {
    let path = yaml::shown(&change.path);
    match &change.to {
        To::Value(value) => format!("{path} is now {value}"),
        To::Renamed(name) => format!("{path} is renamed to {name}"),
        To::Quoted => format!("{path} is now a text"),
    }
}

/// The detail of a check without the name of its object.
fn reason<'a>(check: &'a Check, object: &Value) -> &'a str {
    let detail = check.detail.strip_prefix(&name_of(object)).unwrap_or(&check.detail);
    detail.trim_start_matches([':', ',', ' '])
}

/// The files as one text of YAML documents.
pub(super) fn joined(files: &[File]) -> String {
    let mut text = String::new();
    for file in files {
        if !text.is_empty() && !file.text.starts_with("---") {
            text.push_str("---\n");
        }
        text.push_str(&file.text);
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use collector_promql::Limits;

    use super::super::hpa::Hpa;
    use super::super::scaled_object::{Context, ScaledObject};
    use super::*;

    fn rules(object: &Object) -> Vec<Finding> {
        let context = Context { port: 9464, limits: Limits::default() };
        match object.kind {
            Kind::ScaledObject => ScaledObject::of(&object.value).rules(&context),
            Kind::Hpa => Hpa::of(&object.value).rules(&[]),
        }
    }

    fn file(text: &str) -> File {
        let kinds = vec![Kind::ScaledObject, Kind::Hpa];
        File::parse("a.yaml".to_owned(), text.to_owned(), kinds).unwrap()
    }

    /// Fixes a text. What rules can change is then right, and another run changes nothing.
    #[track_caller]
    fn fixed(text: &str) -> String {
        let once = fix(file(text), rules).unwrap();
        for object in once.file.objects() {
            for finding in rules(&object) {
                assert_eq!(finding.changes, [], "{:?}\n{}", finding.check, once.file.text);
            }
        }
        let twice = fix(file(&once.file.text), rules).unwrap();
        assert_eq!(twice.file.text, once.file.text);
        assert_eq!(twice.checks, []);
        once.file.text
    }

    const WRONG: &str = r#"# Mine.
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: llama, namespace: prod}
spec:
  scaleTargetRef: {name: llama}   # the deployment
  pollingInterval: 120
  triggers:
    - type: prometheus
      metricType: Value
      metadata:
        query: >
          sum(vllm:num_requests_running{namespace="prod",
          model_name="org/llama"})
        serverAddress: http://prometheus:9090
        threshold: 5
    - type: external
      metadata: {scalerAddress: "http://collector:9465", model: m, signal: kv-max}
"#;

    #[test]
    fn only_what_is_wrong_changes() {
        let text = fixed(WRONG);
        for says in [
            "# Mine.\n# collector check --fix: spec.fallback is now ",
            "spec:\n  fallback: {behavior: currentReplicasIfHigher, failureThreshold: 2, replicas: 1}\n  scaleTargetRef: \
             {name: llama}   # the deployment\n",
            "      metricType: AverageValue\n",
            "      metadata:\n        query: >\n          sum(",
            "        threshold: \"5\"\n",
            "    - metricType: Value\n      type: external\n",
            "metadata: {scalerAddress: \"collector:9465\", model: m, signal: kv-max}",
        ] {
            assert!(text.contains(says), "{says}\n{text}");
        }
        let kept = |line: &&str| {
            !["metricType", "threshold", "external", "scalerAddress"]
                .iter()
                .any(|word| line.contains(word))
        };
        for line in WRONG.lines().filter(kept) {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn a_fallback_that_removes_replicas_or_begins_too_late_is_fixed() {
        let object = |fallback: &str| {
            format!(
                "kind: ScaledObject\nmetadata: {{name: a}}\nspec:\n  cooldownPeriod: 60\n  fallback: {fallback}\n"
            )
        };
        for fallback in [
            "{failureThreshold: 3, replicas: 0}",
            "{failureThreshold: 30, replicas: 1, behavior: static}",
            "{}",
            "\n    replicas: 0\n    failureThreshold: 9",
            "null",
            "",
        ] {
            let text = fixed(&object(fallback));
            let value = file(&text).objects().remove(0).value;
            let fallback = &value["spec"]["fallback"];
            assert_eq!(fallback["failureThreshold"], 1, "{text}");
            assert_eq!(fallback["replicas"], 1, "{text}");
            assert_eq!(fallback["behavior"], "currentReplicasIfHigher", "{text}");
        }
        // No number of polls fits.
        let text = fixed(&object("{failureThreshold: 3, replicas: 1}").replace("60", "20"));
        assert_eq!(file(&text).objects()[0].value["spec"]["cooldownPeriod"], 300);
    }

    #[test]
    fn numbers_that_are_texts_keep_their_values() {
        let text = fixed(
            "kind: ScaledObject\nmetadata: {name: a}\nspec:\n  fallback: {failureThreshold: '2', replicas: \"3\", behavior: \
             currentReplicas}\n",
        );
        assert!(
            text.contains("{failureThreshold: 2, replicas: 3, behavior: currentReplicas}"),
            "{text}"
        );
        let text = fixed(
            "kind: HorizontalPodAutoscaler\napiVersion: autoscaling/v2\nmetadata: {name: a}\nspec:\n  scaleTargetRef: {kind: \
             Deployment, name: a}\n  maxReplicas: '4'\n",
        );
        assert!(
            text.contains("scaleTargetRef: {apiVersion: \"apps/v1\", kind: Deployment"),
            "{text}"
        );
        assert!(text.contains("maxReplicas: 4\n"), "{text}");
    }

    #[test]
    fn every_combination_of_mistakes_is_fixed_at_once() {
        let triggers = [
            "{type: prometheus, metricType: Value, metadata: {serverAddress: 'http://p:9090', query: 'sum(vllm:a)', \
             threshold: 5, ignoreNullValues: true}}",
            "{type: prometheus, metadata: {serverAddress: 'http://c:9464', query: 'max(vllm:a)', threshold: '5'}}",
            "{type: external, metricType: Utilization, metadata: {scalerAddress: 'https://c:9465/', model: m, target: 1.5}}",
            "{type: cron}",
        ];
        let fallbacks = [
            "",
            "fallback: null, ",
            "fallback: {}, ",
            "fallback: {replicas: 0}, ",
            "fallback: {failureThreshold: 9, replicas: 2, behavior: static}, ",
        ];
        let numbers = [
            "",
            "minReplicaCount: '0', ",
            "minReplicaCount: 2, idleReplicaCount: 0, ",
            "cooldownPeriod: 10, ",
            "pollingInterval: '400', cooldownPeriod: 20, ",
        ];
        for numbers in numbers {
            for fallback in fallbacks {
                let alone = triggers.iter().map(std::slice::from_ref);
                for used in alone.chain([&[][..], &triggers]) {
                    let text = format!(
                        "kind: ScaledObject\nmetadata: {{name: a}}\nspec: {{{numbers}{fallback}triggers: [{}]}}\n",
                        used.join(", ")
                    );
                    let flow = fixed(&text);
                    // The same as JSON.
                    let json = file(&text).documents[0].value.value().to_string();
                    let json = file(&fixed(&json)).documents[0].value.value();
                    assert_eq!(file(&flow).documents[0].value.value(), json);
                }
            }
        }
    }

    #[test]
    fn an_hpa_in_a_list_as_json_is_fixed() {
        let text = r#"{"kind": "List", "items": [{"kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v2",
 "metadata": {"name": "a", "namespace": "prod"}, "spec": {"maxReplicas": 3, "metrics": [{"type": "External", "external":
 {"metric": {"name": "vllm:num_requests_waiting"}, "target": {"type": "Value", "value": "5"}}}]}}]}"#;
        let text = fixed(text);
        assert!(
            text.contains(r#""target": {"type": "AverageValue", "averageValue": "5"}"#),
            "{text}"
        );
        assert!(
            text.starts_with("# collector check --fix: spec.metrics[0].external.target.type"),
            "{text}"
        );
    }

    #[test]
    fn the_last_trigger_that_can_start_a_replica_stays_as_it_is() {
        let trigger = |query: &str| {
            format!(
                "{{type: prometheus, metadata: {{serverAddress: 'http://c:9464', threshold: '5', query: '{query}'}}}}"
            )
        };
        let object = |triggers: &[String]| {
            format!(
                "kind: ScaledObject\nmetadata: {{name: a}}\nspec:\n  fallback: {{failureThreshold: 3, replicas: 1, behavior: \
                 currentReplicasIfHigher}}\n  triggers: [{}]\n",
                triggers.join(", ")
            )
        };
        let running = trigger("sum(vllm:num_requests_running)");
        let alone = object(std::slice::from_ref(&running));
        assert_eq!(fixed(&alone), alone);
        let queue = trigger("sum(llm_d_epp_flow_control_queue_size)");
        let direct = object(&[running.replace("c:9464", "p:9090"), queue.clone()]);
        assert_eq!(fixed(&direct), direct, "it is 0 without pods; an error would start one");
        let both = object(&[running, queue]);
        assert!(fixed(&both).contains(
            "\n  triggers: [{type: prometheus, metadata: {queryParameters: \"empty=zero\", "
        ));
    }

    #[test]
    fn what_only_the_user_knows_stays() {
        let text = "kind: ScaledObject\nspec:\n  minReplicaCount: 1\n  triggers:\n    - {type: external, metadata: \
                    {scalerAddress: \"c:9465\"}}\n";
        assert_eq!(fixed(text), text);
        assert!(
            rules(&file(text).objects()[0]).iter().any(|it| it.check.status == CheckStatus::Fail)
        );
    }

    #[test]
    fn a_value_behind_an_alias_is_left_and_named() {
        let text = "kind: ScaledObject\nmetadata: {name: a, labels: &x {replicas: 0}}\nspec:\n  fallback: *x\n";
        let fixed = fix(file(text), rules).unwrap();
        assert_eq!(fixed.file.text, text);
        let [check] = fixed.checks.as_slice() else { panic!("{:?}", fixed.checks) };
        assert_eq!(check.status, CheckStatus::Warn);
        assert!(check.detail.contains("alias"), "{check:?}");
    }

    #[test]
    fn files_are_joined_as_documents() {
        let files = [file("kind: A"), file("---\nkind: B\n"), file("kind: C\n")];
        assert_eq!(joined(&files), "kind: A\n---\nkind: B\n---\nkind: C\n");
    }
}
