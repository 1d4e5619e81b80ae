// SPDX-License-Identifier: Apache-2.0
//! A file with the last readings, so that a restart does not begin with nothing: written each minute and
//! at the end, read once at the start.
//!
//! What each source last answered is written, and nothing that follows from it. At the start values are made
//! of that as they always are. A restored value is last-known-good and due at once, and the first fetch
//! that is newer replaces it. Only ages cross from one process to the next: they grow by what the wall
//! clock says has passed since.

mod file;
mod format;
mod record;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError, mpsc};
use std::thread;
use std::time::{Duration, SystemTime};

use collector_core::{Clock, ModelRef, SnapshotState, Tick, duration};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use self::format::{Contents, Rejected};
use self::record::ModelRecord;
use crate::engine::Engine;

/// How often it is written: what a crash may cost.
const INTERVAL: Duration = Duration::from_secs(60);

/// How long one write is waited for, and how long the start waits for the file to be read.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
const READ_LIMIT: Duration = Duration::from_secs(5);

/// How far ahead of this machine's clock a snapshot may be written: clocks are corrected by such steps,
/// and a restart takes about as long.
const AHEAD_MAX: Duration = Duration::from_secs(1);

/// The snapshot of one collector.
pub(crate) struct Snapshot {
    path: PathBuf,
    /// It has been read, or could not be: what is in memory is newer from then on.
    restored: AtomicBool,
    /// Held while it is written. A disk that hangs holds one thread, not one each minute.
    writing: Mutex<()>,
    /// The last write failed, and the log says so already.
    failing: AtomicBool,
    failures: AtomicU64,
    /// When it was last written, and how many bytes.
    last: Mutex<Option<(Tick, u64)>>,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    File(#[from] io::Error),
    #[error(transparent)]
    Rejected(#[from] Rejected),
    #[error("it takes longer than {} to read", duration::format(READ_LIMIT))]
    Slow,
}

impl Snapshot {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            restored: AtomicBool::new(false),
            writing: Mutex::new(()),
            failing: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            last: Mutex::new(None),
        }
    }

    /// What is in memory is newer than the file, which is not read any more.
    pub(crate) fn is_outdated(&self) {
        self.restored.store(true, Ordering::Relaxed);
    }

    pub(crate) fn state(&self, now: Tick) -> SnapshotState {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        SnapshotState {
            last_success: last.map(|(at, _)| at.age(now)),
            bytes: last.map(|(_, bytes)| bytes),
            failures: self.failures.load(Ordering::Relaxed),
        }
    }

    /// Counts how a write ended. A failure is logged when it begins and when it is over.
    fn note(&self, written: io::Result<u64>, now: Tick) {
        let path = self.path.display();
        match written {
            Ok(bytes) => {
                *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, bytes));
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(%path, "The snapshot of the readings can be written again");
                }
                tracing::debug!(%path, bytes, "Wrote the snapshot of the readings");
            }
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        %path, %error,
                        "Cannot write the snapshot of the readings: a restart would begin with an \
                         older one or none. Is cache.snapshot_path in a folder that exists, has \
                         room and may be written to?"
                    );
                }
            }
        }
    }
}

/// Writes the snapshot each minute, and once more when the worker stops.
pub(crate) async fn keep(engine: Arc<Engine>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval_at(Instant::now() + INTERVAL, INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let last = tokio::select! {
            () = stop.cancelled() => true,
            _ = ticks.tick() => false,
        };
        write(&engine).await;
        if last {
            return;
        }
    }
}

/// Writes the snapshot off the async threads, and waits for it within a limit.
async fn write(engine: &Arc<Engine>) {
    let Some(snapshot) = &engine.snapshot else { return };
    let writer = Arc::clone(engine);
    let writing = tokio::task::spawn_blocking(move || writer.write_snapshot());
    let written = match tokio::time::timeout(WRITE_LIMIT, writing).await {
        Ok(Ok(written)) => written,
        Ok(Err(_panic)) => Err(io::Error::other("writing it panicked")),
        Err(_elapsed) => {
            let limit = duration::format(WRITE_LIMIT);
            Err(io::Error::other(format!("it takes longer than {limit}")))
        }
    };
    snapshot.note(written, engine.clock.now());
}

