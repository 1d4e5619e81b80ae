// SPDX-License-Identifier: Apache-2.0
//! The rules that a ScaledObject must follow, so that missing metrics do not scale a running model to zero.

use std::time::Duration;

use collector_core::text::counted;
use collector_core::{Check, CheckStatus, duration};
use collector_promql::Limits;
use serde_json::json;

use super::super::hpa::STABILIZATION;
use super::super::objects::Finding;
use super::super::yaml::{Step, shown, steps};
use super::{Fallback, ScaledObject, Trigger, number};

/// Failed polls after which a fallback begins, if the cooldown allows it.
const FAILURES: u64 = 3;
/// The behavior of a fallback that removes no replicas.
const IF_HIGHER: &str = "currentReplicasIfHigher";

/// What the rules need from the configuration.
#[derive(Clone, Debug)]
pub(in super::super) struct Context {
    /// The port of this collector's API.
    pub(in super::super) port: u16,
    /// The limits of a query.
    pub(in super::super) limits: Limits,
}

impl ScaledObject {
    /// Returns the checks that need no request.
    pub(in super::super) fn rules(&self, context: &Context) -> Vec<Finding> {
        let mut findings = self.numbers();
        findings.push(self.minimum());
        findings.extend(self.range());
        findings.extend(self.fallback.as_ref().map(|fallback| self.of_fallback(fallback)));
        findings.extend(self.behavior());
        findings.extend(self.workload().into_iter().map(Finding::from));
        findings.extend(self.remarks(context.port).into_iter().map(Finding::from));
        for trigger in &self.triggers {
            let of_trigger = trigger.rules(context, self.to_zero(), self.sees_demand());
            findings.extend(of_trigger.into_iter().map(|mut finding| {
                let detail = &finding.check.detail;
                finding.check.detail =
                    format!("{}, trigger {}: {detail}", self.name, trigger.number());
                finding
            }));
        }
        if self.triggers.is_empty() {
            findings.push(self.check("trigger", CheckStatus::Fail, "it has no triggers").into());
        }
        findings
    }

    /// Fields that must be numbers, and are texts.
    fn numbers(&self) -> Vec<Finding> {
        let findings = self.not_numbers.iter().map(|(path, value)| {
            let path: Vec<Step> =
                ["spec"].iter().chain(*path).map(|key| Step::from(*key)).collect();
            let detail =
                format!("{} is {value}, but Kubernetes requires a whole number", shown(&path));
            let finding = Finding::from(self.check("minimum", CheckStatus::Fail, detail));
            match number(value) {
                Some(number) => finding.fixed_by(path, number),
                None => finding,
            }
        });
        findings.collect()
    }

    fn minimum(&self) -> Finding {
        let to_zero = match self.idle {
            Some(0) if self.min() > 0 => "it scales to zero (idleReplicaCount: 0)",
            _ => "it scales to zero",
        };
        if !self.to_zero() {
            let detail =
                format!("at least {} replicas remain while its triggers fail", self.min().max(1));
            return self.check("minimum", CheckStatus::Pass, detail).into();
        }
        if self.fallback.is_some() {
            let detail = format!("{to_zero}, and has a fallback for failing triggers");
            return self.check("minimum", CheckStatus::Pass, detail).into();
        }
        let detail = format!(
            "{to_zero} without a fallback: if its triggers fail for longer than the cooldown ({}), KEDA may scale a running \
             model to zero",
            duration::format(self.cooldown)
        );
        let check = self.check("minimum", CheckStatus::Fail, detail).with_remedy(
            "set spec.minReplicaCount: 1, or spec.fallback: {failureThreshold: 3, replicas: 1, behavior: \
             currentReplicasIfHigher}",
        );
        let (failures, mut finding) = self.with_room(check.into());
        let fallback = json!({"failureThreshold": failures, "replicas": 1, "behavior": IF_HIGHER});
        finding = finding.fixed_by(steps!["spec", "fallback"], fallback);
        finding
    }

