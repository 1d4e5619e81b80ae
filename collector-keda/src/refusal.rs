// SPDX-License-Identifier: Apache-2.0
//! Why a call gets no value, in the words that `kubectl describe` shows: KEDA passes on the text of an error.

use std::fmt::Write as _;
use std::time::Duration;

use collector_core::text::{counted, printable, quote, shortened};
use collector_core::{
    CollectError, Field, ModelRef, Namespace, Nearest, PodCounts, Tick, duration,
};
use http::StatusCode;
use tonic::{Code, Status};

use crate::metadata::{Invalid, Subject};
use crate::signal::{Signal, Unknown};

/// The longest text, in characters: it travels in a header.
const TEXT_MAX: usize = 1000;
/// Names that are listed.
const NAMES_MAX: usize = 5;

/// Why a call gets no value.
#[derive(Clone, PartialEq, Debug)]
pub struct Refusal {
    pub(crate) code: Code,
    pub(crate) text: String,
    pub(crate) kind: Kind,
    /// Namespaces where the very model exists. Those who may not read one must not learn of it.
    pub elsewhere: Vec<Namespace>,
}

/// What may stand in for the value that there is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// The model does not exist, the backend says.
    Missing,
    /// Only some of the pods answered.
    Partial,
    /// Nothing usable is known.
    Unknown,
    /// The trigger asks for what there cannot be.
    Wrong,
}

/// Why there is no reading of a model.
#[derive(Clone, Debug)]
pub(crate) struct NoReading {
    pub(crate) error: CollectError,
    /// The time since the start, if no backend has answered since.
    pub(crate) silent_for: Option<Duration>,
}

impl Refusal {
    /// The text for an autoscaler: printable, and at most 1000 characters.
    pub fn text(&self) -> String {
        let namespaces = listed(self.elsewhere.iter().map(AsRef::as_ref));
        let elsewhere = match &*namespaces {
            "" => String::new(),
            namespaces => format!("; it exists in {namespaces}: set modelNamespace"),
        };
        printable(&format!("{}{elsewhere}", self.text)).at_most(TEXT_MAX).to_string()
    }

    /// The same answer over HTTP: 400 for what cannot be used, 404 for what does not exist, 503 for what is unknown.
    pub fn http_status(&self) -> StatusCode {
        match self.code {
            Code::InvalidArgument => StatusCode::BAD_REQUEST,
            // Its model server exports no such metric.
            Code::NotFound | Code::FailedPrecondition => StatusCode::NOT_FOUND,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn new(code: Code, kind: Kind, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), kind, elsewhere: Vec::new() }
    }

