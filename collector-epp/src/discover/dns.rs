// SPDX-License-Identifier: Apache-2.0
//! Targets behind a DNS name, a headless Kubernetes service for example.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use collector_core::ErrorKind;
use collector_transport::quote;
use hickory_resolver::TokioResolver;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use super::{Discovery, DiscoveryError, Target, TargetSpec};

/// The least time between two look-ups: a ttl of 0 must not flood the server.
const AGAIN_MIN: Duration = Duration::from_secs(1);
/// The greatest time between two look-ups, whatever the ttl is: pods come and go.
const AGAIN_MAX: Duration = Duration::from_secs(300);
/// The time after a look-up that failed or had no records, and so no ttl.
const AGAIN_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// A DNS name as a user writes it, in `epp.dns`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsSpec {
    /// The name: `vllm.prod.svc.cluster.local`, or `_http._tcp.vllm.prod.svc.cluster.local` for SRV.
    pub name: String,
    /// Which records. Default `A`.
    #[serde(default, rename = "type")]
    pub record: DnsRecord,
    /// The port of the pages; SRV records bring their own.
    #[serde(default)]
    pub port: Option<u16>,
    /// The namespace of the pods.
    pub namespace: String,
    /// `http` or `https`. Default `http`.
    #[serde(default = "http")]
    pub scheme: String,
    /// The path of the pages. Default `/metrics`.
    #[serde(default = "metrics")]
    pub path: String,
    /// The kind of server. Default: recognised from the page.
    #[serde(default)]
    pub engine: Option<String>,
    /// `prefill` or `decode`, for example.
    #[serde(default)]
    pub role: Option<String>,
    /// The model that the pods serve; overrides their pages. Default: from their pages.
    #[serde(default)]
    pub model: Option<String>,
    /// Which of several servers of each pod is behind the port.
    #[serde(default)]
    pub rank: Option<String>,
    /// The replica that all pods behind the name are together; default: each pod is one.
    #[serde(default)]
    pub replica: Option<String>,
}

fn http() -> String {
    "http".to_owned()
}

fn metrics() -> String {
    "/metrics".to_owned()
}

/// The kind of record that is looked up. Only one, because pods with addresses of both kinds would be found twice.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub enum DnsRecord {
    /// Addresses of IPv4.
    #[default]
    #[serde(alias = "a")]
    A,
    /// Addresses of IPv6.
    #[serde(rename = "AAAA", alias = "aaaa")]
    Aaaa,
    /// Hosts with ports.
    #[serde(rename = "SRV", alias = "srv")]
    Srv,
}

/// The pods behind a DNS name, looked up again when the ttl of its records is over.
pub struct DnsTargets {
    spec: DnsSpec,
    shown: String,
    resolver: OnceCell<TokioResolver>,
    again_after: Mutex<Duration>,
}

impl std::fmt::Debug for DnsTargets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DnsTargets").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl DnsSpec {
    /// Checks what can be checked without asking.
    ///
    /// # Errors
    /// What is wrong, in words that follow the name of the key.
    pub fn check(&self) -> Result<(), String> {
        if self.name.is_empty() || self.name.len() > 253 {
            return Err(format!("{:?} is no DNS name", quote(&self.name)));
        }
        if self.record != DnsRecord::Srv && self.port.is_none() {
            return Err(format!(
                "{:?} has no port: set it, or set type = \"SRV\" where the records have ports",
                quote(&self.name)
            ));
        }
        self.target("localhost", self.port.unwrap_or(80), None).map(drop)
    }

    fn target(&self, host: &str, port: u16, pod: Option<String>) -> Result<Target, String> {
        let Self { scheme, path, .. } = self;
        let slash = if path.starts_with('/') { "" } else { "/" };
        TargetSpec {
            url: format!("{scheme}://{host}:{port}{slash}{path}"),
            namespace: self.namespace.clone(),
            pod,
            engine: self.engine.clone(),
            role: self.role.clone(),
            model: self.model.clone(),
            rank: self.rank.clone(),
            replica: self.replica.clone(),
        }
        .target()
        .map_err(|error| format!("{:?}: {error}", quote(&self.name)))
    }

    fn record_type(&self) -> RecordType {
        match self.record {
            DnsRecord::A => RecordType::A,
            DnsRecord::Aaaa => RecordType::AAAA,
            DnsRecord::Srv => RecordType::SRV,
        }
    }

    /// Returns one target for each record. A pod is named by the first label of its host if that is unique, as in a
    /// stateful set, and else by its address.
    fn targets(&self, records: &[Record]) -> Result<Vec<Target>, String> {
        let mut hosts = Vec::new();
        for record in records {
            match &record.data {
                RData::A(address) => hosts.push((address.to_string(), self.port, None)),
                RData::AAAA(address) => hosts.push((format!("[{address}]"), self.port, None)),
                RData::SRV(srv) => {
                    let host = srv.target.to_utf8().trim_end_matches('.').to_owned();
                    let label = host.split('.').next().map(str::to_owned);
                    hosts.push((host, Some(srv.port), label));
                }
                _ => {}
            }
        }
        hosts.sort();
        hosts.dedup();
        let mut seen: HashMap<String, u32> = HashMap::new();
        for label in hosts.iter().filter_map(|(_, _, label)| label.clone()) {
            *seen.entry(label).or_default() += 1;
        }
        hosts
            .into_iter()
            .map(|(host, port, label)| {
                let pod = label.filter(|label| seen.get(label) == Some(&1));
                self.target(&host, port.unwrap_or_default(), pod)
            })
            .collect()
    }
}

