// SPDX-License-Identifier: Apache-2.0
//! The summary of a scanned page: counts, and lines that could not be read.

use super::NameId;

/// Malformed lines that a [`Summary`] shows; all are counted.
pub const MALFORMED_KEPT: usize = 16;

/// The summary of a page.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Summary {
    /// Samples returned.
    pub samples: u64,
    /// Lines of wanted names that were refused.
    pub malformed_count: u64,
    /// The first [`MALFORMED_KEPT`] of them, and the first of each name that these do not have.
    pub malformed: Vec<Malformed>,
    /// The page did not end with a newline. [`Ended::Complete`](super::Ended::Complete) reads such a
    /// line, [`Ended::CutShort`](super::Ended::CutShort) drops it.
    pub last_line_unterminated: bool,
    /// OpenMetrics' `# EOF` was seen. A page of that format without it is incomplete.
    pub eof_marker: bool,
    /// Bytes fed, including those after `# EOF`.
    pub bytes: u64,
    /// Lines up to the end or to `# EOF`, of any kind, the unterminated one included.
    pub lines: u64,
}

impl Summary {
    /// Counts the current line as malformed.
    pub(super) fn refuse(&mut self, name: NameId, reason: Reason) {
        self.malformed_count += 1;
        let is_new = || self.malformed.iter().all(|malformed| malformed.name != name);
        if self.malformed.len() < MALFORMED_KEPT || is_new() {
            self.malformed.push(Malformed { line: self.lines + 1, name, reason });
        }
    }
}

/// A line of a wanted name that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed {
    /// Counted from 1.
    pub line: u64,
    /// The name that it begins with.
    pub name: NameId,
    /// What is wrong with it.
    pub reason: Reason,
}

/// Why a line is malformed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// It has more bytes than [`Limits::max_line_bytes`](super::Limits::max_line_bytes).
    #[error("the line is too long")]
    LineTooLong,
    /// A label name is missing or has other characters than letters, digits and `_`.
    #[error("a label name is missing or has characters that no name has")]
    LabelName,
    /// No `=` after a label name.
    #[error("no = after a label name")]
    LabelEquals,
    /// A label value does not begin with a quote.
    #[error("a label value is not in quotes")]
    LabelValue,
    /// Neither a comma nor `}` after a label, or after a metric name in quotes.
    #[error("neither a comma nor }} after a label or a quoted name")]
    LabelSeparator,
    /// A quoted string, or the label set itself, has no end.
    #[error("the labels have no end")]
    LabelsUnclosed,
    /// More labels than fit (128).
    #[error("more than 128 labels")]
    TooManyLabels,
    /// The same label name twice.
    #[error("a label name stands twice")]
    LabelTwice,
    /// A second metric name, in quotes.
    #[error("a second metric name among the labels")]
    NameTwice,
    /// The labels are not UTF-8.
    #[error("the labels are not UTF-8")]
    NotUtf8,
    /// The line ends before its value.
    #[error("no value")]
    NoValue,
    /// The value is no decimal number, `NaN` or infinity.
    #[error("the value is not a number")]
    Value,
    /// The value is finite and beyond the greatest double.
    #[error("the value is too large for a double")]
    ValueTooLarge,
    /// What follows the value is no timestamp.
    #[error("the timestamp is not a number in range")]
    Timestamp,
    /// Something follows where the line should end.
    #[error("something follows the end of the sample")]
    TrailingCharacters,
}

/// The page has more bytes than [`Limits::max_page_bytes`](super::Limits::max_page_bytes).
///
/// The samples returned so far are only a part of the page: discard them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the page is larger than {max_page_bytes} bytes")]
pub struct TooLarge {
    /// The limit, in bytes.
    pub max_page_bytes: u64,
}
