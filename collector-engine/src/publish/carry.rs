// SPDX-License-Identifier: Apache-2.0
//! What a fetch lacks, taken from the fetch before it: fields whose query failed, each with its own age,
//! and, when the answer is incomplete, the replicas that it does not have.

use std::collections::{HashMap, HashSet};

use collector_core::raw::SourceAnswer;
use collector_core::{
    Absent, BackendName, Field, LoadRates, LoadRow, LoadRows, Mark, ModelSample, PodName,
    ReplicaMetrics, Tick, mean_over_window,
};

use crate::config::CacheConfig;
use crate::publish::sane;

/// Answers in a row, under one and the same warning, that lack a replica which has left by then.
const ABSENCES_UNTIL_LEFT: u8 = 3;

/// The answer of a fetch that arrived at `now`, completed from the former one.
pub(crate) fn carry_forward(
    mut sample: ModelSample,
    former: Option<&SourceAnswer>,
    backend: &BackendName,
    config: &CacheConfig,
    now: Tick,
) -> SourceAnswer {
    sane::keep_what_can_be(&mut sample);
    // A clock that is ahead makes nothing younger than now.
    sample.as_of = sample.as_of.min(now);
    for replica in &mut sample.replicas {
        replica.sampled_at = replica.sampled_at.min(now);
    }
    if let Some(supply) = &mut sample.supply {
        std::sync::Arc::make_mut(supply).normalize(now);
    }
    let mut load_marks = Vec::new();
    let mut terminated = Vec::new();
    let mut absent = Vec::new();
    if let Some(former) = former {
        let keeper = Keeper { former, backend, config, now };
        keeper.keep_failed_fields(&mut sample);
        absent = keeper.keep_absent_replicas(&mut sample);
        load_marks = keeper.keep_failed_load(&mut sample);
        terminated = keeper.terminated(&sample);
    }
    SourceAnswer {
        sample: std::sync::Arc::new(sample),
        arrived_at: now,
        load_marks,
        terminated,
        absent,
    }
}

struct Keeper<'a> {
    former: &'a SourceAnswer,
    backend: &'a BackendName,
    config: &'a CacheConfig,
    now: Tick,
}

