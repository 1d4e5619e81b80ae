//! Lines into samples.

use std::mem;
use std::sync::Arc;

use super::line::{self, Body, Tables};
use super::newlines::Newlines;
use super::wanted::head_of;
use super::{Format, Limits, NameId, PageTooLarge, Reason, Sample, Summary, Wanted};

/// What a scanner knows between two lines.
#[derive(Debug)]
pub(super) struct Page {
    wanted: Arc<Wanted>,
    limits: Limits,
    format: Format,
    tables: Tables,
    summary: Summary,
}

impl Page {
    pub(super) fn new(wanted: Arc<Wanted>, limits: Limits) -> Self {
        let (format, summary) = (Format::Text, Summary::default());
        Self { wanted, limits, format, tables: Tables::new(), summary }
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
    pub(super) fn arrived(&mut self, bytes: usize) -> Result<(), PageTooLarge> {
        let max_page_bytes = self.limits.max_page_bytes;
        self.summary.bytes += bytes as u64;
        if self.summary.bytes > max_page_bytes {
            return Err(PageTooLarge { max_page_bytes });
        }
        Ok(())
    }

    /// Reads all whole lines and tells where the rest begins.
    pub(super) fn read_lines(&mut self, bytes: &[u8], each: &mut impl FnMut(&Sample<'_>)) -> usize {
        let mut start = 0;
        for end in Newlines::new(bytes) {
            if self.summary.eof_marker {
                break;
            }
            // The head may reach into the next lines: no name has a newline.
            let head = head_of(&bytes[start..]);
            self.line(head, &bytes[start..end], each);
            start = end + 1;
        }
        // What follows the marker is not kept either.
        if self.summary.eof_marker { bytes.len() } else { start }
    }

    /// Reads one line, given without its newline.
    pub(super) fn read_line(&mut self, line: &[u8], each: &mut impl FnMut(&Sample<'_>)) {
        if !self.summary.eof_marker {
            self.line(head_of(line), line, each);
        }
    }

    /// Counts a line that is over.
    pub(super) fn pass_line(&mut self) {
        self.summary.lines += 1;
    }

    #[inline]
    fn line(&mut self, head: u128, line: &[u8], each: &mut impl FnMut(&Sample<'_>)) {
        if let Some(name) = self.wanted.find(head, line) {
            self.bare(name, line, each);
        } else if matches!(line.first(), Some(b' ' | b'\t' | b'{' | b'#')) {
            self.odd(line, each);
        }
        self.summary.lines += 1;
    }

    /// A line that begins with a wanted name.
    fn bare(&mut self, name: NameId, line: &[u8], each: &mut impl FnMut(&Sample<'_>)) {
        if line.len() > self.limits.max_line_bytes {
            return self.refuse_long_line(&line[..self.limits.max_line_bytes]);
        }
        let rest = &line[self.wanted.name(name).len()..];
        match line::after_name(rest, self.format, &mut self.tables) {
            Ok(body) => hand_out(&mut self.summary, name, &body, each),
            Err(reason) => self.summary.refuse(name, reason),
        }
    }

    /// A line that begins with a blank, a brace or the sign of a comment.
    fn odd(&mut self, line: &[u8], each: &mut impl FnMut(&Sample<'_>)) {
        if line.len() > self.limits.max_line_bytes {
            return self.refuse_long_line(&line[..self.limits.max_line_bytes]);
        }
        match skip_blanks(line) {
            [] => {}
            comment @ [b'#', ..] => {
                self.summary.eof_marker = self.format == Format::OpenMetrics && is_eof(comment);
            }
            [b'{', rest @ ..] => {
                let found =
                    line::with_quoted_name(rest, self.format, &mut self.tables, &self.wanted);
                match found {
                    Some((name, Ok(body))) => hand_out(&mut self.summary, name, &body, each),
                    Some((name, Err(reason))) => self.summary.refuse(name, reason),
                    None => {}
                }
            }
            line => {
                if let Some(name) = self.wanted.find(head_of(line), line) {
                    self.bare(name, line, each);
                }
            }
        }
    }

    /// Counts a line over the limit, of which `beginning` is within, when its name is wanted.
    pub(super) fn refuse_long_line(&mut self, beginning: &[u8]) {
        let line = skip_blanks(beginning);
        let name = if let [b'{', rest @ ..] = line {
            line::with_quoted_name(rest, self.format, &mut self.tables, &self.wanted)
                .map(|(name, _)| name)
        } else {
            // A name that ends where the limit does may go on beyond it.
            let name = self.wanted.find(head_of(line), line);
            name.filter(|name| self.wanted.name(*name).len() < line.len())
        };
        if let Some(name) = name {
            self.summary.refuse(name, Reason::LineTooLong);
        }
    }
}

/// Hands out the sample of the current line.
#[inline]
fn hand_out(
    summary: &mut Summary,
    name: NameId,
    body: &Body<'_>,
    each: &mut impl FnMut(&Sample<'_>),
) {
    summary.samples += 1;
    each(&Sample {
        name,
        labels: body.labels,
        value: body.value,
        timestamp_ms: body.timestamp_ms,
        line: summary.lines + 1,
    });
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
