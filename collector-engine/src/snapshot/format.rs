// SPDX-License-Identifier: Apache-2.0
//! The lines of a snapshot, each a JSON document: a header, and one line for each model.
//!
//! A line that cannot be read loses its model only. What is read may be anything: the file, a line and
//! the number of models are bounded.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use collector_core::duration;
use serde::{Deserialize, Serialize};

use super::record::ModelRecord;

/// The version of the format: it changes with every type in `record`.
const VERSION: u32 = 3;

/// How files began before the header was JSON.
const FORMER: &[u8] = b"collector-snapshot ";

/// The largest snapshot: some 300 000 pods with their load.
pub(super) const MAX_BYTES: u64 = 128 << 20;

/// The longest line: some 40 000 pods of one model.
const MAX_LINE_BYTES: usize = 16 << 20;

/// The most models.
const MAX_MODELS: usize = 100_000;

/// What stands in a snapshot.
#[derive(Debug)]
pub(super) struct Contents {
    /// The wall time at which it was written.
    pub(super) written: SystemTime,
    pub(super) models: Vec<ModelRecord>,
    /// Lines that could not be read.
    pub(super) lost: usize,
}

/// Why a file is not used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Rejected {
    #[error("it is not a snapshot of this program")]
    NoSnapshot,
    #[error("it has the format of an earlier version of this program")]
    Former,
    #[error("it has format {found}, and this version reads format {VERSION}")]
    Version { found: u32 },
    #[error(
        "it was written {} from now, by this machine's clock: was that set back?",
        duration::format(*.ahead)
    )]
    FromTheFuture { ahead: Duration },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    collector_snapshot: u32,
    /// When it was written, in nanoseconds since the Unix epoch.
    written_at: u64,
}

/// Writes a snapshot and returns its length in bytes.
pub(super) fn write(
    out: &mut impl Write,
    written: SystemTime,
    models: impl Iterator<Item = ModelRecord>,
) -> io::Result<u64> {
    let since_epoch = written.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let written_at = u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX);
    let mut line = serde_json::to_vec(&Header { collector_snapshot: VERSION, written_at })?;
    line.push(b'\n');
    out.write_all(&line)?;
    let mut length = line.len() as u64;
    for model in models.take(MAX_MODELS) {
        line.clear();
        serde_json::to_writer(&mut line, &model)?;
        if line.len() > MAX_LINE_BYTES {
            tracing::debug!(%model, "Too large for the snapshot");
            continue;
        }
        line.push(b'\n');
        length += line.len() as u64;
        if length > MAX_BYTES {
            let limit = MAX_BYTES >> 20;
            return Err(io::Error::other(format!("it would be larger than {limit} MiB")));
        }
        out.write_all(&line)?;
    }
    Ok(length)
}

/// Reads a snapshot.
pub(super) fn read(bytes: &[u8]) -> Result<Contents, Rejected> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let header = lines.next().unwrap_or_default();
    if header.starts_with(FORMER) {
        return Err(Rejected::Former);
    }
    let header: Header = serde_json::from_slice(header).map_err(|_| Rejected::NoSnapshot)?;
    if header.collector_snapshot != VERSION {
        return Err(Rejected::Version { found: header.collector_snapshot });
    }
    let written = SystemTime::UNIX_EPOCH + Duration::from_nanos(header.written_at);
    let mut contents = Contents { written, models: Vec::new(), lost: 0 };
    for line in lines.filter(|line| !line.is_empty()) {
        let fits = line.len() <= MAX_LINE_BYTES && contents.models.len() < MAX_MODELS;
        match fits.then(|| serde_json::from_slice(line)) {
            Some(Ok(model)) => contents.models.push(model),
            _ => contents.lost += 1,
        }
    }
    Ok(contents)
}
