// SPDX-License-Identifier: Apache-2.0
//! The backend that reads a cluster, and direct scraping of the pods that the cluster tells.

use std::sync::Arc;

use collector_core::Backend;

#[cfg(not(all(feature = "epp", feature = "kubernetes")))]
use crate::schema::CollectorConfig;

/// The backends that belong to the cluster.
#[derive(Default)]
pub(crate) struct Built {
    pub(crate) backends: Vec<Arc<dyn Backend>>,
    /// Direct scraping, if it has its targets from the cluster.
    pub(crate) scrape: Option<Arc<dyn Backend>>,
}

#[cfg(not(all(feature = "epp", feature = "kubernetes")))]
impl CollectorConfig {
    /// The name of the chosen backend that scrapes what the cluster tells: this build has none.
    #[expect(clippy::unused_self, reason = "as with the features")]
    pub(crate) fn scrape_of_cluster(&self) -> Option<&str> {
        None
    }
}

#[cfg(not(feature = "kubernetes"))]
impl Built {
    /// Validation has refused it already.
    #[expect(clippy::unnecessary_wraps, reason = "as with the feature")]
    pub(crate) fn new(
        _: &CollectorConfig,
        _: &Arc<dyn collector_core::Clock>,
    ) -> Result<Self, crate::error::ConfigError> {
        Ok(Self::default())
    }
}

#[cfg(feature = "kubernetes")]
mod build {
    use std::any::Any;
    use std::sync::Arc;

    use collector_core::Clock;
    use collector_kubernetes::{Cluster, ClusterConfig, PageSource};

    use super::Built;
    use crate::compose::NamedBackend;
    use crate::error::ConfigError;
    use crate::schema::CollectorConfig;

    impl CollectorConfig {
        /// The cluster among backends that were built: a client that is [given](Cluster::set_client) to it is used for all
        /// that is asked of the cluster.
        pub fn cluster_of(backends: &[NamedBackend]) -> Option<Cluster> {
            let mut backends = backends.iter().map(|(_, backend)| -> &dyn Any { &**backend });
            backends.find_map(<dyn Any>::downcast_ref::<Cluster>).cloned()
        }

        /// The cluster as `kubernetes` describes it, with the pages that direct scraping has from it.
        ///
        /// # Errors
        /// `kubernetes.scrape_selector` is missing or cannot be read.
        pub fn cluster(&self) -> Result<ClusterConfig, ConfigError> {
            let source = self.scrape_of_cluster().map(|_| self.kubernetes.page_source());
            let pages: Option<PageSource> = source.transpose().map_err(ConfigError::new)?;
            Ok(ClusterConfig { pages, ..self.kubernetes.cluster() })
        }
    }

    impl Built {
        /// Builds both. Files are read, and nothing is sent.
        pub(crate) fn new(
            config: &CollectorConfig,
            clock: &Arc<dyn Clock>,
        ) -> Result<Self, ConfigError> {
            let refuse = |message: String| ConfigError::new(message);
            let cluster = Cluster::new(config.cluster()?, Arc::clone(clock));
            let cluster = cluster.map_err(|error| refuse(error.to_string()))?;
            #[cfg(feature = "epp")]
            let scrape = super::scrape::build(config, &cluster, clock).map_err(refuse)?;
            #[cfg(not(feature = "epp"))]
            let scrape = None;
            Ok(Self { backends: vec![Arc::new(cluster)], scrape })
        }
    }
}

#[cfg(all(feature = "epp", feature = "kubernetes"))]
mod scrape {
    use std::collections::HashSet;
    use std::path::PathBuf;
    use std::sync::Arc;

    use async_trait::async_trait;
    use collector_core::{Backend, Clock, EngineName, Namespace};
    use collector_engines::{ENDPOINT_PICKER, Engines};
    use collector_epp::discover::{Discovery, DiscoveryError, Target, TargetSpec};
    use collector_epp::{EppBackend, EppConfig};
    use collector_kubernetes::{Cluster, ClusterPages, Page};

    use crate::kubernetes::ScrapeFrom;
    use crate::schema::CollectorConfig;

    /// The token that each pod of a cluster has.
    const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

