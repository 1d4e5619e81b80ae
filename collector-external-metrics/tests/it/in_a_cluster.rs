// SPDX-License-Identifier: Apache-2.0
//! A variant without pods beside another one, by what a watched cluster lists: 0 for KEDA and for an HPA while that is
//! known, and an error otherwise.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use collector_core::{Backend as _, Clock, ModelSample, ReplicaMetrics};
use collector_engine::CachingCollector;
use collector_keda::api::ScaledObjectRef;
use collector_keda::{Settings, Trigger};
use collector_kubernetes::{Cluster, ClusterConfig};
use collector_testkit::certificates::Authority;
use collector_testkit::kubernetes::{self, fixtures, kinds};
use collector_testkit::{FakeBackend, TokioClock};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::time::{sleep, timeout};

use crate::fixture::{Fixture, MODEL, ScriptedCluster, model};

const OF_LOAD: [&str; 6] =
    ["queue", "running", "kv-sum", "kv-max", "saturation", "waiting-capacity"];
const OF_SUPPLY: [&str; 4] =
    ["supply-ready", "supply-starting", "supply-wanted", "supply-shortfall"];

/// The model with a pod of variant `busy`, which is measured, and variant `idle` of 0 replicas.
struct World {
    server: kubernetes::Cluster,
    fixture: Fixture,
    _kubeconfig: NamedTempFile,
}

fn hpa(name: &str) -> Value {
    let hpa = fixtures::horizontal_pod_autoscaler("prod", name, name);
    hpa.annotations(&[("llm-d.ai/managed", "true"), ("llm-d.ai/model-id", MODEL)]).build()
}

/// The Deployment `idle` with this number of wanted replicas, and no pods.
fn wanting(replicas: u8) -> Value {
    let mut deployment = fixtures::deployment("prod", "idle", 0).remove(0);
    deployment["spec"]["replicas"] = replicas.into();
    deployment
}

fn pod_of(replica_set: &str, uid: &str) -> Value {
    fixtures::pod("prod", "new").uid("new").owner("ReplicaSet", replica_set, uid).ready(true).into()
}

impl World {
    async fn start() -> Self {
        let server = kubernetes::Cluster::start().await.unwrap();
        for (name, replicas) in [("busy", 1), ("idle", 0)] {
            server.apply_all(fixtures::deployment("prod", name, replicas));
            server.apply(hpa(name));
        }
        let kubeconfig = NamedTempFile::new().unwrap();
        let text = json!({
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": server.url()}}],
            "users": [{"name": "u", "user": {}}],
        });
        kubeconfig.as_file().write_all(text.to_string().as_bytes()).unwrap();
        let path = Some(kubeconfig.path().to_owned());
        let config = ClusterConfig { kubeconfig: path, ..ClusterConfig::default() };
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
        let cluster = Cluster::new(config, Arc::clone(&clock)).unwrap();
        let backend = FakeBackend::new(Arc::clone(&clock));
        backend.serve(&model(), |as_of| {
            let mut pod = ReplicaMetrics::new("busy-5d4f8c7b9-0", as_of);
            (pod.queue_length, pod.running_requests) = (Some(3), Some(2));
            pod.kv_cache_usage = Some(0.3);
            ModelSample::new(as_of, vec![pod])
        });
        let collector = CachingCollector::builder(Arc::new(backend.clone()))
            .directory(cluster.variants().unwrap())
            .also(Arc::new(cluster))
            .clock(Arc::clone(&clock))
            .build()
            .unwrap();
        collector.start_background_worker().await.unwrap();
        let access = Arc::new(ScriptedCluster::default());
        let authority = Authority::new();
        access.trust(&authority);
        let parts = (backend, collector, clock);
        let fixture = Fixture::of(authority, access, Settings::default(), parts).await;
        Self { server, fixture, _kubeconfig: kubeconfig }
    }

    /// What KEDA gets.
    async fn keda(&self, signal: &str, variant: &str) -> Result<f64, String> {
        let metadata = [("model", MODEL), ("variant", variant), ("signal", signal)];
        let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let object = ScaledObjectRef {
            name: "o".to_owned(),
            namespace: "prod".to_owned(),
            scaler_metadata: metadata.into(),
        };
        let value = self.fixture.scaler.value(&Trigger::of(&object).unwrap()).await;
        value.map(|measured| measured.value).map_err(|refusal| refusal.text())
    }

