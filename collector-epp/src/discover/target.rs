// SPDX-License-Identifier: Apache-2.0
//! One metrics page to scrape, and the identity of its server.

use std::sync::Arc;

use collector_core::{EngineName, ModelId, Namespace, PodName, Role};
use collector_transport::{server_url, shown};
use serde::{Deserialize, Serialize};
use url::Url;

/// Bytes of a name; Kubernetes allows 253.
const NAME_BYTES_MAX: usize = 512;
/// Bytes of a URL.
const URL_BYTES_MAX: usize = 2048;

/// A page to scrape.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// Where it is: `http` or `https`, without credentials.
    pub url: Url,
    /// The namespace of the pod.
    pub namespace: Namespace,
    /// The pod.
    pub pod: PodName,
    /// Which of several servers of its replica it is; unique within its pod.
    pub rank: Option<Arc<str>>,
    /// The replica that it is a server of; `None`: the pod is one.
    pub replica: Option<PodName>,
    /// The model that it serves, whatever its page names; `None`: from the page.
    pub model: Option<ModelId>,
    /// The kind of server; `None`: recognised from the page.
    pub engine: Option<EngineName>,
    /// What the pod does where a request is served by several.
    pub role: Option<Role>,
    /// The InferencePool of an endpoint picker, which tells one that never answered from those of other pools; `None`: from
    /// the page.
    pub pool: Option<Arc<str>>,
    /// If true, a scrape without an answer does not count as failed: the pod starts or terminates, and then it serves
    /// nothing. May change while it is scraped.
    pub may_be_silent: bool,
}

/// A target as a user writes it, in `epp.targets`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetSpec {
    /// Where the page is: `http://10.0.0.7:8000/metrics`.
    pub url: String,
    /// The namespace of the pod.
    pub namespace: String,
    /// The pod; default: host and port of the URL, or the host alone where there is a `rank`.
    #[serde(default)]
    pub pod: Option<String>,
    /// The kind of server. Default: recognised from the page.
    #[serde(default)]
    pub engine: Option<String>,
    /// `prefill` or `decode`, for example.
    #[serde(default)]
    pub role: Option<String>,
    /// The model that it serves; overrides the page. Default: from the page.
    #[serde(default)]
    pub model: Option<String>,
    /// Which of several servers of the pod it is, where each has a port of its own.
    #[serde(default)]
    pub rank: Option<String>,
    /// The replica that several pods are together; default: each pod is one.
    #[serde(default)]
    pub replica: Option<String>,
}

impl TargetSpec {
    /// The target, checked.
    ///
    /// # Errors
    /// A URL that cannot be scraped, a name that is empty, too long or holds control characters, in words that follow
    /// the name of the target.
    pub fn target(&self) -> Result<Target, String> {
        let url = page_url(&self.url)?;
        let pod = match &self.pod {
            Some(pod) => pod.clone(),
            // The ports of one pod share its address.
            None if self.rank.is_some() => url.host_str().unwrap_or_default().to_owned(),
            None => address(&url),
        };
        for (what, name) in [
            ("namespace", Some(&self.namespace)),
            ("pod", Some(&pod)),
            ("engine", self.engine.as_ref()),
            ("role", self.role.as_ref()),
            ("model", self.model.as_ref()),
            ("rank", self.rank.as_ref()),
            ("replica", self.replica.as_ref()),
        ] {
            name.map_or(Ok(()), |name| check_name(what, name))?;
        }
        Ok(Target {
            url,
            namespace: Namespace::from(self.namespace.as_str()),
            pod: pod.into(),
            engine: self.engine.as_deref().map(EngineName::from),
            role: self.role.as_deref().map(Role::from),
            pool: None,
            model: self.model.as_deref().map(ModelId::from),
            rank: self.rank.as_deref().map(Arc::from),
            replica: self.replica.as_deref().map(PodName::from),
            may_be_silent: false,
        })
    }
}

impl Target {
    /// Returns the name of the row that its page is part of, unless the page names replicas itself.
    pub fn row_name(&self) -> &PodName {
        self.replica.as_ref().unwrap_or(&self.pod)
    }

    /// Returns its URL as messages show it: parameters may be secret.
    pub(crate) fn shown(&self) -> String {
        shown(&self.url)
    }

    /// Whether it is the same page of the same server.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let Self {
            url,
            namespace,
            pod,
            rank,
            replica,
            model,
            engine,
            role,
            pool,
            may_be_silent: _,
        } = self;
        (url, namespace, pod, rank) == (&other.url, &other.namespace, &other.pod, &other.rank)
            && (replica, model) == (&other.replica, &other.model)
            && (engine, role, pool) == (&other.engine, &other.role, &other.pool)
    }

    /// Whether other targets may be servers of the same replica.
    pub fn is_one_of_several(&self) -> bool {
        self.rank.is_some() || self.replica.is_some()
    }
}

/// Host and port.
pub(super) fn address(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port_or_known_default() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn page_url(text: &str) -> Result<Url, String> {
    if text.len() > URL_BYTES_MAX {
        return Err(format!("its URL is longer than {URL_BYTES_MAX} bytes"));
    }
    server_url(text, "epp.token_path")
}

fn check_name(what: &str, name: &str) -> Result<(), String> {
    let problem = if name.is_empty() {
        "is empty".to_owned()
    } else if name.len() > NAME_BYTES_MAX {
        format!("is longer than {NAME_BYTES_MAX} bytes")
    } else if name.chars().any(char::is_control) {
        "holds control characters".to_owned()
    } else {
        return Ok(());
    };
    Err(format!("its {what} {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(url: &str) -> TargetSpec {
        TargetSpec { url: url.into(), namespace: "prod".into(), ..TargetSpec::default() }
    }

    #[track_caller]
    fn refused(spec: &TargetSpec, part: &str) {
        let text = spec.target().unwrap_err();
        assert!(text.contains(part), "{text:?} lacks {part:?}");
        assert!(!text.contains("hunter2"), "{text:?} shows a secret");
    }

    #[test]
    fn a_target_that_cannot_work_says_why() {
        refused(&spec("10.0.0.7:8000"), "not a URL");
        refused(&spec("ftp://h/metrics"), "http://");
        refused(&spec("http://me:hunter2@h/metrics"), "credentials");
        refused(&spec("http://me:hunter2@h:bad/metrics"), "not a URL");
        refused(&spec("http://h/metrics#x"), "fragment");
        refused(&TargetSpec { namespace: String::new(), ..spec("http://h") }, "namespace is empty");
        refused(&TargetSpec { pod: Some("a\nb".into()), ..spec("http://h") }, "control");
        refused(&TargetSpec { role: Some("x".repeat(600)), ..spec("http://h") }, "longer");
    }

    #[test]
    fn a_pod_without_a_name_is_called_by_its_address() {
        let pod = |url| spec(url).target().unwrap().pod;
        assert_eq!(pod("http://10.0.0.7:8000/metrics").as_str(), "10.0.0.7:8000");
        assert_eq!(pod("https://m-0.prod/metrics").as_str(), "m-0.prod:443");
        let port = |port, rank: &str| {
            let url = format!("http://10.0.0.7:{port}/metrics");
            TargetSpec { rank: Some(rank.into()), ..spec(&url) }.target().unwrap()
        };
        let (one, other) = (port(8000, "0"), port(8001, "1"));
        assert_eq!((one.pod.as_str(), one.row_name()), ("10.0.0.7", other.row_name()));
        assert!(one.is_one_of_several() && one.rank != other.rank);
    }
}
