// SPDX-License-Identifier: Apache-2.0
//! Direct scraping: the section `[scrape]`, which may also be called `[epp]`.

use std::sync::Arc;

use collector_core::{Backend, Clock};
use collector_epp::{EppBackend, EppConfig};
use figment::value::Dict;

use super::{BackendFactory, BackendSettings, BoxError, Problem};
use crate::key::{Key, keys};
use crate::kubernetes::{self, KubernetesConfig};

/// The backend under its main name.
pub(super) fn scrape() -> BackendFactory {
    factory("scrape", KEYS)
}

/// The backend under its other name.
pub(super) fn epp() -> BackendFactory {
    factory("epp", EPP_KEYS)
}

fn factory(name: &'static str, keys: &'static [Key]) -> BackendFactory {
    BackendFactory::new(name, keys, move |section| {
        let config: EppConfig = section.read()?;
        // What is wrong with that section is reported by itself.
        let cluster: KubernetesConfig =
            section.read_at(kubernetes::NAME, Dict::new()).unwrap_or_default();
        let others_find_targets = cluster.finds_targets(config.names_targets());
        Ok(EppConfig { engines: section.engines()?, section: name, others_find_targets, ..config })
    })
}

/// The keys of the section, under either of its names.
macro_rules! of_section {
    ($section:literal) => {
        keys! {
            $section;
            /// The pods to scrape. Each has `url` and `namespace`, and may have `pod` (default: host and port), `engine`
            /// (default: recognised by the page), `role`, `model` (takes precedence over the page), `rank` (of several
            /// servers in the pod) and `replica` (for a replica of several pods).
            ".targets": Tables;
            /// A file of pods in the form of Prometheus' `file_sd_configs`, JSON or YAML by its extension, read again
            /// when it changes. Labels read: `__scheme__` (http), `__metrics_path__` (/metrics), `namespace` (required),
            /// `pod`, `model`, `rank`, `replica`, `llm-d.ai/engine-type`, `llm-d.ai/role`.
            ".target_file": Path;
            /// DNS names of pods, resolved again after their ttl. Each has `name`, `namespace`, `type` (A, AAAA or SRV;
            /// default A) and, unless that is SRV, `port`; and may have `scheme` (http), `path` (/metrics), `engine`,
            /// `role`, `model`, `rank` and `replica`. A name without records does not prove that there is no pod: a Service
            /// has records of Ready pods alone.
            ".dns": Tables;
            /// How often each pod is scraped; at least 50ms.
            ".scrape_interval": Duration = "1s";
            /// Time for one scrape, from DNS to the last byte; default: nine tenths of the scrape interval.
            ".timeout": Duration;
            /// The time over which peaks and rates are taken.
            ".window": Duration = "1m";
            /// How often pods of untracked models are scraped; 0: once only.
            ".idle_interval": Duration = "15s";
            /// The greatest page that is read, in bytes.
            ".max_page_bytes": Positive = "16777216";
            /// The longest line that is read; longer ones are skipped, and counted if they belong to wanted series.
            ".max_line_bytes": Positive = "65536";
            /// Most pods to scrape; a source with more is refused.
            ".max_targets": Positive = "10000";
            /// Sent as `Authorization: Bearer`, over https only. Takes precedence over `token_path`.
            ".bearer_token": Secret, aliases "EPP_METRIC_READER_BEARER_TOKEN";
            /// A file that holds the token; read again whenever it changes.
            ".token_path": Path;
            /// A file with the token for endpoint pickers, which pods do not get: targets with `engine = "epp"`, and those of
            /// InferencePools. Default: the token of all targets; without one, where a cluster tells the targets, that of the
            /// collector's service account. Over http it takes `allow_token_over_http`.
            ".picker_token_path": Path;
            /// Every model has an endpoint picker: if no target is its endpoint picker, the requests that it holds are
            /// unknown, and so is the signal `queue`.
            ".picker_required": Bool = "false";
            /// Sends the token over http too: anyone who reads the traffic reads the token.
            ".allow_token_over_http": Bool = "false";
            /// Certificates (PEM) of the authorities that may have signed the pods'; default: those of the operating
            /// system.
            ".ca_cert_path": Path;
            /// The name that a pod's certificate must contain; default: the host of its URL.
            ".server_name": Text;
            /// Accepts any certificate: anyone on the network path can read the token and forge metrics.
            ".tls_insecure_skip_verify": Bool = "false";
            /// Another name of `engines`.
            ".engines": Tables;
        }
    };
}

const KEYS: &[Key] = of_section!("scrape");
/// The same keys under the section's other name.
const EPP_KEYS: &[Key] = of_section!("epp");

impl BackendSettings for EppConfig {
    fn build(&self, clock: Arc<dyn Clock>) -> Result<Arc<dyn Backend>, BoxError> {
        match EppBackend::new(self.clone(), clock) {
            Ok(backend) => Ok(Arc::new(backend)),
            Err(error) => Err(self.with_section(&error.to_string()).into()),
        }
    }

    fn problems(&self) -> Vec<Problem> {
        let errors = self.validate().err().unwrap_or_default();
        let known = if self.section == "epp" { EPP_KEYS } else { KEYS };
        // Engines are every backend's, and were checked before.
        let of_engines = format!("{}.engines: ", self.section);
        errors
            .into_iter()
            .map(|error| self.with_section(&error.to_string()))
            .filter(|message| !message.starts_with(&of_engines))
            .map(|message| {
                // The key that it begins with, and the others that it names.
                let mut keys: Vec<_> = known
                    .iter()
                    .map(|key| key.path)
                    .filter(|path| message.contains(path))
                    .collect();
                keys.sort_by_key(|path| message.find(path));
                Problem { keys, message }
            })
            .collect()
    }

    /// The backend itself warns of unverified certificates when it is built.
    fn warnings(&self) -> Vec<String> {
        let section = self.section;
        let has_token = self.bearer_token.is_some() || self.token_path.is_some();
        let mut warnings = Vec::new();
        if self.bearer_token.is_some() && self.token_path.is_some() {
            warnings.push(format!(
                "{section}.token_path is ignored: {section}.bearer_token is set and beats it"
            ));
        }
        for (number, target) in self.targets.iter().enumerate() {
            let of_engine = self.engines.iter().find(|engine| {
                target.engine.as_deref().is_some_and(|name| name == engine.name.as_str())
            });
            let of_engine = of_engine.and_then(|engine| engine.model.as_ref());
            if let (Some(model), Some(other)) = (&target.model, of_engine)
                && model != other.as_str()
            {
                warnings.push(format!(
                    "{section}.targets: entry {}: its model {model:?} goes before {other:?}, which \
                     its engine has in [[engines]]",
                    number + 1
                ));
            }
        }
        if has_token && self.allow_token_over_http {
            warnings.push(format!(
                "{section}.allow_token_over_http: who reads the traffic to a pod that is scraped \
                 over http:// reads the token"
            ));
        }
        if has_token
            && !self.allow_token_over_http
            && self.targets.iter().any(|target| target.url.starts_with("http://"))
        {
            warnings.push(format!(
                "{section}.targets: the token is not sent to those of http://, unless \
                 {section}.allow_token_over_http is set"
            ));
        }
        warnings
    }
}
