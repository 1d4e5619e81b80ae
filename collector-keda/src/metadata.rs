// SPDX-License-Identifier: Apache-2.0
//! The metadata of a trigger: what a user writes into a ScaledObject. Reading it is pure and total.

use std::time::Duration;

use collector_core::text::quote;
use collector_core::{ModelRef, VariantName, duration};

use crate::api::ScaledObjectRef;
use crate::positive::{GREATEST, Positive};
use crate::signal::{Latency, Part, Signal, Slo};

/// The longest model, in bytes: as in the HTTP API.
const MODEL_BYTES_MAX: usize = 4096;
/// The longest namespace, and the longest variant: those of Kubernetes objects.
const NAME_BYTES_MAX: usize = 253;
/// The longest other value.
const VALUE_BYTES_MAX: usize = 1024;
/// Signals in a composite one.
const PARTS_MAX: usize = 8;

/// The keys that are read.
const KEYS: [&str; 14] = [
    "model",
    "modelNamespace",
    "variant",
    "signal",
    "signals",
    "target",
    "activation",
    "maxAge",
    "onMissing",
    "pendingCredit",
    "peakPrefillThroughput",
    "metric",
    "quantile",
    "slo",
];
/// The keys that KEDA itself reads.
const KEYS_OF_KEDA: [&str; 7] = [
    "scalerAddress",
    "enableTLS",
    "unsafeSsl",
    "tlsCertFile",
    "caCert",
    "tlsClientCert",
    "tlsClientKey",
];

/// What a trigger asks for.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Trigger {
    /// What is measured.
    pub subject: Subject,
    /// The value per replica, or at all, that the HPA aims at.
    pub target: Positive,
    /// The ScaledObject is active above this value.
    pub activation: f64,
    /// The greatest age of a value; `None`: as configured.
    pub max_age: Option<Duration>,
    /// What is returned where there is no value.
    pub on_missing: OnMissing,
    /// Whether pods that start count against demand.
    pub pending_credit: bool,
}

/// What is measured: a signal of a model, or of one of its variants.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Subject {
    /// The model.
    pub model: ModelRef,
    /// The variant whose pods are counted; `None`: all pods.
    pub variant: Option<VariantName>,
    /// The signal.
    pub signal: Signal,
}

/// What is returned where there is no value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnMissing {
    /// An error.
    Error,
    /// 0 for a model that does not exist, and an error for one of which nothing is known.
    Zero,
    /// The last value, up to this age.
    Hold(Duration),
}

/// The name and the target of the metric.
#[derive(Clone, PartialEq, Debug)]
pub struct Spec {
    /// The name, which becomes a segment of a URL: `collector-` and the name of the signal.
    pub metric_name: String,
    /// The target.
    pub target: Positive,
}

/// The metadata cannot be used: which key, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invalid(pub String);

impl Trigger {
    /// Reads the metadata of a trigger.
    ///
    /// # Errors
    /// Names the first key that cannot be used.
    pub fn of(object: &ScaledObjectRef) -> Result<Self, Invalid> {
        let signal = signal(object)?;
        let Some(model) = name(object, "model", MODEL_BYTES_MAX)? else {
            return Err(Invalid("model is missing: set it to the model's name".to_owned()));
        };
        let namespace = name(object, "modelNamespace", NAME_BYTES_MAX)?;
        let variant = name(object, "variant", NAME_BYTES_MAX)?;
        Ok(Self {
            target: target(object, &signal)?,
            activation: activation(object)?,
            max_age: value(object, "maxAge")?.map(|text| age("maxAge", text)).transpose()?,
            on_missing: on_missing(object)?,
            pending_credit: pending_credit(object, &signal)?,
            subject: Subject {
                model: ModelRef::new(model, namespace.unwrap_or(&object.namespace)),
                variant: variant.map(VariantName::from),
                signal,
            },
        })
    }
}

