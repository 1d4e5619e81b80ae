// SPDX-License-Identifier: Apache-2.0
//! A recording that was opened: an index of its entries, which are read when they are needed.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use collector_core::{BackendName, ModelRef, Supports, duration};
use serde::Deserialize;

use crate::entry::{Entry, SessionRecord};
use crate::file::{RecordingError, Rejected, Tail, block_at, read_header, scan};

/// The most entries: an index of some 200 MB.
const MAX_ENTRIES: usize = 8_000_000;

/// The most models, and sources. A hostile file could name more.
const MAX_MODELS: usize = 100_000;
const MAX_SOURCES: usize = 100;
/// The longest name, as in requests to the HTTP API.
const MAX_NAME_BYTES: usize = 4096;

/// Blocks that are kept unpacked.
const KEPT_BLOCKS: usize = 4;

/// A recording, opened for replay.
#[derive(Debug)]
pub struct Recording {
    path: PathBuf,
    pub(crate) sources: Vec<Source>,
    pub(crate) sessions: Vec<Session>,
    blocks: Vec<BlockPlace>,
    tail: Tail,
    answers: usize,
    file: Mutex<Blocks>,
}

#[derive(Debug)]
struct Blocks {
    file: File,
    kept: VecDeque<(u32, Arc<Vec<u8>>)>,
}

/// Where a block begins, and the checksum that it continues.
#[derive(Clone, Copy, Debug)]
struct BlockPlace {
    offset: u64,
    before: u32,
}

/// The entries of one source, in the order of their times.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) name: BackendName,
    pub(crate) supports: Supports,
    pub(crate) events: Vec<Event>,
    pub(crate) models: Vec<ModelRef>,
    /// The events of each model, by their index.
    pub(crate) of_model: HashMap<ModelRef, Vec<u32>>,
    /// Those of its lists.
    pub(crate) lists: Vec<u32>,
}

/// One entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    /// When, in nanoseconds since the recording began.
    pub(crate) at: u64,
    pub(crate) what: What,
    block: u32,
    start: u32,
    bytes: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    /// An answer about the model of this index.
    Answer(u32),
    Models,
    Cycle,
}

/// From when to when a process recorded, in nanoseconds since the recording began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Session {
    pub(crate) began: u64,
    pub(crate) ended: u64,
}

/// What the index needs of an entry.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum Head {
    Session(SessionRecord),
    Answer { at: u64, source: u32, model: ModelRef },
    Models { at: u64, source: u32 },
    Cycle { at: u64, source: u32 },
    End { at: u64 },
}

