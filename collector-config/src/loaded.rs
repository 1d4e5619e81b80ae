// SPDX-License-Identifier: Apache-2.0
//! A configuration that was loaded, and the namespaces that it reads.

use std::collections::BTreeMap;

use crate::changes::Digest;
use crate::key::Key;
use crate::keys::Keys;
use crate::origin::{Entry, Origin, Origins};
use crate::schema::CollectorConfig;
use crate::text::printable;

/// A configuration that was loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What to run with.
    pub config: CollectorConfig,
    /// Where each value came from.
    pub origins: Origins,
    /// Settings that work and may be mistakes, in words, for the log.
    pub warnings: Vec<String>,
    pub(crate) keys: Keys,
    /// What is set, to compare it with another configuration.
    pub(crate) values: BTreeMap<&'static str, Digest>,
}

/// A namespace that the configuration does not let any backend read, or the cluster be watched in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeftOut {
    /// Which key leaves it out, and where that is set.
    pub message: String,
    /// What to change to read it.
    pub remedy: String,
}

/// The key with the only namespaces of the cluster that are watched.
const WATCHED: &str = "kubernetes.namespaces";

/// Names of a list that a message shows.
const SHOWN: usize = 5;

impl Loaded {
    /// Says that no chosen backend reads this namespace, because a key lists the only ones to read;
    /// `None` where one reads it.
    pub fn left_out(&self, namespace: &str) -> Option<LeftOut> {
        let (key, listed) = self.only_namespaces()?;
        let problem = format!("namespace \"{}\" is not read", printable(namespace));
        self.outside(namespace, key, &listed, &problem)
    }

    /// Says that the cluster is not watched in this namespace, so that nothing is known of its pods and variants; `None` if
    /// it is, or if no cluster is watched at all.
    pub fn unwatched(&self, namespace: &str) -> Option<LeftOut> {
        let only = self.watched_only()?;
        let problem =
            format!("the cluster is not watched in namespace \"{}\"", printable(namespace));
        self.outside(namespace, WATCHED, &only, &problem)
    }

    /// Says what follows for a namespace that this key does not list; `None` if it does.
    fn outside(
        &self,
        namespace: &str,
        key: &str,
        listed: &[&str],
        problem: &str,
    ) -> Option<LeftOut> {
        (!listed.contains(&namespace)).then(|| LeftOut {
            message: format!("{problem}: {}", self.limit(key, listed)),
            remedy: format!("add it to {key}, or remove the key to allow all namespaces"),
        })
    }

    /// Says which key limits the cluster to some namespaces, and to which; `None` if all are watched, or none is.
    pub fn watch_limit(&self) -> Option<String> {
        Some(self.limit(WATCHED, &self.watched_only()?))
    }

    fn watched_only(&self) -> Option<Vec<&str>> {
        let cluster = &self.config.kubernetes;
        let is_limited =
            cluster.enabled && !cluster.namespaces.is_empty() && !self.config.is_recorded();
        is_limited.then(|| cluster.namespaces.iter().map(AsRef::as_ref).collect())
    }

    /// Says which key limits every chosen backend to some namespaces, and to which; `None` where one
    /// reads all.
    pub fn limited(&self) -> Option<String> {
        let (key, listed) = self.only_namespaces()?;
        Some(self.limit(key, &listed))
    }

    fn limit(&self, key: &str, listed: &[&str]) -> String {
        let shown = listed.iter().take(SHOWN);
        let mut shown: Vec<String> = shown.map(|name| format!("\"{}\"", printable(name))).collect();
        if listed.len() > SHOWN {
            shown.push(format!("{} more", listed.len() - SHOWN));
        }
        format!("{key} is limited to {} ({})", shown.join(", "), self.origins.of(key))
    }

    /// The namespaces that the chosen backends read together, and the first key that lists some;
    /// `None` where a backend reads all.
    fn only_namespaces(&self) -> Option<(&'static str, Vec<&str>)> {
        let mut found: Option<(&'static str, Vec<&str>)> = None;
        for settings in self.config.chosen() {
            let (key, only) = settings.only_namespaces().filter(|(_, only)| !only.is_empty())?;
            let (_, names) = found.get_or_insert_with(|| (key, Vec::new()));
            names.extend(only.iter().map(String::as_str));
        }
        found
    }

    /// A warning for each variant whose namespace no chosen backend reads.
    pub(crate) fn unread_variants(&self) -> impl Iterator<Item = String> {
        self.config.variants.iter().enumerate().filter_map(|(index, variant)| {
            let LeftOut { message, remedy } = self.left_out(variant.namespace.as_str())?;
            let origin = &self.origins.of_variant(index)?.origin;
            Some(format!("{origin}: variants[{index}]: its {message}; {remedy}"))
        })
    }

    /// Every key that can be set, in the order of the reference.
    pub fn keys(&self) -> impl Iterator<Item = &'static Key> {
        self.keys.iter()
    }

    /// Every key with its value, in the order of the reference; then what is set of each variant.
    pub fn entries(&self) -> Vec<Entry> {
        let of_keys = self.keys.iter().map(|key| match self.origins.shown(key.path) {
            Some((shown, origin)) => Entry::new(key.path, shown, origin),
            None => Entry::new(key.path, key.default.unwrap_or_default(), &Origin::Default),
        });
        of_keys.chain(self.origins.of_variants().cloned()).collect()
    }
}
