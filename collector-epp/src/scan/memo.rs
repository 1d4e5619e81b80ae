//! The series of a target's last page.
//!
//! A server writes the same series in the same order each time, and only their values change. So the
//! line of the k-th wanted sample is kept up to the end of its labels. When the k-th of the next page
//! begins with the same bytes, it has the same name and labels, and only what follows is read.

use super::labels::{Labels, Span};

/// Bytes of lines and spans that are kept at most. Eight data-parallel engines in one server take some
/// 40 KiB; series beyond the limit are read as if there were no memo.
pub(super) const MAX_BYTES: usize = 256 * 1024;

/// What is known of the last page.
#[derive(Default, Debug)]
pub(super) struct Memo {
    series: Vec<Series>,
    /// Wanted samples of the current page so far.
    met: usize,
    bytes: usize,
}

/// The labels of a sample.
#[derive(Debug)]
pub(super) struct Series {
    /// The line up to the end of its labels.
    line: Box<str>,
    /// Where the bytes begin that the spans point into.
    labels: usize,
    spans: Box<[Span]>,
}

impl Memo {
    /// A new page begins.
    pub(super) fn rewind(&mut self) {
        self.met = 0;
    }

    /// The series of the next wanted sample, if its line begins as it did.
    #[inline]
    pub(super) fn next(&mut self, line: &[u8]) -> Option<&Series> {
        let place = self.met;
        self.met += 1;
        self.series.get(place).filter(|series| line.starts_with(series.line.as_bytes()))
    }

    /// Keeps the series that [`next`](Self::next) was last asked for and did not know: its line up to the
    /// end of its labels.
    #[cold]
    pub(super) fn keep(&mut self, line: &[u8], labels: Labels<'_>) {
        let (text, spans) = labels.parts();
        let place = self.met - 1;
        let former =
            self.series.get(place).map_or(0, |former| bytes_of(&*former.line, &former.spans));
        let bytes = self.bytes - former + bytes_of(line, spans);
        // It may be that one before it was not kept.
        if bytes > MAX_BYTES || place > self.series.len() {
            return;
        }
        // Names are ASCII, and labels UTF-8.
        let Ok(line) = str::from_utf8(line) else { return };
        let series =
            Series { line: line.into(), labels: line.len() - text.len(), spans: spans.into() };
        self.bytes = bytes;
        if place == self.series.len() {
            self.series.push(series);
        } else {
            self.series[place] = series;
        }
    }
}

impl Series {
    /// How many bytes of its line are known.
    pub(super) fn len(&self) -> usize {
        self.line.len()
    }

    pub(super) fn labels(&self) -> Labels<'_> {
        Labels::new(&self.line[self.labels..], &self.spans)
    }
}

/// What a series of this line takes.
fn bytes_of(line: impl AsRef<[u8]>, spans: &[Span]) -> usize {
    size_of::<Series>() + line.as_ref().len() + size_of_val(spans)
}