impl Engine {
    /// Writes what is tracked and what is known of it, and returns how many bytes that was.
    fn write_snapshot(&self) -> io::Result<u64> {
        let Some(snapshot) = &self.snapshot else { return Ok(0) };
        let _one_at_a_time = match snapshot.writing.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other("the one before is still being written"));
            }
        };
        self.catch_up();
        // The wall first: what passes between the two makes readings older, never younger.
        let wall = self.clock.wall();
        let now = self.clock.now();
        let since = self.models.all(|cell| cell.tracked.as_ref().map(|tracked| tracked.since));
        let mut tracked: Vec<_> = since;
        tracked.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let records = tracked.into_iter().map(|(model, since)| self.record(&model, since, now));
        file::replace(&snapshot.path, |out| format::write(out, wall, records))
    }

    fn record(&self, model: &ModelRef, since: Tick, now: Tick) -> ModelRecord {
        let unread = self.last_read(model, since).age(now);
        let record = self.cache.get(model);
        let states = record.as_ref().map(|record| record.cold.sources.as_slice());
        ModelRecord::new(model, unread, states.unwrap_or_default(), now)
    }

    /// Brings back what a former process has written. Does nothing the second time, when what is in memory is newer.
    pub(crate) async fn restore(&self) {
        let Some(snapshot) = &self.snapshot else { return };
        if snapshot.restored.load(Ordering::Relaxed) {
            return;
        }
        // Before the file is read: what is invalidated from here on does not come back.
        let began = self.clock.now();
        let path = snapshot.path.display();
        let found = read_within(READ_LIMIT, snapshot.path.clone()).await;
        match found.and_then(|found| self.recall(began, found)) {
            Ok(Some((models, age))) => tracing::info!(
                %path, models, age = %duration::format_seconds(age),
                "Restored the readings of a former run"
            ),
            Ok(None) => tracing::info!(%path, "There is no snapshot of readings yet"),
            Err(reason) => tracing::warn!(
                %path, %reason,
                "The snapshot of the readings is ignored, and will be replaced within a minute"
            ),
        }
        snapshot.restored.store(true, Ordering::Relaxed);
    }

    /// Tracks the models of a snapshot and publishes their values; returns how many there were, and how
    /// old the snapshot is.
    fn recall(
        &self,
        began: Tick,
        found: Option<Contents>,
    ) -> Result<Option<(usize, Duration)>, Unusable> {
        let Some(Contents { written, models, lost }) = found else { return Ok(None) };
        // The wall last: what passes between the two makes readings older, never younger.
        let now = self.catch_up();
        let age = since(written, &*self.clock)?;
        if lost > 0 {
            tracing::warn!(
                lost,
                "Lines of the snapshot cannot be read: their models begin without a reading"
            );
        }
        let mut restored = 0;
        for record in models {
            // A restart is no read; nor is a time in which nobody could read.
            let last_read = now - record.unread();
            let (model, mut states) = record.recall(now - age);
            states.retain(|state| self.names.contains(&state.backend));
            let tracked = self.models.with(&model, |cell| {
                let tracked = self.models.track(cell, last_read, self.max_tracked);
                if let Some(tracked) = &mut cell.tracked {
                    // Until the first lists say otherwise: while a backend is down, its models must not disappear.
                    tracked.listed = self.discovers(&model);
                }
                let is_wanted = tracked && cell.may_store(began) && !states.is_empty();
                if is_wanted && self.cache.get(&model).is_none() {
                    let mut record = self.publisher(cell, &model, now).record(states, last_read);
                    self.number(&mut record, None);
                    self.put(cell, &Arc::new(record), None);
                }
                tracked
            });
            if !tracked {
                continue;
            }
            restored += 1;
        }
        Ok(Some((restored, age)))
    }
}

/// How long ago a snapshot was written, by the wall clock.
fn since(written: SystemTime, clock: &dyn Clock) -> Result<Duration, Rejected> {
    match clock.wall().duration_since(written) {
        Ok(age) => Ok(age),
        Err(error) if error.duration() <= AHEAD_MAX => Ok(Duration::ZERO),
        Err(error) => Err(Rejected::FromTheFuture { ahead: error.duration() }),
    }
}

/// Reads a snapshot off the async threads, on a thread of its own: a disk that hangs holds neither the start nor the
/// end of a runtime for longer than the limit.
async fn read_within(limit: Duration, path: PathBuf) -> Result<Option<Contents>, Unusable> {
    let reading = tokio::task::spawn_blocking(move || {
        let (sender, answer) = mpsc::sync_channel(1);
        thread::Builder::new().name("snapshot".to_owned()).spawn(move || {
            // Nobody listens any more where it took too long.
            let _ = sender.send(read(&path));
        })?;
        answer.recv_timeout(limit).map_err(|_| Unusable::Slow)?
    });
    reading.await.unwrap_or_else(|_panic| Err(io::Error::other("reading it panicked").into()))
}

fn read(path: &Path) -> Result<Option<Contents>, Unusable> {
    let Some(bytes) = file::read(path, format::MAX_BYTES)? else { return Ok(None) };
    Ok(Some(format::read(&bytes)?))
}

#[cfg(test)]
mod tests;