impl Recording {
    /// Reads the whole file once, and keeps an index of it.
    ///
    /// A file that is cut or was changed is read up to there: see [`tail`](Self::tail).
    ///
    /// # Errors
    /// When it cannot be read, is no recording of this version, or has no entry that can be read.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let failed = |error| RecordingError::File { path: path.to_owned(), error };
        let refused =
            |why: &str| RecordingError::Refused { path: path.to_owned(), why: why.into() };
        if std::fs::metadata(path).is_ok_and(|known| !known.is_file()) {
            return Err(refused("it is not a regular file"));
        }
        let mut file = File::open(path).map_err(failed)?;
        let mut index = Index::default();
        let end = scan(path, &file, |offset, raw| index.block(offset, raw))?;
        if index.sessions.is_empty() {
            return Err(refused(match end.tail {
                Tail::Complete => "nothing was recorded",
                Tail::Cut { .. } => "it is cut before its first entry ends",
                Tail::Damaged { .. } => "it was changed before its first entry ends",
                Tail::TooLarge { .. } => "it is too large",
            }));
        }
        // What the entries of a block continue is known once the one before it was read.
        std::io::Seek::rewind(&mut file).map_err(failed)?;
        let mut before = read_header(&mut file)
            .map_err(failed)?
            .map_err(|why| RecordingError::Refused { path: path.to_owned(), why })?;
        let mut blocks = Vec::with_capacity(index.blocks.len());
        for offset in index.blocks {
            blocks.push(BlockPlace { offset, before });
            before = checksum_at(&mut file, offset).map_err(failed)?;
        }
        Ok(Self {
            path: path.to_owned(),
            sources: index.sources,
            sessions: index.sessions,
            blocks,
            tail: end.tail,
            answers: index.answers,
            file: Mutex::new(Blocks { file, kept: VecDeque::new() }),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What stands in the file behind the last entry that can be read.
    pub fn tail(&self) -> Tail {
        self.tail
    }

    /// How many answers about models it has.
    pub fn answers(&self) -> usize {
        self.answers
    }

    /// The backends that were recorded.
    pub fn sources(&self) -> impl Iterator<Item = &BackendName> {
        self.sources.iter().map(|source| &source.name)
    }

    /// How long it is, from the beginning of its first session to the end of its last.
    pub fn length(&self) -> Duration {
        Duration::from_nanos(self.sessions.last().map_or(0, |session| session.ended))
    }

    /// When there were an answer and a list of models for the first time: nothing is known of the fleet before.
    pub fn beginning(&self) -> Duration {
        let first = |is_it: fn(&What) -> bool| {
            let of_source =
                |source: &Source| source.events.iter().find(|it| is_it(&it.what)).copied();
            self.sources.iter().filter_map(of_source).map(|event| event.at).min()
        };
        let (answer, list) =
            (first(|it| matches!(it, What::Answer(_))), first(|it| *it == What::Models));
        Duration::from_nanos(answer.max(list).unwrap_or(0))
    }

    /// Reads an entry again.
    ///
    /// # Errors
    /// When the file cannot be read, or was changed since it was opened.
    pub(crate) fn read(&self, event: &Event) -> io::Result<Entry> {
        let raw = self.block(event.block)?;
        let start = event.start as usize;
        let line = raw.get(start..start + event.bytes as usize).unwrap_or_default();
        Ok(serde_json::from_slice(line)?)
    }

    fn block(&self, index: u32) -> io::Result<Arc<Vec<u8>>> {
        let mut blocks = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, raw)) = blocks.kept.iter().find(|(kept, _)| *kept == index) {
            return Ok(Arc::clone(raw));
        }
        let BlockPlace { offset, before } = self.blocks[index as usize];
        let raw = block_at(&mut blocks.file, offset, before)?;
        let raw = Arc::new(raw);
        if blocks.kept.len() == KEPT_BLOCKS {
            blocks.kept.pop_front();
        }
        blocks.kept.push_back((index, Arc::clone(&raw)));
        Ok(raw)
    }

    /// Why nothing is known of this time; `None` where it was recorded.
    pub(crate) fn outside(&self, at: u64) -> Option<String> {
        let after = self.sessions.partition_point(|session| session.began <= at);
        let shown = |at: u64| duration::format(Duration::from_millis(at / 1_000_000));
        let Some(session) = after.checked_sub(1).and_then(|index| self.sessions.get(index)) else {
            return Some("the recording begins later".to_owned());
        };
        if at <= session.ended {
            return None;
        }
        let ended = shown(session.ended);
        Some(match self.sessions.get(after) {
            Some(next) => {
                format!(
                    "nothing was recorded from {ended} to {} of the recording",
                    shown(next.began)
                )
            }
            None => format!("the recording ended at {ended}"),
        })
    }
}

