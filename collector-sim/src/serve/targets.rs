// SPDX-License-Identifier: Apache-2.0
//! Target lists for a Prometheus.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

/// A pod's address, with the names that scraping attaches: the page itself has no names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Its listener; the page is at `/metrics`.
    pub address: SocketAddr,
    /// The label `namespace`.
    pub namespace: String,
    /// The label `pod`.
    pub pod: String,
}

/// The label that names the pod, which depends on the scrape configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PodLabel {
    /// `pod`, as set by Prometheus operators.
    #[default]
    Pod,
    /// `pod_name`.
    PodName,
}

/// Returns the targets in the form of `file_sd_configs` and `http_sd_configs`.
pub(super) fn groups(label: PodLabel, targets: &[Target]) -> Vec<Value> {
    let pod_label = match label {
        PodLabel::Pod => "pod",
        PodLabel::PodName => "pod_name",
    };
    targets
        .iter()
        .map(|Target { address, namespace, pod }| {
            json!({
                "targets": [address.to_string()],
                "labels": { "namespace": namespace, pod_label: pod },
            })
        })
        .collect()
}

/// Replaces the `file_sd` file at `path`.
pub(super) fn write(path: &Path, label: PodLabel, targets: &[Target]) -> io::Result<()> {
    let mut unfinished = OsString::from(path);
    unfinished.push(".new");
    fs::write(&unfinished, serde_json::to_vec_pretty(&groups(label, targets))?)?;
    fs::rename(&unfinished, path)
}
