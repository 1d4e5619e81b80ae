// SPDX-License-Identifier: Apache-2.0
//! Pages as the servers write them.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::super::{Ended, Format, Limits};
use super::{reference, scan};

pub(super) fn all() -> Vec<(PathBuf, String)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/captures");
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let pages = paths.filter(|path| path.extension().is_some_and(|ending| ending == "txt"));
    pages.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The name of each sample line of a page.
pub(super) fn names(page: &str) -> BTreeSet<&str> {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    samples.map(|line| line.split(['{', ' ']).next().unwrap()).collect()
}

#[test]
fn every_sample_of_every_capture_is_read_as_the_reference_reads_it() {
    let captures = all();
    assert!(captures.len() >= 11, "{captures:?}");
    for (path, page) in captures {
        let names: Vec<&str> = names(&page).into_iter().collect();
        let limits = Limits::default();
        let (seen, summary) =
            scan(page.as_bytes(), &names, Format::Text, limits, Ended::Complete).unwrap();
        let expected = fs::read(path.with_extension("expected.json")).unwrap();
        let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
        assert_eq!(expected["sample_lines"], summary.samples, "{path:?}");
        assert_eq!(expected["lines"], summary.lines, "{path:?}");
        assert_eq!(expected["bytes"], summary.bytes, "{path:?}");
        assert_eq!(summary.malformed_count, 0, "{path:?}");
        let how = reference::How {
            wanted: &names,
            openmetrics: false,
            max_line_bytes: limits.max_line_bytes,
            complete: true,
        };
        assert_eq!(seen, reference::read(page.as_bytes(), how).seen, "{path:?}");
    }
}
