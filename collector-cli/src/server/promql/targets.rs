// SPDX-License-Identifier: Apache-2.0
//! The targets of direct scraping as a list of all pods: what it has none of has no pods.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use collector_config::CollectorConfig;
use collector_core::{ModelRef, VariantDirectory as _};
use collector_engine::StaticDirectory;
use collector_engines::ENDPOINT_PICKER;
use collector_epp::EppConfig;
use collector_epp::discover::{Discovery as _, FileTargets, Target, TargetSpec};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long the content of the file is used before it is read again.
const FILE_TTL: Duration = Duration::from_secs(5);

/// A static list, a target file or both.
pub(super) struct Targets {
    fixed: Vec<Target>,
    file: Option<TargetFile>,
    directory: StaticDirectory,
    /// No other backend is chosen, so there are no pods besides the targets.
    is_complete: bool,
    /// A cluster is read, which lists pods, and may have pages, that are no targets here.
    has_others: bool,
}

struct TargetFile {
    path: PathBuf,
    last: Mutex<Option<(Instant, FileContent)>>,
}

/// The targets of a file; `None` if it cannot be read.
type FileContent = Option<Arc<[Target]>>;

impl Targets {
    /// `None` if pods are not scraped directly, or may be found by DNS: then the list says nothing about others.
    pub(super) fn of(config: &CollectorConfig, directory: StaticDirectory) -> Option<Self> {
        let scrape = config.chosen_settings_of::<EppConfig>()?;
        if !scrape.dns.is_empty() {
            return None;
        }
        let fixed: Result<_, _> = scrape.targets.iter().map(TargetSpec::target).collect();
        let file =
            scrape.target_file.clone().map(|path| TargetFile { path, last: Mutex::default() });
        let is_complete = config.backend.len() == 1;
        let has_others = config.kubernetes.enabled;
        Some(Self { fixed: fixed.ok()?, file, directory, is_complete, has_others })
    }

    /// Returns whether all pods are targets. Another backend may read others.
    pub(super) fn are_all_pods(&self) -> bool {
        self.is_complete
    }

    /// Returns whether no target is a pod of a model, by its variants. False if the file cannot be read, or if there may be
    /// pods that are no targets.
    pub(super) async fn has_none_of(&self, model: &ModelRef) -> bool {
        if self.has_others {
            return false;
        }
        let in_file = match &self.file {
            None => None,
            Some(file) => match file.targets().await {
                Some(targets) => Some(targets),
                None => return false,
            },
        };
        let mut targets =
            self.fixed.iter().chain(in_file.iter().flat_map(|targets| targets.iter()));
        !targets.any(|target| self.is_of(target, model))
    }

    fn is_of(&self, target: &Target, model: &ModelRef) -> bool {
        let is_picker =
            target.engine.as_ref().is_some_and(|engine| engine.as_str() == ENDPOINT_PICKER);
        if target.namespace != model.namespace || is_picker {
            return false;
        }
        if let Some(id) = &target.model {
            return *id == model.model;
        }
        let pod = target.replica.as_ref().unwrap_or(&target.pod);
        self.directory.variant_of(model, pod).is_some()
    }
}

impl TargetFile {
    async fn targets(&self) -> FileContent {
        let mut last = self.last.lock().await;
        if let Some((read_at, targets)) = &*last
            && read_at.elapsed() < FILE_TTL
        {
            return targets.clone();
        }
        let read = FileTargets::new(&self.path).targets().await;
        let targets = read.ok().map(Arc::from);
        *last = Some((Instant::now(), targets.clone()));
        targets
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use collector_config::Loader;

    use super::*;

    /// The list of a configuration with a variant of `org/m` in `prod`, whose pods are `m-*`.
    fn targets(scrape: &str) -> Option<Targets> {
        targets_of("\"scrape\"", scrape)
    }

    fn targets_of(backend: &str, scrape: &str) -> Option<Targets> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("collector.toml");
        let variant = "[[variants]]\nname = \"v\"\nnamespace = \"prod\"\nmodel = \"org/m\"\n\
                       pods = \"m-*\"\n";
        let toml = format!("backend = {backend}\n[scrape]\n{scrape}\n{variant}");
        std::fs::write(&file, toml).unwrap();
        let config = Loader::new().file(file).load().unwrap().config;
        let directory = StaticDirectory::new(config.variants.clone()).unwrap();
        Targets::of(&config, directory)
    }

    fn target(namespace: &str, pod: &str, more: &str) -> String {
        format!(
            "targets = [{{ url = \"http://10.0.0.7/metrics\", namespace = \"{namespace}\", \
             pod = \"{pod}\"{more} }}]"
        )
    }

    #[tokio::test]
    async fn a_model_has_targets_by_the_pods_of_its_variants_or_by_a_configured_model() {
        let model = ModelRef::new("org/m", "prod");
        for (target, has_none) in [
            (target("prod", "m-0", ""), false),
            (target("prod", "n-0", ""), true),
            (target("dev", "m-0", ""), true),
            (target("prod", "n-0", ", model = \"org/m\""), false),
            (target("prod", "m-0", ", model = \"org/n\""), true),
            (target("prod", "m-epp", ", engine = \"epp\""), true),
            (target("prod", "n-0", ", replica = \"m-0\", rank = \"1\""), false),
        ] {
            let targets = targets(&target).unwrap();
            assert_eq!(targets.has_none_of(&model).await, has_none, "{target}");
        }
    }

    #[tokio::test]
    async fn a_list_that_is_not_complete_or_cannot_be_read_proves_nothing() {
        let dns =
            "dns = [{ name = \"m.prod.svc\", type = \"A\", port = 8000, namespace = \"prod\" }]";
        assert!(targets(dns).is_none());
        let other = target("prod", "n-0", "");
        let with_prometheus = format!("{other}\n[prometheus]\nurl = \"https://p:9090\"");
        let both = targets_of("[\"scrape\", \"prometheus\"]", &with_prometheus).unwrap();
        assert!(!both.are_all_pods() && targets(&other).unwrap().are_all_pods());
        let absent = targets("target_file = \"/nowhere/targets.json\"").unwrap();
        assert!(!absent.has_none_of(&ModelRef::new("org/m", "prod")).await);
    }

    #[cfg(feature = "kubernetes")]
    #[tokio::test]
    async fn a_list_beside_a_cluster_proves_nothing() {
        let model = ModelRef::new("org/m", "prod");
        for others in ["", &target("prod", "n-0", "")] {
            let targets = targets(&format!("{others}\n[kubernetes]\nenabled = true\n")).unwrap();
            assert!(!targets.has_none_of(&model).await, "{others}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_is_read_again_after_a_moment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("targets.json");
        let write = |path: &Path, pod: &str| {
            let text = format!(
                "[{{\"targets\":[\"10.0.0.7:80\"],\"labels\":{{\"namespace\":\"prod\",\"pod\":\"{pod}\"}}}}]"
            );
            std::fs::write(path, text).unwrap();
        };
        write(&path, "m-0");
        let targets = targets(&format!("target_file = {path:?}")).unwrap();
        let model = ModelRef::new("org/m", "prod");
        assert!(!targets.has_none_of(&model).await);
        write(&path, "n-0");
        assert!(!targets.has_none_of(&model).await);
        tokio::time::advance(FILE_TTL).await;
        assert!(targets.has_none_of(&model).await);
    }
}
