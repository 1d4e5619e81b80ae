// SPDX-License-Identifier: Apache-2.0
//! The fixtures are objects that typed clients read.

use collector_testkit::kubernetes::Cluster;
use collector_testkit::kubernetes::fixtures::{
    Object, horizontal_pod_autoscaler, inference_pool, pod, scaled_object,
};
use collector_testkit::kubernetes::kinds::{API_SERVICES, INFERENCE_POOLS, Kind, SCALED_OBJECTS};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, ResourceExt};

use super::client;

#[tokio::test]
async fn a_pod_has_what_was_built() {
    let cluster = Cluster::start().await.unwrap();
    let starting = pod("chat", "a")
        .owner("LeaderWorkerSet", "large", "lws-1")
        .port("http", 8000)
        .port("metrics", 9090);
    cluster.apply(starting.clone());
    let pods: Api<Pod> = Api::namespaced(client(&cluster), "chat");
    let read = pods.get("a").await.unwrap();
    let owner = &read.owner_references()[0];
    assert_eq!(
        (owner.api_version.as_str(), owner.controller),
        ("leaderworkerset.x-k8s.io/v1", Some(true))
    );
    let ports = read.spec.as_ref().unwrap().containers[0].ports.as_ref().unwrap();
    assert_eq!(ports.iter().map(|port| port.container_port).collect::<Vec<_>>(), [8000, 9090]);
    assert!(!is_ready(&read) && read.metadata.deletion_timestamp.is_none());

    cluster.apply(starting.ready(true).ip("10.1.2.3").terminating().phase("Succeeded"));
    let changed = pods.get("a").await.unwrap();
    assert!(is_ready(&changed) && changed.metadata.deletion_timestamp.is_some());
    assert_eq!(
        (changed.uid(), changed.creation_timestamp()),
        (read.uid(), read.creation_timestamp())
    );
    let status = changed.status.unwrap();
    assert_eq!(
        (status.pod_ip.unwrap(), status.phase.unwrap()),
        ("10.1.2.3".to_owned(), "Succeeded".to_owned())
    );
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref()).unwrap();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[tokio::test]
async fn autoscalers_name_their_target() {
    let cluster = Cluster::start().await.unwrap();
    let annotations = [("collector.io/model", "qwen")];
    cluster.apply(horizontal_pod_autoscaler("chat", "qwen", "qwen").annotations(&annotations));
    cluster.apply(scaled_object("chat", "qwen", "qwen").annotations(&annotations));
    let hpa: HorizontalPodAutoscaler =
        Api::namespaced(client(&cluster), "chat").get("qwen").await.unwrap();
    assert_eq!(hpa.spec.as_ref().unwrap().scale_target_ref.name, "qwen");
    assert_eq!(hpa.annotations()["collector.io/model"], "qwen");
    assert_eq!(
        custom(&cluster, SCALED_OBJECTS, "qwen").await.data["spec"]["scaleTargetRef"]["kind"],
        "Deployment"
    );
}

#[tokio::test]
async fn a_pool_selects_pods() {
    let cluster = Cluster::start().await.unwrap();
    cluster.apply(inference_pool("chat", "qwen", &[("app", "qwen")], 8000, "qwen-epp"));
    let pool = custom(&cluster, INFERENCE_POOLS, "qwen").await;
    assert_eq!(pool.data["spec"]["selector"]["matchLabels"]["app"], "qwen");
    assert_eq!(pool.data["spec"]["targetPorts"][0]["number"], 8000);
}

async fn custom(cluster: &Cluster, kind: Kind, name: &str) -> DynamicObject {
    let resource =
        ApiResource::from_gvk(&GroupVersionKind::gvk(kind.group, kind.version, kind.kind));
    Api::namespaced_with(client(cluster), "chat", &resource).get(name).await.unwrap()
}

#[tokio::test]
async fn an_object_without_a_namespace_is_read() {
    let cluster = Cluster::start().await.unwrap();
    let spec = [("/spec/group", "external.metrics.k8s.io"), ("/spec/version", "v1beta1")];
    let service = spec.into_iter().fold(
        Object::new(API_SERVICES, "", "v1beta1.external.metrics.k8s.io"),
        |service, (field, value)| service.set(field, value),
    );
    cluster.apply(service.set("/spec/groupPriorityMinimum", 100).set("/spec/versionPriority", 100));
    let services: Api<APIService> = Api::all(client(&cluster));
    let read = services.get("v1beta1.external.metrics.k8s.io").await.unwrap();
    assert_eq!(read.spec.unwrap().group.as_deref(), Some("external.metrics.k8s.io"));
}
