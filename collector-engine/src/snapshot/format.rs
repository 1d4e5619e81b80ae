//! The bytes of a snapshot: a line that says what it is, then lines of JSON, one that says when it was
//! written and one for each model.
//!
//! ```text
//! collector-snapshot 1 00000000000000001234 0a1b2c3d
//! ```
//! The numbers are the version of the format, the length of all that follows, and its CRC-32. Nothing
//! of a file is used unless all of it is sound.

use std::io::{self, Seek, SeekFrom, Write};
use std::time::{Duration, SystemTime};

use collector_core::duration;
use serde::{Deserialize, Serialize};

use super::record::ModelRecord;

/// What is written, and the only one that is read: the last readings are not worth a migration.
const VERSION: u32 = 2;

const MAGIC: &str = "collector-snapshot";

/// The largest snapshot: some 300 000 pods with their load.
pub(super) const MAX_BYTES: u64 = 128 << 20;

/// The most models.
const MAX_MODELS: usize = 100_000;

/// What stands in a snapshot.
#[derive(Debug)]
pub(super) struct Contents {
    /// The wall time at which it was written.
    pub(super) written: SystemTime,
    pub(super) models: Vec<ModelRecord>,
}

/// Why what is in a file is not used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Rejected {
    #[error("it is no snapshot of this program")]
    NoSnapshot,
    #[error("it has format {found}, and this version reads format {VERSION}")]
    Version { found: u32 },
    #[error("it should have {expected} bytes after its first line and has {found}")]
    Length { expected: u64, found: u64 },
    #[error("it is damaged: its checksum does not fit")]
    Checksum,
    #[error("its line {line} says what no snapshot does")]
    Line { line: usize },
    #[error("it names more models, pods or sources than a snapshot does, or longer names")]
    BeyondLimits,
    #[error(
        "it was written {} from now, by this machine's clock: was that set back?",
        duration::format(*.ahead)
    )]
    FromTheFuture { ahead: Duration },
}

/// When a snapshot was written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Head {
    /// In nanoseconds since the Unix epoch.
    written_at: u64,
}

/// Writes a snapshot to the beginning of `out` and returns its length.
pub(super) fn write<W: Write + Seek>(
    out: W,
    written: SystemTime,
    models: impl Iterator<Item = ModelRecord>,
) -> io::Result<u64> {
    let mut body = Body { out, length: 0, checksum: crc32fast::Hasher::new() };
    // The first line is written last: it tells of what follows, which is never in memory as a whole.
    let place_holder = first_line(0, 0);
    body.out.write_all(place_holder.as_bytes())?;
    let since_epoch = written.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let written_at = u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX);
    body.line(&Head { written_at })?;
    for model in models.take(MAX_MODELS) {
        body.line(&model)?;
    }
    let Body { mut out, length, checksum } = body;
    out.seek(SeekFrom::Start(0))?;
    out.write_all(first_line(length, checksum.finalize()).as_bytes())?;
    out.flush()?;
    Ok(place_holder.len() as u64 + length)
}

/// Reads a snapshot.
pub(super) fn read(bytes: &[u8]) -> Result<Contents, Rejected> {
    let end = bytes.iter().take(first_line(0, 0).len()).position(|byte| *byte == b'\n');
    let (first, body) = bytes.split_at(end.ok_or(Rejected::NoSnapshot)?);
    let body = &body[1..];
    let (expected, checksum) = read_first_line(first)?;
    let found = body.len() as u64;
    if found != expected {
        return Err(Rejected::Length { expected, found });
    }
    if crc32fast::hash(body) != checksum {
        return Err(Rejected::Checksum);
    }
    let mut lines = (2..).zip(body.split(|byte| *byte == b'\n'));
    let (line, head) = lines.next().ok_or(Rejected::NoSnapshot)?;
    let head: Head = parse(line, head)?;
    let mut models = Vec::new();
    for (line, text) in lines.filter(|(_, text)| !text.is_empty()) {
        if models.len() >= MAX_MODELS {
            return Err(Rejected::BeyondLimits);
        }
        models.push(parse(line, text)?);
    }
    let written = SystemTime::UNIX_EPOCH + Duration::from_nanos(head.written_at);
    Ok(Contents { written, models })
}

fn first_line(length: u64, checksum: u32) -> String {
    format!("{MAGIC} {VERSION} {length:020} {checksum:08x}\n")
}

fn read_first_line(line: &[u8]) -> Result<(u64, u32), Rejected> {
    let line = std::str::from_utf8(line).map_err(|_| Rejected::NoSnapshot)?;
    let mut words = line.split(' ');
    if words.next() != Some(MAGIC) {
        return Err(Rejected::NoSnapshot);
    }
    let found = words.next().and_then(|word| word.parse().ok()).ok_or(Rejected::NoSnapshot)?;
    if found != VERSION {
        return Err(Rejected::Version { found });
    }
    let length = words.next().and_then(|word| word.parse().ok());
    let checksum = words.next().and_then(|word| u32::from_str_radix(word, 16).ok());
    let (Some(length), Some(checksum)) = (length, checksum) else {
        return Err(Rejected::NoSnapshot);
    };
    // Only as it is written, though the same numbers can be written in other ways.
    let as_written = first_line(length, checksum).trim_end() == line;
    if as_written { Ok((length, checksum)) } else { Err(Rejected::NoSnapshot) }
}

/// What serde says is not told: it repeats what stands there.
fn parse<'a, T: Deserialize<'a>>(line: usize, text: &'a [u8]) -> Result<T, Rejected> {
    serde_json::from_slice(text).map_err(|_| Rejected::Line { line })
}

/// Counts and sums up what is written.
struct Body<W> {
    out: W,
    length: u64,
    checksum: crc32fast::Hasher,
}

impl<W: Write> Body<W> {
    fn line<T: Serialize>(&mut self, value: &T) -> io::Result<()> {
        serde_json::to_writer(&mut *self, value)?;
        self.write_all(b"\n")
    }
}

impl<W: Write> Write for Body<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.length += written as u64;
        if self.length > MAX_BYTES {
            let limit = MAX_BYTES >> 20;
            return Err(io::Error::other(format!("it would be larger than {limit} MiB")));
        }
        self.checksum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_written_than_would_be_read_again() {
        let almost_full = || {
            let checksum = crc32fast::Hasher::new();
            Body { out: io::sink(), length: MAX_BYTES - 1, checksum }
        };
        assert_eq!(almost_full().write(b"1").unwrap(), 1);
        let error = almost_full().write(b"12").unwrap_err().to_string();
        assert_eq!(error, "it would be larger than 128 MiB");
    }
}
