//! Chunks into lines, and lines into samples.

use std::mem;
use std::sync::Arc;

use memchr::memchr;

use super::line::{self, Tables};
use super::{Labels, MALFORMED_KEPT, Malformed, NameId, PageTooLarge, Reason, Summary, Wanted};

/// How a page is written.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Format {
    /// The Prometheus text format.
    #[default]
    Text,
    /// OpenMetrics: timestamps in seconds, exemplars, and an end that is marked.
    OpenMetrics,
}

impl Format {
    /// What an HTTP `Content-Type` announces; whatever is not OpenMetrics is read as text.
    pub fn from_content_type(content_type: Option<&str>) -> Self {
        let media_type = content_type.and_then(|value| value.split(';').next()).unwrap_or("");
        if media_type.trim().eq_ignore_ascii_case("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }
}

/// How large a line and a page may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// A longer line, newline not counted, is passed over, and counted when its name is wanted.
    /// Default 64 KiB. It is also what a scanner keeps of a page at most.
    pub max_line_bytes: usize,
    /// A larger page is refused. Default 16 MiB.
    pub max_page_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_line_bytes: 64 * 1024, max_page_bytes: 16 * 1024 * 1024 }
    }
}

/// How the transfer of a page ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// As announced: the last line is whole, even without a newline.
    Complete,
    /// Before the announced length, or the last chunk: without a newline the last line may lack
    /// digits, so it is dropped.
    CutShort,
}

/// One sample, valid during the call that it is handed to.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// Which wanted name it has.
    pub name: NameId,
    /// Its labels.
    pub labels: Labels<'a>,
    /// As on the page: NaN and infinities too.
    pub value: f64,
    /// Milliseconds since 1970, when the page gives them.
    pub timestamp_ms: Option<i64>,
    /// The line that it stands on, counted from 1.
    pub line: u64,
}

/// Reads pages, one after the other, each in chunks of any size.
///
/// Between [`begin`](Self::begin) and [`finish`](Self::finish) it holds the beginning of the line that
/// a chunk ended in, at most [`Limits::max_line_bytes`]. Its buffers are kept for the next page.
#[derive(Debug)]
pub struct Scanner {
    /// What has arrived of a line whose end has not.
    partial: Vec<u8>,
    /// That line is over the limit, and only its end is of interest.
    passing_over: bool,
    page: Page,
}

/// What a scanner knows between two lines.
#[derive(Debug)]
struct Page {
    wanted: Arc<Wanted>,
    limits: Limits,
    format: Format,
    tables: Tables,
    summary: Summary,
}

impl Scanner {
    /// A scanner for these names. It expects [`Format::Text`] until [`begin`](Self::begin) says
    /// otherwise.
    pub fn new(wanted: Arc<Wanted>, limits: Limits) -> Self {
        let page = Page {
            wanted,
            limits,
            format: Format::Text,
            tables: Tables::new(),
            summary: Summary::default(),
        };
        Self { partial: Vec::new(), passing_over: false, page }
    }

    /// Begins a page, and forgets what was left of an unfinished one.
    pub fn begin(&mut self, format: Format) {
        self.partial.clear();
        self.passing_over = false;
        self.page.format = format;
        self.page.summary = Summary::default();
    }

