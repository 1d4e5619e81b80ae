// SPDX-License-Identifier: Apache-2.0
//! A small reader of the text format, enough to compare pages with.

use std::collections::{BTreeMap, BTreeSet};

/// A page's families in order, and its samples by name with labels, as written.
pub(crate) struct Text {
    pub(crate) families: Vec<(String, String)>,
    pub(crate) samples: BTreeMap<String, f64>,
}

/// What the pages of one server have in common: for each family its type, the names of the labels
/// of its samples in their order, and the bounds of its buckets.
pub(crate) type Shape = BTreeMap<String, (String, BTreeSet<Vec<String>>, BTreeSet<String>)>;

impl Text {
    /// Panics on anything that is not a comment or a sample, on a repeated sample, and on a sample
    /// outside its family.
    #[track_caller]
    pub(crate) fn parse(page: &str) -> Self {
        assert!(page.ends_with('\n'), "the last line is not finished");
        let mut families: Vec<(String, String)> = Vec::new();
        let mut samples = BTreeMap::new();
        for line in page.lines() {
            if let Some(family) = line.strip_prefix("# TYPE ") {
                let (name, kind) = family.split_once(' ').unwrap();
                families.push((name.to_owned(), kind.to_owned()));
            } else if !line.starts_with("# HELP ") {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let family = &families.last().unwrap().0;
                assert!(series.starts_with(family.as_str()), "{series} is not of {family}");
                let before = samples.insert(series.to_owned(), value.parse().unwrap());
                assert!(before.is_none(), "{series} is there twice");
            }
        }
        let names: BTreeSet<_> = families.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), families.len(), "a family is there twice");
        Self { families, samples }
    }

    /// The value of the one sample of this name, whatever its labels.
    #[track_caller]
    pub(crate) fn only(&self, name: &str) -> f64 {
        let found: Vec<_> = self.named(name).collect();
        assert_eq!(found.len(), 1, "samples of {name}");
        *found[0].1
    }

    /// The value of the one sample of this name whose labels have this in them.
    #[track_caller]
    pub(crate) fn with(&self, name: &str, labels: &str) -> f64 {
        let found: Vec<_> =
            self.named(name).filter(|(series, _)| series.contains(labels)).collect();
        assert_eq!(found.len(), 1, "samples of {name} with {labels}");
        *found[0].1
    }

    /// All samples of a name.
    pub(crate) fn named(&self, name: &str) -> impl Iterator<Item = (&String, &f64)> {
        self.samples.iter().filter(move |(series, _)| series.split('{').next().unwrap() == name)
    }

    pub(crate) fn shape(&self) -> Shape {
        let kinds: BTreeMap<&str, &str> =
            self.families.iter().map(|(name, kind)| (name.as_str(), kind.as_str())).collect();
        let mut shape = Shape::new();
        for series in self.samples.keys() {
            let (name, labels) = labels_of(series);
            // A sample belongs to its own name's family, or to a histogram's or summary's.
            let family = ["", "_bucket", "_count", "_sum"]
                .iter()
                .filter_map(|suffix| name.strip_suffix(suffix))
                .find(|family| kinds.contains_key(family))
                .unwrap();
            let (kind, names, bounds) = shape.entry(family.to_owned()).or_default();
            kinds[family].clone_into(kind);
            bounds.extend(labels.iter().filter(|(n, _)| n == "le").map(|(_, value)| value.clone()));
            names.insert(labels.into_iter().map(|(name, _)| name).collect());
        }
        shape
    }
}

/// The name of a series, and its labels.
fn labels_of(series: &str) -> (&str, Vec<(String, String)>) {
    let Some((name, rest)) = series.split_once('{') else { return (series, Vec::new()) };
    let mut labels = Vec::new();
    let mut rest = rest.strip_suffix('}').unwrap();
    while let Some((label, after)) = rest.split_once("=\"") {
        let mut end = 0;
        let bytes = after.as_bytes();
        while bytes[end] != b'"' {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        labels.push((label.to_owned(), after[..end].to_owned()));
        rest = after[end + 1..].trim_start_matches(',');
    }
    (name, labels)
}
