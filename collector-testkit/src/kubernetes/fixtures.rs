// SPDX-License-Identifier: Apache-2.0
//! Objects for tests, with what the collector reads of them.

use serde_json::{Value, json};

use super::kinds::{self, Kind};

/// An object that is being built.
#[derive(Clone, Debug)]
pub struct Object(Value);

impl From<Object> for Value {
    fn from(object: Object) -> Self {
        object.0
    }
}

impl Object {
    /// An object of a kind with its name alone.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        let mut metadata = json!({ "name": name });
        if kind.namespaced {
            metadata["namespace"] = json!(namespace);
        }
        Self(json!({ "apiVersion": kind.api_version(), "kind": kind.kind, "metadata": metadata }))
    }

    /// Sets a field by its JSON pointer, as `/spec/replicas`; objects on the way are created.
    pub fn set(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        let mut field = &mut self.0;
        for part in pointer.split('/').skip(1) {
            field = &mut field[part.replace("~1", "/").replace("~0", "~").as_str()];
        }
        *field = value.into();
        self
    }

    /// Sets the uid.
    pub fn uid(self, uid: &str) -> Self {
        self.set("/metadata/uid", uid)
    }

    /// Sets all labels.
    pub fn labels(self, labels: &[(&str, &str)]) -> Self {
        self.set("/metadata/labels", map(labels))
    }

    /// Sets all annotations.
    pub fn annotations(self, annotations: &[(&str, &str)]) -> Self {
        self.set("/metadata/annotations", map(annotations))
    }

    /// Adds the controller that owns the object.
    ///
    /// # Panics
    /// If no kind of [`kinds::ALL`] is called so.
    pub fn owner(mut self, kind: &str, name: &str, uid: &str) -> Self {
        let Some(known) = kinds::ALL.iter().find(|known| known.kind == kind) else {
            panic!("no kind is called {kind}");
        };
        let owner = json!({
            "apiVersion": known.api_version(),
            "kind": kind,
            "name": name,
            "uid": uid,
            "controller": true,
            "blockOwnerDeletion": true,
        });
        push(&mut self.0["metadata"]["ownerReferences"], owner);
        self
    }

    /// Marks the object as deleted, and not gone yet.
    pub fn terminating(self) -> Self {
        self.set("/metadata/deletionTimestamp", "2026-01-01T00:10:00Z")
            .set("/metadata/deletionGracePeriodSeconds", 30)
    }

    /// The object as JSON.
    pub fn build(self) -> Value {
        self.0
    }
}

/// A pod that is being built: it runs, and is not ready yet.
#[derive(Clone, Debug)]
pub struct Pod(Object);

impl From<Pod> for Value {
    fn from(pod: Pod) -> Self {
        pod.0.build()
    }
}

/// A running pod with one container, `server`, that is not ready and has no address.
pub fn pod(namespace: &str, name: &str) -> Pod {
    let object = Object::new(kinds::PODS, namespace, name)
        .set("/spec", json!({ "nodeName": "node-0", "containers": [{ "name": "server", "image": "server:1" }] }))
        .set("/status", json!({ "phase": "Running" }));
    Pod(object).ready(false)
}

impl Pod {
    /// Sets the uid.
    pub fn uid(self, uid: &str) -> Self {
        Self(self.0.uid(uid))
    }

    /// Sets all labels.
    pub fn labels(self, labels: &[(&str, &str)]) -> Self {
        Self(self.0.labels(labels))
    }

    /// Sets all annotations.
    pub fn annotations(self, annotations: &[(&str, &str)]) -> Self {
        Self(self.0.annotations(annotations))
    }

    /// Adds the controller that owns the pod, as `ReplicaSet`.
    ///
    /// # Panics
    /// If no kind of [`kinds::ALL`] is called so.
    pub fn owner(self, kind: &str, name: &str, uid: &str) -> Self {
        Self(self.0.owner(kind, name, uid))
    }

    /// Sets whether the pod is ready, in its condition and its container's status.
    pub fn ready(self, ready: bool) -> Self {
        let condition = |kind: &str| {
            json!({
                "type": kind,
                "status": if ready { "True" } else { "False" },
                "lastTransitionTime": "2026-01-01T00:01:00Z",
            })
        };
        let container = json!({
            "name": "server",
            "image": "server:1",
            "imageID": "",
            "ready": ready,
            "started": ready,
            "restartCount": 0,
            "state": { "running": { "startedAt": "2026-01-01T00:00:30Z" } },
        });
        let conditions = json!([condition("Ready"), condition("ContainersReady")]);
        self.set("/status/conditions", conditions)
            .set("/status/containerStatuses", json!([container]))
    }

    /// Sets the phase, as `Pending`.
    pub fn phase(self, phase: &str) -> Self {
        self.set("/status/phase", phase)
    }

