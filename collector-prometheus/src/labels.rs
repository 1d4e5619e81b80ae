// SPDX-License-Identifier: Apache-2.0
//! The labels by which a server names namespaces, pods, models and ranks.

use std::borrow::Cow;
use std::collections::HashMap;

use collector_core::PodName;
use serde::{Deserialize, Serialize};

use crate::answer::RowLabels;

/// Lists of labels, of which the first that a series has is used: the keys under `[prometheus.labels]`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LabelsConfig {
    /// The namespace. The default includes what OpenTelemetry and older scrape jobs call it; names with
    /// `exported_` are the pod's own label if the scrape job has one of that name.
    pub namespace: Vec<String>,
    /// The pod, with the same kind of default.
    pub pod: Vec<String>,
    /// The model's id; empty, the default, is each engine's own label.
    pub model: Vec<String>,
    /// Data-parallel ranks; empty, the default, is each engine's own label.
    pub rank: Vec<String>,
    /// The cluster. A model whose series have several values of one of these in one namespace is
    /// ambiguous unless `prometheus.matchers` selects one.
    pub cluster: Vec<String>,
}

impl Default for LabelsConfig {
    fn default() -> Self {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            namespace: list(&[
                "exported_namespace",
                "namespace",
                "k8s_namespace_name",
                "kubernetes_namespace",
            ]),
            pod: list(&["exported_pod", "pod", "pod_name", "k8s_pod_name", "kubernetes_pod_name"]),
            model: Vec::new(),
            rank: Vec::new(),
            cluster: list(&[
                "cluster",
                "cluster_name",
                "k8s_cluster_name",
                "kubernetes_cluster",
                "location",
            ]),
        }
    }
}

/// The labels of one engine's series that exist on a server, each list in order of preference.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Labels {
    pub(crate) namespace: Vec<Box<str>>,
    pub(crate) pod: Vec<Box<str>>,
    pub(crate) model: Vec<Box<str>>,
    pub(crate) rank: Vec<Box<str>>,
    pub(crate) cluster: Vec<Box<str>>,
    /// The label that names a replica if one pod has several.
    pub(crate) replica: Option<Box<str>>,
    /// The label that names the role of a server if several serve one request.
    pub(crate) role: Option<Box<str>>,
    /// The labels besides `instance` that distinguish copies of one series; mostly empty.
    pub(crate) apart: Vec<Box<str>>,
}

/// The label with the scraped address.
pub(crate) const INSTANCE: &str = "instance";

/// What a row is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Level {
    /// All pods of the model.
    Model,
    /// Each pod, or replica.
    Pod,
    /// Each data-parallel rank.
    Rank,
}

impl Labels {
    /// Returns the labels of a `by` clause at a level; `apart` adds those that distinguish servers and
    /// copies.
    pub(crate) fn by(&self, level: Level, apart: bool) -> Vec<&str> {
        let mut lists: Vec<&[Box<str>]> = vec![&self.namespace, &self.model];
        if level != Level::Model {
            lists.extend([self.pod.as_slice(), self.replica.as_slice()]);
        }
        if level == Level::Rank {
            lists.push(&self.rank);
        }
        if apart {
            lists.push(&self.apart);
        }
        let names = lists.into_iter().flatten().map(AsRef::as_ref);
        names.chain(apart.then_some(INSTANCE)).collect()
    }

    /// Iterates over the labels, except those that distinguish copies.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Box<str>> {
        let Self { namespace, pod, model, rank, cluster, replica, role, apart: _ } = self;
        let lists = [namespace, pod, model, rank, cluster];
        lists.into_iter().flatten().chain(replica).chain(role)
    }

    /// Keeps the labels that pass.
    pub(crate) fn retain(&mut self, passes: impl Fn(&Box<str>) -> bool) {
        let Self { namespace, pod, model, rank, cluster, replica, role, apart: _ } = self;
        for list in [namespace, pod, model, rank, cluster] {
            list.retain(&passes);
        }
        for one in [replica, role] {
            *one = one.take().filter(&passes);
        }
    }

    /// Returns whether different labels may name the same model, so that a model may have several rows.
    pub(crate) fn are_mixed(&self) -> bool {
        self.namespace.len() > 1 || self.model.len() > 1
    }

    /// Returns the labels of the liveness query.
    pub(crate) fn by_liveness(&self) -> Vec<&str> {
        let mut labels = self.by(Level::Rank, true);
        labels.extend(self.role.iter().chain(&self.cluster).map(AsRef::as_ref));
        labels
    }

    /// Returns the replica of a row: its pod, together with its own name if a pod may have several.
    pub(crate) fn replica_of<'a>(&self, row: &'a RowLabels<'_>) -> Option<Cow<'a, str>> {
        let pod = row.first_of(&self.pod);
        match self.replica.as_deref().and_then(|label| row.get(label)) {
            None => pod.map(Cow::Borrowed),
            Some(replica) => {
                let pod = pod.unwrap_or_default();
                Some(Cow::Owned(format!("{replica}{KEY_SEPARATOR}{pod}")))
            }
        }
    }

    /// Appends what distinguishes the server or copy of a row: its instance and the labels of `apart`.
    pub(crate) fn write_key(&self, row: &RowLabels<'_>, key: &mut String) {
        key.push_str(row.get(INSTANCE).unwrap_or_default());
        for label in &self.apart {
            key.push(KEY_SEPARATOR);
            key.push_str(row.get(label).unwrap_or_default());
        }
    }
}

