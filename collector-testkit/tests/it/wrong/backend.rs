// SPDX-License-Identifier: Apache-2.0
//! A backend over a server in memory, right or with one fault.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use collector_core::{
    Absent, Answer, Answers, Ask, Backend, BackendError, Check, CheckStatus, Clock as _, ErrorKind,
    Field, KnownModel, Limits, ListAsk, LiveSource, LoadRates, LoadRows, Mark, ModelRef,
    ModelSample, Operation, Permit, Permits, Probe, ProbeAsk, ReplicaMetrics, Supports, Tick,
    TraceRow, Unlimited, Urgency,
};
use collector_testkit::conformance::FleetPod;
use tokio::time::{sleep, timeout};

use super::faults::{Fault, Live, LiveFault};
use super::server::{AGE, Refusal, Reply, SECRET, Server};

#[derive(Clone)]
pub(crate) struct MemoryBackend {
    server: Arc<Server>,
    fault: Option<Fault>,
    live: Live,
    pub(crate) tracked: Arc<Mutex<Vec<ModelRef>>>,
    pub(crate) runs: Arc<AtomicUsize>,
    state: Arc<State>,
}

/// What wrong backends keep.
#[derive(Default)]
struct State {
    calls: AtomicUsize,
    first: Mutex<Option<Tick>>,
    former: Mutex<BTreeMap<ModelRef, ModelSample>>,
    asked: Mutex<Vec<ModelRef>>,
    busy: AtomicBool,
    kept: Mutex<Vec<Permit>>,
}

