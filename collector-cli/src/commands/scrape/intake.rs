//! A page on its way from where it comes to the scanner.

use std::sync::Arc;

use collector_epp::scan::{Ended, Format, Limits, PageTooLarge, Sample, Scanner, Summary, Wanted};

use super::source::Transfer;

/// Bytes of the page's beginning that are kept, to tell what it is when it is no page of metrics.
const HEAD_MAX: usize = 64 << 10;

/// Takes a page in chunks, and hands its wanted samples on.
pub(super) struct Intake<Each> {
    scanner: Scanner,
    each: Each,
    format: Format,
    head: Vec<u8>,
    lines: SampleLines,
}

/// A page that was read.
pub(super) struct Read {
    pub(super) summary: Summary,
    pub(super) format: Format,
    /// How it begins.
    pub(super) head: Vec<u8>,
    /// Its lines that are neither empty nor comments, wanted or not.
    pub(super) sample_lines: u64,
}

/// Counts lines that are neither empty nor comments: the scanner passes most of them over unread.
#[derive(Default)]
struct SampleLines {
    count: u64,
    /// A visible byte of the line was seen.
    within: bool,
}

impl<Each: FnMut(&Sample<'_>)> Intake<Each> {
    pub(super) fn new(wanted: Arc<Wanted>, limits: Limits, each: Each) -> Self {
        let scanner = Scanner::new(wanted, limits);
        let lines = SampleLines::default();
        Self { scanner, each, format: Format::Text, head: Vec::new(), lines }
    }

    /// Begins the page, which comes with this Content-Type.
    pub(super) fn begin(&mut self, content_type: Option<&str>) {
        self.format = Format::from_content_type(content_type);
        self.scanner.begin(self.format);
    }

    pub(super) fn take(&mut self, chunk: &[u8]) -> Result<(), PageTooLarge> {
        let room = HEAD_MAX - self.head.len();
        self.head.extend_from_slice(&chunk[..chunk.len().min(room)]);
        self.lines.take(chunk);
        self.scanner.feed(chunk, &mut self.each)
    }

    pub(super) fn finish(mut self, transfer: &Transfer) -> Result<Read, PageTooLarge> {
        let ended = match transfer {
            Transfer::Complete => Ended::Complete,
            Transfer::CutShort(_) => Ended::CutShort,
        };
        let summary = self.scanner.finish(ended, &mut self.each)?;
        let sample_lines = self.lines.count;
        Ok(Read { summary, format: self.format, head: self.head, sample_lines })
    }
}

impl SampleLines {
    fn take(&mut self, chunk: &[u8]) {
        for byte in chunk {
            match byte {
                b'\n' => self.within = false,
                b' ' | b'\t' => {}
                _ if self.within => {}
                first => {
                    self.within = true;
                    self.count += u64::from(*first != b'#');
                }
            }
        }
    }
}

impl Read {
    /// The page says itself where it ends, and did not.
    pub(super) fn lacks_its_end(&self) -> bool {
        self.format == Format::OpenMetrics && !self.summary.eof_marker
    }
}
