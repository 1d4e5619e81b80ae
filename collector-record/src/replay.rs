// SPDX-License-Identifier: Apache-2.0
//! A backend that answers what another one answered at the same time of a recording.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use collector_core::text::counted;
use collector_core::{
    Answer, Answers, Ask, Backend, BackendError, Check, CheckStatus, Clock, ErrorKind, KnownModel,
    ListAsk, LiveContext, LiveSource, ModelRef, Operation, Probe, ProbeAsk, Supports, duration,
};

use crate::clock::scaled;
use crate::entry::{AnswerRecord, Entry, ModelsRecord};
use crate::file::Tail;
use crate::recording::{Event, Recording, Source, What};
use crate::timeline::{Position, Timeline};

/// The longest time between two looks at the clock, which may jump, and the shortest.
const MAX_WAIT: Duration = Duration::from_secs(1);
const MIN_WAIT: Duration = Duration::from_millis(5);

/// How a recording is replayed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Replay {
    /// How fast the clock is that the backends are given: that of a [`ReplayClock`](crate::ReplayClock), or 1.
    pub speed: f64,
    /// Where the replay begins, as the time since the recording began. Default: [`Recording::beginning`].
    pub start: Option<Duration>,
    /// Begins again at the end.
    pub repeat: bool,
}

/// From its beginning to its end, once, as fast as it was recorded.
impl Default for Replay {
    fn default() -> Self {
        Self { speed: 1.0, start: None, repeat: false }
    }
}

/// Makes a backend of each source of a recording, under its name. The replay begins now.
pub fn replay(
    recording: &Arc<Recording>,
    how: Replay,
    clock: &Arc<dyn Clock>,
) -> Vec<ReplayBackend> {
    let start = how.start.unwrap_or_else(|| recording.beginning());
    let end = how.repeat.then(|| recording.length());
    let timeline = Arc::new(Timeline::new(Arc::clone(clock), start, end));
    let backend = |source| ReplayBackend {
        recording: Arc::clone(recording),
        timeline: Arc::clone(&timeline),
        source,
        speed: how.speed,
        tracked: Mutex::default(),
    };
    (0..recording.sources.len()).map(backend).collect()
}

/// One source of a recording, as a backend.
///
/// An answer is the newest that was recorded until then, with the age that it has by then. A recorded error is
/// replayed as that error. Before, between and after the sessions of the recording, each answer is an error of kind
/// [`NotRecorded`](ErrorKind::NotRecorded).
///
/// It pushes answers at the times at which they came, also those of a backend that did not push.
pub struct ReplayBackend {
    recording: Arc<Recording>,
    timeline: Arc<Timeline>,
    source: usize,
    speed: f64,
    tracked: Mutex<Arc<HashSet<ModelRef>>>,
}

impl std::fmt::Debug for ReplayBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplayBackend").field("name", &self.name()).finish_non_exhaustive()
    }
}

impl ReplayBackend {
    fn source(&self) -> &Source {
        &self.recording.sources[self.source]
    }

    fn not_recorded(&self, operation: Operation, why: String) -> BackendError {
        let (name, path) = (self.source().name.clone(), self.recording.path().display());
        let kind = ErrorKind::NotRecorded;
        BackendError::new(kind, name, operation, path.to_string()).with_detail(why)
    }

    fn unreadable(&self, operation: Operation, error: &io::Error) -> BackendError {
        let (name, path) = (self.source().name.clone(), self.recording.path().display());
        let kind = ErrorKind::BadAnswer;
        BackendError::new(kind, name, operation, path.to_string()).with_detail(error.to_string())
    }

    /// The answer about a model, and whether it is that of a fetch that failed as a whole.
    fn answer(&self, model: &ModelRef, position: Position) -> (Answer, bool) {
        let failed = |why: String| Answer::Failed(self.not_recorded(Operation::Fetch, why));
        if let Some(why) = self.recording.outside(position.at) {
            return (failed(why), true);
        }
        let source = self.source();
        let of_model = source.of_model.get(model).map(Vec::as_slice).unwrap_or_default();
        match source.newest(of_model, position.at) {
            Some(event) => self.recorded(event, position),
            None => (self.unanswered(model, position).unwrap_or_else(failed), false),
        }
    }

    fn recorded(&self, event: &Event, position: Position) -> (Answer, bool) {
        match self.recording.read(event) {
            Ok(Entry::Answer { answer, .. }) => {
                let whole = matches!(&answer, AnswerRecord::Failed { whole: true, .. });
                (answer.recall(&self.source().name, position.tick(event.at)), whole)
            }
            Ok(_) => {
                let error = io::Error::other("it was changed while it is replayed");
                (Answer::Failed(self.unreadable(Operation::Fetch, &error)), true)
            }
            Err(error) => (Answer::Failed(self.unreadable(Operation::Fetch, &error)), true),
        }
    }

