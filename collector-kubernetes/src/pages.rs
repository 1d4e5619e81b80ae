// SPDX-License-Identifier: Apache-2.0
//! The metrics pages of a cluster's model servers and Endpoint Pickers, for a scraper.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use collector_core::{ErrorKind, Namespace, PodName, Unlimited};
use tokio::time::{sleep, timeout};

use crate::backend::bring_up_to_date;
use crate::cluster::Cluster;
use crate::objects::Labels;

/// How long the lists may take from which the pages follow.
const LISTS: Duration = Duration::from_secs(10);
/// Changes within this time are reported together.
const TOGETHER: Duration = Duration::from_millis(250);
/// The cluster is asked again after this time, because without its live source nothing tells a change.
const AGAIN: Duration = Duration::from_secs(60);

/// What tells which pods have metrics pages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PageSource {
    /// InferencePools: their pods by the selector, and the Endpoint Picker of each.
    Pools,
    /// The EndpointSlices of Services with these labels.
    EndpointSlices(Selector),
}

/// Labels that an object must have, with their values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Selector(Labels);

impl Selector {
    /// Reads a selector: `app=vllm,tier=prod`.
    ///
    /// # Errors
    /// What is wrong with it, in words that follow its name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let pairs = text.split(',').map(|pair| {
            let (label, value) = pair.split_once('=').ok_or(pair)?;
            let (label, value) = (label.trim(), value.trim_start_matches('=').trim());
            if label.is_empty() || label.ends_with('!') {
                Err(pair)
            } else {
                Ok((label.into(), value.into()))
            }
        });
        let labels = pairs.collect::<Result<Labels, &str>>();
        labels.map(Self).map_err(|pair| {
            format!(
                "{:?} is not a label with its value; app=vllm,tier=prod is a selector",
                collector_core::text::quote(pair)
            )
        })
    }

    pub(crate) fn matches(&self, labels: &Labels) -> bool {
        are_in(&self.0, labels)
    }
}

/// Whether labels have all of these, with the same values.
pub(crate) fn are_in(wanted: &Labels, labels: &Labels) -> bool {
    wanted.iter().all(|(label, value)| labels.get(label) == Some(value))
}

/// A metrics page of a pod. It is always on the address of the pod, whatever annotations say.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub struct Page {
    /// The namespace of the pod.
    pub namespace: Namespace,
    /// The pod.
    pub pod: PodName,
    /// The pod's address, and the port.
    pub address: SocketAddr,
    /// Whether the page is encrypted.
    pub is_https: bool,
    /// The path: unreserved characters alone, without `.` and `..` as parts.
    pub path: Arc<str>,
    /// Which of several servers of its replica it is.
    pub rank: Option<Arc<str>>,
    /// The replica of several pods that it is a server of; `None`: the pod is one.
    pub replica: Option<PodName>,
    /// The kind of server, as a label of the pod says.
    pub engine: Option<Arc<str>>,
    /// What the pod does where a request is served by several, as a label of the pod says.
    pub role: Option<Arc<str>>,
    /// Whether it is the page of an Endpoint Picker.
    pub is_picker: bool,
    /// The InferencePool of the Endpoint Picker, if it has only one.
    pub pool: Option<Arc<str>>,
    /// Whether it is no failure if there is no answer: the pod has not been ready yet, or is being deleted.
    pub may_be_silent: bool,
    /// The object that names it: its kind and its name.
    pub source: Arc<str>,
}

/// Why the pages of a cluster are unknown.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{why}")]
pub struct PagesUnknown {
    /// What went wrong.
    pub kind: ErrorKind,
    why: String,
}

/// The metrics pages of a cluster, kept up to date by its watches.
#[derive(Debug)]
pub struct ClusterPages {
    cluster: Cluster,
    /// The version of the pages that were last returned.
    returned: AtomicU64,
}

impl ClusterPages {
    pub(crate) fn new(cluster: Cluster) -> Self {
        Self { cluster, returned: AtomicU64::new(0) }
    }

    /// Returns all pages, in a fixed order.
    ///
    /// # Errors
    /// Until pods and what names them are listed, and while a watch of them is lost: the pages may be others then.
    pub async fn pages(&self) -> Result<Vec<Page>, PagesUnknown> {
        let shared = &self.cluster.shared;
        // Only the watches of pages matter here, and not whether all others are heard.
        let brought = bring_up_to_date(shared, LISTS, &Unlimited).await;
        self.returned.store(*shared.store.pages_news().borrow(), Ordering::Relaxed);
        let pages = shared.store.pages();
        let pages = pages.map_err(|unheard| brought.err().unwrap_or(unheard));
        pages.map_err(|unheard| PagesUnknown { kind: unheard.kind, why: unheard.why })
    }

    /// Returns why the pages of a namespace are not known, though all that is watched is listed: it is not watched, or does not
    /// exist.
    pub fn unknown_in(&self, namespace: &Namespace) -> Option<PagesUnknown> {
        let unheard = self.cluster.shared.store.unknown_in(namespace)?;
        Some(PagesUnknown { kind: unheard.kind, why: unheard.why })
    }

    /// Waits until the pages may be others than those that were last returned. May be dropped at any time.
    pub async fn changed(&self) {
        let returned = self.returned.load(Ordering::Relaxed);
        let mut news = self.cluster.shared.store.pages_news();
        if timeout(AGAIN, news.wait_for(|version| *version != returned)).await.is_ok() {
            sleep(TOGETHER).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_read_or_refused() {
        let labels = |text: &str| Labels::from_iter(Selector::parse(text).unwrap().0);
        let expected = Labels::from([("app".into(), "vllm".into()), ("tier".into(), "".into())]);
        assert_eq!(labels("app=vllm, tier="), expected);
        assert_eq!(labels("app==vllm,tier="), expected);
        for text in ["", "app", "app!=x", "=x", "a=b,,"] {
            let problem = Selector::parse(text).unwrap_err();
            assert!(problem.contains("is not a label with its value"), "{text}: {problem}");
        }
    }
}
