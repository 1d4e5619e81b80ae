//! The file: a header line, and compressed blocks of entries. Each block and each entry has a checksum that continues the
//! one before it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use collector_core::Clock;
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

/// How a recording begins. A number, a space, 16 hex digits of its own and a line break follow.
const MAGIC: &str = "collector-recording ";

/// The version of the format: it changes with every type in `entry`.
const VERSION: u32 = 1;

const HEADER_BYTES: usize = MAGIC.len() + 2 + 16 + 1;

/// The lengths of a block, compressed and not, the checksum of these, and that of the content.
const BLOCK_HEADER_BYTES: usize = 16;

/// The checksum of an entry before its line, as hex digits and a space.
const ENTRY_CHECKSUM_BYTES: usize = 9;

/// The longest entry: some 40 000 pods of one model.
pub(crate) const MAX_ENTRY_BYTES: usize = 16 << 20;

/// A block takes entries until it has this many bytes.
const BLOCK_BYTES: usize = 1 << 20;

/// The most bytes of the entries of a block with their checksums, and compressed.
const MAX_RAW_BYTES: usize = MAX_ENTRY_BYTES + 2 * BLOCK_BYTES;
const MAX_COMPRESSED_BYTES: usize = MAX_RAW_BYTES + (1 << 16);

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordingError {
    /// It cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is something else, or cannot be continued: nothing was changed.
    #[error("{}: {why}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// It would be larger than its limit. What was written before is kept.
    #[error("{}: it has reached its limit of {limit} bytes", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
}

/// What stands after the last entry that can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tail {
    /// Nothing.
    Complete,
    /// A block whose end is missing: the process that wrote it was killed. Its whole entries are used.
    Cut {
        /// Where it begins.
        at: u64,
        /// How many bytes there are of it.
        bytes: u64,
    },
    /// Bytes that were changed since they were written, and what stands behind them.
    Damaged {
        /// Where they begin.
        at: u64,
        /// How many bytes cannot be used.
        bytes: u64,
    },
}

impl std::fmt::Display for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Complete => f.write_str("it is complete"),
            Self::Cut { at, bytes } => write!(
                f,
                "its end is missing, in the {bytes} bytes from byte {at} on: the last entry is lost"
            ),
            Self::Damaged { at, bytes } => write!(
                f,
                "it was changed at byte {at}: the {bytes} bytes from there on are not used"
            ),
        }
    }
}

/// Where a valid recording ends.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) offset: u64,
    checksum: u32,
    pub(crate) tail: Tail,
    /// The whole entries of a block that is cut.
    rest: Vec<u8>,
}

/// Calls `each` with the offset and the entries of each block, until the first that is not as it was written, or that
/// `each` refuses. Of a block that is cut, these are the whole entries.
///
/// # Errors
/// When the file cannot be read, or is no recording of this version.
pub(crate) fn scan(
    path: &Path,
    file: &File,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), String>,
) -> Result<End, RecordingError> {
    let failed = |error| RecordingError::File { path: path.to_owned(), error };
    let length = file.metadata().map_err(failed)?.len();
    let mut input = BufReader::with_capacity(1 << 16, file);
    input.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut checksum = read_header(&mut input)
        .map_err(failed)?
        .map_err(|why| RecordingError::Refused { path: path.to_owned(), why })?;
    let mut offset = HEADER_BYTES as u64;
    let mut rest = Vec::new();
    let tail = loop {
        let bytes = length.saturating_sub(offset);
        if bytes == 0 {
            break Tail::Complete;
        }
        match read_block(&mut input, checksum).map_err(failed)? {
            Ok(block) => {
                if each(offset, &block.entries).is_err() {
                    break Tail::Damaged { at: offset, bytes };
                }
                checksum = block.checksum;
                offset += (BLOCK_HEADER_BYTES + block.compressed_bytes) as u64;
            }
            Err(Broken::Cut(entries)) => {
                if !entries.is_empty() && each(offset, &entries).is_err() {
                    break Tail::Damaged { at: offset, bytes };
                }
                rest = entries;
                break Tail::Cut { at: offset, bytes };
            }
            Err(Broken::Damaged) => break Tail::Damaged { at: offset, bytes },
        }
    };
    Ok(End { offset, checksum, tail, rest })
}

/// Reads the entries of one block, given the checksum of the block before it.
///
/// # Errors
/// When the file cannot be read, or was changed since it was opened.
pub(crate) fn block_at(file: &mut File, offset: u64, before: u32) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(offset))?;
    match read_block(file, before)? {
        Ok(Block { entries, .. }) | Err(Broken::Cut(entries)) => Ok(entries),
        Err(Broken::Damaged) => Err(io::Error::other("it was changed while it is replayed")),
    }
}

