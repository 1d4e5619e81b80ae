// SPDX-License-Identifier: Apache-2.0
//! Judges one answer, error or probe against what the fleet says.

use std::collections::{HashMap, HashSet};
use std::error::Error;

use collector_core::{
    Answer, BackendError, CheckStatus, ErrorKind, Field, FieldSet, LoadRates, LoadRow, LoadRows,
    Mark, ModelRef, ModelSample, Operation, PodName, Probe, ReplicaMetrics, Tick,
};

use super::super::fleet::{Breakage, FleetModel, FleetPod};
use super::{Suite, Verdict, demand};

/// How much a value may differ from the one described.
const RATE_TOLERANCE: f64 = 0.05;
const VALUE_TOLERANCE: f64 = 0.01;

/// The greatest whole number that a series can have.
const COUNT_MAX: u64 = 1 << 53;

/// The longest message.
const MESSAGE_MAX: usize = 4096;

/// What an answer is judged by.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    /// When the call began; `None` where the answer was pushed.
    pub(super) at: Option<Tick>,
    /// The load was asked for pod by pod.
    pub(super) per_pod: bool,
    /// The field that the server cannot say.
    pub(super) broken: Option<Field>,
}

impl Suite<'_> {
    /// The model as the fleet describes it; `None` when it does not exist.
    pub(super) fn described(&self, model: &ModelRef) -> Option<&FleetModel> {
        self.models.iter().find(|known| known.model == *model)
    }

    /// Checks that a healthy server's answer says the truth about a model, whether it exists or not.
    pub(super) fn judge(&self, model: &ModelRef, answer: &Answer, asked: Asked) -> Verdict {
        match (answer, self.described(model)) {
            (Answer::Found(sample), Some(known)) => {
                demand!(
                    sample.absent.is_none(),
                    "{model}: expected a complete sample of a healthy server, got {:?}",
                    sample.absent
                );
                self.judge_sample(known, sample, asked)
            }
            (Answer::Missing { as_of, .. }, None) => self.judge_time(model, *as_of, asked),
            (Answer::Failed(error), _) => Err(format!(
                "{model}: expected an answer of a healthy server, got the error: {error}"
            )),
            (Answer::Missing { .. }, Some(known)) => Err(format!(
                "{model}: expected Found with {} pods, because it exists; got Missing",
                known.pods.len()
            )),
            (Answer::Found(sample), None) => Err(format!(
                "{model}: expected Missing, because it does not exist; got Found with {} pods",
                sample.replicas.len()
            )),
            (other, _) => Err(format!("{model}: expected Found or Missing, got {other:?}")),
        }
    }

    /// An answer says when the server was asked: during the call.
    fn judge_time(&self, model: &ModelRef, as_of: Tick, asked: Asked) -> Verdict {
        let now = self.clock.now();
        demand!(
            as_of <= now,
            "{model}: expected as_of to be no later than now ({now:?}), got {as_of:?}"
        );
        // One that collects by itself answers with what it has.
        let oldest = match asked.at {
            Some(at) if self.backend.live().is_none() => at,
            _ => now - *self.fleet.ages().end(),
        };
        demand!(
            as_of >= oldest,
            "{model}: expected as_of to be the time of the call (from {oldest:?} to {now:?}), got {as_of:?}"
        );
        Ok(())
    }

    pub(super) fn judge_sample(
        &self,
        known: &FleetModel,
        sample: &ModelSample,
        asked: Asked,
    ) -> Verdict {
        let model = &known.model;
        self.judge_time(model, sample.as_of, asked)?;
        let failed = sample.failed.fields();
        demand!(
            asked.broken.is_some() || failed.is_empty(),
            "{model}: expected no failed field, got {:?}",
            sample.failed
        );
        demand!(sample.trace.is_empty(), "{model}: expected no trace, because none was asked for");
        demand!(
            sample.window.is_none_or(|window| !window.is_zero()),
            "{model}: expected a window of more than zero, or none"
        );
        for text in sample.warnings.iter().chain(sample.failed.iter().map(|(_, reason)| reason)) {
            self.judge_text(&format!("{model}: a warning or reason"), text)?;
        }
        let mut expected: Vec<&PodName> = known.pods.iter().map(|pod| &pod.row.pod_name).collect();
        let mut found: Vec<&PodName> = sample.replicas.iter().map(|row| &row.pod_name).collect();
        expected.sort_unstable();
        found.sort_unstable();
        if sample.absent.is_none() {
            demand!(found == expected, "{model}: expected the pods {expected:?}, got {found:?}");
        }
        for row in &sample.replicas {
            let Some(pod) = known.pods.iter().find(|pod| pod.row.pod_name == row.pod_name) else {
                return Err(format!("{model}: expected the pods {expected:?}, got {found:?}"));
            };
            self.judge_row(model, pod, row, asked, failed)?;
        }
        self.judge_load(known, sample, asked)
    }

    fn judge_row(
        &self,
        model: &ModelRef,
        pod: &FleetPod,
        row: &ReplicaMetrics,
        asked: Asked,
        failed: FieldSet,
    ) -> Verdict {
        let name = &row.pod_name;
        let (now, ages) = (self.clock.now(), self.fleet.ages());
        let age = row.sampled_at.age(now);
        demand!(
            row.sampled_at <= now,
            "{model}: {name}: expected sampled_at to be no later than now ({now:?}), got {:?}",
            row.sampled_at
        );
        demand!(
            ages.contains(&age),
            "{model}: {name}: expected values that are {ages:?} old, got {age:?}: is sampled_at the time of \
             the sample, on the clock of the ask?"
        );
        demand!(
            row.variant_name.is_none() && row.accelerator_name.is_none() && row.cost.is_none(),
            "{model}: {name}: expected no variant, accelerator or cost: they are the engine's to set"
        );
        let own = |mark: &Mark| {
            mark.backend.as_str() == self.backend.name() && mark.sampled_at <= row.sampled_at
        };
        demand!(
            row.marks.iter().all(own),
            "{model}: {name}: expected marks of values of this backend that are older than their row, got {:?}",
            row.marks
        );
        demand!(row.servers > 0, "{model}: {name}: expected 1 server or more, got 0");
        for (_, reason) in row.reasons.iter() {
            self.judge_text(&format!("{model}: {name}: a reason"), reason)?;
        }
        let expected = &pod.row;
        let checks = [
            ratio("kv_cache_usage", row.kv_cache_usage, expected.kv_cache_usage),
            ratio(
                "prefix_cache_hit_rate",
                row.prefix_cache_hit_rate,
                expected.prefix_cache_hit_rate,
            ),
            mean("avg_input_tokens", row.avg_input_tokens, expected.avg_input_tokens),
            mean("avg_output_tokens", row.avg_output_tokens, expected.avg_output_tokens),
            count("queue_length", row.queue_length, expected.queue_length),
            count("waiting_for_capacity", row.waiting_for_capacity, expected.waiting_for_capacity),
            count("running_requests", row.running_requests, expected.running_requests),
            count("kv_capacity_tokens", row.kv_capacity_tokens, expected.kv_capacity_tokens),
            count("kv_tokens_in_use", row.kv_tokens_in_use, expected.kv_tokens_in_use),
            count("num_gpu_blocks", row.num_gpu_blocks, expected.num_gpu_blocks),
            count("block_size", row.block_size, expected.block_size),
            same("engine", row.engine.as_ref(), expected.engine.as_ref()),
            same("role", row.role.as_ref(), expected.role.as_ref()),
        ];
        // What shares a query with the broken field may fail with it.
        let broken: Vec<_> = failed.iter().chain(asked.broken).flat_map(attributes).collect();
        for (attribute, check) in checks {
            if !broken.contains(&attribute) {
                check.map_err(|wrong| format!("{model}: {name}: {attribute}: {wrong}"))?;
            }
        }
        let unknown = pod.unmeasured.iter().chain(asked.broken);
        for field in unknown.filter(|field| Field::OF_REPLICA.contains(field)) {
            demand!(
                !row.has(field),
                "{model}: {name}: expected {} to be None, because the server does not have it; got a value",
                field.as_str()
            );
        }
        Ok(())
    }

    fn judge_load(&self, known: &FleetModel, sample: &ModelSample, asked: Asked) -> Verdict {
        let model = &known.model;
        let supports = self.backend.supports();
        if !supports.load {
            demand!(
                sample.load.is_empty(),
                "{model}: expected no load, as supports() says; got some"
            );
            return Ok(());
        }
        if let Some(row) = sample.load.of_model() {
            judge_rates(model, None, row, asked.broken)?;
        }
        let mut rows = HashMap::new();
        for (pod, row) in sample.load.pods() {
            judge_rates(model, Some(pod), row, asked.broken)?;
            let first = rows.insert(pod, row.rates).is_none();
            demand!(first, "{model}: expected one row of load for {pod}, got two");
        }
        if asked.broken.is_some() || !sample.absent.is_none() || known.pods.is_empty() {
            return Ok(());
        }
        let got = || sample.load.pods().iter().map(|(pod, _)| pod).collect::<Vec<_>>();
        match &sample.load {
            LoadRows::Model(_) if asked.per_pod && supports.load_per_pod => {
                Err(format!("{model}: expected a row of load for each pod, got one of the model"))
            }
            LoadRows::Model(of_model) => {
                if known.pods.iter().any(|pod| pod.load.requests.is_none()) {
                    return Ok(());
                }
                let sum = known.pods.iter().map(|pod| pod.load).reduce(LoadRates::plus);
                judge_described(model, None, of_model.rates, sum.unwrap_or_default())
            }
            // Rows of pods say more than was asked.
            LoadRows::Pods(_) => {
                let all = rows.len() == known.pods.len();
                for pod in &known.pods {
                    let name = &pod.row.pod_name;
                    let Some(rates) = rows.get(name).filter(|_| all) else {
                        let pods = known.pods.len();
                        return Err(format!(
                            "{model}: expected a row of load for each of {pods} pods, {name} among them; got \
                             {:?}",
                            got()
                        ));
                    };
                    judge_described(model, Some(name), *rates, pod.load)?;
                }
                Ok(())
            }
            _ => Err(format!("{model}: expected load, as supports() says; got none")),
        }
    }

    /// Checks the error of a call, which says what failed and shows nothing that it must not.
    pub(super) fn judge_error(
        &self,
        error: &BackendError,
        operation: Operation,
        breakage: Option<&Breakage>,
    ) -> Verdict {
        let name = self.backend.name();
        demand!(
            error.backend().as_str() == name,
            "expected an error of {name:?}, got one of {:?}: {error}",
            error.backend().as_str()
        );
        demand!(
            error.operation() == operation,
            "expected an error in {operation}, got one in {}: {error}",
            error.operation()
        );
        demand!(
            !error.subject().is_empty(),
            "expected an error that says where it was, got: {error}"
        );
        let mut texts = vec![error.to_string(), format!("{error:?}")];
        let mut source = error.source();
        while let Some(cause) = source {
            texts.push(cause.to_string());
            source = cause.source();
        }
        for secret in self.fleet.secrets() {
            let shown = texts.iter().any(|text| text.contains(&secret));
            demand!(
                !shown,
                "expected an error that shows no secret, got {texts:?} with {secret:?}"
            );
        }
        self.judge_text("an error", &error.to_string())?;
        if let Some(breakage) = breakage {
            let kind = error.kind();
            let expected = kinds_of(breakage);
            demand!(
                expected.contains(&kind),
                "expected an error of the kind {expected:?} of a server that is broken by {breakage:?}, got \
                 {kind:?}: {error}"
            );
        }
        Ok(())
    }

    /// Texts are shown in terminals and logs.
    pub(super) fn judge_text(&self, what: &str, text: &str) -> Verdict {
        demand!(
            !text.chars().any(char::is_control),
            "expected {what} without control characters, got {text:?}: escape what a server said"
        );
        demand!(
            text.len() <= MESSAGE_MAX,
            "expected {what} of at most {MESSAGE_MAX} bytes, got {}: cut what a server said",
            text.len()
        );
        for secret in self.fleet.secrets() {
            demand!(!text.contains(&secret), "expected {what} that shows no secret, got {text:?}");
        }
        Ok(())
    }

    pub(super) fn judge_probe(&self, probe: &Probe, healthy: bool) -> Verdict {
        demand!(!probe.checks.is_empty(), "expected at least one check, got none");
        let mut ids = HashSet::new();
        for check in &probe.checks {
            demand!(
                check.id.contains('.') && ids.insert(&check.id),
                "expected ids of the form group.name, each once; got {:?}",
                check.id
            );
            let remedy = check.remedy.as_deref().unwrap_or_default();
            demand!(!check.detail.is_empty(), "expected {} to say what was found", check.id);
            self.judge_text(&check.id, &check.detail)?;
            self.judge_text(&check.id, remedy)?;
            if healthy {
                let fails = check.status == CheckStatus::Fail;
                demand!(!fails, "expected the checks of a healthy server to pass, got {check:?}");
            }
        }
        let helps = |check: &collector_core::Check| {
            let remedy = check.remedy.as_deref().unwrap_or_default();
            check.status == CheckStatus::Fail && !remedy.is_empty()
        };
        demand!(
            healthy || probe.checks.iter().any(helps),
            "expected a check of a broken server that fails, with a remedy; got {probe:?}"
        );
        Ok(())
    }
}

