// SPDX-License-Identifier: Apache-2.0
//! Checks that a reading is true, true as of the older time that it reports, or unknown.

use std::cell::OnceCell;
use std::collections::BTreeSet;

use collector_core::{
    Answer, ErrorKind, Field, LoadRates, LoadRow, ModelRef, ModelSample, ReplicaMetrics, Tick,
};

use serde_json::Value;

use super::fields::{ReportedField, fields};
use super::fleet::{CHANGED, Kind, Pod, Rank, World};
use super::gateway::Scene;
use super::plan::Fault;

/// What one fetch returned about a model.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Verdict {
    /// Complete and true.
    Right,
    /// True as of an earlier time that it reports.
    Older,
    /// True, and reported as incomplete.
    Partial,
    /// True, with unknown fields and their reasons.
    Explained,
    /// Missing, correctly.
    Missing,
    Ambiguous,
    Failed,
}

/// One fetch, to be compared with the truth.
pub(crate) struct Reported<'a> {
    pub(crate) scene: &'a Scene,
    pub(crate) pods: &'a [Pod],
    /// Its time, from the beginning.
    pub(crate) at: f64,
    pub(crate) fetch: usize,
    pub(crate) now: Tick,
    /// The answers to the queries of this fetch, except discovery and queries into the last hour.
    answers: OnceCell<Vec<(String, Value)>>,
}

/// Seconds by which equal times may differ.
const SAME_TIME: f64 = 0.01;

impl<'a> Reported<'a> {
    pub(crate) fn new(scene: &'a Scene, pods: &'a [Pod], at: f64, fetch: usize, now: Tick) -> Self {
        Self { scene, pods, at, fetch, now, answers: OnceCell::new() }
    }

    fn answers(&self) -> &[(String, Value)] {
        self.answers.get_or_init(|| {
            let log = self.scene.log.lock().unwrap();
            let of_fetch = log.iter().filter(|(fetch, _, _)| *fetch == self.fetch);
            let probes = ["count(", "count by (", "topk(", "bottomk(", "[10m]", "[1h:"];
            let others =
                of_fetch.filter(|(_, query, _)| !probes.iter().any(|it| query.contains(it)));
            let parsed = |(_, query, answer): &(usize, String, String)| {
                Some((query.clone(), serde_json::from_str(answer).ok()?))
            };
            others.filter_map(parsed).collect()
        })
    }

    fn world(&self) -> World {
        self.scene.plan.world
    }

