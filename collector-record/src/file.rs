// SPDX-License-Identifier: Apache-2.0
//! The file: a header line, and compressed blocks of entries. Each block and each entry has a checksum that continues the
//! one before it.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::read::ZlibDecoder;

/// How a recording begins. A number, a space, 16 hex digits of its own and a line break follow.
pub(crate) const MAGIC: &str = "collector-recording ";

/// The version of the format: it changes with every type in `entry`.
pub(crate) const VERSION: u32 = 1;

pub(crate) const HEADER_BYTES: usize = MAGIC.len() + 2 + 16 + 1;

/// The lengths of a block, compressed and not, the checksum of these, and that of the content.
const BLOCK_HEADER_BYTES: usize = 16;

/// The checksum of an entry before its line, as hex digits and a space.
const ENTRY_CHECKSUM_BYTES: usize = 9;

/// The longest entry: some 40 000 pods of one model.
pub(crate) const MAX_ENTRY_BYTES: usize = 16 << 20;

/// A block takes entries until it has this many bytes.
pub(crate) const BLOCK_BYTES: usize = 1 << 20;

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
    /// More entries, or names, than are read. They are as they were written.
    TooLarge {
        /// Where the block with the first of them begins.
        at: u64,
        /// How many bytes are not used.
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
            Self::TooLarge { at, bytes } => write!(
                f,
                "it is too large: of the {bytes} bytes from byte {at} on at most a part is used"
            ),
        }
    }
}

/// Why the entries of a block are refused.
pub(crate) enum Rejected {
    /// They cannot be from a recorder.
    Invalid,
    /// They are beyond a limit.
    TooLarge,
}

impl Rejected {
    fn tail(self, at: u64, bytes: u64) -> Tail {
        match self {
            Self::Invalid => Tail::Damaged { at, bytes },
            Self::TooLarge => Tail::TooLarge { at, bytes },
        }
    }
}

/// Where a valid recording ends.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) offset: u64,
    pub(crate) checksum: u32,
    pub(crate) tail: Tail,
    /// The whole entries of a block that is cut.
    pub(crate) rest: Vec<u8>,
}

/// Calls `each` with the offset and the entries of each block, until the first that is not as it was written, or that
/// `each` refuses. Of a block that is cut, these are the whole entries.
///
/// # Errors
/// When the file cannot be read, or is no recording of this version.
pub(crate) fn scan(
    path: &Path,
    file: &File,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), Rejected>,
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
                if let Err(rejected) = each(offset, &block.entries) {
                    break rejected.tail(offset, bytes);
                }
                checksum = block.checksum;
                offset += (BLOCK_HEADER_BYTES + block.compressed_bytes) as u64;
            }
            Err(Broken::Cut(entries)) => {
                if !entries.is_empty()
                    && let Err(rejected) = each(offset, &entries)
                {
                    break rejected.tail(offset, bytes);
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
        return Ok(Err("it is not a recording of this program".to_owned()));
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
pub(crate) fn with_checksums(entries: &[u8], mut before: u32) -> Vec<u8> {
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
pub(crate) fn crc(before: u32, bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(&before.to_le_bytes());
    crc.update(bytes);
    crc.sum()
}