    fn unknown(text: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, Kind::Unknown, text)
    }

    /// The metadata of the trigger cannot be used.
    pub(crate) fn invalid(invalid: Invalid) -> Self {
        Self::new(Code::InvalidArgument, Kind::Wrong, invalid.0)
    }

    /// The configuration lets no backend read the namespace.
    pub(crate) fn left_out(text: String) -> Self {
        Self::new(Code::NotFound, Kind::Wrong, text)
    }

    /// There is no reading of the model.
    pub(crate) fn no_reading(model: &ModelRef, no_reading: &NoReading) -> Self {
        let silent = no_reading
            .silent_for
            .map(|since| format!("no backend has answered since the start {} ago", ago(since)));
        let model = named(model);
        match &no_reading.error {
            // It exists: that its metrics are missing is no 0, whatever `onMissing` says.
            CollectError::Missing { nearest, .. } => {
                if let Some(pods) = nearest.pods {
                    let pods = in_the_cluster(pods);
                    return Self::unknown(format!("no backend has series of {model}, and {pods}"));
                }
                let text = format!("there is no model {model}{}", instead(nearest));
                let elsewhere = nearest.namespaces.iter().take(NAMES_MAX).cloned().collect();
                Self { elsewhere, ..Self::new(Code::NotFound, Kind::Missing, text) }
            }
            CollectError::Unavailable { age, cause, .. } => {
                let mut text = format!("nothing newer than {} is known of {model}", ago(*age));
                if let Some(cause) = cause {
                    let _ = write!(text, ": {cause}");
                }
                Self::unknown(text)
            }
            CollectError::Pending { .. } => {
                let mut text = format!("{model} is being read for the first time");
                if let Some(silent) = silent {
                    let _ = write!(text, "; {silent}");
                }
                Self::unknown(text)
            }
            CollectError::Backend(error) => Self::unknown(match silent {
                Some(silent) => format!("{silent}: {error}"),
                None => format!("nothing is known of {model}: {error}"),
            }),
            error @ CollectError::TooManyModels { .. } => {
                Self::new(Code::ResourceExhausted, Kind::Unknown, error.to_string())
            }
            error => Self::unknown(error.to_string()),
        }
    }

    /// The model has no variant of this name.
    pub(crate) fn no_variant<'a>(
        model: &ModelRef,
        variant: &str,
        known: impl Iterator<Item = &'a str>,
    ) -> Self {
        let (variant, known) = (quoted(variant), listed(known));
        let instead = match known.as_str() {
            "" => "it has none: add [[variants]] to the configuration".to_owned(),
            known => format!("it has {known}"),
        };
        let text = format!("{} has no variant {variant}; {instead}", named(model));
        Self::new(Code::NotFound, Kind::Wrong, text)
    }

    /// The value is too old.
    pub(crate) fn old(model: &ModelRef, age: Duration, limit: Duration, key: &str) -> Self {
        let (age, limit) = (ago(age), duration::format(limit));
        let model = named(model);
        Self::unknown(format!(
            "nothing newer than {age} is known of {model}; the limit is {limit} ({key})"
        ))
    }

    /// The reading does not have the signal. `pods` of them answered when it last was complete.
    pub(crate) fn no_signal(
        subject: &Subject,
        unknown: &Unknown,
        pods: Option<usize>,
        now: Tick,
    ) -> Self {
        let model = named(&subject.model);
        let signal = subject.signal.name();
        match unknown {
            Unknown::Partial { known } => {
                let who = match pods.filter(|pods| pods > known) {
                    Some(pods) => format!("{known} of {pods} pods of {model} answered"),
                    // Rows of pods that do not answer are kept for a while.
                    None => format!("not all pods of {model} answered"),
                };
                let problem = match subject.signal {
                    Signal::KvMax | Signal::Saturation | Signal::Composite(_) => {
                        "the greatest value may be another pod's"
                    }
                    Signal::SloRatio(_) => "the slowest requests may be another pod's",
                    _ => "a sum of them would be too small",
                };
                let text = format!("{who}; {problem}");
                Self::new(Code::Unavailable, Kind::Partial, text)
            }
            Unknown::NotExported { engine, field } => {
                let (engine, field) = (quote(engine.as_str()), in_words(*field));
                let text = format!("{engine} has no {field}: signal {signal} cannot be had");
                Self::new(Code::FailedPrecondition, Kind::Wrong, text)
            }
            Unknown::Field { pod, field, reason } => {
                let (pod, field) = (quoted(pod.as_str()), in_words(*field));
                let reason = reason.as_deref().unwrap_or("the backend gives no reason");
                Self::unknown(format!("the {field} of pod {pod} of {model} is unknown: {reason}"))
            }
            Unknown::PickerSilent { since, reason, no_pods } => {
                let since = match since {
                    Some(tick) => format!("has not answered since {}", ago(tick.age(now))),
                    None => "does not answer".to_owned(),
                };
                Self::unknown(if *no_pods {
                    format!(
                        "{model} has no replicas, and the picker that holds its queue {since}: {reason}"
                    )
                } else {
                    format!("the picker that holds the queue of {model} {since}: {reason}")
                })
            }
            Unknown::PickerQueue => Self::unknown(format!(
                "the picker that holds the queue of {model} does not say how many requests it holds"
            )),
            Unknown::PromptLength => Self::unknown(format!(
                "requests wait for {model}, and how long their prompts are is unknown: none was processed lately"
            )),
            Unknown::NoPodSeen => Self::new(
                Code::Unavailable,
                Kind::Missing,
                format!(
                    "no series of a pod of {model} are seen, which does not prove that there is no pod; onMissing: zero takes it \
                     for 0"
                ),
            ),
            Unknown::PodsListed(pods) => {
                let pods = in_the_cluster(*pods);
                Self::unknown(format!("no series of a pod of {model} are seen, and {pods}"))
            }
            Unknown::NoSupply | Unknown::NoWorkload | Unknown::NotWanted => {
                Self::no_supply(subject, unknown)
            }
            Unknown::PodsNotSeen { running } => {
                let running =
                    running.map_or("an unknown number of".to_owned(), |it| it.to_string());
                Self::unknown(format!(
                    "no series of a pod of {model} are seen, and its endpoint picker has {running} requests running"
                ))
            }
            Unknown::Latency { pod, latency } => {
                let (pod, latency) = (quoted(pod.as_str()), latency.name());
                Self::unknown(format!(
                    "the {latency} of pod {pod} of {model} is unknown: it takes direct scraping, two metrics pages within the \
                     window, and a server that exports it as a histogram"
                ))
            }
            Unknown::Buckets => Self::unknown(format!(
                "the pods of {model} export histograms with different buckets, of which no quantile is known"
            )),
            Unknown::NothingEnded(latency) => Self::unknown(format!(
                "requests run at {model}, or may do so, and none had a {} at a serving pod within the window",
                latency.name()
            )),
            Unknown::Impossible(value) => Self::unknown(format!(
                "the {signal} of {model} would be {value}, which cannot be true"
            )),
        }
    }
}