impl Keeper<'_> {
    fn mark(&self, field: Field, sampled_at: Tick) -> Mark {
        Mark { field, backend: self.backend.clone(), sampled_at }
    }

    fn is_usable(&self, sampled_at: Tick) -> bool {
        sampled_at.age(self.now) < self.config.freshness.unavailable_threshold
    }

    fn keep_failed_fields(&self, sample: &mut ModelSample) {
        let failed = sample.failed.fields();
        if failed.is_empty() {
            return;
        }
        let former = self.former.sample.replicas.iter();
        let former: HashMap<&PodName, _> = former.map(|row| (&row.pod_name, row)).collect();
        for replica in &mut sample.replicas {
            let Some(twin) = former.get(&replica.pod_name) else { continue };
            for &field in Field::OF_REPLICA.iter().filter(|field| failed.contains(**field)) {
                let sampled_at = twin.sampled_at(field);
                if twin.has(field) && !replica.has(field) && self.is_usable(sampled_at) {
                    replica.copy_field(field, twin);
                    replica.marks.push(self.mark(field, sampled_at));
                }
            }
        }
    }

    /// Keeps, with their load, the replicas that an incomplete answer may merely have missed. They stay until
    /// `stale_threshold`, so that one hung pod never makes a whole model unavailable. One that stays absent under one and
    /// the same warning has left sooner.
    fn keep_absent_replicas(&self, sample: &mut ModelSample) -> Vec<(PodName, u8)> {
        if sample.absent.is_none() {
            return Vec::new();
        }
        let warning = sample.absent.warning();
        let same_warning = warning.is_some() && warning == self.former.sample.absent.warning();
        let times = |pod: &PodName| {
            let before = self.former.absent.iter().find(|(known, _)| known == pod);
            1 + before.filter(|_| same_warning).map_or(0, |(_, times)| *times)
        };
        let has_left = |pod: &PodName| warning.is_some() && times(pod) >= ABSENCES_UNTIL_LEFT;
        let known: HashSet<&PodName> = pods(sample).collect();
        let reach = Reach::of(sample);
        let old = |row: &ReplicaMetrics| self.config.freshness.warns(row.sampled_at.age(self.now));
        let may_live = |row: &&ReplicaMetrics| {
            let pod = &row.pod_name;
            !known.contains(pod) && !reach.has(pod) && !old(row) && !has_left(pod)
        };
        let former = self.former.sample.replicas.iter();
        let absent: Vec<ReplicaMetrics> = former.filter(may_live).cloned().collect();
        let pods: HashSet<&PodName> = absent.iter().map(|row| &row.pod_name).collect();
        if let LoadRows::Pods(load) = &mut sample.load {
            let former = self.former.sample.load.pods().iter();
            load.extend(former.filter(|(pod, _)| pods.contains(pod)).cloned());
        }
        let counted = absent.iter().map(|row| (row.pod_name.clone(), times(&row.pod_name)));
        let counted = counted.collect();
        sample.replicas.extend(absent);
        counted
    }

    /// The pods that this source has seen terminate, for as long as another could still show them.
    fn terminated(&self, sample: &ModelSample) -> Vec<(PodName, Tick)> {
        let reach = Reach::of(sample);
        let former = self.former.sample.replicas.iter().filter(|row| reach.has(&row.pod_name));
        let newly = former.map(|row| (row.pod_name.clone(), sample.as_of));
        let earlier = self.former.terminated.iter().filter(|(_, left)| self.is_usable(*left));
        let present: HashSet<&PodName> = pods(sample).collect();
        let mut terminated: Vec<(PodName, Tick)> = earlier.cloned().chain(newly).collect();
        terminated.retain(|(pod, _)| !present.contains(pod));
        terminated.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        terminated
    }

    /// Keeps the load fields whose query failed. Load rows have their marks in one list.
    fn keep_failed_load(&self, sample: &mut ModelSample) -> Vec<Mark> {
        let mut failed = sample.failed.fields();
        if failed.contains(Field::ArrivalRate) {
            // New tokens over former requests would be a mean of no time at all.
            failed.insert(Field::AvgInputTokens);
            failed.insert(Field::AvgOutputTokens);
        }
        if !Field::OF_LOAD.iter().any(|field| failed.contains(*field)) {
            return Vec::new();
        }
        let former = self.load_as_asked_now(sample);
        if former.is_empty() {
            return Vec::new();
        }
        if sample.load.is_empty() {
            sample.load = former.clone();
            sample.load.iter_mut().for_each(|row| *row = LoadRow::default());
        }
        let mut rows = paired(&mut sample.load, &former);
        let mut marks = Vec::new();
        for &field in Field::OF_LOAD.iter().filter(|field| failed.contains(**field)) {
            let marked = self.former.load_marks.iter().find(|mark| mark.field == field);
            let sampled_at = marked.map_or_else(|| self.load_sampled_at(), |mark| mark.sampled_at);
            if self.is_usable(sampled_at) {
                for (rates, former) in &mut rows {
                    keep_load_field(rates, field, former);
                }
                marks.push(self.mark(field, sampled_at));
            }
        }
        marks
    }

    /// When the former load was sampled. It has no time of its own, and is made of the samples of all replicas.
    fn load_sampled_at(&self) -> Tick {
        let sampled = self.former.sample.replicas.iter().map(|row| row.sampled_at);
        sampled.fold(self.former.sample.as_of, Tick::min)
    }

    /// Returns the former load of live pods in the form of the new load. A model's load cannot be split by pod.
    fn load_as_asked_now(&self, sample: &ModelSample) -> LoadRows {
        let former = &self.former.sample.load;
        match (&sample.load, former) {
            (LoadRows::Pods(_), LoadRows::Model(_)) => LoadRows::None,
            (LoadRows::Model(_), LoadRows::Pods(_)) => {
                let sum = former.iter().map(|row| row.rates).reduce(LoadRates::plus);
                sum.map_or(LoadRows::None, |rates| LoadRows::Model(rates.into()))
            }
            (_, LoadRows::Pods(rows)) => {
                let alive: HashSet<&PodName> = pods(sample).collect();
                rows.iter().filter(|(pod, _)| alive.contains(pod)).cloned().collect()
            }
            _ => former.clone(),
        }
    }
}

