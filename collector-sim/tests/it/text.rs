//! A small reader of the text format, enough to compare pages with.

use std::collections::BTreeMap;

/// A page's families in order, and its samples by name with labels, as written.
pub(crate) struct Text {
    pub(crate) families: Vec<(String, String)>,
    pub(crate) samples: BTreeMap<String, f64>,
}

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
        Self { families, samples }
    }

    /// The value of the one sample of this name, whatever its labels.
    #[track_caller]
    pub(crate) fn only(&self, name: &str) -> f64 {
        let found: Vec<_> = self.named(name).collect();
        assert_eq!(found.len(), 1, "samples of {name}");
        *found[0].1
    }

    /// All samples of a name.
    pub(crate) fn named(&self, name: &str) -> impl Iterator<Item = (&String, &f64)> {
        self.samples.iter().filter(move |(series, _)| series.split('{').next().unwrap() == name)
    }
}