    impl CollectorConfig {
        /// The name of the chosen backend that scrapes what the cluster tells.
        pub(crate) fn scrape_of_cluster(&self) -> Option<&str> {
            let has_its_targets = |name: &&String| {
                let settings = self.sections.get(name.as_str());
                let settings: Option<&EppConfig> = settings.and_then(crate::compose::of_type);
                settings.is_some_and(|settings| settings.others_find_targets)
            };
            self.backend.iter().find(has_its_targets).map(String::as_str)
        }
    }

    /// Builds direct scraping of the pages that the cluster tells, if it is chosen.
    pub(super) fn build(
        config: &CollectorConfig,
        cluster: &Cluster,
        clock: &Arc<dyn Clock>,
    ) -> Result<Option<Arc<dyn Backend>>, String> {
        let Some(pages) = cluster.pages() else { return Ok(None) };
        let Some(settings) = config.chosen_settings_of::<EppConfig>() else { return Ok(None) };
        let mut settings = settings.clone();
        if config.kubernetes.kubeconfig.is_none() && !has_token(&settings) {
            settings.picker_token_path = Some(PathBuf::from(TOKEN)).filter(|path| path.exists());
        }
        let names = Engines::new(&settings.engines).map(|engines| engines.names());
        let engines = names.unwrap_or_default().into_iter().collect();
        let remedy = match config.kubernetes.scrape {
            Some(ScrapeFrom::EndpointSlices) => {
                "does the API server answer, and has a Service with the labels of kubernetes.scrape_selector pods?"
            }
            _ => "does the API server answer, and does an InferencePool select pods?",
        };
        let targets = Box::new(ClusterTargets { pages, engines, remedy });
        let backend =
            EppBackend::with_discovery(settings.clone(), vec![targets], Arc::clone(clock));
        let backend = backend.map_err(|error| settings.with_section(&error.to_string()))?;
        Ok(Some(Arc::new(backend)))
    }

    fn has_token(settings: &EppConfig) -> bool {
        settings.bearer_token.is_some()
            || settings.token_path.is_some()
            || settings.picker_token_path.is_some()
    }

    /// The pages of a cluster as targets.
    struct ClusterTargets {
        pages: ClusterPages,
        /// The engines that are known: a label may name any other, which is then recognised by its page.
        engines: HashSet<EngineName>,
        remedy: &'static str,
    }

    #[async_trait]
    impl Discovery for ClusterTargets {
        fn source(&self) -> &'static str {
            "kubernetes.scrape"
        }

        fn remedy(&self) -> &'static str {
            self.remedy
        }

        async fn targets(&self) -> Result<Vec<Target>, DiscoveryError> {
            let pages = self.pages.pages().await.map_err(|unknown| {
                DiscoveryError::new(unknown.kind, format!("kubernetes.scrape: {unknown}"))
            })?;
            Ok(pages.iter().filter_map(|page| self.target(page)).collect())
        }

        fn unknown_in(&self, namespace: &Namespace) -> Option<DiscoveryError> {
            let unknown = self.pages.unknown_in(namespace)?;
            Some(DiscoveryError::new(unknown.kind, format!("kubernetes.scrape: {unknown}")))
        }

        async fn changed(&self) {
            self.pages.changed().await;
        }
    }

    impl ClusterTargets {
        fn target(&self, page: &Page) -> Option<Target> {
            let scheme = if page.is_https { "https" } else { "http" };
            let engine = if page.is_picker {
                Some(ENDPOINT_PICKER)
            } else {
                // No label makes a picker of a pod, which would get the token of pickers.
                page.engine.as_deref().filter(|name| self.engines.contains(*name))
            };
            let spec = TargetSpec {
                url: format!("{scheme}://{}{}", page.address, page.path),
                namespace: page.namespace.to_string(),
                pod: Some(page.pod.to_string()),
                engine: engine.map(str::to_owned),
                role: page.role.as_deref().filter(|role| !role.is_empty()).map(str::to_owned),
                model: None,
                rank: page.rank.as_deref().map(str::to_owned),
                replica: page.replica.as_ref().map(ToString::to_string),
            };
            match spec.target() {
                Ok(target) => Some(Target {
                    may_be_silent: page.may_be_silent,
                    pool: page.pool.clone(),
                    ..target
                }),
                // Names of the API are short and printable.
                Err(problem) => {
                    tracing::warn!(pod = %page.pod, namespace = %page.namespace, problem, "A pod cannot be scraped");
                    None
                }
            }
        }
    }
}
