// SPDX-License-Identifier: Apache-2.0
//! What has changed between two configurations, for a reload.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;

use figment::value::Value;

use crate::backend::SCRAPE;
use crate::keys::{ENGINES, OTHER_ENGINES};
use crate::kubernetes;
use crate::loaded::Loaded;

/// The key of this process, so that a digest says nothing about a secret.
static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Says whether two values are the same, without the values: some are secrets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Digest(u64);

impl Digest {
    pub(crate) fn of(value: &Value) -> Self {
        Self(KEY.hash_one(text_of(value)))
    }
}

/// The value without figment's tags, which number the places where values came from.
fn text_of(value: &Value) -> String {
    match value {
        Value::Dict(_, entries) => {
            let entries =
                entries.iter().map(|(name, value)| format!("{name:?}:{}", text_of(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
        }
        Value::Array(_, values) => {
            format!("[{}]", values.iter().map(text_of).collect::<Vec<_>>().join(","))
        }
        Value::String(_, text) => format!("{text:?}"),
        Value::Char(_, text) => format!("{text:?}"),
        Value::Bool(_, value) => value.to_string(),
        Value::Num(_, number) => format!("{number:?}"),
        Value::Empty(_, _) => String::new(),
    }
}

impl Loaded {
    /// The keys whose values are others than in `former`, by their paths, and `variants`; in order.
    ///
    /// What a file that a key names says is not compared.
    pub fn changed_keys(&self, former: &Self) -> Vec<&'static str> {
        let mut paths: Vec<_> = self.values.keys().chain(former.values.keys()).copied().collect();
        paths.sort_unstable();
        paths.dedup();
        paths.retain(|path| self.values.get(path) != former.values.get(path));
        if self.config.variants != former.config.variants {
            paths.push("variants");
        }
        paths
    }

    /// Whether a backend that was built of `former` is what this configuration describes too: nothing in its section
    /// has changed, nor the model servers that it knows.
    pub fn keeps_backend(&self, name: &str, former: &Self) -> bool {
        let of_backend = |path: &str| path.strip_prefix(name).is_some_and(|it| it.starts_with('.'));
        let is_cluster = name == kubernetes::NAME;
        // Direct scraping may have its targets from the cluster.
        let of_cluster = |path: &str| SCRAPE.contains(&name) && path.starts_with("kubernetes.");
        let of_engines =
            |path: &str| !is_cluster && (path == ENGINES || OTHER_ENGINES.contains(&path));
        let is_chosen = if is_cluster {
            former.config.kubernetes.enabled
        } else {
            former.config.backend.iter().any(|known| known == name)
        };
        let mut changed = self.changed_keys(former).into_iter();
        is_chosen && !changed.any(|path| of_backend(path) || of_engines(path) || of_cluster(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Loader;

    fn loaded(set: &[(&str, &str)]) -> Loaded {
        let loader = set
            .iter()
            .fold(Loader::new(), |loader, (key, value)| loader.flag(key, *value, "--flag"));
        loader.read().unwrap()
    }

    #[test]
    fn only_keys_with_another_value_have_changed() {
        let before =
            loaded(&[("cache.ttl", "30s"), ("log.level", "info"), ("server.max_tracked", "5")]);
        let after = loaded(&[("cache.ttl", "30s"), ("log.level", "debug"), ("instance", "a")]);
        assert_eq!(after.changed_keys(&before), ["instance", "log.level", "server.max_tracked"]);
        assert!(before.changed_keys(&before.clone()).is_empty());
    }

    #[test]
    fn the_cluster_is_kept_unless_its_section_changes() {
        let enabled = ("kubernetes.enabled", "true");
        let before = loaded(&[enabled, ("engines", "[{name: a}]")]);
        assert!(loaded(&[enabled, ("cache.ttl", "20s")]).keeps_backend("kubernetes", &before));
        let other = loaded(&[enabled, ("kubernetes.namespaces", "a")]);
        assert!(!other.keeps_backend("kubernetes", &before));
        assert!(!before.keeps_backend("kubernetes", &loaded(&[])), "it was not read");
    }

    #[cfg(feature = "epp")]
    #[test]
    fn direct_scraping_is_built_again_if_the_section_of_the_cluster_changes() {
        let settings = [("backend", "scrape"), ("scrape.target_file", "/t.json")];
        let before = loaded(&settings);
        assert!(loaded(&settings).keeps_backend("scrape", &before));
        let other = [settings[0], settings[1], ("kubernetes.scrape", "off")];
        assert!(!loaded(&other).keeps_backend("scrape", &before));
    }

    #[cfg(feature = "prometheus")]
    #[test]
    fn a_backend_is_kept_unless_its_section_or_the_engines_change() {
        let url = ("prometheus.url", "https://one");
        let before = loaded(&[url, ("prometheus.bearer_token", "one")]);
        let same = loaded(&[url, ("prometheus.bearer_token", "one"), ("cache.ttl", "20s")]);
        assert!(same.keeps_backend("prometheus", &before));
        assert!(!same.keeps_backend("scrape", &before), "it was not chosen");
        let secret = loaded(&[url, ("prometheus.bearer_token", "two")]);
        assert_eq!(secret.changed_keys(&before), ["prometheus.bearer_token"]);
        assert!(!secret.keeps_backend("prometheus", &before));
        let engines =
            loaded(&[url, ("prometheus.bearer_token", "one"), ("engines", "[{name: a}]")]);
        assert!(!engines.keeps_backend("prometheus", &before));
    }
}