impl Spec {
    /// The name and the target, whatever the metadata are: defaults where a key cannot be used.
    pub fn of(object: &ScaledObjectRef) -> Self {
        let signal = signal(object).unwrap_or(Signal::Queue);
        Self {
            metric_name: format!("collector-{}", signal.name()),
            target: target(object, &signal).unwrap_or(signal.default_target()),
        }
    }
}

/// Returns the keys of metadata that the scaler or KEDA reads.
pub fn known_keys() -> impl Iterator<Item = &'static str> {
    KEYS.into_iter().chain(KEYS_OF_KEDA)
}

/// Returns the keys that neither the scaler nor KEDA reads: most likely misspelt.
pub fn unknown_keys(object: &ScaledObjectRef) -> impl Iterator<Item = &str> {
    let keys = object.scaler_metadata.keys().map(String::as_str);
    keys.filter(|key| !known_keys().any(|known| known == *key) && !key.ends_with("FromEnv"))
}

/// The value of a key, if it is set.
fn value<'a>(object: &'a ScaledObjectRef, key: &str) -> Result<Option<&'a str>, Invalid> {
    Ok(text(object, key, VALUE_BYTES_MAX)?.map(str::trim))
}

/// A name, exactly as it was written.
fn name<'a>(
    object: &'a ScaledObjectRef,
    key: &str,
    bytes_max: usize,
) -> Result<Option<&'a str>, Invalid> {
    match text(object, key, bytes_max)? {
        Some(text) if text.contains(char::is_control) => {
            Err(Invalid(format!("{key} has control characters: \"{}\"", quote(text))))
        }
        text => Ok(text),
    }
}

fn text<'a>(
    object: &'a ScaledObjectRef,
    key: &str,
    bytes_max: usize,
) -> Result<Option<&'a str>, Invalid> {
    match object.scaler_metadata.get(key) {
        None => Ok(None),
        // It must not widen what is asked for: a template had no value for it.
        Some(text) if text.trim().is_empty() => Err(Invalid(format!("{key} is empty"))),
        Some(text) if text.len() > bytes_max => {
            Err(Invalid(format!("{key} is longer than {bytes_max} bytes")))
        }
        Some(text) => Ok(Some(text)),
    }
}

fn signal(object: &ScaledObjectRef) -> Result<Signal, Invalid> {
    match value(object, "signal")? {
        None => Ok(Signal::Queue),
        Some(Signal::COMPOSITE) => composite(object).map(Signal::Composite),
        Some(Signal::SLO_RATIO) => slo(object).map(Signal::SloRatio),
        Some(name) => plain(object, "signal", name),
    }
}

/// A signal that is not composed of others.
fn plain(object: &ScaledObjectRef, key: &str, name: &str) -> Result<Signal, Invalid> {
    if let Some(signal) = Signal::plain(name) {
        return Ok(signal);
    }
    match name {
        Signal::BACKLOG_SECONDS => {
            let key = "peakPrefillThroughput";
            let Some(text) = value(object, key)? else {
                return Err(Invalid(format!(
                    "{key} is missing: {} needs the prompt tokens a second that all replicas process at most",
                    Signal::BACKLOG_SECONDS
                )));
            };
            Ok(Signal::BacklogSeconds { peak_prefill_throughput: positive(key, text)? })
        }
        Signal::COMPOSITE | Signal::SLO_RATIO => {
            Err(Invalid(format!("{key}: {name} cannot be one of several signals")))
        }
        _ => Err(Invalid(format!(
            "{key}: there is no signal \"{}\"; there are {}",
            quote(name),
            Signal::NAMES.join(", ")
        ))),
    }
}

