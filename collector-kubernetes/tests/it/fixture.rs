// SPDX-License-Identifier: Apache-2.0
//! A cluster that is watched by the crate, and what it pushes.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use collector_core::{
    Answer, Answers, Clock, LiveContext, LiveSource as _, ModelRef, Supply, UpdateSink,
};
use collector_kubernetes::{AccessQuestion, Cluster, ClusterConfig};
use collector_testkit::TokioClock;
use collector_testkit::kubernetes::{self, fixtures};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The model of all tests, and the objects that describe it.
pub(crate) const NAMESPACE: &str = "chat";

pub(crate) fn model() -> ModelRef {
    ModelRef::new("org/m", NAMESPACE)
}

/// The HPA that describes a variant of the model.
pub(crate) fn hpa(name: &str, deployment: &str) -> Value {
    fixtures::horizontal_pod_autoscaler(NAMESPACE, name, deployment)
        .annotations(&[("llm-d.ai/managed", "true"), ("llm-d.ai/model-id", "org/m")])
        .build()
}

/// A pod of the Deployment `d` that was never Ready.
pub(crate) fn starting(name: &str) -> fixtures::Pod {
    let pod = fixtures::pod(NAMESPACE, name).uid(&format!("uid-{name}"));
    pod.owner("ReplicaSet", "d-5d4f8c7b9", "replicaset-d")
        .set("/status/containerStatuses", json!([]))
}

/// A server with the model on a Deployment of some pods: `d-5d4f8c7b9-0` and so on.
pub(crate) async fn server(pods: u8) -> kubernetes::Cluster {
    let server = kubernetes::Cluster::start().await.unwrap();
    server.apply_all(fixtures::deployment(NAMESPACE, "d", pods));
    server.apply(hpa("v", "d"));
    server
}

/// The question whether an HPA's user may read a metric in a namespace.
pub(crate) fn access<'a>(
    namespace: &'a str,
    groups: &'a [String],
    extra: &'a BTreeMap<String, Vec<String>>,
) -> AccessQuestion<'a> {
    AccessQuestion {
        user: "hpa",
        uid: "",
        groups,
        extra,
        verb: "list",
        group: "external.metrics.k8s.io",
        version: "v1beta1",
        resource: "collector-queue",
        namespace,
    }
}

/// A kubeconfig for a server, with a token in a file.
pub(crate) struct Kubeconfig {
    file: NamedTempFile,
    token: NamedTempFile,
}

impl Kubeconfig {
    pub(crate) fn new(url: &str) -> Self {
        let kubeconfig =
            Self { file: NamedTempFile::new().unwrap(), token: NamedTempFile::new().unwrap() };
        kubeconfig.set_token("token");
        let text = kubernetes::kubeconfig(url, &json!({"tokenFile": kubeconfig.token.path()}));
        kubeconfig.file.as_file().write_all(text.as_bytes()).unwrap();
        kubeconfig
    }

    pub(crate) fn set_token(&self, token: &str) {
        std::fs::write(self.token.path(), token).unwrap();
    }

    pub(crate) fn config(&self) -> ClusterConfig {
        ClusterConfig { kubeconfig: Some(self.file.path().to_owned()), ..ClusterConfig::default() }
    }
}

/// The crate at work. Dropping it ends its watches.
pub(crate) struct Watching {
    pub(crate) cluster: Cluster,
    pub(crate) clock: Arc<dyn Clock>,
    pushed: Arc<Pushed>,
    task: JoinHandle<()>,
    /// The files that the client is made of, as long as they are needed.
    kubeconfig: Option<Kubeconfig>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The last answer about each model.
#[derive(Default)]
struct Pushed {
    last: Mutex<HashMap<ModelRef, Answer>>,
    news: watch::Sender<u64>,
}

impl UpdateSink for Pushed {
    fn push(&self, answers: Answers) {
        self.last.lock().unwrap().extend(answers);
        self.news.send_modify(|count| *count += 1);
    }

    fn cycle_ended(&self) {
        self.news.send_modify(|count| *count += 1);
    }
}

impl Watching {
    /// Watches a server.
    pub(crate) fn new(server: &kubernetes::Cluster) -> Self {
        let kubeconfig = Kubeconfig::new(&server.url());
        let config = kubeconfig.config();
        let mut watching = Self::with_config(config);
        watching.kubeconfig = Some(kubeconfig);
        watching
    }

    pub(crate) fn with_config(config: ClusterConfig) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
        Self::run(Cluster::new(config, Arc::clone(&clock)).unwrap(), clock)
    }

    pub(crate) fn run(cluster: Cluster, clock: Arc<dyn Clock>) -> Self {
        cluster.tracked(Arc::new([model()].into()));
        let pushed = Arc::new(Pushed::default());
        let sink = Arc::<Pushed>::clone(&pushed);
        let context = LiveContext::new(sink, Arc::clone(&clock));
        let live = cluster.clone();
        let task = tokio::spawn(async move { live.run(context).await });
        Self { cluster, clock, pushed, task, kubeconfig: None }
    }

    /// Waits until something holds of the last answer about the model.
    pub(crate) async fn wait(&self, what: &str, holds: impl Fn(&Answer) -> bool) {
        let mut news = self.pushed.news.subscribe();
        let wait = async {
            loop {
                if self.pushed.last.lock().unwrap().get(&model()).is_some_and(&holds) {
                    return;
                }
                news.changed().await.unwrap();
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(300), wait).await;
        assert!(ended.is_ok(), "expected {what}, got {:?}", self.pushed.last.lock().unwrap());
    }

    /// Waits until the pods of the model are these: `name=state`.
    pub(crate) async fn wait_for(&self, expected: &str) {
        let what = format!("the pods {expected:?}");
        self.wait(&what, |answer| shown(answer).as_deref() == Some(expected)).await;
    }

    /// Waits until the model is reported as failed, with a reason.
    pub(crate) async fn wait_for_failure(&self, reason: &str) {
        let what = format!("a failure with {reason:?}");
        let holds = |answer: &Answer| match answer {
            Answer::Failed(error) => error.to_string().contains(reason),
            _ => false,
        };
        self.wait(&what, holds).await;
    }

    /// The last answer about the model, as [`shown`] shows it.
    pub(crate) fn shown(&self) -> Option<String> {
        self.pushed.last.lock().unwrap().get(&model()).and_then(shown)
    }

    /// The age of the supply that was pushed last.
    pub(crate) fn age(&self) -> Duration {
        let last = self.pushed.last.lock().unwrap();
        match last.get(&model()) {
            Some(Answer::Found(sample)) => {
                let supply = sample.supply.as_ref().unwrap();
                assert_eq!(sample.as_of, supply.as_of);
                supply.as_of.age(self.clock.now())
            }
            other => panic!("expected a supply, got {other:?}"),
        }
    }
}

/// The pods of a supply in short; `None` for an answer without one.
pub(crate) fn shown(answer: &Answer) -> Option<String> {
    let Answer::Found(sample) = answer else { return None };
    assert!(sample.replicas.is_empty() && sample.load.is_empty());
    let supply: &Supply = sample.supply.as_ref().unwrap();
    if sample.lists_pods {
        assert!(supply.is_zero());
        return Some("none".to_owned());
    }
    let pods = supply.pods().map(|pod| {
        let name = pod.name.as_str().trim_start_matches("d-5d4f8c7b9-");
        format!("{name}={}", pod.state.as_str())
    });
    Some(pods.collect::<Vec<_>>().join(" "))
}