impl DnsTargets {
    /// The pods behind the name, found by the resolver that the operating system is set to.
    pub fn new(spec: DnsSpec) -> Self {
        Self {
            shown: format!("epp.dns: {}", quote(&spec.name)),
            spec,
            resolver: OnceCell::new(),
            again_after: Mutex::new(AGAIN_AFTER_FAILURE),
        }
    }

    #[cfg(test)]
    fn with_resolver(spec: DnsSpec, resolver: TokioResolver) -> Self {
        Self { resolver: OnceCell::new_with(Some(resolver)), ..Self::new(spec) }
    }

    fn look_again_after(&self, time: Duration) {
        *self.again_after.lock().unwrap_or_else(PoisonError::into_inner) = time;
    }

    async fn resolver(&self) -> Result<&TokioResolver, NetError> {
        let make = || async {
            let mut builder = TokioResolver::builder_tokio()?;
            // A cache here would hide the remaining ttl.
            builder.options_mut().cache_size = 0;
            builder.build()
        };
        self.resolver.get_or_try_init(make).await
    }

    async fn records(&self) -> Result<Vec<Record>, NetError> {
        let resolver = self.resolver().await?;
        match resolver.lookup(self.spec.name.as_str(), self.spec.record_type()).await {
            Ok(lookup) => Ok(lookup.answers().to_vec()),
            // The name exists without a record of this kind: it has no targets.
            Err(NetError::Dns(DnsError::NoRecordsFound(none)))
                if none.response_code == ResponseCode::NoError =>
            {
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Discovery for DnsTargets {
    fn source(&self) -> &str {
        &self.shown
    }

    fn remedy(&self) -> &'static str {
        "does the name server answer, and does the name of epp.dns have records?"
    }

    /// A headless Service has records of Ready pods alone. One that is too busy for its readiness probe exists all the same.
    fn lists_pods(&self) -> bool {
        false
    }

    async fn targets(&self) -> Result<Vec<Target>, DiscoveryError> {
        self.look_again_after(AGAIN_AFTER_FAILURE);
        let records = self.records().await.map_err(|error| {
            let message = format!(
                "{}: {}; is the name right, and does the resolver of this machine know it?",
                self.shown,
                quote(&error.to_string())
            );
            DiscoveryError::new(ErrorKind::Dns, message)
        })?;
        if let Some(ttl) = records.iter().map(|record| record.ttl).min() {
            let ttl = Duration::from_secs(u64::from(ttl));
            self.look_again_after(ttl.clamp(AGAIN_MIN, AGAIN_MAX));
        }
        self.spec.targets(&records).map_err(|problem| {
            let message = format!("{}: {problem}", self.shown);
            DiscoveryError::new(ErrorKind::Configuration, message)
        })
    }

    async fn changed(&self) {
        let after = *self.again_after.lock().unwrap_or_else(PoisonError::into_inner);
        tokio::time::sleep(after).await;
    }
}

#[cfg(test)]
mod tests;