/// Returns the names under which replicas are shown: their own name, or their pod or both if the own name is
/// not unique.
pub(crate) fn shown_names<'a>(replicas: &[&'a PodName]) -> HashMap<&'a PodName, PodName> {
    let parts = |name: &'a PodName| name.as_str().split_once(KEY_SEPARATOR);
    let count = |is: &dyn Fn(&str, &str) -> bool| {
        replicas.iter().filter_map(|name| parts(name)).filter(|(own, pod)| is(own, pod)).count()
    };
    let shown = |name: &'a PodName| match parts(name) {
        None => name.clone(),
        Some((own, _)) if count(&|other, _| other == own) == 1 => own.into(),
        Some((_, pod)) if count(&|_, other| other == pod) == 1 => pod.into(),
        Some((own, pod)) => format!("{pod}/{own}").into(),
    };
    replicas.iter().map(|name| (*name, shown(name))).collect()
}

/// Separates the parts of a key; no honest label contains it.
pub(crate) const KEY_SEPARATOR: char = '\u{1f}';

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::decode;

    fn boxed(names: &[&str]) -> Vec<Box<str>> {
        names.iter().map(|name| Box::from(*name)).collect()
    }

    fn labels() -> Labels {
        Labels {
            namespace: boxed(&["exported_namespace", "namespace"]),
            pod: boxed(&["exported_pod", "pod"]),
            model: boxed(&["model_name"]),
            rank: boxed(&["engine"]),
            ..Labels::default()
        }
    }

    /// Reads something from a row with these labels.
    fn of_row<T>(row: &str, read: impl Fn(&RowLabels<'_>) -> T) -> T {
        let body = format!(
            r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{{row}}},"value":[1,"1"]}}]}}}}"#
        );
        let mut made = None;
        decode(body.as_bytes(), &str::to_owned, &mut |row| made = Some(read(&row.labels))).unwrap();
        made.unwrap()
    }

    fn replica(labels: &Labels, row: &str) -> Option<String> {
        of_row(row, |row| labels.replica_of(row).map(Cow::into_owned))
    }

    #[test]
    fn the_first_label_that_a_series_has_names_its_pod() {
        let labels = labels();
        assert_eq!(replica(&labels, r#""pod":"exporter","exported_pod":"m-0""#).unwrap(), "m-0");
        assert_eq!(replica(&labels, r#""pod":"m-1""#).unwrap(), "m-1");
        assert_eq!(replica(&labels, r#""instance":"h:1""#), None);
    }

    #[test]
    fn a_replica_in_a_shared_pod_is_named_with_its_pod() {
        let labels = Labels { replica: Some("ReplicaId".into()), ..labels() };
        assert_eq!(replica(&labels, r#""pod":"node-0","ReplicaId":"a""#).unwrap(), "a\u{1f}node-0");
        assert_eq!(replica(&labels, r#""ReplicaId":"a""#).unwrap(), "a\u{1f}");
        assert_eq!(replica(&labels, r#""pod":"node-0""#).unwrap(), "node-0");
    }

    #[test]
    fn a_key_is_the_instance_and_the_labels_of_copies() {
        let key = |labels: &Labels, row: &str| {
            of_row(row, |row| {
                let mut key = String::new();
                labels.write_key(row, &mut key);
                key
            })
        };
        let row = r#""instance":"h:1","replica":"b","job":"j""#;
        assert_eq!(key(&labels(), row), "h:1");
        let apart = Labels { apart: boxed(&["replica", "zone"]), ..labels() };
        assert_eq!(key(&apart, row), "h:1\u{1f}b\u{1f}");
    }

    #[test]
    fn a_row_is_grouped_by_what_its_level_needs() {
        let labels = Labels { apart: boxed(&["replica"]), ..labels() };
        let by = |level, apart| labels.by(level, apart).join(",");
        let model = "exported_namespace,namespace,model_name";
        assert_eq!(by(Level::Model, false), model);
        assert_eq!(by(Level::Pod, false), format!("{model},exported_pod,pod"));
        assert_eq!(by(Level::Rank, false), format!("{model},exported_pod,pod,engine"));
        assert_eq!(by(Level::Model, true), format!("{model},replica,instance"));
    }

    #[test]
    fn labels_are_mixed_where_one_model_may_be_named_by_two() {
        assert!(labels().are_mixed());
        let one = Labels { namespace: boxed(&["namespace"]), ..labels() };
        assert!(!one.are_mixed(), "a pod has one row whatever names it");
        let models = Labels { model: boxed(&["model_name", "model"]), ..one };
        assert!(models.are_mixed());
    }

    #[test]
    fn a_replica_is_shown_by_its_own_name_or_by_its_pod_or_by_both() {
        let shown = |names: &[&str]| {
            let names: Vec<PodName> = names.iter().map(|name| PodName::from(*name)).collect();
            let borrowed: Vec<&PodName> = names.iter().collect();
            let shown = shown_names(&borrowed);
            names.iter().map(|name| shown[name].to_string()).collect::<Vec<_>>()
        };
        assert_eq!(shown(&["m-0", "m-1"]), ["m-0", "m-1"]);
        assert_eq!(shown(&["a\u{1f}node-0", "b\u{1f}node-0"]), ["a", "b"]);
        assert_eq!(shown(&["a\u{1f}node-0", "a\u{1f}node-1"]), ["node-0", "node-1"]);
        assert_eq!(
            shown(&["a\u{1f}node-0", "b\u{1f}node-0", "a\u{1f}node-1"]),
            ["node-0/a", "b", "node-1"]
        );
    }
}
