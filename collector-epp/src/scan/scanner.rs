// SPDX-License-Identifier: Apache-2.0
//! Splits the chunks of a metrics page into lines.

use std::sync::Arc;

use memchr::memchr;

use super::lines::Lines;
use super::sample::{Ended, Format, Limits, Sample};
use super::{Summary, TooLarge, Wanted};

/// Reads pages, one after the other, each in chunks of any size.
///
/// Between [`begin`](Self::begin) and [`finish`](Self::finish) it holds the beginning of the line that
/// a chunk ended in, at most [`Limits::max_line_bytes`]. Its buffers are kept for the next page.
#[derive(Debug)]
pub struct Scanner {
    /// What has arrived of a line whose end has not.
    partial: Vec<u8>,
    /// That line is over the limit, so only its end is searched.
    passing_over: bool,
    lines: Lines,
}

impl Scanner {
    /// A scanner for these names. It expects [`Format::Text`] until [`begin`](Self::begin) says
    /// otherwise.
    pub fn new(wanted: Arc<Wanted>, limits: Limits) -> Self {
        let lines = Lines::new(wanted, limits);
        Self { partial: Vec::new(), passing_over: false, lines }
    }

    /// Looks for other names in the pages that follow.
    pub fn look_for(&mut self, wanted: Arc<Wanted>) {
        self.lines.look_for(wanted);
    }

    /// Begins a page, and discards an unfinished one.
    pub fn begin(&mut self, format: Format) {
        self.partial.clear();
        self.passing_over = false;
        self.lines.begin(format);
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
    ) -> Result<(), TooLarge> {
        self.lines.arrived(chunk.len())?;
        let mut rest = chunk;
        if self.is_in_line() {
            let Some(end) = memchr(b'\n', rest) else {
                self.keep(rest);
                return Ok(());
            };
            self.keep(&rest[..end]);
            self.end_line(&mut each);
            rest = &rest[end + 1..];
        }
        let read = self.lines.read_lines(rest, &mut each);
        self.keep(&rest[read..]);
        Ok(())
    }

    /// Ends the page and returns its summary. `each` gets the sample of a last line without a newline, if there is one
    /// and the transfer is complete.
    ///
    /// # Errors
    /// The page is larger than allowed.
    pub fn finish(
        &mut self,
        ended: Ended,
        mut each: impl FnMut(&Sample<'_>),
    ) -> Result<Summary, TooLarge> {
        self.lines.arrived(0)?;
        let unterminated = self.is_in_line();
        if unterminated && ended == Ended::CutShort {
            self.partial.clear();
        }
        if unterminated {
            self.end_line(&mut each);
        }
        let mut summary = self.lines.end();
        summary.last_line_unterminated = unterminated;
        Ok(summary)
    }

    /// Whether a line has begun and not ended.
    fn is_in_line(&self) -> bool {
        self.passing_over || !self.partial.is_empty()
    }

    /// Keeps what has arrived of a line, until it is over the limit.
    fn keep(&mut self, bytes: &[u8]) {
        if self.passing_over {
            return;
        }
        let room = self.lines.max_line_bytes() - self.partial.len();
        self.partial.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if bytes.len() > room {
            self.lines.refuse_long_line(&self.partial);
            self.partial.clear();
            self.passing_over = true;
        }
    }

    /// Reads the line that has been kept.
    fn end_line(&mut self, each: &mut impl FnMut(&Sample<'_>)) {
        if self.passing_over {
            self.passing_over = false;
            self.lines.pass_line();
        } else {
            self.lines.read_line(&self.partial, each);
            self.partial.clear();
        }
    }
}
