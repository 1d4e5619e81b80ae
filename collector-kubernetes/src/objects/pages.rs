// SPDX-License-Identifier: Apache-2.0
//! What tells which metrics pages there are: of a pod its address, its labels and some annotations; InferencePools and
//! EndpointSlices.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use collector_core::PodName;
use serde::Deserialize;

use super::TEXT_MAX;

/// The most ports of a pool.
const PORTS_MAX: usize = 8;
/// The most endpoints of a slice.
const ENDPOINTS_MAX: usize = 1000;

/// Labels, or those that a selector asks for.
pub(crate) type Labels = BTreeMap<Box<str>, Box<str>>;

/// A pod as a server of metrics pages.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct PodEndpoint {
    pub(crate) ip: Option<IpAddr>,
    pub(crate) labels: Labels,
    pub(crate) annotations: PageAnnotations,
}

/// The annotations of a pod that say where its metrics pages are. Anyone who can make a pod can write them.
#[derive(Deserialize, Clone, PartialEq, Eq, Default, Debug)]
#[serde(default)]
pub(crate) struct PageAnnotations {
    #[serde(rename = "prometheus.io/port")]
    pub(crate) port: Option<Box<str>>,
    #[serde(rename = "prometheus.io/path")]
    pub(crate) path: Option<Box<str>>,
    #[serde(rename = "prometheus.io/scheme")]
    pub(crate) scheme: Option<Box<str>>,
    /// The ports of its pool that it serves now.
    #[serde(rename = "llm-d.ai/active-ports")]
    pub(crate) active_ports: Option<Box<str>>,
    /// The same under its former name.
    #[serde(rename = "inference.networking.k8s.io/active-ports")]
    former_active_ports: Option<Box<str>>,
}

/// An InferencePool.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct PoolObject {
    pub(crate) selector: Labels,
    /// In ascending order.
    pub(crate) ports: Vec<u16>,
    /// The Service of its Endpoint Picker, or why that is not known.
    pub(crate) picker: Option<Result<Arc<str>, String>>,
}

/// An EndpointSlice.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct SliceObject {
    pub(crate) service: Option<Arc<str>>,
    /// Those of its Service.
    pub(crate) labels: Labels,
    pub(crate) ports: Vec<(Box<str>, u16)>,
    pub(crate) pods: BTreeMap<PodName, Usable>,
    /// Endpoints that are no pods.
    pub(crate) others: usize,
}

/// Whether requests are sent to an endpoint, or those that it has are still served.
pub(crate) type Usable = bool;

#[derive(Deserialize)]
struct Pod {
    metadata: PodMetadata,
    status: Option<PodStatus>,
}

#[derive(Deserialize)]
struct PodMetadata {
    labels: Option<Labels>,
    annotations: Option<PageAnnotations>,
}

#[derive(Deserialize)]
struct PodStatus {
    #[serde(rename = "podIP")]
    ip: Option<Box<str>>,
}

/// Reads a pod as a server of pages.
pub(super) fn pod(text: &str) -> Result<PodEndpoint, serde_json::Error> {
    let Pod { metadata, status } = serde_json::from_str(text)?;
    let ip = status.and_then(|status| status.ip);
    let mut annotations = metadata.annotations.unwrap_or_default();
    let former = annotations.former_active_ports.take();
    annotations.active_ports = annotations.active_ports.or(former);
    Ok(PodEndpoint {
        ip: ip.and_then(|ip| ip.parse().ok()),
        labels: metadata.labels.unwrap_or_default(),
        annotations: annotations.short(),
    })
}

