// SPDX-License-Identifier: Apache-2.0
//! The section `[replay]`.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use collector_core::{Backend, Clock, duration};
use collector_record::{Recording, Replay, Tail, replay};
use serde::Deserialize;

use super::{BackendFactory, BackendSettings, BoxError, Problem, Section};
use crate::key::{Key, keys};

/// The backend that replays a recording.
pub(super) fn factory() -> BackendFactory {
    BackendFactory::new("replay", KEYS, Section::read::<ReplayConfig>)
}

const KEYS: &[Key] = keys! {
    "replay.";
    /// The recording, as `collector record` writes it. Required.
    "path": Path;
    /// How fast time passes, from 0.01 to 1000: at 10, ten minutes of the recording take one, and ages grow ten times as
    /// fast. At 0 time stands still.
    "speed": Number = "1";
    /// Where the replay begins, as the time since the recording began; default: once it has an answer and a list of
    /// models, and with the speed 0 at its end.
    "start": Duration;
    /// Begins again at the end. Without it each answer after the end is an error.
    "loop": Bool = "false";
};

/// The fastest and the slowest replay.
const SPEEDS: std::ops::RangeInclusive<f64> = 0.01..=1000.0;

/// Which recording to replay, and how.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ReplayConfig {
    /// The recording.
    pub path: Option<PathBuf>,
    /// How fast time passes. Default 1.
    pub speed: f64,
    /// Where it begins. Default: once it has an answer and a list of models.
    #[serde(with = "collector_core::duration::option")]
    pub start: Option<Duration>,
    /// Begins again at the end. Default false.
    #[serde(rename = "loop")]
    pub repeat: bool,
    /// The recording once it was opened: a command may build its backends several times.
    #[serde(skip)]
    opened: Mutex<Option<Arc<Recording>>>,
}

impl Default for ReplayConfig {
    fn default() -> Self {
        Self { path: None, speed: 1.0, start: None, repeat: false, opened: Mutex::default() }
    }
}

impl ReplayConfig {
    fn backends(&self, clock: &Arc<dyn Clock>) -> Result<Vec<Arc<dyn Backend>>, BoxError> {
        let recording = self.recording()?;
        let length = recording.length();
        if self.start.is_some_and(|start| start > length) {
            let (path, length) = (recording.path().display(), in_millis(length));
            return Err(format!("replay.start: {path} is only {length} long").into());
        }
        let stands_still = self.speed == 0.0;
        let start = self.start.or_else(|| stands_still.then_some(length));
        let how = Replay { speed: self.speed, start, repeat: self.repeat };
        let backends = replay(&recording, how, clock);
        Ok(backends.into_iter().map(|backend| Arc::new(backend) as Arc<dyn Backend>).collect())
    }

    /// Opens the recording, unless that was done before.
    fn recording(&self) -> Result<Arc<Recording>, BoxError> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(recording) = &*opened {
            return Ok(Arc::clone(recording));
        }
        let path = self.path.as_deref().ok_or("replay.path: names no recording")?;
        let recording = Recording::open(path).map_err(|error| format!("replay.path: {error}"))?;
        let shown = path.display();
        tracing::warn!("Readings are those of the recording {shown}, and not of a server");
        if recording.tail() != Tail::Complete {
            tracing::warn!("{shown}: {}", recording.tail());
        }
        Ok(Arc::clone(opened.insert(Arc::new(recording))))
    }
}

/// A duration as messages show it: a point in time of a recording has nanoseconds.
fn in_millis(duration: Duration) -> String {
    duration::format(Duration::new(duration.as_secs(), duration.subsec_millis() * 1_000_000))
}

impl BackendSettings for ReplayConfig {
    /// The first source alone: [`build_all`](Self::build_all) has all of them.
    fn build(&self, clock: Arc<dyn Clock>) -> Result<Arc<dyn Backend>, BoxError> {
        let first = self.backends(&clock)?.into_iter().next();
        first.ok_or_else(|| "replay.path: the recording has no backend".into())
    }

    fn build_all(&self, clock: Arc<dyn Clock>) -> Result<Vec<Arc<dyn Backend>>, BoxError> {
        self.backends(&clock)
    }

    fn speed(&self) -> Option<f64> {
        self.speed.total_cmp(&1.0).is_ne().then_some(self.speed)
    }

    fn is_recorded(&self) -> bool {
        true
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.path.is_none() {
            problems.push(Problem {
                keys: vec!["replay.path"],
                message: "replay.path: names no recording: set it to a file that `collector record` has written"
                    .to_owned(),
            });
        }
        if self.speed != 0.0 && !SPEEDS.contains(&self.speed) {
            let (least, most) = (SPEEDS.start(), SPEEDS.end());
            problems.push(Problem {
                keys: vec!["replay.speed"],
                message: format!(
                    "replay.speed: {} is not a speed: use one from {least} to {most}, or 0",
                    self.speed
                ),
            });
        }
        problems
    }
}