    /// What KEDA and an HPA get, who agree.
    async fn value(&self, signal: &str, variant: &str) -> Result<f64, String> {
        let of_keda = self.keda(signal, variant).await;
        let selector = format!("model=org_chat,variant={variant}");
        let of_hpa = self.fixture.read(&format!("collector-{signal}"), &selector).await;
        match &of_keda {
            Ok(value) if *value == 0.0 => assert_eq!(of_hpa.value(), "0"),
            Ok(_) => assert_eq!(of_hpa.code, 200, "{}", of_hpa.body),
            Err(text) => assert_eq!(of_hpa.error(of_hpa.code), text),
        }
        of_keda
    }

    /// Waits until KEDA's queue of the idle variant is a number, or an error that says this.
    async fn until(&self, says: Option<&str>) {
        let is_reached = |queue: &Result<f64, String>| match (queue, says) {
            (Ok(_), says) => says.is_none(),
            (Err(text), says) => says.is_some_and(|says| text.contains(says)),
        };
        let waited = timeout(Duration::from_secs(300), async {
            while !is_reached(&self.keda("queue", "idle").await) {
                sleep(Duration::from_millis(100)).await;
            }
        });
        let ended = waited.await;
        assert!(ended.is_ok(), "expected {says:?}, got {:?}", self.keda("queue", "idle").await);
    }

    async fn is_zero(&self) {
        self.until(None).await;
        for signal in OF_LOAD.iter().chain(&OF_SUPPLY) {
            assert_eq!(self.value(signal, "idle").await, Ok(0.0), "{signal}");
        }
    }

    /// No signal of load is a number, nor is any of supply that counts pods of which there may be some.
    async fn is_unknown(&self, of_supply: &[&str], says: &str) {
        self.until(Some(says)).await;
        for signal in OF_LOAD.iter().chain(of_supply) {
            let text = self.value(signal, "idle").await.unwrap_err();
            assert!(text.contains(says) || text.contains("may have some"), "{signal}: {text}");
        }
        // The other variant is what it is.
        assert_eq!(self.value("queue", "busy").await, Ok(3.0));
    }
}

const COUNTED: [&str; 2] = ["supply-ready", "supply-starting"];

#[tokio::test(start_paused = true)]
async fn a_variant_without_pods_is_zero_beside_one_that_has_some() {
    let world = World::start().await;
    world.is_zero().await;
    assert_eq!(world.value("queue", "busy").await, Ok(3.0));
    assert_eq!(world.value("supply-ready", "busy").await, Ok(1.0));
    // It is no variant, so it has no pods either, which is not 0.
    for signal in OF_LOAD.iter().chain(&OF_SUPPLY) {
        let text = world.value(signal, "other").await.unwrap_err();
        assert!(text.contains("has no variant \"other\""), "{signal}: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_variant_that_may_have_pods_is_no_zero() {
    let world = World::start().await;
    world.is_zero().await;
    // The owner of a pod is not known yet.
    world.server.apply(pod_of("idle-new", "set"));
    world.is_unknown(&COUNTED, "no series of a pod").await;
    // Now it is, and the pod is the variant's.
    let set = fixtures::Object::new(kinds::REPLICA_SETS, "prod", "idle-new");
    world.server.apply(set.uid("set").owner("Deployment", "idle", "deployment-idle"));
    world.is_unknown(&[], "the cluster has 1 pod of it (1 ready)").await;
    assert!(world.server.delete(kinds::PODS, "prod", "new"));
    world.is_zero().await;
    // Replicas are wanted, and no pod is made yet.
    world.server.apply(wanting(2));
    world.is_unknown(&[], "no series of a pod").await;
    assert_eq!(world.value("supply-shortfall", "idle").await, Ok(2.0));
    world.server.apply(wanting(0));
    world.is_zero().await;
    // Its workload is gone: it may be made again, with pods.
    assert!(world.server.delete(kinds::DEPLOYMENTS, "prod", "idle"));
    world.is_unknown(&COUNTED, "no series of a pod").await;
}

#[tokio::test(start_paused = true)]
async fn a_variant_without_pods_is_no_zero_while_the_cluster_is_not_heard() {
    let mut world = World::start().await;
    world.is_zero().await;
    world.server.stop().await.unwrap();
    world.is_unknown(&COUNTED, "no series of a pod").await;
    world.server.resume().unwrap();
    world.is_zero().await;
}
