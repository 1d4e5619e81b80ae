//! A page on its way from where it comes to the scanner.

use std::sync::Arc;

use collector_epp::scan::{Ended, Format, Limits, PageTooLarge, Sample, Scanner, Summary, Wanted};
use collector_epp::{CutShort, PageSink};

/// Bytes of the page's beginning that are kept, to tell what it is when it is no page of metrics.
const HEAD_MAX: usize = 64 << 10;

/// Takes a page in chunks, and hands its wanted samples on.
pub(super) struct Intake<Each> {
    scanner: Scanner,
    each: Each,
    format: Format,
    /// Beats what the server says.
    own_content_type: Option<String>,
    content_type: Option<String>,
    begun: bool,
    head: Vec<u8>,
    /// All of the page, where it is to be read twice.
    copy: Option<Vec<u8>>,
    lines: SampleLines,
}

/// A page that was read.
pub(super) struct Read {
    pub(super) summary: Summary,
    pub(super) format: Format,
    pub(super) content_type: Option<String>,
    /// Why it may lack its end.
    pub(super) cut: Option<CutShort>,
    /// How it begins.
    pub(super) head: Vec<u8>,
    /// All of it, where that was wanted.
    pub(super) copy: Vec<u8>,
    /// Its lines that are neither empty nor comments, wanted or not.
    pub(super) sample_lines: u64,
}

/// How a page ended.
pub(super) enum Transfer {
    Complete {
        /// Where the page ends was said: it is whole, even without a newline at its end.
        end_is_known: bool,
    },
    /// Before its end, and why.
    CutShort(String),
}

/// Counts lines that are neither empty nor comments: the scanner passes most of them over unread.
#[derive(Default)]
struct SampleLines {
    count: u64,
    /// A visible byte of the line was seen.
    within: bool,
}

impl<Each: FnMut(&Sample<'_>)> Intake<Each> {
    pub(super) fn new(
        wanted: Arc<Wanted>,
        limits: Limits,
        content_type: Option<&str>,
        each: Each,
    ) -> Self {
        Self {
            scanner: Scanner::new(wanted, limits),
            each,
            format: Format::Text,
            own_content_type: content_type.map(str::to_owned),
            content_type: None,
            begun: false,
            head: Vec::new(),
            copy: None,
            lines: SampleLines::default(),
        }
    }

    /// Keeps all of the page.
    pub(super) fn with_copy(mut self) -> Self {
        self.copy = Some(Vec::new());
        self
    }

    /// Whether the page has begun to arrive.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    pub(super) fn finish(mut self, transfer: &Transfer) -> Result<Read, PageTooLarge> {
        let end_is_known = matches!(transfer, Transfer::Complete { end_is_known: true });
        let ended = if end_is_known { Ended::Complete } else { Ended::CutShort };
        let summary = self.scanner.finish(ended, &mut self.each)?;
        Ok(Read {
            cut: CutShort::of(self.format, &summary, end_is_known),
            summary,
            format: self.format,
            content_type: self.content_type,
            head: self.head,
            copy: self.copy.unwrap_or_default(),
            sample_lines: self.lines.count,
        })
    }
}

impl<Each: FnMut(&Sample<'_>)> PageSink for Intake<Each> {
    fn begin(&mut self, content_type: Option<&str>) {
        self.begun = true;
        self.content_type =
            self.own_content_type.clone().or_else(|| content_type.map(str::to_owned));
        self.format = Format::from_content_type(self.content_type.as_deref());
        self.scanner.begin(self.format);
    }

    fn feed(&mut self, chunk: &[u8]) -> Result<(), PageTooLarge> {
        let room = HEAD_MAX - self.head.len();
        self.head.extend_from_slice(&chunk[..chunk.len().min(room)]);
        self.lines.take(chunk);
        self.scanner.feed(chunk, &mut self.each)?;
        // What is over the limit was refused before.
        if let Some(copy) = &mut self.copy {
            copy.extend_from_slice(chunk);
        }
        Ok(())
    }
}

impl SampleLines {
    fn take(&mut self, chunk: &[u8]) {
        for byte in chunk {
            match byte {
                b'\n' => self.within = false,
                b' ' | b'\t' | b'\r' => {}
                _ if self.within => {}
                first => {
                    self.within = true;
                    self.count += u64::from(*first != b'#');
                }
            }
        }
    }
}