/// Which pods a fetch would have seen, had they been there. What others lack may only be out of its
/// reach.
enum Reach<'a> {
    All,
    AllBut(HashSet<&'a PodName>),
    Unknown,
}

impl<'a> Reach<'a> {
    fn of(sample: &'a ModelSample) -> Self {
        match &sample.absent {
            Absent::None => Self::All,
            Absent::Pods(pods) => Self::AllBut(pods.iter().collect()),
            _ => Self::Unknown,
        }
    }

    fn has(&self, pod: &PodName) -> bool {
        match self {
            Self::All => true,
            Self::AllBut(unreached) => !unreached.contains(pod),
            Self::Unknown => false,
        }
    }
}

fn pods(sample: &ModelSample) -> impl Iterator<Item = &PodName> {
    sample.replicas.iter().map(|row| &row.pod_name)
}

/// Pairs the rates of two loads of the same form, by pod.
fn paired<'a>(
    load: &'a mut LoadRows,
    former: &'a LoadRows,
) -> Vec<(&'a mut LoadRates, &'a LoadRates)> {
    match (load, former) {
        (LoadRows::Model(row), LoadRows::Model(former)) => vec![(&mut row.rates, &former.rates)],
        (LoadRows::Pods(rows), LoadRows::Pods(former)) => {
            let former: HashMap<&PodName, _> =
                former.iter().map(|(pod, row)| (pod, &row.rates)).collect();
            let pair =
                |(pod, row): &'a mut (_, LoadRow)| Some((&mut row.rates, *former.get(&*pod)?));
            rows.iter_mut().filter_map(pair).collect()
        }
        _ => Vec::new(),
    }
}