/// The checksum that the first block continues; or why it is no recording.
pub(crate) fn read_header(input: &mut impl Read) -> io::Result<Result<u32, String>> {
    let header = read_up_to(input, HEADER_BYTES)?;
    let Some(rest) = header.strip_prefix(MAGIC.as_bytes()) else {
        return Ok(Err("it is no recording of this program".to_owned()));
    };
    let version: String = rest
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .map(|byte| char::from(*byte))
        .collect();
    if version != VERSION.to_string() {
        return Ok(Err(format!(
            "it has format {version:?}, and this version reads format {VERSION}"
        )));
    }
    let is_complete = header.len() == HEADER_BYTES
        && rest[1] == b' '
        && rest[2..18].iter().all(u8::is_ascii_hexdigit)
        && rest[18] == b'\n';
    if !is_complete {
        return Ok(Err("its first line is cut or was changed".to_owned()));
    }
    Ok(Ok(crc(0, &header)))
}

struct Block {
    entries: Vec<u8>,
    compressed_bytes: usize,
    checksum: u32,
}

enum Broken {
    /// With the whole entries before the cut.
    Cut(Vec<u8>),
    Damaged,
}

fn read_block(input: &mut impl Read, before: u32) -> io::Result<Result<Block, Broken>> {
    let header = read_up_to(input, BLOCK_HEADER_BYTES)?;
    if header.len() < BLOCK_HEADER_BYTES {
        return Ok(Err(Broken::Cut(Vec::new())));
    }
    let word = |index: usize| {
        let bytes: [u8; 4] = header[index * 4..index * 4 + 4].try_into().unwrap_or_default();
        u32::from_le_bytes(bytes)
    };
    let (compressed_bytes, raw_bytes) = (word(0) as usize, word(1) as usize);
    if crc(before, &header[..8]) != word(2)
        || compressed_bytes > MAX_COMPRESSED_BYTES
        || raw_bytes > MAX_RAW_BYTES
    {
        return Ok(Err(Broken::Damaged));
    }
    let compressed = read_up_to(input, compressed_bytes)?;
    let is_cut = compressed.len() < compressed_bytes;
    let checksum = crc(word(2), &compressed);
    if !is_cut && checksum != word(3) {
        return Ok(Err(Broken::Damaged));
    }
    let mut raw = Vec::new();
    let mut unpacked = ZlibDecoder::new(&compressed[..]).take(raw_bytes as u64 + 1);
    let is_unpacked = unpacked.read_to_end(&mut raw).is_ok() && raw.len() == raw_bytes;
    let (entries, are_whole) = without_checksums(&raw, before);
    if is_cut {
        return Ok(Err(Broken::Cut(entries)));
    }
    if !is_unpacked || !are_whole {
        return Ok(Err(Broken::Damaged));
    }
    Ok(Ok(Block { entries, compressed_bytes, checksum }))
}

/// The entries, each behind its checksum, which continues the one before it.
fn with_checksums(entries: &[u8], mut before: u32) -> Vec<u8> {
    let mut raw = Vec::with_capacity(entries.len() + entries.len() / 8);
    for entry in entries.split_inclusive(|byte| *byte == b'\n') {
        before = crc(before, entry);
        raw.extend(format!("{before:08x} ").as_bytes());
        raw.extend(entry);
    }
    raw
}

/// The entries up to the first one that is cut or was changed, and whether there is none.
fn without_checksums(raw: &[u8], mut before: u32) -> (Vec<u8>, bool) {
    let mut entries = Vec::with_capacity(raw.len());
    for line in raw.split_inclusive(|byte| *byte == b'\n') {
        let Some((checksum, entry)) = line.split_at_checked(ENTRY_CHECKSUM_BYTES) else {
            return (entries, false);
        };
        before = crc(before, entry);
        if !entry.ends_with(b"\n") || checksum != format!("{before:08x} ").as_bytes() {
            return (entries, false);
        }
        entries.extend(entry);
    }
    (entries, true)
}

fn read_up_to(input: &mut impl Read, bytes: usize) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    input.take(bytes as u64).read_to_end(&mut read)?;
    Ok(read)
}

/// The checksum (CRC-32) of some bytes behind those of a former checksum.
fn crc(before: u32, bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(&before.to_le_bytes());
    crc.update(bytes);
    crc.sum()
}

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
            return Err(refused("it is no regular file"));
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
            Tail::Complete => {}
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
        let mut writer = Self { path, file, offset, checksum, max_bytes, continues: false };
        writer.write(&end.rest)?;
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
