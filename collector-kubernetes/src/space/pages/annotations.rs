// SPDX-License-Identifier: Apache-2.0
//! The annotations of a pod that say where its metrics pages are. One that cannot be used counts as if it was absent, and
//! is reported.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Ports;
use crate::objects::PageAnnotations;

/// The most characters of a path.
const PATH_MAX: usize = 256;

/// Something that is wrong with a pod, and what to do.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Problem {
    pub(super) problem: String,
    pub(super) remedy: &'static str,
}

impl Problem {
    pub(super) fn no_metrics_port(slice: &str) -> Self {
        Self {
            problem: format!(
                "the EndpointSlice {slice} has several ports, none of which is called metrics or \
                 http-metrics: it is not scraped"
            ),
            remedy: "call the port of the metrics pages metrics in its Service",
        }
    }

    fn annotation(name: &str, text: &str, why: &str, remedy: &'static str) -> Self {
        Self { problem: format!("its annotation {name} is {text:?}, {why}"), remedy }
    }
}

impl PageAnnotations {
    /// The port that is annotated.
    pub(super) fn port(&self, problems: &mut Vec<Problem>) -> Option<u16> {
        let text = self.port.as_deref()?;
        let port = parse_port(text);
        if port.is_none() {
            problems.push(Problem::annotation(
                "prometheus.io/port",
                text,
                "which is not a port: the one of its pool or Service is scraped",
                "set it to a number from 1 to 65535",
            ));
        }
        port
    }

    /// Reports an annotated port where there are several others: it cannot replace all of them.
    pub(super) fn one_of(&self, ports: &Ports, problems: &mut Vec<Problem>) {
        let Some(text) = self.port.as_deref() else { return };
        if !parse_port(text).is_some_and(|port| ports.contains_key(&port)) {
            problems.push(Problem::annotation(
                "prometheus.io/port",
                text,
                "which is none of the several ports of its pool, all of which are scraped",
                "remove it, or set llm-d.ai/active-ports to the ports that it serves",
            ));
        }
    }

    /// Which of its ports a pod serves now; `None` where it does not say, or not so that it can be used.
    pub(super) fn active(
        &self,
        ports: &Ports,
        problems: &mut Vec<Problem>,
    ) -> Option<BTreeSet<u16>> {
        let text = self.active_ports.as_deref()?;
        if text.trim().is_empty() {
            return Some(BTreeSet::new());
        }
        let active: Option<BTreeSet<u16>> = text.split(',').map(parse_port).collect();
        let used = active.filter(|active| active.iter().any(|port| ports.contains_key(port)));
        if used.is_none() {
            problems.push(Problem::annotation(
                "llm-d.ai/active-ports",
                text,
                "which names no port of its pool, or is not a list: all ports are scraped",
                "set it to ports of the pool, as 8000,8001",
            ));
        }
        used
    }

    pub(super) fn is_https(&self, problems: &mut Vec<Problem>) -> bool {
        match self.scheme.as_deref() {
            None | Some("http") => false,
            Some("https") => true,
            Some(other) => {
                problems.push(Problem::annotation(
                    "prometheus.io/scheme",
                    other,
                    "which is neither http nor https: http is used",
                    "set it to http or https",
                ));
                false
            }
        }
    }

    pub(super) fn path(&self, problems: &mut Vec<Problem>) -> Arc<str> {
        match self.path.as_deref() {
            None => Arc::from("/metrics"),
            Some(path) if is_path(path) => Arc::from(path),
            Some(other) => {
                problems.push(Problem::annotation(
                    "prometheus.io/path",
                    other,
                    "which is not a plain path: /metrics is used",
                    "set it to a path of letters, digits, - . _ ~ and /, as /metrics",
                ));
                Arc::from("/metrics")
            }
        }
    }
}

fn parse_port(text: &str) -> Option<u16> {
    text.trim().parse().ok().filter(|port| *port > 0)
}

/// Whether a path means the same to everyone: a server of the pod, and nothing else, is asked for it.
fn is_path(path: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '.' | '_' | '~');
    path.starts_with('/')
        && path.len() <= PATH_MAX
        && path.chars().all(is_plain)
        && !path.contains("//")
        && !path.split('/').any(|part| matches!(part, "." | ".."))
}