/// The limit of `slo-ratio`.
fn slo(object: &ScaledObjectRef) -> Result<Slo, Invalid> {
    let needed = |key: &str, example: &str| {
        let problem = || {
            Invalid(format!("{key} is missing: signal slo-ratio needs it, for example {example}"))
        };
        value(object, key)?.ok_or_else(problem)
    };
    let latency = match needed("metric", "ttft")? {
        "ttft" => Latency::Ttft,
        "itl" => Latency::Itl,
        other => {
            return Err(Invalid(format!("metric: \"{}\" is neither ttft nor itl", quote(other))));
        }
    };
    let limit = age("slo", needed("slo", "500ms")?)?;
    let Some(limit) = Positive::new(limit.as_secs_f64()) else {
        return Err(Invalid("slo: must be from 1ms to 1e12s".to_owned()));
    };
    let quantile = value(object, "quantile")?.unwrap_or("0.9");
    let quantile = match quantile.parse().ok().and_then(Positive::new) {
        Some(quantile) if quantile.get() < 1.0 => quantile,
        _ => {
            let problem =
                format!("quantile: \"{}\" is not a number from 0.001 to below 1", quote(quantile));
            return Err(Invalid(problem));
        }
    };
    Ok(Slo { latency, quantile, limit })
}

/// The parts of a composite signal: `queue=5,kv-max=0.8`.
fn composite(object: &ScaledObjectRef) -> Result<Vec<Part>, Invalid> {
    let Some(text) = value(object, "signals")? else {
        let problem =
            "signals is missing: signal composite needs it, for example queue=5,kv-max=0.8";
        return Err(Invalid(problem.to_owned()));
    };
    let mut parts = Vec::new();
    for part in text.split(',') {
        if parts.len() == PARTS_MAX {
            return Err(Invalid(format!("signals has more than {PARTS_MAX} signals")));
        }
        let (name, target) = match part.split_once('=') {
            Some((name, target)) => (name.trim(), Some(target.trim())),
            None => (part.trim(), None),
        };
        let signal = plain(object, "signals", name)?;
        let target = match target {
            Some(text) => positive("signals", text)?,
            None => signal.default_target(),
        };
        parts.push(Part { signal, target });
    }
    Ok(parts)
}

fn target(object: &ScaledObjectRef, signal: &Signal) -> Result<Positive, Invalid> {
    match value(object, "target")? {
        Some(text) => positive("target", text),
        None => Ok(signal.default_target()),
    }
}

fn activation(object: &ScaledObjectRef) -> Result<f64, Invalid> {
    let Some(text) = value(object, "activation")? else { return Ok(0.0) };
    match text.parse::<f64>() {
        Ok(number) if (0.0..=GREATEST).contains(&number) => Ok(number),
        _ => {
            Err(Invalid(format!("activation: \"{}\" is not a number from 0 to 1e12", quote(text))))
        }
    }
}

fn on_missing(object: &ScaledObjectRef) -> Result<OnMissing, Invalid> {
    match value(object, "onMissing")? {
        None | Some("error") => Ok(OnMissing::Error),
        Some("zero") => Ok(OnMissing::Zero),
        Some(text) => match text.strip_prefix("hold=") {
            Some(limit) => Ok(OnMissing::Hold(age("onMissing", limit)?)),
            None => Err(Invalid(format!(
                "onMissing: \"{}\" is none of error, zero and hold=10m",
                quote(text)
            ))),
        },
    }
}

fn pending_credit(object: &ScaledObjectRef, signal: &Signal) -> Result<bool, Invalid> {
    match value(object, "pendingCredit")? {
        None | Some("false") => Ok(false),
        Some("true") if signal.is_of_supply() => {
            Err(Invalid(format!("pendingCredit: {} is not a demand that pods take", signal.name())))
        }
        Some("true") => Ok(true),
        Some(text) => {
            Err(Invalid(format!("pendingCredit: \"{}\" is neither true nor false", quote(text))))
        }
    }
}

fn age(key: &str, text: &str) -> Result<Duration, Invalid> {
    match duration::parse(text) {
        Ok(age) if age.is_zero() => Err(Invalid(format!("{key}: must be more than 0"))),
        Ok(age) => Ok(age),
        Err(error) => Err(Invalid(format!("{key}: {}", quote(&error.to_string())))),
    }
}

fn positive(key: &str, text: &str) -> Result<Positive, Invalid> {
    text.parse().ok().and_then(Positive::new).ok_or_else(|| {
        Invalid(format!("{key}: \"{}\" is not a number from 0.001 to 1e12", quote(text)))
    })
}

#[cfg(test)]
mod tests;
