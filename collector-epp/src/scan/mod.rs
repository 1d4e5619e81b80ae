//! Reads wanted samples out of a Prometheus or OpenMetrics exposition page, chunk by chunk.
//!
//! A [`Scanner`] is told the names that are [`Wanted`] and calls back with each [`Sample`] of theirs.
//! It builds no model of the page: a line of another name costs a look at its first bytes, and a bad
//! line of another name is never noticed. A bad line of a wanted name is counted, reported with its
//! number and a [`Reason`], and skipped; the others survive.
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
//! # Ok::<(), collector_epp::scan::PageTooLarge>(())
//! ```
//!
//! # What is read
//! The text format 0.0.4 and OpenMetrics 1.0, with the quoted names of Prometheus 3. Where the formats
//! leave room, what Prometheus itself reads decides:
//!
//! - A line ends at `\n` and nowhere else; a carriage return is an ordinary byte, so it spoils a value.
//!   Blanks are space and tab; any number may stand between any two parts.
//! - In quotes `\\`, `\"` and `\n` are escapes; an unknown escape keeps both of its characters.
//! - Values are decimal floats. `NaN`, `Inf` and `Infinity` are read in any case; the latter two may
//!   have a sign. Hexadecimals, `_` and numbers beyond a double (`1e400`) are refused, never rounded.
//! - A timestamp is an integer of milliseconds, in OpenMetrics a float of seconds. It is reported, not
//!   judged.
//! - An exemplar is checked and left out. After `# EOF` of OpenMetrics nothing more is read.
//! - Labels of a sample are UTF-8, or the line is refused. Elsewhere any byte may stand.
//!
//! Series that stand twice on a page are reported twice. `TYPE` and `HELP` are comments.

mod labels;
mod line;
mod memo;
mod names;
mod newlines;
mod number;
mod page;
mod scanner;
mod summary;
#[cfg(test)]
mod tests;
mod wanted;

pub use labels::Labels;
pub use scanner::{Ended, Format, Limits, Sample, Scanner};
pub use summary::{MALFORMED_KEPT, Malformed, PageTooLarge, Reason, Summary};
pub use wanted::{NameId, Wanted};