    /// Returns after how many failed polls a fallback can begin before the cooldown ends, and adds a longer cooldown where
    /// none can.
    fn with_room(&self, finding: Finding) -> (u64, Finding) {
        let begins = |failures: &u64| self.begins(*failures);
        if let Some(failures) = (1..=FAILURES).rev().find(|it| begins(it) < self.cooldown) {
            return (failures, finding);
        }
        let cooldown = (begins(&FAILURES) * 2).max(Duration::from_secs(super::COOLDOWN_SECONDS));
        (FAILURES, finding.fixed_by(steps!["spec", "cooldownPeriod"], cooldown.as_secs()))
    }

    /// Returns how long triggers fail until the next failure is a fallback's.
    fn begins(&self, failures: u64) -> Duration {
        self.polling.saturating_mul(u32::try_from(failures).unwrap_or(u32::MAX))
    }

    fn range(&self) -> Option<Finding> {
        let (min, max) = (self.min(), self.max);
        if max < min || max == 0 {
            let detail = format!("maxReplicaCount is {max} and minReplicaCount {min}");
            return Some(self.check("minimum", CheckStatus::Fail, detail).into());
        }
        if min == max && self.idle.is_none() {
            let detail =
                format!("minReplicaCount and maxReplicaCount are {min}, so it never scales");
            return Some(self.check("minimum", CheckStatus::Warn, detail).into());
        }
        // KEDA takes a minimum of 0 for 1 here, and a missing one not.
        let least = self.min.map_or(0, |min| min.max(1));
        let idle = self.idle.filter(|idle| *idle >= least)?;
        let detail = format!(
            "idleReplicaCount is {idle}, but must be less than minReplicaCount ({min}), and 0 is the only value that KEDA supports"
        );
        Some(self.check("minimum", CheckStatus::Fail, detail).into())
    }

    fn of_fallback(&self, fallback: &Fallback) -> Finding {
        let Fallback { failures, replicas, behavior } = fallback;
        let check = |status, detail: String| Finding::from(self.check("fallback", status, detail));
        let of = |key: &str| steps!["spec", "fallback", key];
        let Some(failures) = *failures else {
            let finding = check(CheckStatus::Fail, "failureThreshold is missing".to_owned());
            let (failures, finding) = self.with_room(finding);
            return finding.fixed_by(of("failureThreshold"), failures);
        };
        let failing_for = self.begins(failures);
        let [begins, cooldown] = [failing_for, self.cooldown].map(duration::format);
        if *replicas == 0 {
            let detail = "replicas is 0: a failing trigger scales a running model to zero";
            let check = self.check("fallback", CheckStatus::Fail, detail);
            return Finding::from(check.with_remedy("set fallback.replicas: 1"))
                .fixed_by(of("replicas"), 1);
        }
        if self.to_zero() && failing_for >= self.cooldown {
            let detail = format!(
                "it begins after {begins} ({}), when the cooldown of {cooldown} is over",
                counted(failures, "poll", "polls")
            );
            let check = self
                .check("fallback", CheckStatus::Fail, detail)
                .with_remedy("failureThreshold x pollingInterval must be less than cooldownPeriod");
            let (failures, finding) = self.with_room(check.into());
            return finding.fixed_by(of("failureThreshold"), failures);
        }
        if matches!(behavior.as_str(), "static" | "currentReplicasIfLower") {
            let sets = if behavior == "static" { "sets" } else { "leaves at most" };
            let polls = counted(failures.max(1), "failed poll", "failed polls");
            let replicas = counted(*replicas, "replica", "replicas");
            let detail = format!("after {polls} it {sets} {replicas}, even if more are running");
            let check = self.check("fallback", CheckStatus::Warn, detail);
            return Finding::from(
                check.with_remedy("set fallback.behavior: currentReplicasIfHigher (KEDA 2.17)"),
            )
            .fixed_by(of("behavior"), IF_HIGHER);
        }
        if !["currentReplicas", IF_HIGHER].contains(&behavior.as_str()) {
            let detail =
                format!("behavior {behavior:?} is not checked: it may remove running replicas");
            return check(CheckStatus::Skip, detail);
        }
        let before = if self.to_zero() {
            format!(", before the cooldown of {cooldown} is over")
        } else {
            String::new()
        };
        if let Some(target) = &self.formula
            && !target.parse::<u32>().is_ok_and(|target| target > 0)
        {
            let detail = format!(
                "KEDA has no fallback with a formula whose target is not a whole number in quotes ({target:?})"
            );
            return check(CheckStatus::Warn, detail);
        }
        let newer = self.triggers.iter().filter(|trigger| trigger.needs_newer_fallback());
        let newer: Vec<String> = newer.map(|trigger| trigger.number().to_string()).collect();
        let newer = match newer.len() {
            0 => String::new(),
            1 => format!("; for trigger {} it needs KEDA 2.18", newer.concat()),
            _ => format!("; for triggers {} it needs KEDA 2.18", newer.join(", ")),
        };
        check(CheckStatus::Pass, format!("it begins after {begins}{before}{newer}"))
    }