    /// Marks the pod as deleted, and not gone yet.
    pub fn terminating(self) -> Self {
        Self(self.0.terminating())
    }

    /// Sets the address.
    pub fn ip(self, ip: &str) -> Self {
        self.set("/status/podIP", ip).set("/status/podIPs", json!([{ "ip": ip }]))
    }

    /// Adds a named port to the container.
    pub fn port(mut self, name: &str, number: u16) -> Self {
        let port = json!({ "name": name, "containerPort": number, "protocol": "TCP" });
        push(&mut self.0.0["spec"]["containers"][0]["ports"], port);
        self
    }

    /// Sets any field, as [`Object::set`].
    pub fn set(self, pointer: &str, value: impl Into<Value>) -> Self {
        Self(self.0.set(pointer, value))
    }
}

/// A deployment, its replica set and its pods, in this order. Labels select the pods: `app` is the deployment's name.
///
/// The uids are `deployment-NAME`, `replicaset-NAME` and `pod-NAME-N`; the pods are ready, and have addresses.
pub fn deployment(namespace: &str, name: &str, replicas: u8) -> Vec<Value> {
    let set = format!("{name}-5d4f8c7b9");
    let (deployment_uid, set_uid) = (format!("deployment-{name}"), format!("replicaset-{name}"));
    let labels = [("app", name)];
    let scale = json!({ "replicas": replicas, "selector": { "matchLabels": { "app": name } } });
    let status =
        json!({ "replicas": replicas, "readyReplicas": replicas, "observedGeneration": 1 });
    let workload = |kind: Kind, name: &str, uid: &str| {
        let object = Object::new(kind, namespace, name).uid(uid).labels(&labels);
        object.set("/spec", scale.clone()).set("/status", status.clone())
    };
    let pods = (0..replicas).map(|n| {
        let pod =
            pod(namespace, &format!("{set}-{n}")).uid(&format!("pod-{name}-{n}")).labels(&labels);
        let pod = pod.owner("ReplicaSet", &set, &set_uid).ready(true).ip(&format!("10.0.0.{n}"));
        pod.port("http", 8000).into()
    });
    let owned =
        workload(kinds::REPLICA_SETS, &set, &set_uid).owner("Deployment", name, &deployment_uid);
    [workload(kinds::DEPLOYMENTS, name, &deployment_uid).build(), owned.build()]
        .into_iter()
        .chain(pods)
        .collect()
}

/// A horizontal pod autoscaler of a deployment, without metrics.
pub fn horizontal_pod_autoscaler(namespace: &str, name: &str, deployment: &str) -> Object {
    Object::new(kinds::HORIZONTAL_POD_AUTOSCALERS, namespace, name)
        .set(
            "/spec/scaleTargetRef",
            json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": deployment }),
        )
        .set("/spec/minReplicas", 1)
        .set("/spec/maxReplicas", 10)
}

/// A scaled object of a deployment, without triggers.
pub fn scaled_object(namespace: &str, name: &str, deployment: &str) -> Object {
    Object::new(kinds::SCALED_OBJECTS, namespace, name)
        .set(
            "/spec/scaleTargetRef",
            json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": deployment }),
        )
        .set("/spec/triggers", json!([]))
}

/// An inference pool that selects pods by labels and sends to a port of theirs, with its Endpoint Picker.
pub fn inference_pool(
    namespace: &str,
    name: &str,
    pods: &[(&str, &str)],
    port: u16,
    endpoint_picker: &str,
) -> Object {
    Object::new(kinds::INFERENCE_POOLS, namespace, name)
        .set("/spec/selector/matchLabels", map(pods))
        .set("/spec/targetPorts", json!([{ "number": port }]))
        .set(
            "/spec/endpointPickerRef",
            json!({ "group": "", "kind": "Service", "name": endpoint_picker, "port": { "number": 9002 } }),
        )
}

/// The config map of every cluster that tells an aggregated API which front proxy to trust.
pub(super) fn extension_apiserver_authentication() -> Object {
    let data = [
        ("requestheader-allowed-names", r#"["front-proxy-client"]"#),
        ("requestheader-extra-headers-prefix", r#"["X-Remote-Extra-"]"#),
        ("requestheader-group-headers", r#"["X-Remote-Group"]"#),
        ("requestheader-username-headers", r#"["X-Remote-User"]"#),
    ];
    Object::new(kinds::CONFIG_MAPS, "kube-system", "extension-apiserver-authentication")
        .set("/data", map(&data))
}

fn map(entries: &[(&str, &str)]) -> Value {
    Value::Object(entries.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect())
}

/// Appends to a list that may be absent.
fn push(list: &mut Value, item: Value) {
    match list {
        Value::Array(items) => items.push(item),
        _ => *list = json!([item]),
    }
}
