// SPDX-License-Identifier: Apache-2.0
//! Recordings, written and read again.

mod anonymize;
mod append;
mod damage;
mod hostile;
mod replayed;
mod round_trip;
mod samples;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use collector_core::{Answers, Ask, Backend, BackendError, Clock, ManualClock, ModelRef};
use collector_record::{Recorder, Recording, Replay, ReplayBackend, Tail, Writer, replay};
use collector_testkit::FakeBackend;

const MAX_BYTES: u64 = 1 << 30;

fn model(name: &str) -> ModelRef {
    ModelRef::new(name, "prod")
}

/// A recorder over one scripted backend, and the file that it writes.
struct World {
    clock: Arc<ManualClock>,
    fake: FakeBackend,
    recorder: Arc<Recorder>,
    wrapped: Arc<dyn Backend>,
    folder: tempfile::TempDir,
}

impl World {
    fn new(anonymize: bool) -> Self {
        let clock = Arc::new(ManualClock::new());
        let fake = FakeBackend::new(clock.clone());
        let (recorder, mut wrapped) =
            Recorder::wrap(vec![Arc::new(fake.clone())], clock.clone(), "1.2.3", anonymize);
        let wrapped = wrapped.remove(0);
        Self { clock, fake, recorder, wrapped, folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("it.rec")
    }

    /// Asks the recorded backend about models.
    async fn fetch(&self, models: &[ModelRef]) -> Result<Answers, BackendError> {
        let per_pod: HashSet<ModelRef> = models.iter().cloned().collect();
        self.wrapped.fetch(Ask::new(models, &*self.clock).with_load_per_pod(&per_pod)).await
    }

    /// Writes what was recorded since the last time, as one block.
    fn write(&self) -> Tail {
        let (mut writer, tail) = Writer::open(&self.path(), MAX_BYTES, &*self.clock).unwrap();
        writer.write(&self.recorder.take().unwrap()).unwrap();
        tail
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.path()).unwrap()
    }

    /// The only backend of the recording, replayed from now on.
    fn replay(&self, how: Replay) -> ReplayBackend {
        let clock: Arc<dyn Clock> = self.clock.clone();
        let mut backends = replay(&Arc::new(opened(&self.path())), how, &clock);
        assert_eq!(backends.len(), 1);
        backends.remove(0)
    }
}

#[track_caller]
fn opened(path: &Path) -> Recording {
    Recording::open(path).unwrap()
}