    fn behavior(&self) -> Vec<Finding> {
        const PATH: [&str; 6] = [
            "spec",
            "advanced",
            "horizontalPodAutoscalerConfig",
            "behavior",
            "scaleDown",
            "stabilizationWindowSeconds",
        ];
        let disabled = self.disabled.iter().map(|way| {
            let ends = if *way == "scaleUp" {
                "adds replicas above the minimum"
            } else {
                "removes replicas"
            };
            let detail = format!("{way}.selectPolicy is Disabled, so its HPA never {ends}");
            Finding::from(self.check("behavior", CheckStatus::Warn, detail))
        });
        let mut findings: Vec<Finding> = disabled.collect();
        if self.stabilization != Some(0) {
            return findings;
        }
        let detail = "scaleDown.stabilizationWindowSeconds is 0, so each dip of the load removes replicas, which take minutes \
                      to start again";
        let remedy = format!("set it to {STABILIZATION}, which is the default");
        let check = self.check("behavior", CheckStatus::Warn, detail).with_remedy(remedy);
        findings.push(Finding::from(check).fixed_by(PATH.map(Step::from).to_vec(), STABILIZATION));
        findings
    }

    /// What it scales, and fields that KEDA does not have.
    fn workload(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        if let Some(kind) = &self.kind_without_group {
            let detail = format!(
                "scaleTargetRef.kind is {kind} without apiVersion, so KEDA looks for it in apps/v1"
            );
            let check = self.check("target", CheckStatus::Fail, detail);
            checks.push(
                check.with_remedy(format!("set scaleTargetRef.apiVersion to that of {kind}")),
            );
        }
        let unknown = self.unknown.iter();
        checks.extend(unknown.map(|detail| self.check("fields", CheckStatus::Warn, detail)));
        checks
    }

    /// What is not wrong, and changes the meaning of everything else.
    fn remarks(&self, port: u16) -> Vec<Check> {
        let mut checks = Vec::new();
        if let Some(annotation) = &self.paused {
            let detail = format!("it is paused (annotation {annotation})");
            checks.push(self.check("paused", CheckStatus::Warn, detail));
        }
        if self.formula.is_some() {
            let detail = "advanced.scalingModifiers.formula replaces the values of its triggers, and is not checked";
            checks.push(self.check("formula", CheckStatus::Skip, detail));
        }
        if self.min() == 0 && self.is_of_resources() {
            let detail = "KEDA refuses it: with triggers of CPU and memory alone, minReplicaCount must be at least 1";
            let check = self.check("minimum", CheckStatus::Fail, detail);
            checks.push(check.with_remedy("set spec.minReplicaCount: 1"));
        }
        let is_zero =
            |trigger: &Trigger| trigger.is_of_engine() && trigger.is_zero_without_pods(port);
        if self.to_zero() && !self.triggers.is_empty() && self.active().all(is_zero) {
            let detail = "at zero replicas no pod has the series of its triggers, which is 0, so nothing starts the first replica";
            checks.push(
                self.check("minimum", CheckStatus::Warn, detail).with_remedy(
                    "add a trigger on the endpoint picker's queue, which holds requests while there are no pods",
                ),
            );
        }
        if self.to_zero()
            && !self.triggers.is_empty()
            && self.active().all(Trigger::counts_waiting_only)
        {
            let detail = "its triggers count waiting requests alone, so it scales to zero while requests run";
            checks.push(
                self.check("minimum", CheckStatus::Warn, detail)
                    .with_remedy("add a trigger on the running requests"),
            );
        }
        checks
    }

    /// Returns whether a trigger may be active while there are no pods: one that needs no series of model servers.
    fn sees_demand(&self) -> bool {
        self.active().any(|trigger| !trigger.is_of_engine())
    }
}

#[cfg(test)]
mod tests;