    fn faults(&self) -> impl Iterator<Item = &'a Fault> {
        let fetch = self.fetch;
        let plan = &self.scene.plan;
        plan.faults.iter().filter(move |it| it.fetches[fetch] || fetch > 0).map(|it| &it.fault)
    }

    /// The times that the gateway answers of: now, and earlier ones.
    fn times(&self) -> Vec<f64> {
        let earlier = self.faults().filter_map(|fault| match fault {
            Fault::Earlier { seconds, .. } => Some(self.at - seconds),
            Fault::Double { older: true, .. } => Some(self.at - 600.0),
            _ => None,
        });
        std::iter::once(self.at).chain(earlier).collect()
    }

    /// Returns the pods of a model that live at a time, named or not.
    fn alive(&self, model: &ModelRef, time: f64) -> Vec<&'a Pod> {
        let lives = |pod: &&Pod| {
            pod.model == *model
                && pod.newest(self.world(), time).is_some_and(|newest| {
                    let late = self.world() == World::Late && pod.lives(0.0);
                    time - newest <= if late { 300.0 } else { 60.0 }
                })
        };
        self.pods.iter().filter(lives).collect()
    }

    fn is_unnamed(&self, pod: &Pod) -> bool {
        self.world() == World::UnnamedPod && pod.name.ends_with("-1")
    }

    /// Compares an answer with the truth.
    pub(crate) fn check(&self, model: &ModelRef, answer: &Answer) -> Result<Verdict, String> {
        match answer {
            Answer::Failed(error) if error.kind() == ErrorKind::Ambiguous => Ok(Verdict::Ambiguous),
            Answer::Failed(_) => Ok(Verdict::Failed),
            Answer::Missing { last_seen, .. } => self.check_missing(model, *last_seen),
            Answer::Found(sample) => self.check_found(model, sample),
            other => Err(format!("{other:?}")),
        }
    }

    fn check_missing(&self, model: &ModelRef, last_seen: Option<Tick>) -> Result<Verdict, String> {
        if !self.alive(model, self.at).is_empty()
            && (self.is_named(model, None) || !self.has_no_pods())
        {
            return Err("missing: it is there".to_owned());
        }
        let newest = self.pods.iter().filter(|pod| pod.model == *model);
        let newest =
            newest.filter_map(|pod| pod.newest(self.world(), self.at)).max_by(f64::total_cmp);
        if let Some(seen) = last_seen {
            let seen = self.time_of(seen);
            if newest.is_none_or(|newest| seen > newest + SAME_TIME) {
                return Err(format!("last seen: {seen} and not {newest:?}"));
            }
        }
        Ok(Verdict::Missing)
    }

    fn time_of(&self, tick: Tick) -> f64 {
        self.at - tick.age(self.now).as_secs_f64()
    }

    fn check_found(&self, model: &ModelRef, sample: &ModelSample) -> Result<Verdict, String> {
        let names: BTreeSet<&str> =
            sample.replicas.iter().map(|row| row.pod_name.as_str()).collect();
        if names.len() != sample.replicas.len() {
            return Err("pods: one came twice".to_owned());
        }
        let mut verdict = if sample.absent.is_none() { Verdict::Right } else { Verdict::Partial };
        self.check_pods(model, sample, &names)?;
        for row in &sample.replicas {
            let reported = self.time_of(row.sampled_at);
            let pod = self
                .pods
                .iter()
                .find(|pod| pod.model == *model && pod.name == row.pod_name.as_str());
            let Some(pod) = pod else {
                return Err(format!("pods: {} is none of its pods", row.pod_name.as_str()));
            };
            let newest = pod.newest(self.world(), self.at).unwrap_or(f64::MIN);
            if reported > newest + SAME_TIME {
                return Err(format!(
                    "age: {} is reported as of {reported} and is of {newest}",
                    pod.name
                ));
            }
            if reported < newest - 60.0 {
                verdict = verdict.max(Verdict::Older);
            }
            let checked = self.check_row(pod, row, sample, reported).or_else(|problem| {
                let fewer = self.as_named(pod);
                let is_fewer = (1..pod.ranks.len()).contains(&fewer.ranks.len());
                let again = is_fewer.then(|| self.check_row(&fewer, row, sample, reported).ok());
                again.flatten().ok_or(problem)
            });
            verdict = verdict.max(checked?);
        }
        verdict = verdict.max(self.check_load(model, sample)?);
        if self.scene.plan.faults.is_empty() {
            // If all samples are late, a terminated pod is kept and has no rate.
            let expected = matches!(self.world(), World::UnnamedPod | World::Late)
                || model.model.as_str() == "org/young"
                || verdict == Verdict::Right;
            if !expected {
                return Err(format!("faultless: {verdict:?}"));
            }
        }
        Ok(verdict)
    }

    /// Returns whether something was removed without a warning: by an absent row, by a row without a usable
    /// name, or by an answer for a time without data.
    fn has_no_pods(&self) -> bool {
        self.faults().any(|fault| {
            matches!(
                fault,
                Fault::DropRows { .. }
                    | Fault::DropPod(_)
                    | Fault::Relabel { .. }
                    | Fault::Earlier { .. }
            )
        })
    }

    /// Returns whether any answer of this fetch named a model, or one of its live pods. A pod whose rows are
    /// absent from every answer has terminated, as far as anybody can tell.
    fn is_named(&self, model: &ModelRef, pod: Option<&Pod>) -> bool {
        self.is_said(model, pod, true, &|_| true)
    }

    /// Returns a pod without the ranks that no answer names, if something was removed.
    fn as_named(&self, pod: &Pod) -> Pod {
        let label = if pod.kind == Kind::Vllm { "engine" } else { "dp_rank" };
        let partial = self.faults().any(|fault| matches!(fault, Fault::Partial { .. }));
        let mut named = pod.clone();
        if self.has_no_pods() || partial {
            let ranks = pod.ranks.iter().enumerate().filter(|(number, _)| {
                let number = number.to_string();
                self.is_said(&pod.model, Some(pod), false, &|labels| labels[label] == *number)
            });
            named.ranks = ranks.map(|(_, rank)| rank.clone()).collect();
        }
        named
    }

    fn is_said(
        &self,
        model: &ModelRef,
        pod: Option<&Pod>,
        now: bool,
        has: &dyn Fn(&Value) -> bool,
    ) -> bool {
        self.answers().iter().any(|(query, answer)| {
            let is_instant = query.contains("timestamp(") || !query.contains('[');
            if pod.is_some() && now && !is_instant {
                return false;
            }
            let rows = answer.pointer("/data/result").and_then(Value::as_array);
            rows.into_iter().flatten().any(|row| {
                let labels = row.get("metric").unwrap_or(&Value::Null);
                has(labels) && self.is_of(labels, model, pod)
            })
        })
    }

    /// Returns the pods that no answer named.
    fn excused(&self, model: &ModelRef) -> BTreeSet<&'a str> {
        if !self.has_no_pods() {
            return BTreeSet::new();
        }
        let alive = self.alive(model, self.at).into_iter();
        alive.filter(|pod| !self.is_named(model, Some(pod))).map(|pod| pod.name.as_str()).collect()
    }

    /// Returns steady pods whose requests no answer counts, if the answers distinguish pods: their rows were
    /// removed, and they look like pods that have just started.
    fn uncounted(&self, model: &ModelRef) -> BTreeSet<&'a str> {
        let counts = ["rate(vllm:request_prompt_tokens_count{", "rate(sglang:num_requests_total{"];
        let of_pods =
            |query: &str| query.contains("pod") && counts.iter().any(|count| query.contains(count));
        let mut answers = self.answers().iter().filter(|(query, _)| of_pods(query)).peekable();
        if !self.has_no_pods() || answers.peek().is_none() {
            return BTreeSet::new();
        }
        let rows = answers.filter_map(|(_, answer)| answer.pointer("/data/result")?.as_array());
        let named: BTreeSet<&str> = rows
            .flatten()
            .filter(|row| row.is_object() && self.is_of(&row["metric"], model, None))
            .filter_map(|row| row["metric"][self.label_names().1].as_str())
            .collect();
        let alive = self.alive(model, self.at).into_iter().map(|pod| pod.name.as_str());
        alive.filter(|pod| !named.contains(pod)).collect()
    }

    /// The labels for namespace and pod.
    fn label_names(&self) -> (&'static str, &'static str) {
        match self.world() {
            World::OtherLabels => ("k8s_namespace_name", "k8s_pod_name"),
            World::Exported => ("exported_namespace", "exported_pod"),
            _ => ("namespace", "pod"),
        }
    }

    /// Returns whether labels belong to a model or one of its pods.
    fn is_of(&self, labels: &Value, model: &ModelRef, pod: Option<&Pod>) -> bool {
        let (namespace, name) = self.label_names();
        labels[namespace] == model.namespace.as_str()
            && labels["model_name"] == model.model.as_str()
            && pod.is_none_or(|pod| labels[name] == pod.name.as_str())
    }

    fn check_pods(
        &self,
        model: &ModelRef,
        sample: &ModelSample,
        names: &BTreeSet<&str>,
    ) -> Result<(), String> {
        // A terminated pod with an age over a minute is not reported as fresh.
        let names: BTreeSet<&str> = names
            .iter()
            .copied()
            .filter(|name| {
                let row = sample.replicas.iter().find(|row| row.pod_name.as_str() == *name);
                let reported = row.map_or(self.at, |row| self.time_of(row.sampled_at));
                let lives = self.alive(model, self.at).iter().any(|pod| pod.name == *name);
                lives || self.at - reported <= 60.0
            })
            .collect();
        let excused = self.excused(model);
        let mut truths = Vec::new();
        for time in self.times() {
            let alive = self.alive(model, time);
            let unnamed = alive.iter().any(|pod| self.is_unnamed(pod));
            let shown = alive.iter().filter(|pod| !self.is_unnamed(pod));
            let truth: BTreeSet<&str> = shown.map(|pod| pod.name.as_str()).collect();
            let covers =
                sample.replicas.iter().all(|row| self.time_of(row.sampled_at) <= time + 1.0);
            let lacks = truth.difference(&names).all(|name| excused.contains(name));
            if names.is_subset(&truth) && lacks && covers && !(unnamed && sample.absent.is_none()) {
                return Ok(());
            }
            truths.push(truth);
        }
        let known: BTreeSet<&str> = truths.iter().flatten().copied().collect();
        if !sample.absent.is_none() && names.is_subset(&known) {
            return Ok(());
        }
        Err(format!("pods: {names:?} and not {truths:?}, complete {}", sample.absent.is_none()))
    }

    /// Returns the times that a value may be of, given the reported time.
    fn times_since(&self, reported: f64) -> Vec<f64> {
        // Rows that claim the requested time but are older cannot be detected.
        let lies = self.faults().filter_map(|fault| match fault {
            Fault::Earlier { seconds, .. } if self.mixes_windows() => Some(*seconds),
            _ => None,
        });
        let fetches = &self.scene.plan.times[..=self.fetch];
        let lies = lies.flat_map(|seconds| fetches.iter().map(move |time| time - seconds));
        let times =
            self.times().into_iter().filter(|time| *time >= self.at || reported <= *time + 1.0);
        times.chain(lies).collect()
    }

    /// Returns whether rates of one window are divided by those of an earlier one, which cannot be detected.
    fn mixes_windows(&self) -> bool {
        self.faults().any(|fault| matches!(fault, Fault::Earlier { own_time: false, .. }))
    }

    fn check_row(
        &self,
        pod: &Pod,
        row: &ReplicaMetrics,
        sample: &ModelSample,
        reported: f64,
    ) -> Result<Verdict, String> {
        let mut verdict = Verdict::Right;
        for field in fields(pod, row) {
            let mark = row.marks.iter().find(|mark| mark.field == field.field);
            let reported =
                mark.map_or(reported, |mark| self.time_of(mark.sampled_at).min(reported));
            let ReportedField { what, truth, .. } = field;
            let Some(value) = field.value else {
                if truth.is_some() {
                    let explained =
                        |field| row.reasons.contains(field) || sample.failed.contains(field);
                    // It is made of both.
                    let by_capacity = what == "in use" && explained(Field::CacheConfig);
                    if !explained(field.field) && !by_capacity {
                        return Err(format!("{what}: {} is unknown without a word", pod.name));
                    }
                    verdict = verdict.max(Verdict::Explained);
                }
                continue;
            };
            if !self.truths(pod, &field, reported).into_iter().any(|truth| field.is(value, truth)) {
                return Err(format!(
                    "{what}: {} {value}, and not {truth:?}; reported as of {reported}",
                    pod.name
                ));
            }
        }
        Ok(verdict)
    }

    /// Returns the values that a field may have at a reported time.
    fn truths(&self, pod: &Pod, field: &ReportedField, reported: f64) -> Vec<f64> {
        let mut truths = Vec::new();
        let Some([before, after]) = field.truth else { return truths };
        // The window of the prefix cache is of five minutes.
        let window = if field.field == Field::PrefixCacheHitRate { 300.0 } else { 0.0 };
        for time in self.times_since(reported) {
            truths.extend((time - window < CHANGED).then_some(before));
            truths.extend((time >= CHANGED).then_some(after));
        }
        // The rank label vanished from the discovery answer: ranks are merged, and the fullest counts.
        let is_merged = self.has_no_pods() && !self.groups_by_rank(pod);
        if is_merged {
            truths.extend(field.merged.into_iter().flatten());
        }
        // A series that only some releases have is not missed if it is not stored.
        let of_one = pod.ranks.iter().map(|rank| rank.grammar).fold(0.0, f64::max);
        let optional = if is_merged { of_one } else { pod.sum(|rank| rank.grammar) };
        if field.what == "queue" && optional > 0.0 && self.loses_optional() {
            truths.extend(truths.clone().into_iter().map(|truth| truth - optional));
        }
        truths
    }

    /// Returns whether the queries of this fetch distinguish ranks.
    fn groups_by_rank(&self, pod: &Pod) -> bool {
        let (label, series) = match pod.kind {
            Kind::Vllm => (",engine", "timestamp(vllm:"),
            Kind::Sglang => (",dp_rank", "timestamp(sglang:"),
        };
        let mut answers = self.answers().iter();
        answers.any(|(query, _)| query.contains(series) && query.contains(label))
    }

    /// Returns whether a fault may remove the series that only some releases of an engine have.
    fn loses_optional(&self) -> bool {
        let name = "sglang:num_grammar_queue_reqs";
        let faults = self.faults().any(|fault| match fault {
            Fault::DropSeries(series) => *series == name,
            _ => self.has_no_pods() || matches!(fault, Fault::Partial { .. }),
        });
        faults && self.scene.log.lock().unwrap().iter().any(|(_, query, _)| query.contains(name))
    }

    fn check_load(&self, model: &ModelRef, sample: &ModelSample) -> Result<Verdict, String> {
        let oldest =
            sample.replicas.iter().map(|row| self.time_of(row.sampled_at)).fold(self.at, f64::min);
        let mut excused = self.excused(model);
        excused.extend(self.uncounted(model));
        let late = if self.world() == World::Late { 120.0 } else { 0.0 };
        let mut verdict = Verdict::Right;
        let of_pods = sample.load.pods().iter().map(|(pod, row)| (Some(pod), row));
        let of_model = sample.load.of_model().map(|row| (None, row));
        for (pod, LoadRow { rates, reasons, .. }) in of_model.into_iter().chain(of_pods) {
            let reported = all_rates(rates);
            for (sum, count, what, of) in MEANS {
                let (Some(sum), Some(count)) = (reported[sum], reported[count]) else { continue };
                let mut truths = self
                    .pods
                    .iter()
                    .filter(|it| it.model == *model)
                    .flat_map(|pod| pod.ranks.iter().map(of));
                let is = |truth: f64| (sum - truth * count).abs() <= sum * 0.01;
                if !self.mixes_windows() && count > 0.0 && !truths.any(is) {
                    return Err(format!("load {what}: a mean of {sum} by {count}"));
                }
            }
            for (number, (name, field)) in RATES.iter().enumerate() {
                let Some(value) = reported[number] else {
                    if !reasons.contains(*field) && !sample.failed.contains(*field) {
                        return Err(format!("load {name}: {pod:?} is unknown without a word"));
                    }
                    verdict = verdict.max(Verdict::Explained);
                    continue;
                };
                // Half a mean is not read.
                if HALVES.iter().any(|(one, other)| *one == number && reported[*other].is_none()) {
                    continue;
                }
                let is = |time: f64| {
                    let age = usize::from(time >= CHANGED);
                    let of = |steady: bool| -> f64 {
                        // A pod that terminated within the window counts in part.
                        let pods = self.pods.iter().filter(|it| it.model == *model);
                        let pods = pods.filter(|it| {
                            if steady {
                                let alive = self.alive(model, time);
                                alive.iter().any(|pod| pod.name == it.name)
                                    && !excused.contains(&*it.name)
                            } else {
                                it.newest(self.world(), time)
                                    .is_some_and(|newest| time - newest <= 120.0 + late)
                                    || it.lives(oldest)
                            }
                        });
                        let pods = pods.filter(|it| pod.is_none_or(|pod| pod.as_str() == it.name));
                        pods.filter(|pod| !steady || pod.is_steady())
                            .map(|pod| pod.sum(|rank| rates_of(rank, age)[number]))
                            .sum()
                    };
                    let (least, most) = (of(true), of(false));
                    // Rates are summed over undetected copies: a copy's row is absent from the liveness
                    // answer, or the discovery of copies was answered in part, which the reading reports.
                    let unseen = !sample.absent.is_none() || self.has_no_pods();
                    let doubled = self.faults().any(|it| matches!(it, Fault::Double { .. }));
                    let twice = self.world().is_stored_twice() || doubled;
                    let copies = if twice && unseen { 2.0 } else { 1.0 };
                    // Latencies are read as means, which hardly change if a pod is absent from both halves.
                    let is_latency = number >= 3;
                    let may_lack = !sample.absent.is_none() || is_latency && self.has_no_pods();
                    let least = if may_lack { 0.0 } else { least };
                    let most = most * copies;
                    value >= least * 0.99 - 1e-6 && value <= most * 1.01 + 1e-6
                };
                if !self.times_since(oldest).into_iter().any(is) {
                    let truth: f64 = self
                        .alive(model, self.at)
                        .iter()
                        .map(|pod| pod.sum(|rank| rates_of(rank, 1)[number]))
                        .sum();
                    let pod = pod.as_ref().map_or("all", |pod| pod.as_str());
                    return Err(format!(
                        "load {name}: {pod} {value}, and not of {truth}; complete {}",
                        sample.absent.is_none()
                    ));
                }
            }
        }
        Ok(verdict)
    }
}