/// The checksum that the next block continues.
fn checksum_at(file: &mut File, offset: u64) -> io::Result<u32> {
    use std::io::{Read as _, Seek as _};
    file.seek(io::SeekFrom::Start(offset + 12))?;
    let mut bytes = [0; 4];
    file.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

#[derive(Default)]
struct Index {
    blocks: Vec<u64>,
    sources: Vec<Source>,
    sessions: Vec<Session>,
    /// The sources of the session by their numbers in it.
    numbers: Vec<usize>,
    first_began: u64,
    entries: usize,
    answers: usize,
}

impl Index {
    /// Adds the entries of a block, up to the first that is refused.
    fn block(&mut self, offset: u64, raw: &[u8]) -> Result<(), Rejected> {
        let block = small(self.blocks.len())?;
        let mut heads = Vec::new();
        let mut start = 0;
        for line in raw.split_inclusive(|byte| *byte == b'\n') {
            let head: Head = serde_json::from_slice(line).map_err(|_| Rejected::Invalid)?;
            heads.push((head, start, line.len()));
            start += line.len();
        }
        self.blocks.push(offset);
        for (head, start, bytes) in heads {
            self.entry(head, block, start, bytes)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        head: Head,
        block: u32,
        start: usize,
        bytes: usize,
    ) -> Result<(), Rejected> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(Rejected::TooLarge);
        }
        let (at, source, what) = match head {
            Head::Session(session) => return self.session(session),
            Head::End { at } => {
                self.time(at)?;
                return Ok(());
            }
            Head::Answer { at, source, model } => {
                self.answers += 1;
                let source = self.source(source)?;
                let known = self.sources[source].of_model.get(&model).and_then(|all| all.first());
                let index =
                    match known.map(|first| self.sources[source].events[*first as usize].what) {
                        Some(What::Answer(index)) => index,
                        _ => self.sources[source].model(model)?,
                    };
                (at, source, What::Answer(index))
            }
            Head::Models { at, source } => (at, self.source(source)?, What::Models),
            Head::Cycle { at, source } => (at, self.source(source)?, What::Cycle),
        };
        let at = self.time(at)?;
        let (start, bytes) = (small(start)?, small(bytes)?);
        self.sources[source].add(Event { at, what, block, start, bytes });
        Ok(())
    }

    fn session(&mut self, session: SessionRecord) -> Result<(), Rejected> {
        if self.sessions.is_empty() {
            self.first_began = session.began;
        }
        // A clock that was set back between two sessions does not turn their order around.
        let before = self.sessions.last().map_or(0, |last| last.ended);
        let began = session.began.saturating_sub(self.first_began).max(before);
        self.sessions.push(Session { began, ended: began });
        self.numbers.clear();
        for source in session.sources {
            if !is_name(source.name.as_str()) {
                return Err(Rejected::Invalid);
            }
            let known = self.sources.iter().position(|known| known.name == source.name);
            let index = known.unwrap_or(self.sources.len());
            if known.is_none() {
                if index >= MAX_SOURCES {
                    return Err(Rejected::TooLarge);
                }
                self.sources.push(Source::new(source.name));
            }
            let supports = &mut self.sources[index].supports;
            supports.load |= source.load;
            supports.load_per_pod |= source.load_per_pod;
            self.numbers.push(index);
        }
        Ok(())
    }

    fn source(&self, number: u32) -> Result<usize, Rejected> {
        self.numbers.get(number as usize).copied().ok_or(Rejected::Invalid)
    }

    /// The time in the recording, which must not go back.
    fn time(&mut self, at: u64) -> Result<u64, Rejected> {
        // It begins with a session.
        let session = self.sessions.last_mut().ok_or(Rejected::Invalid)?;
        let at = session.began.saturating_add(at);
        if at < session.ended {
            return Err(Rejected::Invalid);
        }
        session.ended = at;
        Ok(at)
    }
}

/// A number of a block or in one, as the index has it.
fn small(number: usize) -> Result<u32, Rejected> {
    u32::try_from(number).map_err(|_| Rejected::TooLarge)
}

/// Whether a backend may have this name, which is shown as it is.
fn is_name(name: &str) -> bool {
    let is_allowed = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-';
    (1..=32).contains(&name.len()) && name.bytes().all(is_allowed)
}

impl Source {
    fn new(name: BackendName) -> Self {
        let mut supports = Supports::ALL;
        (supports.load, supports.load_per_pod) = (false, false);
        Self {
            name,
            supports,
            events: Vec::new(),
            models: Vec::new(),
            of_model: HashMap::new(),
            lists: Vec::new(),
        }
    }

    fn model(&mut self, model: ModelRef) -> Result<u32, Rejected> {
        let names = [model.namespace.as_str(), model.model.as_str()];
        if self.models.len() >= MAX_MODELS || names.iter().any(|it| it.len() > MAX_NAME_BYTES) {
            return Err(Rejected::TooLarge);
        }
        let index = small(self.models.len())?;
        self.of_model.insert(model.clone(), Vec::new());
        self.models.push(model);
        Ok(index)
    }

    fn add(&mut self, event: Event) {
        // There are at most `MAX_ENTRIES`.
        let index = u32::try_from(self.events.len()).unwrap_or(u32::MAX);
        match event.what {
            What::Answer(model) => {
                let model = &self.models[model as usize];
                self.of_model.entry(model.clone()).or_default().push(index);
            }
            What::Models => self.lists.push(index),
            What::Cycle => {}
        }
        self.events.push(event);
    }

    /// The newest of these events at or before a time.
    pub(crate) fn newest(&self, of: &[u32], at: u64) -> Option<&Event> {
        let after = of.partition_point(|index| self.events[*index as usize].at <= at);
        Some(&self.events[*of.get(after.checked_sub(1)?)? as usize])
    }
}
