// SPDX-License-Identifier: Apache-2.0
//! What `check` asks the API server beside the lists.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use collector_core::{Clock as _, ErrorKind, SystemClock};
use collector_kubernetes::{AccessAnswer, ApiKind, Cluster, ClusterConfig, Permission};
use collector_testkit::TokioClock;
use collector_testkit::kubernetes::{self, Fault, Scope, Verb, fixtures, kinds};

use crate::fixture::{Kubeconfig, access, hpa, starting};

struct Fixture {
    server: kubernetes::Cluster,
    cluster: Cluster,
    /// The files that the client is made of.
    kubeconfig: Kubeconfig,
}

impl Fixture {
    async fn new() -> Self {
        Self::of(&[]).await
    }

    async fn of(namespaces: &[&str]) -> Self {
        let server = kubernetes::Cluster::start().await.unwrap();
        let kubeconfig = Kubeconfig::new(&server.url());
        let namespaces = namespaces.iter().map(|name| (*name).into()).collect();
        let config = ClusterConfig { namespaces, ..kubeconfig.config() };
        let cluster = Cluster::new(config, Arc::new(TokioClock::new())).unwrap();
        Self { server, cluster, kubeconfig }
    }

    fn kind(name: &str) -> ApiKind {
        ApiKind::all().find(|kind| kind.kind() == name).unwrap()
    }
}

#[tokio::test]
async fn the_api_server_tells_its_version_its_address_and_its_time() {
    let fixture = Fixture::new().await;
    let server = fixture.cluster.api_server().await.unwrap();
    assert_eq!(server.version, "v1.33.0");
    assert_eq!(server.address, Some(fixture.server.url()));
    let apart = SystemClock::new().wall().duration_since(server.time.unwrap()).unwrap_or_default();
    assert!(apart < Duration::from_secs(60), "{apart:?}");
    fixture.server.accept_tokens(["token"]);
    fixture.cluster.api_server().await.unwrap();
    fixture.server.accept_tokens(["other"]);
    let error = fixture.cluster.api_server().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    drop(fixture.kubeconfig);
}

#[tokio::test(start_paused = true)]
async fn a_question_without_an_answer_ends_after_5_s() {
    let fixture = Fixture::new().await;
    fixture.server.set_fault(Scope::Everything, Fault::NoAnswer);
    let began = tokio::time::Instant::now();
    let error = fixture.cluster.api_server().await.unwrap_err();
    assert_eq!((error.kind(), began.elapsed().as_secs()), (ErrorKind::Timeout, 5));
    for fault in [Fault::Garbage, Fault::HalfBody] {
        fixture.server.set_fault(Scope::Everything, fault);
        let kind = fixture.cluster.api_server().await.unwrap_err().kind();
        assert!(matches!(kind, ErrorKind::BadAnswer | ErrorKind::Disconnected), "{kind:?}");
        assert!(fixture.cluster.served(Fixture::kind("Pod")).await.is_err());
        assert!(fixture.cluster.autoscalers(true, 10).await.is_err());
    }
}

#[tokio::test]
async fn a_kind_is_served_in_the_version_that_there_is() {
    let fixture = Fixture::new().await;
    let served = async |kind| fixture.cluster.served(Fixture::kind(kind)).await.unwrap();
    assert_eq!(served("Pod").await, Some("/api/v1"));
    let alpha = "/apis/serving.kserve.io/v1alpha1";
    assert_eq!(served("LLMInferenceService").await, Some(alpha));
    fixture.server.stop_serving(kinds::LLM_INFERENCE_SERVICES);
    assert_eq!(served("LLMInferenceService").await, None);
}

#[tokio::test]
async fn a_permission_is_asked_for_with_all_of_its_attributes() {
    let fixture = Fixture::new().await;
    fixture.server.allow(|access| access.namespace == "chat");
    let mut permission = Permission {
        verb: "list",
        group: "apps",
        resource: "deployments",
        namespace: Some("chat".into()),
        name: Some("d"),
    };
    assert!(fixture.cluster.may(&permission).await.unwrap());
    permission.namespace = None;
    assert!(!fixture.cluster.may(&permission).await.unwrap());
    let asked = &fixture.server.access_reviews()[0];
    let attributes = [&asked.verb, &asked.group, &asked.resource, &asked.namespace, &asked.name];
    assert_eq!(attributes, ["list", "apps", "deployments", "chat", "d"]);
}

