// SPDX-License-Identifier: Apache-2.0
//! The settings of direct scraping: the keys under `[epp]`.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use collector_core::ModelId;
use collector_core::duration::format as show;
use collector_engines::{EngineSpec, Engines};
use collector_transport::ConfigError;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::SECTION;
use crate::discover::{DnsSpec, Target, TargetSpec};
use crate::scan::Limits;

/// Which pods to scrape, and how.
///
/// Serializing it leaves the token out.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "they are keys, each with its own meaning")]
pub struct EppConfig {
    /// Pods whose addresses do not change.
    pub targets: Vec<TargetSpec>,
    /// A file of targets in the form of Prometheus' `file_sd_configs`, JSON or YAML, read again when
    /// it changes.
    pub target_file: Option<PathBuf>,
    /// Names behind which there are pods, looked up again when their ttl is over.
    pub dns: Vec<DnsSpec>,
    /// How often each pod is scraped. Default 1 s: a reading is then as new as an autoscaler can act
    /// on. At least 50 ms.
    #[serde(with = "collector_core::duration")]
    pub scrape_interval: Duration,
    /// Time for one scrape: DNS, connecting, TLS, head and page together. Default nine tenths of the
    /// scrape interval, so that no scrape delays the next.
    #[serde(with = "collector_core::duration::option")]
    pub timeout: Option<Duration>,
    /// The time over which peaks and rates are taken. Default 1 m, as the Prometheus backend's.
    #[serde(with = "collector_core::duration")]
    pub window: Duration,
    /// Scrape interval of pods that serve no tracked model. Default 15 s, as in most Prometheus installations; 0: they
    /// are not scraped again once they have answered.
    #[serde(with = "collector_core::duration")]
    pub idle_interval: Duration,
    /// Greatest size of a metrics page, in bytes. Default 16 MiB, forty times the page of a large vLLM.
    pub max_page_bytes: u64,
    /// Greatest size of a line, in bytes. Default 64 KiB.
    pub max_line_bytes: usize,
    /// Greatest number of targets. Default 10 000; each costs some 45 KB of memory and an open connection.
    pub max_targets: usize,
    /// A file that holds the token; read again whenever it changes.
    pub token_path: Option<PathBuf>,
    /// Sent as `Authorization: Bearer`. Overrides `token_path`.
    #[serde(skip_serializing)]
    pub bearer_token: Option<SecretString>,
    /// A file that holds the token for endpoint pickers, which pods do not get: targets with `engine = "epp"`. Default:
    /// the token of all targets.
    pub picker_token_path: Option<PathBuf>,
    /// Every model has an endpoint picker: if none is among the targets, or it does not respond, the requests that it
    /// holds are unknown. Default false: so it is where there is such a target.
    pub picker_required: bool,
    /// Allows the token over `http://`. Default false: anyone who can read the traffic can read the token.
    pub allow_token_over_http: bool,
    /// Certificates (PEM) of the authorities that may have signed the pods'; default: those of the
    /// operating system.
    pub ca_cert_path: Option<PathBuf>,
    /// The name that a pod's certificate must hold; default: the host of its URL.
    pub server_name: Option<String>,
    /// Accepts any certificate. Default false: with it, anyone between can read the token and make up metrics.
    pub tls_insecure_skip_verify: bool,
    /// Engines besides the ones that are known, and corrections of these.
    pub engines: Vec<EngineSpec>,
    /// The name of the section in the configuration, for messages: `scrape` or `epp`. Default `epp`.
    #[serde(skip)]
    pub section: &'static str,
    /// Whether others find targets too, so that none has to be named here: see
    /// [`with_discovery`](crate::EppBackend::with_discovery). Default false.
    #[serde(skip)]
    pub others_find_targets: bool,
}

/// The keys of the section.
const KEYS: [&str; 19] = [
    "targets",
    "target_file",
    "dns",
    "scrape_interval",
    "timeout",
    "window",
    "idle_interval",
    "max_page_bytes",
    "max_line_bytes",
    "max_targets",
    "token_path",
    "picker_token_path",
    "picker_required",
    "bearer_token",
    "allow_token_over_http",
    "ca_cert_path",
    "server_name",
    "tls_insecure_skip_verify",
    "engines",
];

/// The least scrape interval: more frequent scrapes cost the server more than they are worth.
const SCRAPE_INTERVAL_MIN: Duration = Duration::from_millis(50);
/// The least that `max_page_bytes` may be: a page of a small vLLM fits.
const PAGE_BYTES_MIN: u64 = 64 << 10;
/// The least that `max_line_bytes` may be: a line with many labels fits.
const LINE_BYTES_MIN: usize = 1 << 10;

