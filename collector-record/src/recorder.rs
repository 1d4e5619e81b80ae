// SPDX-License-Identifier: Apache-2.0
//! Collects the answers of backends as entries, in the order in which they came.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use collector_core::{Answers, Backend, BackendError, Clock, KnownModel, ModelRef, Tick};

use crate::anonymize::Anonymizer;
use crate::entry::{AnswerRecord, Entry, ModelsRecord, SessionRecord, SourceRecord};
use crate::file::MAX_ENTRY_BYTES;
use crate::wrapped::RecordedBackend;

/// The most that waits to be written.
const MAX_PENDING_BYTES: usize = 64 << 20;

/// Records what backends answer, in memory until it is [taken](Self::take). It does no I/O.
pub struct Recorder {
    clock: Arc<dyn Clock>,
    began: Tick,
    state: Mutex<State>,
}

struct State {
    pending: Vec<u8>,
    anonymizer: Option<Anonymizer>,
    answers: u64,
    /// Entries did not fit into memory.
    overflowed: bool,
    ended: bool,
}

impl Recorder {
    /// Begins a session over these backends, and returns them wrapped, so that what they answer is recorded.
    ///
    /// With `anonymize`, names and texts are replaced: see docs/record-and-replay.md.
    pub fn wrap(
        backends: Vec<Arc<dyn Backend>>,
        clock: Arc<dyn Clock>,
        version: &str,
        anonymize: bool,
    ) -> (Arc<Self>, Vec<Arc<dyn Backend>>) {
        let mut names = anonymize.then(Anonymizer::new);
        let sources = backends.iter().map(|backend| {
            let mut source = SourceRecord::new(backend.name(), backend.supports());
            if let Some(names) = &mut names {
                source.name = collector_core::BackendName::new(names.source(backend.name()));
            }
            source
        });
        let sources = sources.collect();
        let since_epoch = clock.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let began = u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX);
        let version = version.to_owned();
        let session =
            Entry::Session(SessionRecord { began, version, anonymized: anonymize, sources });
        let state = State {
            pending: Vec::new(),
            anonymizer: names,
            answers: 0,
            overflowed: false,
            ended: false,
        };
        let began = clock.now();
        let recorder = Arc::new(Self { clock, began, state: Mutex::new(state) });
        recorder.state().add(&session);
        let wrap = |(source, backend): (usize, Arc<dyn Backend>)| -> Arc<dyn Backend> {
            let source = u32::try_from(source).unwrap_or(u32::MAX);
            Arc::new(RecordedBackend { inner: backend, recorder: Arc::clone(&recorder), source })
        };
        let wrapped = backends.into_iter().enumerate().map(wrap).collect();
        (recorder, wrapped)
    }

    /// Takes the entries that were not taken yet, for [`Writer::write`](crate::Writer::write).
    ///
    /// # Errors
    /// When entries were lost, because they were taken more slowly than they came.
    pub fn take(&self) -> Result<Vec<u8>, Overflowed> {
        let mut state = self.state();
        if state.overflowed { Err(Overflowed) } else { Ok(std::mem::take(&mut state.pending)) }
    }

    /// Ends the session: what is answered from now on is not recorded.
    pub fn end(&self) {
        let (now, mut state) = self.now();
        let at = self.at(now);
        state.add(&Entry::End { at });
        state.ended = true;
    }

    /// How many answers about models were recorded.
    pub fn answers(&self) -> u64 {
        self.state().answers
    }

    pub(crate) fn answered(&self, source: u32, asked: &[ModelRef], answers: &Answers) {
        let (now, mut state) = self.now();
        let at = self.at(now);
        for (model, answer) in answers.iter() {
            state.answer(at, source, model, AnswerRecord::new(answer, now));
        }
        for model in asked.iter().filter(|model| answers.get(model).is_none()) {
            let reason = "the backend did not answer about the model".to_owned();
            state.answer(at, source, model, AnswerRecord::Unrecorded { reason });
        }
    }

    pub(crate) fn failed(&self, source: u32, asked: &[ModelRef], error: &BackendError) {
        let (now, mut state) = self.now();
        let at = self.at(now);
        for model in asked {
            state.answer(at, source, model, AnswerRecord::failed(error, true));
        }
    }

    pub(crate) fn listed(&self, source: u32, listed: &Result<Vec<KnownModel>, BackendError>) {
        let (now, mut state) = self.now();
        let at = self.at(now);
        let mut models = ModelsRecord::new(listed);
        if let Some(anonymizer) = &mut state.anonymizer {
            anonymizer.models(&mut models);
        }
        state.add(&Entry::Models { at, source, models });
    }

    pub(crate) fn cycle_ended(&self, source: u32) {
        let (now, mut state) = self.now();
        let at = self.at(now);
        state.add(&Entry::Cycle { at, source });
    }

    /// The time, and the state: locked first, so that entries are in the order of their times.
    fn now(&self) -> (Tick, MutexGuard<'_, State>) {
        let state = self.state();
        (self.clock.now(), state)
    }

    /// The nanoseconds since the session began.
    fn at(&self, now: Tick) -> u64 {
        u64::try_from(self.began.age(now).as_nanos()).unwrap_or(u64::MAX)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

/// Answers came faster than they were written.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("answers come faster than they can be written: {} MiB wait", MAX_PENDING_BYTES >> 20)]
pub struct Overflowed;

impl State {
    fn answer(&mut self, at: u64, source: u32, model: &ModelRef, mut answer: AnswerRecord) {
        let model = match &mut self.anonymizer {
            None => model.clone(),
            Some(anonymizer) => {
                anonymizer.answer(&mut answer);
                anonymizer.model(model)
            }
        };
        self.answers += 1;
        let entry = Entry::Answer { at, source, model, answer };
        if !self.add(&entry)
            && let Entry::Answer { at, source, model, .. } = entry
        {
            let reason = format!("an answer of more than {} MiB", MAX_ENTRY_BYTES >> 20);
            let answer = AnswerRecord::Unrecorded { reason };
            self.add(&Entry::Answer { at, source, model, answer });
        }
    }

    /// Adds an entry; returns whether it is small enough.
    fn add(&mut self, entry: &Entry) -> bool {
        if self.ended {
            return true;
        }
        let before = self.pending.len();
        if before > MAX_PENDING_BYTES {
            self.overflowed = true;
            return true;
        }
        // Writing to memory does not fail, and neither do these types.
        let written = serde_json::to_writer(&mut self.pending, entry).is_ok();
        let fits = written && self.pending.len() - before < MAX_ENTRY_BYTES;
        if fits {
            self.pending.push(b'\n');
        } else {
            self.pending.truncate(before);
        }
        fits
    }
}
