// SPDX-License-Identifier: Apache-2.0
//! Reads wanted samples out of a Prometheus or OpenMetrics exposition page, chunk by chunk.
//!
//! A [`Scanner`] calls back with each [`Sample`] of the [`Wanted`] names. It builds no model of the page: of a line
//! with another name only the first bytes are read, so a malformed one is never noticed. A malformed line of a wanted
//! name is counted, reported with its number and a [`Reason`], and skipped; the others are read.
//!
//! ```
//! use std::sync::Arc;
//! use collector_epp::scan::{Ended, Format, Limits, Scanner, Wanted};
//!
//! let wanted = Arc::new(Wanted::new(["vllm:num_requests_waiting"]));
//! let mut scanner = Scanner::new(wanted, Limits::default());
//! scanner.begin(Format::Text);
//! let mut waiting = None;
//! // Chunks come as the network has them.
//! for chunk in ["vllm:num_requests_waiting{model_name=\"llama\"} 3", ".0\n"] {
//!     scanner.feed(chunk.as_bytes(), |sample| {
//!         assert_eq!(sample.labels.get("model_name").as_deref(), Some("llama"));
//!         waiting = Some(sample.value);
//!     })?;
//! }
//! let summary = scanner.finish(Ended::Complete, |_| {})?;
//! assert_eq!((waiting, summary.malformed_count), (Some(3.0), 0));
//! # Ok::<(), collector_epp::scan::TooLarge>(())
//! ```
//!
//! # What is read
//! The text format 0.0.4 and OpenMetrics 1.0, with the quoted names of Prometheus 3. Where the formats
//! leave room, what Prometheus itself reads decides:
//!
//! - A line ends at `\n` and nowhere else; one carriage return right before it belongs to the end, as
//!   on pages written on Windows, and is an ordinary byte everywhere else. Blanks are space and tab; any
//!   number may stand between any two parts. A UTF-8 byte order mark at the page's start is skipped.
//! - In quotes `\\`, `\"` and `\n` are escapes; an unknown escape keeps both of its characters.
//! - Values are decimal floats. `NaN`, `Inf` and `Infinity` are read in any case; the latter two may
//!   have a sign. Hexadecimals, `_` and numbers beyond a double (`1e400`) are refused, never rounded.
//! - A timestamp is an integer of milliseconds, in OpenMetrics a float of seconds. It is reported, not
//!   judged; where OpenMetrics gives one that 64 bits of milliseconds cannot hold, the sample counts
//!   and has none.
//! - An exemplar is left out, whatever it holds. After `# EOF` of OpenMetrics nothing more is read.
//! - Labels of a sample are UTF-8, or the line is refused. Elsewhere any byte may stand.
//! - A malformed set of labels counts as a malformed line of a wanted name in quotes if that is before the defect.
//!
//! Series that stand twice on a page are reported twice. `TYPE` and `HELP` are comments.
//!
//! # What it costs
//! A page takes one and a half to two times as long as finding its newlines with memchr, and a hundred
//! times less than with a crate that makes a model of the page (`cargo xtask bench`, suite `scan`). That
//! is because of what is not done:
//!
//! - Newlines are found 64 bytes at a time, without a call for each (`newlines`).
//! - A line's name is not read. Its first 32 bytes say which wanted names are left, mostly none, and are
//!   mostly those of the line before; then the byte behind such a name's end is tested (`names`).
//! - Labels become spans in a fixed table, in one pass; an escape is undone when somebody asks (`labels`).
//! - Most values take one exact division (`number`).
//!
//! Work is in proportion to the page, whatever the lengths of lines, names and label sets. A scanner
//! holds some 7 KiB and the longest line that a chunk cut in two; once it has these, a page
//! without malformed lines allocates nothing.

mod cursor;
mod labels;
mod line;
mod lines;
mod names;
mod newlines;
mod number;
mod sample;
mod scanner;
mod summary;
#[cfg(test)]
mod tests;
mod wanted;

pub use labels::Labels;
pub use names::NameId;
pub(crate) use number::value as number_of;
pub use sample::{Ended, Format, Limits, Sample};
pub use scanner::Scanner;
pub use summary::{MALFORMED_KEPT, Malformed, Reason, Summary, TooLarge};
pub use wanted::Wanted;