impl Default for EppConfig {
    fn default() -> Self {
        Self {
            targets: Vec::new(),
            target_file: None,
            dns: Vec::new(),
            scrape_interval: Duration::from_secs(1),
            timeout: None,
            window: Duration::from_secs(60),
            idle_interval: Duration::from_secs(15),
            max_page_bytes: 16 << 20,
            max_line_bytes: 64 << 10,
            max_targets: 10_000,
            token_path: None,
            picker_token_path: None,
            picker_required: false,
            bearer_token: None,
            allow_token_over_http: false,
            ca_cert_path: None,
            server_name: None,
            tls_insecure_skip_verify: false,
            engines: Vec::new(),
            section: SECTION.name,
            others_find_targets: false,
        }
    }
}

impl EppConfig {
    /// Time for one scrape.
    pub fn effective_timeout(&self) -> Duration {
        self.timeout.unwrap_or_else(|| self.scrape_interval.mul_f64(0.9))
    }

    /// A message of this crate, which names keys as `epp.timeout`, with the name that the section has in the
    /// configuration.
    pub fn with_section(&self, message: &str) -> String {
        with_section(self.section, message)
    }

    /// Whether it says itself which targets there are.
    pub fn names_targets(&self) -> bool {
        !self.targets.is_empty() || self.target_file.is_some() || !self.dns.is_empty()
    }

    /// How large a page and a line of it may be.
    pub fn limits(&self) -> Limits {
        Limits { max_line_bytes: self.max_line_bytes, max_page_bytes: self.max_page_bytes }
    }

