//! The rules for triggers on the collector's external scaler, by the keys that it reads.

use std::time::Duration;

use collector_core::{Check, CheckStatus, duration};
use collector_promql::Kind;

use super::super::objects::Finding;
use super::Trigger;
use crate::output::nearest_first;

/// The port of the scaler in the documentation.
const PORT: &str = ":9465";
/// A signal: its name, and how it depends on the number of replicas.
const SIGNALS: [(&str, Kind); 9] = [
    ("queue", Kind::Sum),
    ("running", Kind::Sum),
    ("kv-sum", Kind::Sum),
    ("kv-max", Kind::Ratio),
    ("saturation", Kind::Ratio),
    ("backlog-seconds", Kind::Sum),
    ("waiting-capacity", Kind::Sum),
    ("composite", Kind::Ratio),
    ("slo-ratio", Kind::Ratio),
];
/// The keys that the scaler or KEDA reads.
const KEYS: [&str; 20] = [
    "scalerAddress",
    "model",
    "modelNamespace",
    "variant",
    "signal",
    "target",
    "activation",
    "maxAge",
    "onMissing",
    "peakPrefillThroughput",
    "signals",
    "metric",
    "slo",
    "quantile",
    "enableTLS",
    "unsafeSsl",
    "caCert",
    "tlsCertFile",
    "tlsClientCert",
    "tlsClientKey",
];

impl Trigger {
    /// Returns whether it is a trigger on an external scaler.
    pub(super) fn is_external(&self) -> bool {
        self.kind == "external" || self.kind == "external-push"
    }

    /// Returns whether the scaler is a collector's: it has its port, or a model.
    pub(super) fn is_of_collector(&self) -> bool {
        self.is_external()
            && (["model", "modelFromEnv"].iter().any(|key| self.metadata.contains_key(*key))
                || self.text("scalerAddress").is_some_and(|address| address.ends_with(PORT)))
    }

    pub(super) fn signal(&self) -> &str {
        self.text("signal").unwrap_or("queue")
    }

    pub(super) fn external_rules(&self) -> Vec<Finding> {
        let check = |status, detail: String| Check::new("scaled-object.trigger", status, detail);
        if !self.is_of_collector() {
            let detail = "the external scaler is not this collector's, and is not checked";
            return vec![check(CheckStatus::Skip, detail.to_owned()).into()];
        }
        let mut findings = self.texts();
        findings.extend(self.address());
        if self.text("model").is_none() && !self.metadata.contains_key("modelFromEnv") {
            findings.push(check(CheckStatus::Fail, "metadata.model is missing".to_owned()).into());
        }
        findings.extend(self.number_rule("target", true));
        findings.extend(self.number_rule("activation", false));
        findings.extend(self.activation());
        findings.extend(self.of_signal());
        findings.extend(self.max_age());
        findings.extend(self.on_missing());
        findings.extend(self.unknown_keys());
        if findings.is_empty() {
            let detail = format!("signal {} follows the rules", self.signal());
            findings.push(check(CheckStatus::Pass, detail).into());
        }
        findings
    }