impl PageAnnotations {
    /// Longer texts are cut, which cannot make a good one of a bad one: none that is good is as long.
    fn short(self) -> Self {
        let short = |text: Option<Box<str>>| {
            text.map(|text| text.chars().take(TEXT_MAX).collect::<String>().into_boxed_str())
        };
        Self {
            port: short(self.port),
            path: short(self.path),
            scheme: short(self.scheme),
            active_ports: short(self.active_ports),
            former_active_ports: None,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PoolSpec {
    selector: Option<Selector>,
    target_ports: Option<Vec<TargetPort>>,
    /// The one port of the alpha version.
    target_port_number: Option<u16>,
    endpoint_picker_ref: Option<PickerReference>,
    /// The same in the alpha version.
    extension_ref: Option<PickerReference>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Selector {
    Labels {
        #[serde(rename = "matchLabels")]
        labels: Labels,
    },
    /// That of the alpha version.
    Plain(Labels),
}

#[derive(Deserialize)]
struct TargetPort {
    number: u16,
}

#[derive(Deserialize)]
struct PickerReference {
    group: Option<Box<str>>,
    kind: Option<Box<str>>,
    name: Arc<str>,
}

impl PickerReference {
    fn service(self) -> Result<Arc<str>, String> {
        let kind = self.kind.as_deref().filter(|kind| !kind.is_empty()).unwrap_or("Service");
        match self.group.as_deref() {
            None | Some("") if kind == "Service" => Ok(self.name),
            _ => {
                Err(format!("its Endpoint Picker is the {kind} {}, which is no Service", self.name))
            }
        }
    }
}

impl From<PoolSpec> for PoolObject {
    fn from(spec: PoolSpec) -> Self {
        let listed = spec.target_ports.unwrap_or_default().into_iter().map(|port| port.number);
        let mut ports: Vec<u16> = listed.chain(spec.target_port_number).take(PORTS_MAX).collect();
        ports.retain(|port| *port > 0);
        ports.sort_unstable();
        ports.dedup();
        let selector = match spec.selector {
            Some(Selector::Labels { labels } | Selector::Plain(labels)) => labels,
            None => Labels::new(),
        };
        let picker = spec.endpoint_picker_ref.or(spec.extension_ref);
        Self { selector, ports, picker: picker.map(PickerReference::service) }
    }
}

#[derive(Deserialize)]
struct Slice {
    metadata: SliceMetadata,
    endpoints: Option<Vec<Endpoint>>,
    ports: Option<Vec<SlicePort>>,
}

#[derive(Deserialize)]
struct SliceMetadata {
    #[serde(default)]
    namespace: Arc<str>,
    labels: Option<Labels>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    target_ref: Option<TargetReference>,
    #[serde(default)]
    conditions: EndpointConditions,
}

#[derive(Deserialize)]
struct TargetReference {
    kind: Option<Box<str>>,
    name: Option<Arc<str>>,
    namespace: Option<Arc<str>>,
}

/// What is absent is unknown, which counts as ready.
#[derive(Deserialize, Default)]
#[serde(default)]
struct EndpointConditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

impl EndpointConditions {
    fn are_usable(&self) -> Usable {
        let finishes = self.terminating == Some(true) && self.serving == Some(true);
        self.ready.unwrap_or(true) || finishes
    }
}

#[derive(Deserialize)]
struct SlicePort {
    name: Option<Box<str>>,
    port: Option<u16>,
}

/// Reads an EndpointSlice.
pub(super) fn slice(text: &str) -> Result<SliceObject, serde_json::Error> {
    let Slice { metadata, endpoints, ports } = serde_json::from_str(text)?;
    let labels = metadata.labels.unwrap_or_default();
    let service = labels.get("kubernetes.io/service-name").map(|name| Arc::from(&**name));
    let named = |port: SlicePort| Some((port.name.unwrap_or_default(), port.port?));
    let mut slice = SliceObject {
        service,
        labels,
        ports: ports.unwrap_or_default().into_iter().filter_map(named).collect(),
        pods: BTreeMap::new(),
        others: 0,
    };
    for endpoint in endpoints.unwrap_or_default().into_iter().take(ENDPOINTS_MAX) {
        let usable = endpoint.conditions.are_usable();
        match endpoint.target_ref.and_then(|target| target.pod_in(&metadata.namespace)) {
            Some(pod) => *slice.pods.entry(pod).or_default() |= usable,
            None => slice.others += 1,
        }
    }
    Ok(slice)
}

impl TargetReference {
    fn pod_in(self, namespace: &Arc<str>) -> Option<PodName> {
        let is_here = self.namespace.as_ref().is_none_or(|of_target| of_target == namespace);
        let is_pod = self.kind.as_deref() == Some("Pod") && is_here;
        self.name.filter(|_| is_pod).map(PodName::new)
    }
}