/// Takes what belongs to one field from the rates of a former fetch. Of the token rates it is the mean
/// that is kept, whatever has arrived since: a former sum over present requests would be wrong.
fn keep_load_field(rates: &mut LoadRates, field: Field, former: &LoadRates) {
    let at_former_mean = |tokens: Option<f64>| {
        let requests = rates.requests?;
        // What had no requests had no mean that others could be given.
        let comparable = former.requests? > 0.0 || requests == 0.0;
        Some(mean_over_window(tokens, former.requests, true)? * requests).filter(|_| comparable)
    };
    match field {
        Field::AvgInputTokens => rates.prompt_tokens = at_former_mean(former.prompt_tokens),
        Field::AvgOutputTokens => {
            rates.generation_tokens = at_former_mean(former.generation_tokens);
        }
        _ => rates.copy_field(field, former),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use collector_core::{Clock, ManualClock};

    use super::*;

    const NANOSECOND: Duration = Duration::from_nanos(1);

    /// What was said at `as_of` of one pod, with all of its load known.
    fn former(as_of: Tick) -> SourceAnswer {
        let mut row = ReplicaMetrics::new("pod", as_of);
        row.queue_length = Some(3);
        let mut sample = ModelSample::new(as_of, vec![row]);
        sample.load = LoadRows::Model(LoadRates::ZERO.into());
        SourceAnswer {
            sample: Arc::new(sample),
            arrived_at: as_of,
            load_marks: Vec::new(),
            terminated: Vec::new(),
            absent: Vec::new(),
        }
    }

    /// A sample of the same pod of which these fields failed.
    fn sample_without(now: Tick, failed: &[Field]) -> ModelSample {
        let mut sample = ModelSample::new(now, vec![ReplicaMetrics::new("pod", now)]);
        sample.failed = failed.iter().map(|field| (*field, "422")).collect();
        sample
    }

    fn carried_forward(sample: ModelSample, former: &SourceAnswer, now: Tick) -> SourceAnswer {
        carry_forward(sample, Some(former), &"test".into(), &CacheConfig::default(), now)
    }

    /// From when on what was sampled at `tick` is of no use.
    fn unusable_from(tick: Tick) -> Tick {
        tick + CacheConfig::default().freshness.unavailable_threshold
    }

    #[test]
    fn what_stays_absent_under_one_warning_for_three_answers_has_left() {
        let start = ManualClock::new().now();
        let answers = |warnings: [&str; 4]| {
            let mut last = former(start);
            let mut kept = Vec::new();
            for (number, warning) in (1..).zip(warnings) {
                let now = start + Duration::from_secs(5) * number;
                let mut sample = ModelSample::new(now, Vec::new());
                let warning = Some(warning).filter(|it| !it.is_empty()).map(Into::into);
                sample.absent = Absent::Unknown(warning);
                last = carried_forward(sample, &last, now);
                kept.push(last.sample.replicas.len());
            }
            kept
        };
        assert_eq!(answers(["a store is away"; 4]), [1, 1, 0, 0]);
        assert_eq!(answers(["one", "another", "one", "another"]), [1; 4], "they alternate");
        assert_eq!(answers([""; 4]), [1; 4], "it is no warning");
    }

    #[test]
    fn a_field_that_failed_is_kept_until_it_is_unavailable() {
        let then = ManualClock::new().now();
        let kept = |now| {
            let answer =
                carried_forward(sample_without(now, &[Field::QueueLength]), &former(then), now);
            answer.sample.replicas[0].queue_length
        };
        assert_eq!(kept(unusable_from(then) - NANOSECOND), Some(3));
        assert_eq!(kept(unusable_from(then)), None);
    }

    #[test]
    fn load_of_which_everything_failed_is_kept_whole_until_it_is_unavailable() {
        let then = ManualClock::new().now();
        let answer = |now| carried_forward(sample_without(now, Field::OF_LOAD), &former(then), now);
        let kept = answer(unusable_from(then) - NANOSECOND);
        assert_eq!(kept.sample.load, former(then).sample.load);
        let marks: Vec<_> =
            kept.load_marks.iter().map(|mark| (mark.field, mark.sampled_at)).collect();
        let expected: Vec<_> = Field::OF_LOAD.iter().map(|field| (*field, then)).collect();
        assert_eq!(marks, expected);
        assert_eq!(answer(unusable_from(then)).load_marks, []);
    }

    #[test]
    fn of_tokens_it_is_the_mean_that_is_kept() {
        let now = ManualClock::new().now();
        let requests = |requests: f64| LoadRates::default().with_requests(requests);
        let mut before = former(now);
        Arc::make_mut(&mut before.sample).load =
            LoadRows::Model(requests(2.0).with_tokens(20.0, 40.0).into());
        let mut sample = sample_without(now, &[Field::AvgInputTokens, Field::AvgOutputTokens]);
        sample.load = LoadRows::Model(requests(4.0).into());
        let kept = carried_forward(sample, &before, now).sample.load.of_model().unwrap().rates;
        assert_eq!((kept.prompt_tokens, kept.generation_tokens), (Some(40.0), Some(80.0)));
    }

    #[test]
    fn where_there_was_no_load_none_is_kept() {
        let then = ManualClock::new().now();
        let mut empty = former(then);
        Arc::make_mut(&mut empty.sample).load = LoadRows::None;
        let answer = carried_forward(sample_without(then, &[Field::TtftAverage]), &empty, then);
        assert_eq!((answer.load_marks.len(), &answer.sample.load), (0, &LoadRows::None));
    }

    #[test]
    fn load_that_is_kept_is_as_old_as_the_oldest_sample_that_it_is_made_of() {
        let sampled = ManualClock::new().now();
        let asked = sampled + Duration::from_secs(20);
        let mut before = former(asked);
        Arc::make_mut(&mut before.sample).replicas[0].sampled_at = sampled;
        let kept = carried_forward(sample_without(asked, &[Field::TtftAverage]), &before, asked);
        assert_eq!(kept.load_marks[0].sampled_at, sampled);
    }

    #[test]
    fn load_that_is_kept_a_second_time_keeps_its_first_age() {
        let first = ManualClock::new().now();
        let second = first + Duration::from_secs(30);
        let third = second + Duration::from_secs(30);
        let once =
            carried_forward(sample_without(second, &[Field::TtftAverage]), &former(first), second);
        let twice = carried_forward(
            sample_without(third, &[Field::TtftAverage, Field::ItlAverage]),
            &once,
            third,
        );
        let marks: Vec<_> =
            twice.load_marks.iter().map(|mark| (mark.field, mark.sampled_at)).collect();
        assert_eq!(marks, [(Field::TtftAverage, first), (Field::ItlAverage, second)]);
    }
}