impl Refusal {
    /// The cluster does not say what the signal counts.
    fn no_supply(subject: &Subject, unknown: &Unknown) -> Self {
        let (model, signal) = (named(&subject.model), subject.signal.name());
        match unknown {
            Unknown::NoWorkload => {
                let variant = subject.variant.as_ref().map_or("", |variant| variant.as_str());
                let variant = quoted(variant);
                Self::unknown(format!(
                    "the cluster has no workload of variant {variant} of {model}"
                ))
            }
            Unknown::NotWanted => Self::unknown(format!(
                "a workload of {model} does not say how many replicas are wanted"
            )),
            _ => Self::new(
                Code::FailedPrecondition,
                Kind::Wrong,
                format!(
                    "no cluster lists the pods of {model}, so there is no signal {signal}: set kubernetes.enabled = true"
                ),
            ),
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code, refusal.text())
    }
}

/// What exists instead of a model.
fn instead(nearest: &Nearest) -> String {
    if let Some(last_seen) = nearest.last_seen {
        return format!("; it was last there {} ago: no pod of it runs", ago(last_seen));
    }
    if !nearest.namespaces.is_empty() {
        return String::new();
    }
    let models = listed(nearest.models.iter().map(AsRef::as_ref));
    let others = listed(nearest.in_namespace.iter().map(AsRef::as_ref));
    if !models.is_empty() {
        format!("; nearest: {models}")
    } else if !others.is_empty() {
        format!("; the namespace has {others}")
    } else if nearest.known == Some(0) {
        "; the backend knows no model at all: is it scraping the model servers?".to_owned()
    } else {
        String::new()
    }
}

/// `the cluster has 3 pods of it (2 ready, 1 starting)`.
fn in_the_cluster(pods: PodCounts) -> String {
    format!("the cluster has {} of it ({pods})", counted(pods.all(), "pod", "pods"))
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.take(NAMES_MAX).map(quoted).collect::<Vec<_>>().join(", ")
}

/// `"m" in "prod"`.
fn named(model: &ModelRef) -> String {
    format!("{} in {}", quoted(model.model.as_str()), quoted(model.namespace.as_str()))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", shortened(name))
}

/// An age in whole seconds.
fn ago(age: Duration) -> String {
    match age.as_secs() {
        0 => "0s".to_owned(),
        seconds => duration::format(Duration::from_secs(seconds)),
    }
}

fn in_words(field: Field) -> &'static str {
    match field {
        Field::KvCacheUsage => "KV cache usage",
        Field::QueueLength => "queue length",
        Field::RunningRequests => "number of running requests",
        Field::AvgInputTokens => "mean prompt length",
        field => field.as_str(),
    }
}
