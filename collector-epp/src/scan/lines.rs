// SPDX-License-Identifier: Apache-2.0
//! Reads the lines of a metrics page into samples.

use std::mem;
use std::sync::Arc;

use memchr::memchr;

use super::labels::Spans;
use super::line::{self, Measured, Series};
use super::names::Finder;
use super::newlines::{Newlines, STRETCH};
use super::{Format, Limits, NameId, Reason, Sample, Summary, TooLarge, Wanted};

/// The bytes that some servers begin a page with.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The state of a scanner between two lines.
#[derive(Debug)]
pub(super) struct Lines {
    wanted: Arc<Wanted>,
    limits: Limits,
    spans: Spans,
    format: Format,
    summary: Summary,
}

impl Lines {
    pub(super) fn new(wanted: Arc<Wanted>, limits: Limits) -> Self {
        let (format, summary) = (Format::Text, Summary::default());
        Self { wanted, limits, spans: Spans::new(), format, summary }
    }

    pub(super) fn look_for(&mut self, wanted: Arc<Wanted>) {
        self.wanted = wanted;
    }

    pub(super) fn begin(&mut self, format: Format) {
        self.format = format;
        self.summary = Summary::default();
    }

    pub(super) fn end(&mut self) -> Summary {
        mem::take(&mut self.summary)
    }

    pub(super) fn max_line_bytes(&self) -> usize {
        self.limits.max_line_bytes
    }

    /// Counts bytes that have arrived.
    pub(super) fn arrived(&mut self, bytes: usize) -> Result<(), TooLarge> {
        let max_page_bytes = self.limits.max_page_bytes;
        self.summary.bytes += bytes as u64;
        if self.summary.bytes > max_page_bytes {
            return Err(TooLarge { max_page_bytes });
        }
        Ok(())
    }

    /// Reads all complete lines, and returns where the rest begins.
    pub(super) fn read_lines(&mut self, bytes: &[u8], each: &mut impl FnMut(&Sample<'_>)) -> usize {
        let wanted = Arc::clone(&self.wanted);
        let mut finder = wanted.finder();
        let mut newlines = Newlines::new();
        let mut start = 0;
        if self.is_first_line() && bytes.starts_with(BYTE_ORDER_MARK) {
            let Some(end) = memchr(b'\n', bytes) else { return 0 };
            self.read_line(&bytes[..end], each);
            start = end + 1;
        }
        let mut searched = start;
        while searched < bytes.len() {
            for place in newlines.find(&bytes[searched..]) {
                if self.summary.eof_marker {
                    break;
                }
                let end = searched + usize::from(*place);
                self.line(&bytes[start..], end - start, &mut finder, each);
                start = end + 1;
            }
            searched += STRETCH;
        }
        // Bytes after the marker are not kept either.
        if self.summary.eof_marker { bytes.len() } else { start }
    }

    /// Reads one line, given without its newline.
    pub(super) fn read_line(&mut self, line: &[u8], each: &mut impl FnMut(&Sample<'_>)) {
        if self.summary.eof_marker {
            return;
        }
        if line.len() > self.limits.max_line_bytes {
            self.refuse_long_line(&line[..self.limits.max_line_bytes]);
            return self.pass_line();
        }
        let line = self.without_mark(line);
        let wanted = Arc::clone(&self.wanted);
        self.line(line, line.len(), &mut wanted.finder(), each);
    }

    fn is_first_line(&self) -> bool {
        self.summary.lines == 0
    }

    /// A line without the byte order mark that a page may begin with.
    fn without_mark<'a>(&self, line: &'a [u8]) -> &'a [u8] {
        let rest = line.strip_prefix(BYTE_ORDER_MARK).filter(|_| self.is_first_line());
        rest.unwrap_or(line)
    }