const RATES: [(&str, Field); 7] = [
    ("requests", Field::ArrivalRate),
    ("prompt", Field::AvgInputTokens),
    ("generated", Field::AvgOutputTokens),
    ("ttft sum", Field::TtftAverage),
    ("ttft count", Field::TtftAverage),
    ("itl sum", Field::ItlAverage),
    ("itl count", Field::ItlAverage),
];

/// A latency: the indices of its sum and its count, its name, and its true values.
type Mean = (usize, usize, &'static str, fn(&Rank) -> f64);

/// Latencies that are the same for all pods of a model.
const MEANS: [Mean; 2] = [(3, 4, "ttft", |rank| rank.ttft), (5, 6, "itl", |rank| rank.itl)];

/// The rates that are half of a mean, each with the other half.
const HALVES: [(usize, usize); 6] = [(1, 0), (2, 0), (3, 4), (4, 3), (5, 6), (6, 5)];

fn all_rates(rates: &LoadRates) -> [Option<f64>; 7] {
    [
        rates.requests,
        rates.prompt_tokens,
        rates.generation_tokens,
        rates.ttft_seconds,
        rates.ttft_count,
        rates.itl_seconds,
        rates.itl_count,
    ]
}

fn rates_of(rank: &Rank, age: usize) -> [f64; 7] {
    let requests = rank.requests[age];
    [1.0, rank.prompt, rank.generated, rank.ttft, 1.0, rank.generated * rank.itl, rank.generated]
        .map(|each| each * requests)
}