#[tokio::test]
async fn autoscalers_are_read_page_by_page_up_to_a_limit() {
    let fixture = Fixture::new().await;
    fixture.server.apply_all((0..250).map(|n| hpa(&format!("v-{n}"), "d")));
    let all = fixture.cluster.autoscalers(false, 300).await.unwrap();
    assert_eq!((all.objects.len(), all.has_more), (250, false));
    assert_eq!(all.objects[0]["kind"], "HorizontalPodAutoscaler");
    assert_eq!(all.objects[0]["apiVersion"], "autoscaling/v2");
    let kind = kinds::HORIZONTAL_POD_AUTOSCALERS;
    assert_eq!(fixture.server.counters().requests(Verb::List, kind), 3);
    let some = fixture.cluster.autoscalers(false, 120).await.unwrap();
    assert_eq!((some.objects.len(), some.has_more), (120, true));
    fixture.server.stop_serving(kinds::SCALED_OBJECTS);
    assert_eq!(fixture.cluster.autoscalers(true, 300).await.unwrap().objects.len(), 0);

    let narrow = Fixture::of(&["other", "chat"]).await;
    narrow.server.apply(hpa("v", "d"));
    narrow.server.apply(fixtures::horizontal_pod_autoscaler("third", "v", "d"));
    assert_eq!(narrow.cluster.autoscalers(false, 300).await.unwrap().objects.len(), 1);
}

#[tokio::test]
async fn variants_and_pods_are_listed_with_what_they_belong_to() {
    let fixture = Fixture::new().await;
    fixture.server.apply_all(fixtures::deployment("chat", "d", 1));
    fixture.server.apply(
        starting("d-5d4f8c7b9-new").set("/metadata/creationTimestamp", "2026-01-01T00:00:00Z"),
    );
    let mut object = hpa("v", "d");
    object["metadata"]["annotations"]["llm-d.ai/role"] = "decode".into();
    fixture.server.apply(object);
    fixture.cluster.refresh(Duration::from_secs(60)).await.unwrap();
    let variants = fixture.cluster.listed_variants();
    let [variant] = &variants[..] else { panic!("{variants:?}") };
    assert_eq!(variant.described_by, "HorizontalPodAutoscaler");
    assert_eq!((&*variant.target_kind, &*variant.target_name), ("Deployment", "d"));
    assert_eq!((variant.role.as_deref(), variant.workload.wanted), (Some("decode"), Some(1)));
    let pods = fixture.cluster.listed_pods();
    let shown: Vec<_> = pods.iter().map(|pod| (pod.name.as_str(), pod.state.as_str())).collect();
    assert_eq!(shown, [("d-5d4f8c7b9-0", "ready"), ("d-5d4f8c7b9-new", "starting")]);
    let changed = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    // When its condition became true, and when it was made.
    assert_eq!(
        [pods[0].changed, pods[1].changed],
        [changed(1_767_225_660), changed(1_767_225_600)]
    );
    fixture.server.set_fault(kinds::DEPLOYMENTS, Fault::Forbidden);
    let error = fixture.cluster.refresh(Duration::from_secs(60)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Forbidden);
}

#[tokio::test]
async fn the_api_server_says_what_a_user_may_do() {
    let Fixture { mut server, cluster, kubeconfig } = Fixture::new().await;
    server.allow(|access| access.namespace != "secret");
    let (groups, extra) =
        (["a".to_owned()], BTreeMap::from([("scopes".to_owned(), vec!["x".to_owned()])]));
    let question = |namespace| access(namespace, &groups, &extra);
    let answer = cluster.review_access(&question("prod")).await.unwrap();
    assert_eq!(answer, AccessAnswer { is_allowed: true, reason: String::new() });
    let answer = cluster.review_access(&question("secret")).await.unwrap();
    assert_eq!((answer.is_allowed, answer.reason.is_empty()), (false, false));
    let asked = server.access_reviews().pop().unwrap();
    assert_eq!((asked.user.as_str(), asked.verb.as_str()), ("hpa", "list"));
    assert_eq!(
        (asked.group.as_str(), asked.resource.as_str()),
        ("external.metrics.k8s.io", "collector-queue")
    );
    assert_eq!((asked.namespace.as_str(), asked.name.as_str()), ("secret", ""));
    server.stop().await.unwrap();
    cluster.review_access(&question("prod")).await.unwrap_err();
    drop(kubeconfig);
}
