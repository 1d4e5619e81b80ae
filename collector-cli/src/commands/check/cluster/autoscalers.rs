// SPDX-License-Identifier: Apache-2.0
//! The ScaledObjects and HPAs of the cluster, by the rules of `check --scaled-object` and `check --hpa`: a line for each
//! object with something wrong.

use collector_core::text::counted;
use collector_core::{Check, CheckStatus};
use collector_kubernetes::Autoscalers;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::super::autoscalers::{Lint, asks_server, context, together};
use super::super::groups::{fail, pass, skip, warn};
use super::super::hpa::Hpa;
use super::super::objects::{Kind, Object, name_of};
use super::super::scaled_object::ScaledObject;
use super::server::failure;
use super::{Asked, GROUP_MAX};
use crate::server::server;

const ID: &str = "cluster.autoscalers";

/// Objects of a kind that are read.
const OBJECTS_MAX: usize = 500;

/// Objects with something wrong that are shown.
const SHOWN: usize = 20;

/// The checks that end before the deadline.
pub(super) async fn checks(asked: &Asked<'_>, deadline: Instant) -> Vec<Check> {
    let (cluster, model) = (asked.cluster, asked.model);
    let (scaled, hpas) = tokio::join!(
        cluster.autoscalers(true, OBJECTS_MAX),
        cluster.autoscalers(false, OBJECTS_MAX)
    );
    let (scaled, hpas) = match (scaled, hpas) {
        (Ok(scaled), Ok(hpas)) => (scaled, hpas),
        (Err(error), _) | (_, Err(error)) => return vec![failure(ID, &error)],
    };
    let has_more = scaled.has_more || hpas.has_more;
    let in_namespace = |object: &Value| {
        model.is_none_or(|model| object["metadata"]["namespace"] == model.namespace.as_str())
    };
    let objects = |of: Autoscalers, kind| {
        let objects = of.objects.into_iter().filter(&in_namespace);
        objects.map(move |value| Object { kind, document: 0, path: Vec::new(), value })
    };
    let objects: Vec<Object> = objects(scaled, Kind::ScaledObject)
        .chain(objects(hpas, Kind::Hpa))
        .filter(is_of_metrics)
        .collect();
    let mut checks = lint(asked, &objects, deadline).await;
    if has_more {
        let detail = format!(
            "there are more than {OBJECTS_MAX} objects of a kind; the others were not checked"
        );
        let remedy = "kubectl get scaledobject,hpa -n NAMESPACE -o yaml | collector check --scaled-object - --hpa -";
        checks.push(warn(ID, detail).with_remedy(remedy));
    }
    checks
}

/// Whether it scales by metrics of model servers, asked from us or from a Prometheus.
fn is_of_metrics(object: &Object) -> bool {
    match object.kind {
        Kind::ScaledObject => ScaledObject::of(&object.value).is_of_metrics(),
        // KEDA's own HPAs are checked with their ScaledObjects.
        Kind::Hpa => {
            let hpa = Hpa::of(&object.value);
            !hpa.is_of_keda() && (hpa.has_queries() || hpa.needs_other_adapter())
        }
    }
}

async fn lint(asked: &Asked<'_>, objects: &[Object], deadline: Instant) -> Vec<Check> {
    if objects.is_empty() {
        return vec![skip(
            ID,
            "no ScaledObject and no HPA scales by metrics of the collector or of a Prometheus",
        )];
    }
    let (mut wrong, mut right, mut late) = (Vec::new(), 0, 0);
    let has_server = server(&asked.settings.loaded).is_some();
    let (objects, unasked): (Vec<Object>, Vec<Object>) = objects
        .iter()
        .cloned()
        .partition(|object| has_server || !asks_server(object, asked.settings));
    if !unasked.is_empty() {
        let objects = counted(unasked.len(), "object asks", "objects ask");
        wrong.push(skip(ID, &format!("{objects} a Prometheus, and none is set (prometheus.url)")));
    }
    let objects = &objects;
    let context = context(asked.settings);
    let lint = match Lint::new(asked.settings, asked.collector, context, objects) {
        Ok(lint) => lint,
        Err(failure) => return vec![fail(ID, failure.problems().join("; "))],
    };
    for object in objects {
        let Ok(found) = timeout_at(deadline, lint.object(object)).await else {
            late += 1;
            continue;
        };
        match summary(object, &found) {
            Some(check) => wrong.push(check),
            None => right += 1,
        }
    }
    wrong.extend(together(objects).into_iter().map(|mut check| {
        ID.clone_into(&mut check.id);
        check
    }));
    wrong.sort_by_key(|check: &Check| match check.status {
        CheckStatus::Fail => 0,
        CheckStatus::Warn => 1,
        CheckStatus::Pass | CheckStatus::Skip => 2,
    });
    let more = wrong.len().saturating_sub(SHOWN);
    let has_failed = wrong.iter().skip(SHOWN).any(|check| check.status == CheckStatus::Fail);
    wrong.truncate(SHOWN);
    if more > 0 {
        let check = if has_failed { fail } else { warn };
        wrong.push(check(ID, format!("{more} more have something wrong")).with_remedy(
            "kubectl get scaledobject,hpa -A -o yaml | collector check --scaled-object - --hpa -",
        ));
    }
    if right > 0 {
        wrong.push(pass(
            ID,
            format!("{} nothing wrong", counted(right, "object has", "objects have")),
        ));
    }
    if late > 0 {
        let detail = format!(
            "{} not checked within {} s",
            counted(late, "object was", "objects were"),
            GROUP_MAX.as_secs()
        );
        wrong.push(skip(ID, &detail));
    }
    wrong
}

/// What is wrong with an object, in one line; `None` if nothing is.
fn summary(object: &Object, found: &[Check]) -> Option<Check> {
    let of = |status| found.iter().filter(move |check| check.status == status);
    let (fails, warns) = (of(CheckStatus::Fail).count(), of(CheckStatus::Warn).count());
    let worst = of(CheckStatus::Fail).chain(of(CheckStatus::Warn)).next()?;
    let (kind, flag, short) = match object.kind {
        Kind::ScaledObject => ("ScaledObject", "--scaled-object", "scaledobject"),
        Kind::Hpa => ("HPA", "--hpa", "hpa"),
    };
    let name = name_of(&object.value);
    // It begins with the name, and may name a part of the object next.
    let problem = worst.detail.strip_prefix(&name).unwrap_or(&worst.detail);
    let problem = problem.trim_start_matches([',', ':', ' ']);
    let more = match fails + warns - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    let detail = format!("{kind} {name}: {problem}{more}");
    let check = if fails > 0 { fail } else { warn };
    let metadata = &object.value["metadata"];
    // What people copy into a shell has no name that a shell could take for more.
    let is_plain = |name: &&str| {
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
    };
    let part = |key: &str| metadata[key].as_str().filter(is_plain).unwrap_or("NAME");
    let remedy = format!(
        "kubectl get {short} {} -n {} -o yaml | collector check {flag} -",
        part("name"),
        part("namespace")
    );
    Some(check(ID, detail).with_remedy(remedy))
}