/// The kinds of error that a broken server may come to.
fn kinds_of(breakage: &Breakage) -> &'static [ErrorKind] {
    match breakage {
        Breakage::Stall => &[ErrorKind::Timeout],
        Breakage::Unauthorized => &[ErrorKind::Unauthorized, ErrorKind::Forbidden],
        Breakage::RateLimited => &[ErrorKind::RateLimited],
        Breakage::Down | Breakage::Field(_) | Breakage::Pod(..) => &[
            ErrorKind::Dns,
            ErrorKind::Connect,
            ErrorKind::Tls,
            ErrorKind::Timeout,
            ErrorKind::Disconnected,
            ErrorKind::NotFound,
            ErrorKind::Rejected,
            ErrorKind::Overloaded,
            ErrorKind::ServerError,
            ErrorKind::BadAnswer,
        ],
    }
}

/// The names of a field's values in a row.
fn attributes(field: Field) -> Vec<&'static str> {
    match field {
        Field::KvCacheUsage => vec!["kv_cache_usage", "kv_tokens_in_use"],
        Field::QueueLength => vec!["queue_length", "waiting_for_capacity"],
        Field::RunningRequests => vec!["running_requests"],
        Field::CacheConfig => {
            vec!["kv_capacity_tokens", "num_gpu_blocks", "block_size", "kv_tokens_in_use"]
        }
        Field::PrefixCacheHitRate => vec!["prefix_cache_hit_rate"],
        Field::ArrivalRate => vec!["avg_input_tokens", "avg_output_tokens"],
        Field::AvgInputTokens => vec!["avg_input_tokens"],
        Field::AvgOutputTokens => vec!["avg_output_tokens"],
        _ => Vec::new(),
    }
}

