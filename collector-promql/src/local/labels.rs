// SPDX-License-Identifier: Apache-2.0
//! The labels of a series.

use std::borrow::Cow;

use serde::{Serialize, Serializer};

use super::NotLocal;

/// The label that holds the name of a metric.
pub(crate) const NAME: &str = "__name__";

/// The labels whose values are known of a series. A server may have others, which a scrape configuration adds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KnownLabels {
    /// All of them.
    All,
    /// These, those without a value included.
    Only(Vec<String>),
}

impl KnownLabels {
    /// Checks that the values of labels are known, because the result depends on them.
    pub(super) fn check(&self, labels: &[String]) -> Result<(), NotLocal> {
        self.check_of(labels.iter().map(String::as_str), "what it selects")
    }

    /// Checks that the values of labels of something are known.
    pub(super) fn check_of<'a>(
        &self,
        mut labels: impl Iterator<Item = &'a str>,
        of: &str,
    ) -> Result<(), NotLocal> {
        let Self::Only(known) = self else { return Ok(()) };
        let unknown = labels.find(|label| *label != NAME && !known.iter().any(|it| it == label));
        unknown.map_or(Ok(()), |label| {
            Err(NotLocal::new(format!(
                "the collector does not know the label {label:?} of {of}: a scrape configuration may add it"
            )))
        })
    }

    /// Returns the labels that are known of the results of `or`.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, known) | (known, Self::All) => known,
            (Self::Only(mut known), Self::Only(other)) => {
                known.retain(|label| other.contains(label));
                Self::Only(known)
            }
        }
    }
}

/// The labels of a series, sorted by name. A label without a value is the same as none.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub struct Labels(Vec<(Cow<'static, str>, String)>);

impl Labels {
    /// Creates labels. Of two labels with the same name, the last one counts.
    pub fn new<N: Into<Cow<'static, str>>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let mut labels = Self::default();
        for (name, value) in pairs {
            labels.set(name.into(), value.into());
        }
        labels
    }

    /// Returns the value of a label; empty if there is none.
    pub fn get(&self, name: &str) -> &str {
        match self.position(name) {
            Ok(index) => &self.0[index].1,
            Err(_) => "",
        }
    }

    /// Returns the labels by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value.as_str()))
    }

    /// Returns the number of bytes of its texts.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    pub(super) fn set(&mut self, name: Cow<'static, str>, value: String) {
        match (self.position(&name), value.is_empty()) {
            (Ok(index), true) => {
                self.0.remove(index);
            }
            (Ok(index), false) => self.0[index].1 = value,
            (Err(_), true) => {}
            (Err(index), false) => self.0.insert(index, (name, value)),
        }
    }

    /// Removes the name of the metric.
    pub(super) fn drop_name(&mut self) {
        self.0.retain(|(name, _)| name != NAME);
    }

    /// Returns these labels alone.
    pub(super) fn only(&self, names: &[String]) -> Self {
        let kept = self.0.iter().filter(|(name, _)| names.iter().any(|it| it == name));
        Self(kept.cloned().collect())
    }

    /// Returns all labels except these and the name of the metric.
    pub(super) fn without(&self, names: &[String]) -> Self {
        let is_kept = |name: &str| name != NAME && !names.iter().any(|it| it == name);
        Self(self.0.iter().filter(|(name, _)| is_kept(name)).cloned().collect())
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.as_ref().cmp(name))
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}