    fn address(&self) -> Option<Finding> {
        let fail = |detail: String| Check::new("scaled-object.address", CheckStatus::Fail, detail);
        let Some(address) = self.text("scalerAddress") else {
            return Some(fail("metadata.scalerAddress is missing".to_owned()).into());
        };
        let bare = address
            .strip_prefix("http://")
            .or_else(|| address.strip_prefix("https://"))
            .map(|rest| rest.trim_end_matches('/'));
        if let Some(bare) = bare {
            let detail = format!("scalerAddress is {address}, but gRPC addresses have no scheme");
            let check = fail(detail).with_remedy(format!("set scalerAddress: {bare}"));
            let finding = Finding::from(check);
            return Some(finding.fixed_by(self.metadata_path("scalerAddress"), bare));
        }
        let port = address.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(1..))) {
            let detail = format!("scalerAddress is {address}, and has no port");
            return Some(fail(detail).with_remedy("write host:9465").into());
        }
        None
    }

    fn activation(&self) -> Option<Finding> {
        let activation = self.text("activation")?.parse::<f64>().ok()?;
        let detail = format!(
            "metadata.activation: {activation} is below 0, so the trigger is always active"
        );
        let check = Check::new("scaled-object.trigger", CheckStatus::Fail, detail);
        (activation < 0.0).then(|| check.into())
    }

    fn of_signal(&self) -> Vec<Finding> {
        let fail = |detail: String| {
            Finding::from(Check::new("scaled-object.signal", CheckStatus::Fail, detail))
        };
        let signal = self.signal();
        let Some(kind) = kind_of(signal) else {
            return vec![fail(unknown("metadata.signal", signal, SIGNALS.map(|(name, _)| name)))];
        };
        let mut findings: Vec<Finding> = Vec::new();
        match signal {
            "backlog-seconds" => {
                if self.text("peakPrefillThroughput").is_none() {
                    findings.push(fail(
                        "signal backlog-seconds needs peakPrefillThroughput (prompt tokens a second)".to_owned(),
                    ));
                }
                findings.extend(self.number_rule("peakPrefillThroughput", true));
            }
            "composite" => match self.text("signals").map(composite) {
                None => findings.push(fail(
                    "signal composite needs signals, for example \"queue=5,kv-max=0.8\"".to_owned(),
                )),
                Some(Err(error)) => findings.push(fail(format!("metadata.signals: {error}"))),
                Some(Ok(_)) => {}
            },
            "slo-ratio" => findings.extend(self.slo().into_iter().map(fail)),
            _ => {}
        }
        findings.extend(self.metric_type_rule(kind, "signal"));
        findings
    }

    /// What is wrong with the keys of `slo-ratio`.
    fn slo(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        match self.text("metric") {
            Some("ttft" | "itl") => {}
            Some(other) => wrong.push(unknown("metadata.metric", other, ["ttft", "itl"])),
            None => wrong.push("signal slo-ratio needs metric: ttft or itl".to_owned()),
        }
        match self.text("slo").map(positive) {
            None => wrong.push("signal slo-ratio needs slo, for example 500ms".to_owned()),
            Some(Err(error)) => wrong.push(format!("metadata.slo: {error}")),
            Some(Ok(_)) => {}
        }
        if let Some(text) = self.text("quantile")
            && !text.parse::<f64>().is_ok_and(|quantile| quantile > 0.0 && quantile < 1.0)
        {
            wrong.push(format!("metadata.quantile: {text:?} is not between 0 and 1"));
        }
        wrong
    }

    fn max_age(&self) -> Option<Finding> {
        let error = positive(self.text("maxAge")?).err()?;
        let detail = format!("metadata.maxAge: {error}");
        Some(Check::new("scaled-object.trigger", CheckStatus::Fail, detail).into())
    }

    fn on_missing(&self) -> Option<Finding> {
        let text = self.text("onMissing")?;
        let check = |status, detail: String| Check::new("scaled-object.missing", status, detail);
        match text.split_once('=') {
            None if text == "error" => None,
            None if text == "zero" => {
                let detail =
                    "onMissing: zero scales a running model down while its metrics are missing";
                let check = check(CheckStatus::Warn, detail.to_owned());
                Some(check.with_remedy("remove onMissing, or set it to hold=10m").into())
            }
            Some(("hold", age)) => {
                let error = positive(age).err()?;
                Some(check(CheckStatus::Fail, format!("metadata.onMissing: {error}")).into())
            }
            _ => {
                let detail = unknown("metadata.onMissing", text, ["error", "zero", "hold=10m"]);
                Some(check(CheckStatus::Fail, detail).into())
            }
        }
    }

    fn unknown_keys(&self) -> Vec<Finding> {
        let is_known = |key: &str| KEYS.contains(&key.strip_suffix("FromEnv").unwrap_or(key));
        let keys = self.metadata.keys().filter(|key| !is_known(key));
        let findings = keys.map(|key| {
            let nearest = nearest_first(key, KEYS).first().copied().unwrap_or_default();
            let detail = format!(
                "metadata.{key} is no key of the scaler, and is ignored; did you mean {nearest}?"
            );
            Check::new("scaled-object.trigger", CheckStatus::Warn, detail).into()
        });
        findings.collect()
    }
}

fn kind_of(signal: &str) -> Option<Kind> {
    SIGNALS.iter().find(|(name, _)| *name == signal).map(|(_, kind)| *kind)
}

/// Parses the parts of a composite signal: `queue=5,kv-max=0.8`.
fn composite(text: &str) -> Result<Vec<(&str, f64)>, String> {
    let parts = text.split(',').map(|part| {
        let (signal, target) = part
            .split_once('=')
            .ok_or_else(|| format!("{:?} is not of the form signal=target", part.trim()))?;
        let (signal, target) = (signal.trim(), target.trim());
        if kind_of(signal).is_none() || ["composite", "slo-ratio"].contains(&signal) {
            let names = SIGNALS.map(|(name, _)| name).into_iter().take(7);
            return Err(unknown("a part", signal, names));
        }
        let number = target.parse().ok().filter(|target: &f64| *target > 0.0 && target.is_finite());
        number.map(|target| (signal, target)).ok_or_else(|| {
            format!("the target of {signal} is {target:?}, but must be a number greater than 0")
        })
    });
    parts.collect()
}

fn positive(text: &str) -> Result<Duration, String> {
    match duration::parse(text.trim()) {
        Ok(duration) if duration.is_zero() => Err(format!("{text:?} must be greater than 0")),
        Ok(duration) => Ok(duration),
        Err(error) => Err(error.to_string()),
    }
}