    /// Checks the settings without touching files or the network. Reports every problem, not just the first.
    ///
    /// # Errors
    /// One error for each thing that cannot work.
    pub fn validate(&self) -> Result<(), Vec<ConfigError>> {
        let mut errors = Vec::new();
        self.check_targets(&mut errors);
        self.check_times(&mut errors);
        self.check_limits(&mut errors);
        errors.extend(SECTION.check_server_name(self.server_name.as_deref()));
        errors.extend(SECTION.check_bearer_token(self.bearer_token.as_ref()));
        if let Err(error) = Engines::new(&self.engines) {
            errors.push(SECTION.error("engines", error.to_string()));
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn check_targets(&self, errors: &mut Vec<ConfigError>) {
        let mut refuse = |key, problem: String| errors.push(SECTION.error(key, problem));
        if !self.names_targets() && !self.others_find_targets {
            refuse(
                "targets",
                "not set: name the pods, as [{ url = \"http://10.0.0.7:8000/metrics\", namespace = \
                 \"prod\" }] for example, or set epp.target_file or epp.dns"
                    .into(),
            );
        }
        let mut servers = HashSet::new();
        let mut models: HashMap<Url, (usize, Option<ModelId>)> = HashMap::new();
        for (place, spec) in (1..).zip(&self.targets) {
            let Target { namespace, pod, rank, model, url, .. } = match spec.target() {
                Ok(target) => target,
                Err(error) => {
                    refuse("targets", format!("entry {place}: {error}"));
                    continue;
                }
            };
            if !servers.insert((namespace.clone(), pod.clone(), rank)) {
                refuse(
                    "targets",
                    format!(
                        "entry {place}: the pod {pod:?} of namespace {namespace:?} has a target already; \
                         give each a pod of its own, or a rank where they are servers of one pod"
                    ),
                );
            }
            let (first, known) = models.entry(url).or_insert((place, model.clone()));
            if *known != model {
                refuse(
                    "targets",
                    format!(
                        "entry {place}: it is the same page as entry {first}, with another model; a server \
                         has one model that can be given"
                    ),
                );
            }
        }
        for problem in self.dns.iter().filter_map(|spec| spec.check().err()) {
            refuse("dns", problem);
        }
        let targets = self.targets.len();
        if targets > self.max_targets {
            let problem = format!("{} is less than epp.targets has: {targets}", self.max_targets);
            refuse("max_targets", problem);
        }
    }

    fn check_times(&self, errors: &mut Vec<ConfigError>) {
        let interval = self.scrape_interval;
        let mut refuse = |key, problem: String| errors.push(SECTION.error(key, problem));
        if interval < SCRAPE_INTERVAL_MIN {
            refuse(
                "scrape_interval",
                format!(
                    "{} is less than {}; set it to 1s for example",
                    show(interval),
                    show(SCRAPE_INTERVAL_MIN)
                ),
            );
        }
        if let Some(timeout) = self.timeout
            && (timeout.is_zero() || timeout >= interval)
        {
            refuse(
                "timeout",
                format!(
                    "{} is not between 0 and epp.scrape_interval ({}), so that a scrape would delay \
                     the next; set it to {} or leave it out",
                    show(timeout),
                    show(interval),
                    show(interval.mul_f64(0.9)),
                ),
            );
        }
        if self.window < interval * 2 {
            refuse(
                "window",
                format!(
                    "{} is shorter than two scrapes (epp.scrape_interval is {}), so that no rate could \
                     be taken; set it to {} or leave it out",
                    show(self.window),
                    show(interval),
                    show((interval * 4).max(Duration::from_secs(60))),
                ),
            );
        }
        if !self.idle_interval.is_zero() && self.idle_interval < interval {
            refuse(
                "idle_interval",
                format!(
                    "{} is less than epp.scrape_interval ({}); set it to that at least, or to 0 for \
                     never",
                    show(self.idle_interval),
                    show(interval),
                ),
            );
        }
    }

    fn check_limits(&self, errors: &mut Vec<ConfigError>) {
        let mut refuse = |key, problem: String| errors.push(SECTION.error(key, problem));
        if self.max_page_bytes < PAGE_BYTES_MIN {
            refuse(
                "max_page_bytes",
                format!(
                    "{} is less than {PAGE_BYTES_MIN}, which the page of a small server may take; the \
                     default is 16777216",
                    self.max_page_bytes
                ),
            );
        }
        if self.max_line_bytes < LINE_BYTES_MIN {
            refuse(
                "max_line_bytes",
                format!(
                    "{} is less than {LINE_BYTES_MIN}, which a line may take; the default is 65536",
                    self.max_line_bytes
                ),
            );
        }
        if self.max_targets == 0 {
            refuse("max_targets", "0 allows no target; leave it out, or set it higher".into());
        }
    }
}

/// A message of this crate with this name of the section.
pub(crate) fn with_section(section: &str, message: &str) -> String {
    KEYS.iter().fold(message.to_owned(), |message, key| {
        message.replace(&SECTION.key(key), &format!("{section}.{key}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> EppConfig {
        let target = TargetSpec {
            url: "http://10.0.0.7:8000/metrics".into(),
            namespace: "prod".into(),
            pod: Some("m-0".into()),
            ..TargetSpec::default()
        };
        EppConfig { targets: vec![target], ..EppConfig::default() }
    }

    #[track_caller]
    fn refused(config: &EppConfig, parts: &[&str]) {
        let errors = config.validate().unwrap_err();
        let text = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        for part in parts {
            assert!(text.contains(part), "{text:?} lacks {part:?}");
        }
        assert!(!text.contains("hunter2"), "{text:?} shows a secret");
    }

    #[test]
    fn the_defaults_work_as_soon_as_there_is_a_target() {
        assert!(good().validate().is_ok());
        assert_eq!(good().effective_timeout(), Duration::from_millis(900));
        refused(&EppConfig::default(), &["epp.targets: not set", "epp.target_file", "epp.dns"]);
    }

    #[test]
    fn every_broken_key_is_named_with_a_value_that_works() {
        let mut broken = EppConfig {
            scrape_interval: Duration::from_millis(20),
            timeout: Some(Duration::from_millis(20)),
            window: Duration::from_millis(30),
            idle_interval: Duration::from_millis(10),
            max_page_bytes: 10,
            max_line_bytes: 10,
            max_targets: 0,
            server_name: Some("not a name".into()),
            bearer_token: Some("hunter2 with blanks".into()),
            ..good()
        };
        broken.targets.push(broken.targets[0].clone());
        let other = TargetSpec {
            model: Some("m".into()),
            rank: Some("1".into()),
            ..broken.targets[0].clone()
        };
        broken.targets.push(TargetSpec { url: "h".into(), ..broken.targets[0].clone() });
        broken.targets.push(other);
        refused(
            &broken,
            &[
                "epp.scrape_interval: 20ms is less than 50ms",
                "epp.timeout: 20ms is not between 0 and epp.scrape_interval (20ms)",
                "set it to 18ms",
                "epp.window: 30ms is shorter than two scrapes",
                "epp.idle_interval",
                "epp.max_page_bytes",
                "epp.max_line_bytes",
                "epp.max_targets",
                "epp.server_name",
                "epp.bearer_token",
                "epp.targets: entry 2: the pod \"m-0\"",
                "epp.targets: entry 3",
                "epp.targets: entry 4: it is the same page as entry 1, with another model",
            ],
        );
    }
}