    /// What is known of a model that there is no answer about yet: it is missing if the newest list lacks it.
    fn unanswered(&self, model: &ModelRef, position: Position) -> Result<Answer, String> {
        let source = self.source();
        let unknown = "nothing was recorded about the model until then";
        let list = source.newest(&source.lists, position.at).ok_or(unknown)?;
        match self.recording.read(list) {
            Ok(Entry::Models { models: ModelsRecord::Listed(models), .. })
                if models.iter().all(|(listed, _)| listed != model) =>
            {
                Ok(Answer::Missing { as_of: position.tick(list.at), last_seen: None })
            }
            Ok(_) => Err(unknown.to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn answers<'a>(
        &self,
        models: impl IntoIterator<Item = &'a ModelRef>,
        position: Position,
    ) -> Answers {
        models.into_iter().map(|model| (model.clone(), self.answer(model, position).0)).collect()
    }

    fn tracked_models(&self) -> Arc<HashSet<ModelRef>> {
        Arc::clone(&self.tracked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Backend for ReplayBackend {
    fn name(&self) -> &str {
        self.source().name.as_str()
    }

    fn supports(&self) -> Supports {
        self.source().supports
    }

    async fn fetch(&self, ask: Ask<'_>) -> Result<Answers, BackendError> {
        let _permit = ask.permits.acquire().await?;
        let position = self.timeline.position();
        let mut answers = Answers::new();
        let mut whole = true;
        for model in ask.models {
            let (answer, of_whole) = self.answer(model, position);
            whole &= of_whole;
            answers.insert(model.clone(), answer);
        }
        let first = ask.models.first().filter(|_| whole);
        match first.and_then(|model| answers.remove(model)) {
            Some(Answer::Failed(error)) => Err(error),
            Some(_) | None => Ok(answers),
        }
    }

    async fn list_models(&self, ask: ListAsk<'_>) -> Result<Vec<KnownModel>, BackendError> {
        let _permit = ask.permits.acquire().await?;
        let operation = Operation::ListModels;
        let Position { at, .. } = self.timeline.position();
        if let Some(why) = self.recording.outside(at) {
            return Err(self.not_recorded(operation, why));
        }
        let source = self.source();
        let Some(list) = source.newest(&source.lists, at) else {
            // A part of the list could be wrong.
            let why = "no list of the models was recorded until then";
            return Err(self.not_recorded(operation, why.to_owned()));
        };
        match self.recording.read(list) {
            Ok(Entry::Models { models: ModelsRecord::Listed(models), .. }) => {
                Ok(models.into_iter().map(|(model, pods)| KnownModel::new(model, pods)).collect())
            }
            Ok(Entry::Models { models: ModelsRecord::Failed(error), .. }) => {
                Err(error.recall(&source.name, operation))
            }
            Ok(_) => Err(self.not_recorded(operation, "it was changed".to_owned())),
            Err(error) => Err(self.unreadable(operation, &error)),
        }
    }

    async fn probe(&self, _ask: ProbeAsk<'_>) -> Result<Probe, BackendError> {
        let recording = &self.recording;
        let length = duration::format_seconds(recording.length());
        let answers = counted(recording.answers() as u64, "answer", "answers");
        let detail = format!("{}: {answers} within {length}", recording.path().display());
        let check = match recording.tail() {
            Tail::Complete => Check::new("connection.recording", CheckStatus::Pass, detail),
            tail => {
                let detail = format!("{detail}; {tail}");
                Check::new("connection.recording", CheckStatus::Warn, detail)
            }
        };
        Ok(Probe::new(vec![check]))
    }

    fn live(&self) -> Option<&dyn LiveSource> {
        Some(self)
    }
}

#[async_trait]
impl LiveSource for ReplayBackend {
    fn tracked(&self, models: Arc<HashSet<ModelRef>>) {
        *self.tracked.lock().unwrap_or_else(PoisonError::into_inner) = models;
    }

    async fn run(&self, context: LiveContext) {
        let sink = context.sink;
        let events = &self.source().events;
        // What was pushed: the lap, how many events of it, and whether the time is outside of the recording.
        let mut pushed: Option<(u64, usize, bool)> = None;
        loop {
            let position = self.timeline.position();
            let outside = self.recording.outside(position.at).is_some();
            let until = events.partition_point(|event| event.at <= position.at);
            match pushed {
                Some((lap, from, was_outside)) if lap == position.lap && outside == was_outside => {
                    if !outside && from < until {
                        self.push(&events[from..until], position, &*sink);
                    }
                }
                // It begins, again or after a gap: everything is told.
                _ => {
                    sink.push(self.answers(&*self.tracked_models(), position));
                    sink.cycle_ended();
                }
            }
            pushed = Some((position.lap, until, outside));
            let next = events.get(until).map_or(MAX_WAIT, |event| {
                let until_then = Duration::from_nanos(event.at - position.at);
                scaled(until_then, 1.0 / self.speed)
            });
            tokio::time::sleep(next.clamp(MIN_WAIT, MAX_WAIT)).await;
        }
    }
}

impl ReplayBackend {
    /// Pushes the newest of these events about each tracked model.
    fn push(&self, events: &[Event], position: Position, sink: &dyn collector_core::UpdateSink) {
        let tracked = self.tracked_models();
        let mut told = HashSet::new();
        let mut answers = Answers::new();
        for event in events.iter().rev() {
            let What::Answer(index) = event.what else { continue };
            let model = &self.source().models[index as usize];
            if told.insert(index) && tracked.contains(model) {
                answers.insert(model.clone(), self.recorded(event, position).0);
            }
        }
        if !answers.is_empty() {
            sink.push(answers);
        }
        if events.iter().any(|event| event.what == What::Cycle) {
            sink.cycle_ended();
        }
    }
}
