//! The scanner as a whole.

mod rules;

use std::sync::Arc;

use super::{Ended, Format, Limits, PageTooLarge, Scanner, Summary, Wanted};

/// A sample that outlives the call which handed it out.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Seen {
    pub(super) name: String,
    pub(super) labels: Vec<(String, String)>,
    /// Compared by its bits, so that NaN equals itself.
    pub(super) value: u64,
    pub(super) timestamp_ms: Option<i64>,
    pub(super) line: u64,
}

/// What a scanner for `names` makes of a page that comes in these chunks.
pub(super) fn scan_chunks<'a>(
    names: &[&str],
    format: Format,
    limits: Limits,
    chunks: impl IntoIterator<Item = &'a [u8]>,
    ended: Ended,
) -> Result<(Vec<Seen>, Summary), PageTooLarge> {
    let wanted = Arc::new(Wanted::new(names.iter().copied()));
    let mut scanner = Scanner::new(Arc::clone(&wanted), limits);
    let mut seen = Vec::new();
    let mut each = |sample: &super::Sample<'_>| {
        let labels = sample.labels.iter();
        seen.push(Seen {
            name: wanted.name(sample.name).to_owned(),
            labels: labels.map(|(name, value)| (name.into(), value.into())).collect(),
            value: sample.value.to_bits(),
            timestamp_ms: sample.timestamp_ms,
            line: sample.line,
        });
    };
    scanner.begin(format);
    for chunk in chunks {
        scanner.feed(chunk, &mut each)?;
    }
    let summary = scanner.finish(ended, &mut each)?;
    Ok((seen, summary))
}