/// The rates that are a field's own.
fn rates_of(field: Field, rates: LoadRates) -> Vec<Option<f64>> {
    match field {
        Field::ArrivalRate => vec![rates.requests],
        Field::AvgInputTokens => vec![rates.prompt_tokens],
        Field::AvgOutputTokens => vec![rates.generation_tokens],
        Field::TtftAverage => vec![rates.ttft_seconds],
        Field::ItlAverage => vec![rates.itl_seconds],
        _ => Vec::new(),
    }
}

type Checked = (&'static str, Verdict);

fn close(got: f64, expected: f64, tolerance: f64) -> bool {
    (got - expected).abs() <= expected.abs() * tolerance + 1e-9
}

fn number(got: Option<f64>, expected: Option<f64>) -> Verdict {
    match (got, expected) {
        (_, None) => Ok(()),
        (Some(got), Some(expected)) if close(got, expected, VALUE_TOLERANCE) => Ok(()),
        (got, Some(expected)) => Err(format!("expected {expected}, got {got:?}")),
    }
}

fn ratio(name: &'static str, got: Option<f64>, expected: Option<f64>) -> Checked {
    match got {
        Some(got) if !(0.0..=1.0).contains(&got) => {
            (name, Err(format!("expected a share from 0 to 1, got {got}")))
        }
        _ => (name, number(got, expected)),
    }
}

fn mean(name: &'static str, got: Option<f64>, expected: Option<f64>) -> Checked {
    match got {
        Some(got) if !got.is_finite() || got < 0.0 => {
            (name, Err(format!("expected a number that is not negative, got {got}")))
        }
        _ => (name, number(got, expected)),
    }
}

fn count(name: &'static str, got: Option<u64>, expected: Option<u64>) -> Checked {
    let verdict = match (got, expected) {
        (Some(got), _) if got > COUNT_MAX => Err(format!("expected a count, got {got}")),
        (got, Some(_)) if got != expected => Err(format!("expected {expected:?}, got {got:?}")),
        _ => Ok(()),
    };
    (name, verdict)
}

fn same<T: PartialEq + std::fmt::Debug>(
    name: &'static str,
    got: Option<&T>,
    expected: Option<&T>,
) -> Checked {
    let wrong = expected.is_some() && got != expected;
    (name, if wrong { Err(format!("expected {expected:?}, got {got:?}")) } else { Ok(()) })
}

fn named(rates: LoadRates) -> [(&'static str, Option<f64>); 7] {
    [
        ("requests", rates.requests),
        ("prompt_tokens", rates.prompt_tokens),
        ("generation_tokens", rates.generation_tokens),
        ("ttft_seconds", rates.ttft_seconds),
        ("ttft_count", rates.ttft_count),
        ("itl_seconds", rates.itl_seconds),
        ("itl_count", rates.itl_count),
    ]
}

fn judge_rates(
    model: &ModelRef,
    pod: Option<&PodName>,
    row: &LoadRow,
    broken: Option<Field>,
) -> Verdict {
    for (name, rate) in named(row.rates) {
        demand!(
            rate.is_none_or(|rate| rate.is_finite() && rate >= 0.0),
            "{model}: the load of {pod:?}: {name}: expected a rate that is not negative, got {rate:?}"
        );
    }
    let Some(field) = broken else { return Ok(()) };
    demand!(
        rates_of(field, row.rates).iter().all(Option::is_none),
        "{model}: expected the rates of {} to be None, because their query fails; got {:?}",
        field.as_str(),
        row.rates
    );
    Ok(())
}

fn judge_described(
    model: &ModelRef,
    pod: Option<&PodName>,
    got: LoadRates,
    expected: LoadRates,
) -> Verdict {
    for ((name, got), (_, expected)) in named(got).into_iter().zip(named(expected)) {
        let Some(expected) = expected else { continue };
        demand!(
            got.is_some_and(|got| close(got, expected, RATE_TOLERANCE)),
            "{model}: the load of {pod:?}: {name}: expected {expected} a second, got {got:?}"
        );
    }
    Ok(())
}
