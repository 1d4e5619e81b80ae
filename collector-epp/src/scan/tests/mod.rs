// SPDX-License-Identifier: Apache-2.0
//! The scanner as a whole.

mod allocations;
mod captures;
mod properties;
pub(super) mod reference;
mod rules;

use std::sync::Arc;

use self::reference::Seen;
use super::{Ended, Format, Limits, Sample, Scanner, Summary, TooLarge, Wanted};

/// Reads one page, in these chunks, with a scanner that may have read others.
fn scan_with<'a>(
    scanner: &mut Scanner,
    wanted: &Wanted,
    format: Format,
    chunks: impl IntoIterator<Item = &'a [u8]>,
    ended: Ended,
) -> Result<(Vec<Seen>, Summary), TooLarge> {
    let mut seen = Vec::new();
    let mut each = |sample: &Sample<'_>| seen.push(keep(sample, wanted));
    scanner.begin(format);
    for chunk in chunks {
        scanner.feed(chunk, &mut each)?;
    }
    let summary = scanner.finish(ended, &mut each)?;
    Ok((seen, summary))
}

/// Reads one page with a new scanner.
fn scan(
    page: &[u8],
    names: &[&str],
    format: Format,
    limits: Limits,
    ended: Ended,
) -> Result<(Vec<Seen>, Summary), TooLarge> {
    let wanted = Arc::new(Wanted::new(names.iter().copied()));
    let mut scanner = Scanner::new(Arc::clone(&wanted), limits);
    scan_with(&mut scanner, &wanted, format, [page], ended)
}

fn keep(sample: &Sample<'_>, wanted: &Wanted) -> Seen {
    let labels = sample.labels.iter();
    Seen {
        name: wanted.name(sample.name).to_owned(),
        labels: labels.map(|(name, value)| (name.into(), value.into())).collect(),
        value: sample.value.to_bits(),
        timestamp_ms: sample.timestamp_ms,
        line: sample.line,
    }
}
