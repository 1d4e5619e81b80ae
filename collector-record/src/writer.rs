// SPDX-License-Identifier: Apache-2.0
//! Writes a recording, or continues one.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use collector_core::Clock;
use flate2::Compression;
use flate2::write::ZlibEncoder;

use crate::file::{
    BLOCK_BYTES, HEADER_BYTES, MAGIC, RecordingError, Tail, VERSION, crc, scan, with_checksums,
};

/// Writes a recording, or continues one. Holds a lock on the file.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: File,
    offset: u64,
    checksum: u32,
    max_bytes: u64,
    /// It had entries when it was opened.
    continues: bool,
}

impl Writer {
    /// Creates the file, readable by its owner alone, or continues the recording in it. Returns what was removed from
    /// its end, because it was cut there.
    ///
    /// # Errors
    /// When it cannot be opened, when another process records to it, and when it is anything but a recording that is
    /// cut at its end at worst: then nothing is changed.
    pub fn open(
        path: &Path,
        max_bytes: u64,
        clock: &dyn Clock,
    ) -> Result<(Self, Tail), RecordingError> {
        let failed = |error| RecordingError::File { path: path.to_owned(), error };
        let refused =
            |why: &str| RecordingError::Refused { path: path.to_owned(), why: why.into() };
        // Opening another kind of file may have effects, or never end.
        if std::fs::metadata(path).is_ok_and(|known| !known.is_file()) {
            return Err(refused("it is not a regular file"));
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(refused("another process records to it"));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let (path, mut tail) = (path.to_owned(), Tail::Complete);
        if file.metadata().map_err(failed)?.len() == 0 {
            let wall = clock.wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let id = u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX);
            let id = id.rotate_left(24) ^ u64::from(std::process::id());
            let header = format!("{MAGIC}{VERSION} {id:016x}\n");
            if let Err(error) = file.write_all(header.as_bytes()) {
                let _ = file.set_len(0);
                return Err(RecordingError::File { path, error });
            }
            let checksum = crc(0, header.as_bytes());
            let offset = header.len() as u64;
            return Ok((Self { path, file, offset, checksum, max_bytes, continues: false }, tail));
        }
        let mut anonymized = false;
        let end = scan(&path, &file, |_, raw| {
            anonymized |= is_anonymized(raw);
            Ok(())
        })?;
        match end.tail {
            // Entries are not counted above, so that none are too many.
            Tail::Complete | Tail::TooLarge { .. } => {}
            Tail::Cut { .. } => {
                file.set_len(end.offset).map_err(failed)?;
                tail = end.tail;
            }
            Tail::Damaged { at, bytes } => {
                return Err(refused(&format!(
                    "it was changed at byte {at}, and the {bytes} bytes from there on cannot be used; record to \
                     another file"
                )));
            }
        }
        if anonymized {
            return Err(refused(
                "it is anonymized, and a name has one replacement in a session only; record to another file",
            ));
        }
        file.seek(SeekFrom::Start(end.offset)).map_err(failed)?;
        let (offset, checksum) = (end.offset, end.checksum);
        // The entries were there before, whatever the limit is now.
        let mut writer =
            Self { path, file, offset, checksum, max_bytes: u64::MAX, continues: false };
        writer.write(&end.rest)?;
        writer.max_bytes = max_bytes;
        writer.continues = writer.offset > HEADER_BYTES as u64;
        Ok((writer, tail))
    }

    /// Whether the file had entries before.
    pub fn continues(&self) -> bool {
        self.continues
    }

    /// How many bytes the file has.
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    /// Writes entries, as [`Recorder::take`](crate::Recorder::take) gives them: what was written when it returns
    /// survives the end of the process.
    ///
    /// # Errors
    /// When the disk is full or fails, or the limit is reached. What was written stays; after an error, nothing more must be
    /// written.
    pub fn write(&mut self, entries: &[u8]) -> Result<(), RecordingError> {
        let mut rest = entries;
        while !rest.is_empty() {
            let (block, others) = rest.split_at(length_of_block(rest));
            self.write_block(block)?;
            rest = others;
        }
        Ok(())
    }

    fn write_block(&mut self, entries: &[u8]) -> Result<(), RecordingError> {
        let raw = with_checksums(entries, self.checksum);
        let compressed = compressed(&raw).map_err(|error| self.failed(error))?;
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
        let mut block = [length(&compressed), length(&raw)].concat();
        let of_header = crc(self.checksum, &block);
        let checksum = crc(of_header, &compressed);
        block.extend(of_header.to_le_bytes());
        block.extend(checksum.to_le_bytes());
        block.extend(compressed);
        let end = self.offset + block.len() as u64;
        if end > self.max_bytes {
            return Err(RecordingError::Full { path: self.path.clone(), limit: self.max_bytes });
        }
        if let Err(error) = self.file.write_all(&block) {
            // What was written of it stays: a reader uses its whole entries.
            return Err(self.failed(error));
        }
        (self.offset, self.checksum) = (end, checksum);
        Ok(())
    }

    /// Waits until everything is on the disk.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn sync(&mut self) -> Result<(), RecordingError> {
        self.file.sync_all().map_err(|error| self.failed(error))
    }

    fn failed(&self, error: io::Error) -> RecordingError {
        RecordingError::File { path: self.path.clone(), error }
    }
}

/// Up to the end of the line with which the block is large enough.
fn length_of_block(entries: &[u8]) -> usize {
    let from = BLOCK_BYTES.min(entries.len()) - 1;
    let end = entries[from..].iter().position(|byte| *byte == b'\n');
    end.map_or(entries.len(), |end| from + end + 1)
}

fn compressed(raw: &[u8]) -> io::Result<Vec<u8>> {
    let mut packer = ZlibEncoder::new(Vec::new(), Compression::default());
    packer.write_all(raw)?;
    packer.finish()
}

/// Whether a session in these entries is anonymized.
fn is_anonymized(raw: &[u8]) -> bool {
    let mut lines =
        raw.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{\"session\""));
    lines.any(|line| {
        matches!(
            serde_json::from_slice(line),
            Ok(crate::entry::Entry::Session(session)) if session.anonymized
        )
    })
}