fn unknown<'a>(key: &str, value: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = nearest_first(value, known);
    format!("{key}: {value:?} is unknown; use {}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use collector_promql::Limits;

    use super::super::ScaledObject;
    use super::super::rules::Context;
    use super::*;

    /// The checks of a trigger with this metadata that do not pass.
    fn found(metadata: &str, metric_type: &str) -> Vec<(CheckStatus, String)> {
        let text = format!(
            "kind: ScaledObject\nspec:\n  minReplicaCount: 1\n  triggers:\n    - type: external\n      metricType: \
             {metric_type}\n      metadata: {{scalerAddress: \"collector:9465\", {metadata}}}\n"
        );
        let object = ScaledObject::of(&serde_saphyr::from_str(&text).unwrap());
        let context = Context { port: 9464, limits: Limits::default() };
        let checks = object.rules(&context).into_iter().map(|finding| finding.check);
        let checks = checks.filter(|check| check.status != CheckStatus::Pass);
        checks.map(|check| (check.status, check.detail)).collect()
    }

    #[track_caller]
    fn check_found(metadata: &str, metric_type: &str, status: CheckStatus, says: &str) {
        let found = found(metadata, metric_type);
        let [(is, text)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((*is, text.contains(says)), (status, true), "{text}");
    }

    #[test]
    fn metadata_by_the_contract_passes() {
        for (metadata, metric_type) in [
            ("model: m", "AverageValue"),
            (
                "model: m, modelNamespace: ns, variant: v, signal: running, target: \"16\"",
                "AverageValue",
            ),
            (
                "model: m, signal: kv-max, activation: \"0.1\", maxAge: 2m, onMissing: hold=10m",
                "Value",
            ),
            ("model: m, signal: backlog-seconds, peakPrefillThroughput: \"9000\"", "AverageValue"),
            ("model: m, signal: composite, signals: \"queue=5, kv-max=0.8\"", "Value"),
            ("model: m, signal: slo-ratio, metric: ttft, slo: 500ms, quantile: \"0.95\"", "Value"),
            ("modelFromEnv: M, onMissing: error", "AverageValue"),
        ] {
            assert_eq!(found(metadata, metric_type), [], "{metadata}");
        }
    }

    #[test]
    fn wrong_metadata_is_named() {
        use CheckStatus::{Fail, Warn};
        let average = "AverageValue";
        check_found("signal: queue", average, Fail, "metadata.model is missing");
        check_found("model: m, signal: quue", average, Fail, "\"quue\" is unknown; use queue");
        check_found("model: m, target: \"0\"", average, Fail, "must be greater than 0");
        check_found("model: m, target: 5", average, Fail, "metadata.target is 5");
        check_found("model: m, activation: \"-1\"", average, Fail, "always active");
        check_found("model: m, maxAge: soon", average, Fail, "metadata.maxAge");
        check_found("model: m, onMissing: hold", average, Fail, "use hold=10m");
        check_found("model: m, onMissing: hold=0s", average, Fail, "must be greater than 0");
        check_found("model: m, onMissing: zero", average, Warn, "scales a running model down");
        check_found("model: m, signal: kv-max", average, Warn, "a ratio must not be divided");
        check_found("model: m", "Value", Warn, "a sum must be divided");
        check_found(
            "model: m, signal: backlog-seconds",
            average,
            Fail,
            "needs peakPrefillThroughput",
        );
        check_found("model: m, signal: composite", "Value", Fail, "needs signals");
        let parts = |text: &str| format!("model: m, signal: composite, signals: \"{text}\"");
        check_found(&parts("queue"), "Value", Fail, "not of the form");
        check_found(&parts("queue=0"), "Value", Fail, "greater than 0");
        check_found(&parts("slo-ratio=1"), "Value", Fail, "unknown");
        check_found("model: m, signal: slo-ratio, metric: ttft", "Value", Fail, "needs slo");
        let tail = "model: m, signal: slo-ratio, metric: ttft, slo: 1s, quantile: \"99\"";
        check_found(tail, "Value", Fail, "not between 0 and 1");
        check_found("model: m, threshold: \"5\"", average, Warn, "is no key of the scaler");
    }

    #[test]
    fn the_scaler_of_another_program_is_not_checked() {
        let text = "spec:\n  minReplicaCount: 1\n  triggers:\n    - {type: external-push, metadata: {scalerAddress: \
                    \"other:6000\", a: b}}\n";
        let object = ScaledObject::of(&serde_saphyr::from_str(text).unwrap());
        let context = Context { port: 9464, limits: Limits::default() };
        let skipped =
            object.rules(&context).into_iter().filter(|it| it.check.status == CheckStatus::Skip);
        assert_eq!(skipped.count(), 1);
    }
}