    /// Reads the next bytes of the page and calls `each` with every wanted sample whose line has ended,
    /// in page order. How a page is cut into chunks makes no difference.
    ///
    /// # Errors
    /// The page is larger than allowed. That stays so until [`begin`](Self::begin).
    pub fn feed(
        &mut self,
        chunk: &[u8],
        mut each: impl FnMut(&Sample<'_>),
    ) -> Result<(), PageTooLarge> {
        self.page.summary.bytes += chunk.len() as u64;
        self.page.check_size()?;
        let mut rest = chunk;
        if self.passing_over || !self.partial.is_empty() {
            let Some(end) = memchr(b'\n', rest) else {
                self.keep(rest);
                return Ok(());
            };
            self.keep(&rest[..end]);
            self.end_line(&mut each);
            rest = &rest[end + 1..];
        }
        while !self.page.summary.eof_marker {
            let Some(end) = memchr(b'\n', rest) else {
                self.keep(rest);
                break;
            };
            self.page.line(&rest[..end], &mut each);
            rest = &rest[end + 1..];
        }
        Ok(())
    }

    /// Ends the page and tells what it was like. `each` gets the sample of a last line without a
    /// newline, if there is one and the transfer is complete.
    ///
    /// # Errors
    /// The page is larger than allowed.
    pub fn finish(
        &mut self,
        ended: Ended,
        mut each: impl FnMut(&Sample<'_>),
    ) -> Result<Summary, PageTooLarge> {
        self.page.check_size()?;
        let unterminated = self.passing_over || !self.partial.is_empty();
        if unterminated {
            match ended {
                Ended::Complete => self.end_line(&mut each),
                Ended::CutShort => self.page.summary.lines += 1,
            }
        }
        let mut summary = mem::take(&mut self.page.summary);
        summary.last_line_unterminated = unterminated;
        self.begin(self.page.format);
        Ok(summary)
    }

    /// Keeps what has arrived of a line, until it is over the limit.
    fn keep(&mut self, bytes: &[u8]) {
        if self.passing_over {
            return;
        }
        let room = self.page.limits.max_line_bytes - self.partial.len();
        self.partial.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if bytes.len() > room {
            self.page.too_long(&self.partial);
            self.partial.clear();
            self.passing_over = true;
        }
    }

    /// Reads the line that has been kept.
    fn end_line(&mut self, each: &mut impl FnMut(&Sample<'_>)) {
        if self.passing_over {
            self.passing_over = false;
            self.page.summary.lines += 1;
        } else {
            self.page.line(&self.partial, each);
            self.partial.clear();
        }
    }
}

impl Page {
    fn check_size(&self) -> Result<(), PageTooLarge> {
        let max_page_bytes = self.limits.max_page_bytes;
        if self.summary.bytes > max_page_bytes {
            return Err(PageTooLarge { max_page_bytes });
        }
        Ok(())
    }

    /// Reads one line, without its newline.
    fn line(&mut self, line: &[u8], each: &mut impl FnMut(&Sample<'_>)) {
        if line.len() > self.limits.max_line_bytes {
            self.too_long(&line[..self.limits.max_line_bytes]);
        } else {
            self.line_within_limit(line, each);
        }
        self.summary.lines += 1;
    }

    fn line_within_limit(&mut self, line: &[u8], each: &mut impl FnMut(&Sample<'_>)) {
        let line = skip_blanks(line);
        let (name, body) = match line {
            [] => return,
            [b'#', ..] => {
                self.summary.eof_marker = self.format == Format::OpenMetrics && is_eof(line);
                return;
            }
            [b'{', rest @ ..] => {
                let wanted = |name: &[u8]| self.wanted.id_of(str::from_utf8(name).ok()?);
                match line::with_quoted_name(rest, self.format, &mut self.tables, wanted) {
                    Some(found) => found,
                    None => return,
                }
            }
            _ => {
                let Some((name, rest)) = split_name(&self.wanted, line) else { return };
                (name, line::after_name(rest, self.format, &mut self.tables))
            }
        };
        let number = self.summary.lines + 1;
        match body {
            Ok(body) => {
                self.summary.samples += 1;
                each(&Sample {
                    name,
                    labels: body.labels,
                    value: body.value,
                    timestamp_ms: body.timestamp_ms,
                    line: number,
                });
            }
            Err(reason) => self.refuse(name, reason),
        }
    }

    /// Counts a line over the limit, of which `beginning` is known, when its name is wanted.
    fn too_long(&mut self, beginning: &[u8]) {
        let line = skip_blanks(beginning);
        let name = if let [b'{', rest @ ..] = line {
            let wanted = |name: &[u8]| self.wanted.id_of(str::from_utf8(name).ok()?);
            line::with_quoted_name(rest, self.format, &mut self.tables, wanted)
                .map(|(name, _)| name)
        } else {
            // A name that ends with what is known may go on beyond it.
            split_name(&self.wanted, line)
                .filter(|(_, rest)| !rest.is_empty())
                .map(|(name, _)| name)
        };
        if let Some(name) = name {
            self.refuse(name, Reason::LineTooLong);
        }
    }

    fn refuse(&mut self, name: NameId, reason: Reason) {
        self.summary.malformed_count += 1;
        if self.summary.malformed.len() < MALFORMED_KEPT {
            let line = self.summary.lines + 1;
            self.summary.malformed.push(Malformed { line, name, reason });
        }
    }
}

/// The wanted name that a line begins with, and what follows it.
fn split_name<'a>(wanted: &Wanted, line: &'a [u8]) -> Option<(NameId, &'a [u8])> {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':');
    let end = line.iter().position(|byte| !is_name(byte)).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let ends = matches!(rest.first(), None | Some(b' ' | b'\t' | b'{'));
    let name = wanted.id_of(str::from_utf8(name).ok()?)?;
    ends.then_some((name, rest))
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
