// SPDX-License-Identifier: Apache-2.0
//! Lists, single objects, discovery, access and faults of requests.

use collector_testkit::kubernetes::fixtures::{deployment, pod};
use collector_testkit::kubernetes::kinds::{PODS, SCALED_OBJECTS};
use collector_testkit::kubernetes::{Cluster, Fault, Verb};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, ResourceExt};

use super::{client, client_with_token, pods, status};

#[tokio::test]
async fn pages_are_of_one_version() {
    let cluster = Cluster::start().await.unwrap();
    cluster.apply_all((0..5).map(|n| pod("chat", &format!("pod-{n}"))));
    let version = cluster.resource_version().to_string();
    let pods = pods(&cluster);
    let first = pods.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!(
        first.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(),
        ["pod-0", "pod-1"]
    );
    assert_eq!(first.metadata.remaining_item_count, Some(3));
    // Later pages do not see this.
    cluster.delete(PODS, "chat", "pod-3");
    let token = first.metadata.continue_.unwrap();
    let second = pods.list(&ListParams::default().limit(2).continue_token(&token)).await.unwrap();
    assert_eq!(
        second.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(),
        ["pod-2", "pod-3"]
    );
    assert_eq!(second.metadata.resource_version.as_deref(), Some(version.as_str()));
    let third = ListParams::default().limit(2).continue_token(&second.metadata.continue_.unwrap());
    let last = pods.list(&third).await.unwrap();
    assert_eq!(last.items.len(), 1);
    assert_eq!(last.metadata.continue_, None);
    cluster.expire_continue_tokens();
    assert_eq!(status(pods.list(&third).await.unwrap_err()), (410, "Expired".to_owned()));
    assert_eq!(cluster.counters().requests(Verb::List, PODS), 4);
    assert_eq!(cluster.counters().objects_sent(PODS), 5);
}

#[tokio::test]
async fn an_expired_token_is_refused_and_a_new_one_is_accepted() {
    let cluster = Cluster::start().await.unwrap();
    cluster.accept_tokens(["first"]);
    let first: Api<Pod> = Api::all(client_with_token(&cluster, "first"));
    first.list(&ListParams::default()).await.unwrap();
    cluster.accept_tokens(["second"]);
    assert_eq!(
        status(first.list(&ListParams::default()).await.unwrap_err()),
        (401, "Unauthorized".to_owned())
    );
    let second: Api<Pod> = Api::all(client_with_token(&cluster, "second"));
    second.list(&ListParams::default()).await.unwrap();
}

#[tokio::test]
async fn a_kind_that_is_not_served_is_unknown_until_it_is() {
    let cluster = Cluster::start().await.unwrap();
    cluster.stop_serving(SCALED_OBJECTS);
    let client = client(&cluster);
    let resource =
        ApiResource::from_gvk(&GroupVersionKind::gvk("keda.sh", "v1alpha1", "ScaledObject"));
    let scaled_objects: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let error = scaled_objects.list(&ListParams::default()).await.unwrap_err();
    assert_eq!(status(error), (404, "Failed to parse error data".to_owned()));
    assert_eq!(
        status(client.list_api_group_resources("keda.sh/v1alpha1").await.unwrap_err()).0,
        404
    );
    let groups = client.list_api_groups().await.unwrap().groups;
    assert!(
        groups.iter().any(|group| group.name == "apps")
            && groups.iter().all(|group| group.name != "keda.sh")
    );
    cluster.serve(SCALED_OBJECTS);
    assert!(scaled_objects.list(&ListParams::default()).await.unwrap().items.is_empty());
    let served = client.list_api_group_resources("keda.sh/v1alpha1").await.unwrap();
    assert_eq!(served.resources[0].name, "scaledobjects");
    assert_eq!(client.list_core_api_versions().await.unwrap().versions, ["v1"]);
    assert_eq!(client.apiserver_version().await.unwrap().minor, "33");
}

#[tokio::test]
async fn a_deployment_is_read_with_its_pods() {
    let cluster = Cluster::start().await.unwrap();
    cluster.apply_all(deployment("chat", "qwen", 2));
    let deployment =
        Api::<Deployment>::namespaced(client(&cluster), "chat").get("qwen").await.unwrap();
    assert_eq!(deployment.spec.unwrap().replicas, Some(2));
    let pods = pods(&cluster).list(&ListParams::default().labels("app=qwen")).await.unwrap();
    assert_eq!(pods.items.len(), 2);
    let owner = &pods.items[0].metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((owner.kind.as_str(), owner.uid.as_str()), ("ReplicaSet", "replicaset-qwen"));
    let missing =
        Api::<Deployment>::namespaced(client(&cluster), "chat").get("llama").await.unwrap_err();
    assert_eq!(status(missing), (404, "NotFound".to_owned()));
}

#[tokio::test]
async fn faults_are_answered_until_they_are_cleared() {
    let cluster = Cluster::start().await.unwrap();
    let pods = pods(&cluster);
    let cases = [
        (Fault::Unauthorized, 401),
        (Fault::Forbidden, 403),
        (Fault::Gone, 410),
        (Fault::InternalError, 500),
    ];
    for (fault, code) in cases {
        cluster.set_fault(PODS, fault);
        assert_eq!(status(pods.list(&ListParams::default()).await.unwrap_err()).0, code);
    }
    cluster.set_fault(PODS, Fault::Garbage);
    let error = pods.list(&ListParams::default()).await.unwrap_err();
    assert!(matches!(error, kube::Error::SerdeError(_)), "{error:?}");
    cluster.set_fault(PODS, Fault::HalfBody);
    let error = pods.list(&ListParams::default()).await.unwrap_err();
    assert!(matches!(error, kube::Error::Service(_)), "{error:?}");
    cluster.clear_faults();
    pods.list(&ListParams::default()).await.unwrap();
}