    /// Reads the line that the first `len` bytes are.
    #[inline]
    fn line(
        &mut self,
        bytes: &[u8],
        len: usize,
        finder: &mut Finder<'_>,
        each: &mut impl FnMut(&Sample<'_>),
    ) {
        match bytes.first() {
            // Not looked up, because comments separate lines that begin alike.
            Some(b'#') if self.format == Format::Text => {}
            Some(b' ' | b'\t' | b'{' | b'#') => self.odd(&bytes[..len], each),
            _ => {
                if let Some(name) = finder.find(bytes) {
                    self.bare(name, &bytes[..len], each);
                }
            }
        }
        self.summary.lines += 1;
    }

    /// Counts a line that has ended.
    pub(super) fn pass_line(&mut self) {
        self.summary.lines += 1;
    }

    /// A line that begins with a wanted name.
    fn bare(&mut self, name: NameId, line: &[u8], each: &mut impl FnMut(&Sample<'_>)) {
        if line.len() > self.limits.max_line_bytes {
            return self.refuse_long_line(&line[..self.limits.max_line_bytes]);
        }
        self.named(name, without_return(line), each);
    }

    /// The same within the limit, and without a carriage return at its end.
    fn named(&mut self, name: NameId, line: &[u8], each: &mut impl FnMut(&Sample<'_>)) {
        let behind_name = &line[self.wanted.name(name).len()..];
        let series = line::series(behind_name, &mut self.spans);
        take(name, series, self.format, &mut self.summary, each);
    }

    /// A line that begins with a blank, a brace or the sign of a comment.
    fn odd(&mut self, line: &[u8], each: &mut impl FnMut(&Sample<'_>)) {
        if line.len() > self.limits.max_line_bytes {
            return self.refuse_long_line(&line[..self.limits.max_line_bytes]);
        }
        let whole = skip_blanks(line);
        match skip_blanks(without_return(line)) {
            [] => {}
            comment @ [b'#', ..] => {
                let openmetrics = self.format == Format::OpenMetrics;
                self.summary.eof_marker = openmetrics && is_eof(comment);
            }
            [b'{', rest @ ..] => {
                if let Some((name, series)) =
                    line::series_with_name(rest, &mut self.spans, &self.wanted)
                {
                    take(name, series, self.format, &mut self.summary, each);
                }
            }
            line => {
                if let Some(name) = self.wanted.finder().find(whole) {
                    self.named(name, line, each);
                }
            }
        }
    }

    /// Counts a line over the limit, of which `beginning` is within, when its name is wanted.
    pub(super) fn refuse_long_line(&mut self, beginning: &[u8]) {
        let line = skip_blanks(self.without_mark(beginning));
        let name = if let [b'{', rest @ ..] = line {
            line::series_with_name(rest, &mut self.spans, &self.wanted).map(|(name, _)| name)
        } else {
            // A name that ends where the limit does may go on beyond it, and so may the line after a
            // carriage return.
            let name = self.wanted.finder().find(line);
            name.filter(|name| !matches!(line[self.wanted.name(*name).len()..], [] | [b'\r']))
        };
        if let Some(name) = name {
            self.summary.refuse(name, Reason::LineTooLong);
        }
    }
}

/// Reads on behind the labels of a line and returns its sample, or counts a malformed line.
#[inline]
fn take(
    name: NameId,
    series: Result<Series<'_>, Reason>,
    format: Format,
    summary: &mut Summary,
    each: &mut impl FnMut(&Sample<'_>),
) {
    let line = summary.lines + 1;
    let sample = series.and_then(|Series { labels, rest }| {
        let Measured { value, timestamp_ms } = line::measured(rest, format)?;
        Ok(Sample { name, labels, value, timestamp_ms, line })
    });
    match sample {
        Ok(sample) => {
            summary.samples += 1;
            each(&sample);
        }
        Err(reason) => summary.refuse(name, reason),
    }
}

/// A line without the carriage return of one that ends in both.
#[inline]
fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn skip_blanks(line: &[u8]) -> &[u8] {
    let blanks = line.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    &line[blanks..]
}

/// Whether a comment is the one that ends an OpenMetrics page.
fn is_eof(comment: &[u8]) -> bool {
    let rest = comment.strip_prefix(b"# EOF");
    rest.is_some_and(|rest| skip_blanks(rest).is_empty())
}
