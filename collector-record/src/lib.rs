// SPDX-License-Identifier: Apache-2.0
//! Recordings of what backends answered, and a backend that replays them.
//!
//! A [`Recorder`] collects the answers of the backends that it [wraps](Recorder::wrap), and a [`Writer`] writes them to
//! a file. A [`Recording`] is such a file, read; [`replay`] makes a backend of each source in it. The format is
//! described in docs/record-and-replay.md.

mod anonymize;
mod clock;
mod entry;
mod file;
mod recorder;
mod recording;
mod replay;
mod texts;
mod timeline;
mod wrapped;
mod writer;

pub use clock::ReplayClock;
pub use file::{RecordingError, Tail};
pub use recorder::{Overflowed, Recorder};
pub use recording::Recording;
pub use replay::{Replay, ReplayBackend, replay};
pub use writer::Writer;