impl MemoryBackend {
    pub(crate) fn new(server: Arc<Server>, fault: Option<Fault>, live: Live) -> Self {
        let (tracked, runs, state) = Default::default();
        Self { server, fault, live, tracked, runs, state }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    pub(crate) fn live_fault(&self) -> Option<LiveFault> {
        match self.live {
            Live::Wrong(fault) => Some(fault),
            Live::None | Live::Right => None,
        }
    }

    fn error(&self, kind: ErrorKind, operation: Operation, said: &str) -> BackendError {
        let name = if self.is(Fault::NamesAnotherBackend) { "prometheus" } else { self.name() };
        let operation = match operation {
            Operation::Fetch if self.is(Fault::NamesAnotherOperation) => Operation::Probe,
            other => other,
        };
        let kind = match (kind, self.fault) {
            (ErrorKind::Unauthorized, Some(Fault::UnauthorizedIsConnect))
            | (ErrorKind::Timeout, Some(Fault::StallIsConnect)) => ErrorKind::Connect,
            (ErrorKind::RateLimited, Some(Fault::RateLimitedIsServerError)) => {
                ErrorKind::ServerError
            }
            (ErrorKind::ServerError, Some(Fault::DownIsConfiguration)) => ErrorKind::Configuration,
            (other, _) => other,
        };
        let subject = if self.is(Fault::SaysNoSubject) { "" } else { "http://memory" };
        let error = BackendError::new(kind, name.into(), operation, subject);
        // What a server says is escaped, cut and searched for what nobody may see.
        let shown = said.replace(SECRET, "[redacted]").escape_debug().to_string();
        match self.fault {
            Some(Fault::ShowsTheSecret) => error.with_detail(said.escape_debug().to_string()),
            Some(Fault::ShowsTheSecretInTheSource) => {
                error.with_detail(shown).with_source(said.to_owned())
            }
            Some(Fault::ColoursErrors) => error.with_detail(said.replace(SECRET, "")),
            Some(Fault::ErrorsWithoutEnd) => error.with_detail(shown.repeat(1000)),
            _ => error.with_detail(shown),
        }
    }

    pub(crate) fn copied(&self, error: &BackendError) -> BackendError {
        self.error(error.kind(), error.operation(), error.detail())
    }

    /// One request, under its permit and within the time.
    pub(crate) async fn reply(
        &self,
        permits: &dyn Permits,
        time_left: Duration,
        operation: Operation,
    ) -> Result<Reply, BackendError> {
        let ask = async {
            if operation == Operation::Fetch {
                return self.fetch_reply(permits, operation).await;
            }
            let _permit = permits.acquire().await?;
            self.request(operation).await
        };
        let ignores = match operation {
            Operation::Fetch => self.is(Fault::IgnoresTimeLeft),
            Operation::ListModels => self.is(Fault::ListIgnoresTimeLeft),
            _ => self.is(Fault::ProbeIgnoresTimeLeft),
        };
        if ignores {
            return ask.await;
        }
        let late = || self.error(ErrorKind::Timeout, operation, "no answer in time");
        timeout(time_left.mul_f64(0.9), ask).await.unwrap_or_else(|_| Err(late()))
    }

    async fn request(&self, operation: Operation) -> Result<Reply, BackendError> {
        let answer = self.server.answer().await;
        answer.map_err(|Refusal(kind, said)| self.error(kind, operation, &said))
    }

    async fn fetch_reply(
        &self,
        permits: &dyn Permits,
        operation: Operation,
    ) -> Result<Reply, BackendError> {
        let permit = match self.fault {
            Some(Fault::TakesNoPermit) => Unlimited.acquire().await?,
            Some(Fault::AsksWhenRefused) => match permits.acquire().await {
                Ok(permit) => permit,
                Err(_) => Unlimited.acquire().await?,
            },
            Some(Fault::HidesTheRefusal) => permits
                .acquire()
                .await
                .map_err(|_| self.error(ErrorKind::Connect, operation, "refused"))?,
            _ => permits.acquire().await?,
        };
        match self.fault {
            Some(Fault::NestsPermits) => {
                let _second = permits.acquire().await?;
                self.request(operation).await
            }
            Some(Fault::ReleasesEarly) => {
                drop(permit);
                self.request(operation).await
            }
            Some(Fault::KeepsPermits) => {
                let reply = self.request(operation).await;
                self.state.kept.lock().unwrap().push(permit);
                reply
            }
            Some(Fault::TwoRequestsForAPermit) => {
                self.request(operation).await?;
                self.request(operation).await
            }
            Some(Fault::TriesAgain) => {
                for _ in 0..2 {
                    if let Ok(reply) = self.request(operation).await {
                        return Ok(reply);
                    }
                }
                self.request(operation).await
            }
            Some(Fault::TriesAgainWithPermits) => {
                let reply = self.request(operation).await;
                drop(permit);
                if reply.is_ok() {
                    return reply;
                }
                let _permit = permits.acquire().await?;
                self.request(operation).await
            }
            Some(Fault::LeavesTasks) => {
                let this = self.clone();
                let task = async move {
                    let _permit = permit;
                    let reply = this.request(operation).await;
                    sleep(Duration::from_secs(1)).await;
                    let _ = this.server.answer().await;
                    reply
                };
                tokio::spawn(task).await.unwrap()
            }
            _ => self.request(operation).await,
        }
    }

    /// The model that is answered instead of the one asked, by a rule that is too wide.
    fn meant(&self, asked: &ModelRef, reply: &Reply) -> ModelRef {
        let same = |known: &&ModelRef| {
            let (id, exists) = (asked.model.as_str(), known.model.as_str());
            let here = asked.namespace == known.namespace;
            match self.fault {
                Some(Fault::FoldsCase) => here && id.eq_ignore_ascii_case(exists),
                Some(Fault::TrimsNames) => here && id.trim() == exists,
                Some(Fault::MatchesPrefixes) => here && id.starts_with(exists),
                Some(Fault::MatchesPatterns) => here && id == ".*",
                Some(Fault::IgnoresTheNamespace) => id == exists,
                _ => false,
            }
        };
        if reply.models.contains_key(asked) {
            return asked.clone();
        }
        reply.models.keys().find(same).unwrap_or(asked).clone()
    }

    pub(crate) fn answer(
        &self,
        model: &ModelRef,
        reply: &Reply,
        as_of: Tick,
        per_pod: bool,
    ) -> Answer {
        let odd = model.model.as_str().contains('\0');
        assert!(!(odd && self.is(Fault::PanicsOnOddNames)), "an odd name");
        let found = reply.models.get(&self.meant(model, reply));
        match (found, self.fault) {
            (None, Some(Fault::MissingIsEmpty)) => {
                Answer::Found(ModelSample::new(as_of, Vec::new()))
            }
            (None, Some(Fault::MissingIsFailed)) => {
                Answer::Failed(self.error(ErrorKind::NotFound, Operation::Fetch, "no such model"))
            }
            (Some(pods), Some(Fault::EmptyIsMissing)) if pods.is_empty() => {
                Answer::Missing { as_of, last_seen: None }
            }
            (None, _) => Answer::Missing { as_of, last_seen: None },
            (Some(pods), _) => {
                let mut sample = self.sample(model, pods, reply, as_of, per_pod);
                self.spoil(&mut sample, per_pod);
                Answer::Found(sample)
            }
        }
    }

    fn sample(
        &self,
        model: &ModelRef,
        pods: &[FleetPod],
        reply: &Reply,
        as_of: Tick,
        per_pod: bool,
    ) -> ModelSample {
        let now = self.server.clock.now();
        let row = |pod: &FleetPod| {
            let mut row = pod.row.clone();
            row.sampled_at = now - AGE;
            row
        };
        let mut sample = ModelSample::new(as_of, pods.iter().map(row).collect());
        let row_of = |pod: &FleetPod| (pod.row.pod_name.clone(), pod.load.into());
        let mut load: LoadRows = pods.iter().map(row_of).collect();
        if let Some(field) = reply.broken_field {
            let unknown = ReplicaMetrics::new("unknown", now);
            for row in &mut sample.replicas {
                row.copy_field(field, &unknown);
                if self.is(Fault::FailedFieldIsZero) {
                    row.queue_length.get_or_insert(0);
                }
            }
            for row in load.iter_mut() {
                row.rates.copy_field(field, &LoadRates::default());
            }
            match self.fault {
                Some(Fault::FailedFieldIsSilent) => {}
                Some(Fault::FailedFieldHasNoReason) => sample.failed.insert(field, ""),
                _ => sample.failed.insert(field, "422: no such function"),
            }
        }
        if let Some((hidden, pod)) = &reply.hidden
            && hidden == model
        {
            sample.absent = match self.fault {
                Some(Fault::HiddenPodIsGone) => Absent::None,
                Some(Fault::BlamesAnotherPod) => Absent::Pods(vec!["somebody-else".into()]),
                _ => Absent::Pods(vec![pod.clone()]),
            };
        }
        // The sum of a part would be a smaller load.
        sample.load = if per_pod || !sample.absent.is_none() { load } else { summed(&load) };
        sample
    }

    /// Breaks one thing of a sample.
    fn spoil(&self, sample: &mut ModelSample, per_pod: bool) {
        let Some(fault) = self.fault else { return };
        let now = self.server.clock.now();
        match fault {
            Fault::AsOfIsOld => sample.as_of = sample.as_of - Duration::from_secs(30),
            Fault::AsOfIsInTheFuture => sample.as_of = now + Duration::from_secs(1),
            Fault::AsOfStandsStill => {
                sample.as_of = *self.state.first.lock().unwrap().get_or_insert(sample.as_of);
            }
            Fault::ZeroWindow => sample.window = Some(Duration::ZERO),
            Fault::TracesUnasked => {
                sample.trace = vec![TraceRow {
                    pod: None,
                    field: Field::QueueLength,
                    asked: "queue".into(),
                    matched: None,
                    raw: None,
                    sampled_at: None,
                    asked_at: now,
                    answered_at: now,
                }];
            }
            Fault::ColoursWarnings => sample.warnings = vec!["\u{1b}[31mlate".into()],
            Fault::LosesAPod => drop(sample.replicas.pop()),
            Fault::InventsAPod => sample.replicas.push(ReplicaMetrics::new("ghost-0", now - AGE)),
            Fault::DoublesAPod => sample.replicas.extend(sample.replicas.first().cloned()),
            Fault::AlwaysIncomplete => sample.absent = Absent::Unknown(None),
            Fault::NoLoad => sample.load = LoadRows::None,
            Fault::LoadByPodUnasked if !per_pod => {
                let row = |row: &ReplicaMetrics| (row.pod_name.clone(), LoadRates::ZERO.into());
                sample.load = sample.replicas.iter().map(row).collect();
            }
            Fault::LoadByModelWhenPodsAreAsked => sample.load = summed(&sample.load),
            Fault::LoadOfAPodTwice if per_pod => {
                let first = sample.load.pods().first().cloned();
                sample.load = sample.load.pods().iter().cloned().chain(first).collect();
            }
            Fault::LoadOfOnePodOnly => {
                sample.load = sample.load.pods().iter().take(1).cloned().collect();
            }
            Fault::MeanIsNoSum if !per_pod => {
                let pods = sample.replicas.len().max(1) as f64;
                sample.load.iter_mut().for_each(|row| each(&mut row.rates, |rate| rate / pods));
            }
            _ => {}
        }
        for row in &mut sample.replicas {
            Self::spoil_row(fault, row, now);
        }
        for row in sample.load.iter_mut() {
            let rates = &mut row.rates;
            match fault {
                Fault::LoadPerMinute => each(rates, |rate| rate * 60.0),
                Fault::RoundsRates => each(rates, f64::trunc),
                Fault::NegativeRates => each(rates, |rate| -rate),
                Fault::LatencyInMilliseconds => {
                    rates.ttft_seconds = rates.ttft_seconds.map(|sum| sum * 1000.0);
                }
                Fault::SwapsTokens => {
                    std::mem::swap(&mut rates.prompt_tokens, &mut rates.generation_tokens);
                }
                _ => {}
            }
        }
        if fault == Fault::SwapsPods
            && let [one, other] = sample.replicas.as_mut_slice()
        {
            std::mem::swap(&mut one.pod_name, &mut other.pod_name);
        }
    }

    fn spoil_row(fault: Fault, row: &mut ReplicaMetrics, now: Tick) {
        match fault {
            Fault::SampledNow => row.sampled_at = now,
            Fault::SampledByUnixTime => {
                row.sampled_at = Tick::from_nanos(1_800_000_000_000_000_000);
            }
            Fault::SampledInTheFuture => row.sampled_at = now + Duration::from_secs(1),
            Fault::SampledBeforeEverything => row.sampled_at = Tick::MIN,
            Fault::SwapsUsageAndHitRate => {
                std::mem::swap(&mut row.kv_cache_usage, &mut row.prefix_cache_hit_rate);
            }
            Fault::SwapsQueueAndRunning => {
                std::mem::swap(&mut row.queue_length, &mut row.running_requests);
            }
            Fault::SwapsBlocksAndBlockSize => {
                std::mem::swap(&mut row.num_gpu_blocks, &mut row.block_size);
            }
            Fault::UsesPercent => {
                row.kv_cache_usage = row.kv_cache_usage.map(|usage| usage * 100.0);
            }
            Fault::InventsNotANumber => row.avg_input_tokens = Some(f64::NAN),
            Fault::InventsHugeCounts => row.kv_capacity_tokens = Some(u64::MAX),
            Fault::UnmeasuredIsZero => {
                row.prefix_cache_hit_rate.get_or_insert(0.0);
            }
            Fault::NoServers => row.servers = 0,
            Fault::SetsTheVariant => row.variant_name = Some("v".into()),
            Fault::SetsTheCost => row.cost = Some(1.0),
            Fault::MarksAnotherBackend => {
                let field = Field::QueueLength;
                row.marks.push(Mark { field, backend: "other".into(), sampled_at: now - AGE });
            }
            _ => {}
        }
    }
}

/// The load of the model as a whole.
fn summed(load: &LoadRows) -> LoadRows {
    let sum = load.iter().map(|row| row.rates).reduce(LoadRates::plus);
    LoadRows::Model(sum.unwrap_or_default().into())
}

fn each(rates: &mut LoadRates, change: impl Fn(f64) -> f64) {
    for rate in [
        &mut rates.requests,
        &mut rates.prompt_tokens,
        &mut rates.generation_tokens,
        &mut rates.ttft_seconds,
        &mut rates.ttft_count,
        &mut rates.itl_seconds,
        &mut rates.itl_count,
    ] {
        *rate = rate.map(&change);
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    fn name(&self) -> &str {
        let calls = self.state.calls.fetch_add(1, Ordering::SeqCst);
        match self.fault {
            Some(Fault::ShoutsItsName) => "MEMORY",
            Some(Fault::ChangesItsName) if calls % 2 == 1 => "memory-2",
            _ => "memory",
        }
    }

    fn supports(&self) -> Supports {
        let mut supports = Supports::ALL;
        supports.load = !self.is(Fault::PodsWithoutLoad);
        supports
    }

    fn limits(&self) -> Limits {
        match self.fault {
            Some(Fault::HasNoTimeOut) => Limits::new(Duration::ZERO),
            _ => Limits::default(),
        }
    }

    async fn fetch(&self, ask: Ask<'_>) -> Result<Answers, BackendError> {
        let as_of = ask.clock.now();
        let missing =
            |model: &ModelRef| (model.clone(), Answer::Missing { as_of, last_seen: None });
        if ask.models.is_empty() {
            return Ok(Answers::new());
        }
        if ask.time_left.is_zero() {
            if self.is(Fault::MissingWithoutTime) {
                return Ok(ask.models.iter().map(missing).collect());
            }
            return Err(self.error(ErrorKind::Timeout, Operation::Fetch, "no time"));
        }
        match self.fault {
            Some(Fault::BlocksTheThread) => std::thread::sleep(Duration::from_millis(250)),
            Some(Fault::StuckAfterADrop) if self.state.busy.swap(true, Ordering::SeqCst) => {
                std::future::pending::<()>().await;
            }
            Some(Fault::APermitForEachModel) => {
                for _ in &ask.models[1..] {
                    drop(ask.permits.acquire().await?);
                }
            }
            Some(Fault::FailsInTheBackground) if ask.urgency == Urgency::Background => {
                return Err(self.error(ErrorKind::Overloaded, Operation::Fetch, "not now"));
            }
            Some(Fault::MixesFetches) => *self.state.asked.lock().unwrap() = ask.models.to_vec(),
            _ => {}
        }
        let reply = self.reply(ask.permits, ask.time_left, Operation::Fetch).await;
        self.state.busy.store(false, Ordering::SeqCst);
        let reply = match (reply, self.fault) {
            (Ok(reply), _) => reply,
            (Err(error), _) if error.kind() == ErrorKind::CircuitOpen => return Err(error),
            (Err(_), Some(Fault::ErrorIsMissing)) => {
                return Ok(ask.models.iter().map(missing).collect());
            }
            (Err(_), Some(Fault::ErrorIsEmpty)) => {
                let empty = |model: &ModelRef| {
                    (model.clone(), Answer::Found(ModelSample::new(as_of, Vec::new())))
                };
                return Ok(ask.models.iter().map(empty).collect());
            }
            (Err(_), Some(Fault::ErrorIsNoAnswer)) => return Ok(Answers::new()),
            (Err(error), Some(Fault::ErrorIsFormerValues)) => {
                let former = self.state.former.lock().unwrap();
                let answer = |model: &ModelRef| {
                    let former = former.get(model).cloned();
                    let failed = || Answer::Failed(self.copied(&error));
                    (model.clone(), former.map_or_else(failed, Answer::Found))
                };
                return Ok(ask.models.iter().map(answer).collect());
            }
            (Err(error), _) => return Err(error),
        };
        let models = match self.fault {
            Some(Fault::MixesFetches) => self.state.asked.lock().unwrap().clone(),
            _ => ask.models.to_vec(),
        };
        let mut answers = Answers::new();
        for model in &models {
            let per_pod = ask.wants_load_per_pod(model);
            let answer = self.answer(model, &reply, as_of, per_pod);
            if let Answer::Found(sample) = &answer {
                self.state.former.lock().unwrap().insert(model.clone(), sample.clone());
            }
            answers.insert(model.clone(), answer);
        }
        match self.fault {
            Some(Fault::LeavesMissingOut) => {
                let there = |(_, answer): &(_, Answer)| !matches!(answer, Answer::Missing { .. });
                answers = answers.into_iter().filter(there).collect();
            }
            Some(Fault::LeavesTheLastOut) if ask.models.len() > 1 => {
                answers.remove(&ask.models[ask.models.len() - 1]);
            }
            Some(Fault::AnswersUnasked) => {
                answers.extend([missing(&ModelRef::new("nobody/asked", "prod"))]);
            }
            _ => {}
        }
        Ok(answers)
    }

    async fn list_models(&self, ask: ListAsk<'_>) -> Result<Vec<KnownModel>, BackendError> {
        let operation = Operation::ListModels;
        let reply = match self.fault {
            Some(Fault::ListTakesNoPermit) => {
                self.reply(&Unlimited, ask.time_left, operation).await
            }
            Some(Fault::ListIsNotSupported) => {
                return Err(self.error(ErrorKind::Unsupported, operation, ""));
            }
            _ => self.reply(ask.permits, ask.time_left, operation).await,
        };
        let reply = match reply {
            Err(error) if error.kind() == ErrorKind::CircuitOpen => return Err(error),
            Err(_) if self.is(Fault::ListIsEmptyOnErrors) => return Ok(Vec::new()),
            reply => reply?,
        };
        let known = |(model, pods): (&ModelRef, &Vec<FleetPod>)| {
            let hidden = reply.hidden.as_ref().is_some_and(|(of, _)| of == model);
            let count = match self.fault {
                Some(Fault::HiddenPodIsCountedOut) => Some(pods.len()),
                Some(Fault::CountsWrongly) => Some(pods.len() + 1),
                _ => Some(pods.len()).filter(|_| !hidden),
            };
            KnownModel::new(model.clone(), count.and_then(|count| u32::try_from(count).ok()))
        };
        let mut list: Vec<KnownModel> = reply.models.iter().map(known).collect();
        match self.fault {
            Some(Fault::ListsHalf) => list.truncate(1),
            Some(Fault::ListsTwice) => list.extend(list.first().cloned()),
            _ => {}
        }
        Ok(list)
    }

    async fn probe(&self, ask: ProbeAsk<'_>) -> Result<Probe, BackendError> {
        let fine = Check::new("connection.server", CheckStatus::Pass, "it answers");
        match self.fault {
            Some(Fault::ProbesBlindly) => return Ok(Probe::new(vec![fine])),
            Some(Fault::ProbeChecksNothing) => return Ok(Probe::default()),
            Some(Fault::ProbeIdsAreTheSame) => return Ok(Probe::new(vec![fine.clone(), fine])),
            _ => {}
        }
        let reply = self.reply(ask.permits, ask.time_left, Operation::Probe).await;
        let check = match reply {
            Ok(_) => fine,
            Err(error) if self.is(Fault::ProbeFails) => return Err(error),
            Err(error) => {
                let check = Check::new("connection.server", CheckStatus::Fail, error.to_string());
                match self.fault {
                    Some(Fault::ProbeHasNoRemedy) => check,
                    _ => check.with_remedy("is it up, and is the token right?"),
                }
            }
        };
        Ok(Probe::new(vec![check]))
    }

    fn live(&self) -> Option<&dyn LiveSource> {
        (self.live != Live::None).then_some(self as &dyn LiveSource)
    }
}
