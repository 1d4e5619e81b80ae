// SPDX-License-Identifier: Apache-2.0
//! Lists, single objects, discovery, access and faults of requests.

use collector_testkit::kubernetes::fixtures::{deployment, pod};
use collector_testkit::kubernetes::kinds::{PODS, SCALED_OBJECTS};
use collector_testkit::kubernetes::{Cluster, Fault, Scope, Verb};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReview,
};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{ListParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, ResourceExt};
use serde_json::json;

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
    let groups = client.list_api_groups().await.unwrap().groups;
    assert!(groups.iter().any(|group| group.name == "keda.sh"));
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
        (Fault::TooManyRequests { retry_after_seconds: 7 }, 429),
        (Fault::InternalError, 500),
    ];
    for (fault, code) in cases {
        cluster.set_fault(PODS, fault);
        assert_eq!(status(pods.list(&ListParams::default()).await.unwrap_err()).0, code);
    }
    cluster.set_fault(PODS, Fault::TooManyRequests { retry_after_seconds: 7 });
    let request = http::Request::get("/api/v1/pods").body(kube::client::Body::empty()).unwrap();
    assert_eq!(
        client(&cluster).send(request).await.unwrap().headers()[http::header::RETRY_AFTER],
        "7"
    );
    cluster.set_fault(PODS, Fault::Garbage);
    let error = pods.list(&ListParams::default()).await.unwrap_err();
    assert!(matches!(error, kube::Error::SerdeError(_)), "{error:?}");
    cluster.set_fault(PODS, Fault::HalfBody);
    let error = pods.list(&ListParams::default()).await.unwrap_err();
    assert!(matches!(error, kube::Error::Service(_)), "{error:?}");
    cluster.set_fault(PODS, Fault::NoAnswer);
    let params = ListParams::default();
    let mut unanswered = Box::pin(pods.list(&params));
    let asked = cluster.counters().requests(Verb::List, PODS) + 1;
    tokio::select! {
        answer = &mut unanswered => panic!("answered: {answer:?}"),
        () = cluster.wait_for(|counters| counters.requests(Verb::List, PODS) == asked) => {}
    }
    drop(unanswered);
    cluster.clear_faults();
    pods.list(&ListParams::default()).await.unwrap();
}

#[tokio::test]
async fn the_narrowest_fault_counts() {
    let cluster = Cluster::start().await.unwrap();
    let client = client(&cluster);
    let pods: Api<Pod> = Api::all(client.clone());
    cluster.set_fault(Scope::Everything, Fault::InternalError);
    cluster.set_fault(PODS, Fault::Gone);
    cluster.set_fault(Scope::Verb(Verb::Get, PODS), Fault::Unauthorized);
    assert_eq!(status(pods.list(&ListParams::default()).await.unwrap_err()).0, 410);
    assert_eq!(
        status(Api::<Pod>::namespaced(client.clone(), "chat").get("a").await.unwrap_err()).0,
        401
    );
    assert_eq!(status(client.list_api_groups().await.unwrap_err()).0, 500);
}

#[tokio::test]
async fn selectors_choose_objects() {
    let cluster = Cluster::start().await.unwrap();
    cluster.apply(pod("chat", "a").labels(&[("app", "qwen"), ("tier", "gold")]));
    cluster.apply(pod("chat", "b").labels(&[("app", "llama")]));
    cluster.apply(pod("batch", "c"));
    let pods = pods(&cluster);
    let cases = [
        ("app=qwen", "a"),
        ("app==qwen", "a"),
        ("app!=qwen", "bc"),
        ("app in (qwen, llama)", "ab"),
        ("app notin (qwen,llama)", "c"),
        ("app", "ab"),
        ("!app", "c"),
        ("app in (qwen,llama),!tier", "b"),
        ("tier=", ""),
    ];
    for (selector, expected) in cases {
        assert_eq!(
            names(&pods, &ListParams::default().labels(selector)).await,
            expected,
            "{selector}"
        );
    }
    let cases = [
        ("metadata.name=b", "b"),
        ("metadata.name!=b", "ac"),
        ("metadata.namespace=chat,metadata.name=a", "a"),
        ("metadata.namespace==batch", "c"),
    ];
    for (selector, expected) in cases {
        assert_eq!(
            names(&pods, &ListParams::default().fields(selector)).await,
            expected,
            "{selector}"
        );
    }
    for wrong in
        [ListParams::default().labels("app>1"), ListParams::default().fields("spec.color=red")]
    {
        assert_eq!(status(pods.list(&wrong).await.unwrap_err()).0, 400);
    }
    let chat: Api<Pod> = Api::namespaced(client(&cluster), "chat");
    assert_eq!(names(&chat, &ListParams::default()).await, "ab");
}

/// The names of the listed pods, one letter each.
async fn names(pods: &Api<Pod>, params: &ListParams) -> String {
    let mut names: Vec<_> =
        pods.list(params).await.unwrap().iter().map(ResourceExt::name_any).collect();
    names.sort();
    names.concat()
}

#[tokio::test]
async fn metadata_is_listed_alone() {
    let cluster = Cluster::start().await.unwrap();
    cluster
        .apply(pod("chat", "a").annotations(&[("note", "with \u{1b}[31m control characters\n")]));
    let list = pods(&cluster).list_metadata(&ListParams::default()).await.unwrap();
    assert_eq!(list.types.kind, "PartialObjectMetadataList");
    assert_eq!(list.items[0].annotations()["note"], "with \u{1b}[31m control characters\n");
    let one = Api::<Pod>::namespaced(client(&cluster), "chat").get_metadata("a").await.unwrap();
    assert_eq!(one.types.unwrap().kind, "PartialObjectMetadata");
}

#[tokio::test]
async fn access_is_reviewed_and_enforced_by_one_rule() {
    let cluster = Cluster::start().await.unwrap();
    cluster.allow(|access| access.verb == "list" && access.namespace == "chat");
    let client = client(&cluster);
    let review = |namespace: &str| {
        let attributes = ResourceAttributes {
            verb: Some("list".to_owned()),
            resource: Some("pods".to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..Default::default()
        };
        SelfSubjectAccessReview { spec, ..Default::default() }
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    for (namespace, allowed) in [("chat", true), ("", false)] {
        let answer = reviews.create(&PostParams::default(), &review(namespace)).await.unwrap();
        assert_eq!(answer.status.unwrap().allowed, allowed, "{namespace:?}");
    }
    let asked: Vec<String> =
        cluster.access_reviews().into_iter().map(|access| access.namespace).collect();
    assert_eq!(asked, ["chat", ""]);
    let other = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "metadata": {},
        "spec": { "user": "alice", "nonResourceAttributes": { "path": "/metrics", "verb": "get" } },
    });
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let answer = reviews
        .create(&PostParams::default(), &serde_json::from_value(other).unwrap())
        .await
        .unwrap();
    assert!(!answer.status.unwrap().allowed);
    let asked = cluster.access_reviews().pop().unwrap();
    assert_eq!([asked.user, asked.verb, asked.path], ["alice", "get", "/metrics"]);
    Api::<Pod>::namespaced(client.clone(), "chat").list(&ListParams::default()).await.unwrap();
    let kube::Error::Api(refused) =
        Api::<Pod>::all(client).list(&ListParams::default()).await.unwrap_err()
    else {
        panic!("not a status");
    };
    assert_eq!(
        refused.message,
        "pods is forbidden: User \"system:serviceaccount:monitoring:collector\" cannot list resource \"pods\" \
         in API group \"\" at the cluster scope"
    );
}

#[tokio::test]
async fn the_authentication_of_front_proxies_is_there() {
    let cluster = Cluster::start().await.unwrap();
    let config_maps: Api<ConfigMap> = Api::namespaced(client(&cluster), "kube-system");
    let config_map = config_maps.get("extension-apiserver-authentication").await.unwrap();
    assert!(config_map.data.unwrap().contains_key("requestheader-username-headers"));
}

#[tokio::test]
async fn held_pages_wait_for_their_release() {
    let cluster = Cluster::start().await.unwrap();
    cluster.apply(pod("chat", "a"));
    let held = cluster.hold_pages(PODS);
    let pods = pods(&cluster);
    let params = ListParams::default();
    let mut list = Box::pin(pods.list(&params));
    tokio::select! {
        answer = &mut list => panic!("answered: {answer:?}"),
        () = cluster.wait_for(|counters| counters.held_pages(PODS) == 1) => {}
    }
    held.release(1);
    assert_eq!(list.await.unwrap().items.len(), 1);
    assert_eq!(cluster.counters().held_pages(PODS), 0);
    // One release is for one page; without the handle no page is held.
    let mut list = Box::pin(pods.list(&params));
    tokio::select! {
        answer = &mut list => panic!("answered: {answer:?}"),
        () = cluster.wait_for(|counters| counters.held_pages(PODS) == 1) => {}
    }
    drop(held);
    list.await.unwrap();
    pods.list(&params).await.unwrap();
}

#[tokio::test]
async fn ten_thousand_pods_are_listed_in_pages() {
    let cluster = Cluster::start().await.unwrap();
    cluster.apply_all((0..10_000).map(|n| pod("chat", &format!("pod-{n}")).ready(true)));
    let pods = pods(&cluster);
    let (mut listed, mut params) = (0, ListParams::default().limit(500));
    loop {
        let page = pods.list(&params).await.unwrap();
        listed += page.items.len();
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    assert_eq!(listed, 10_000);
    assert_eq!(cluster.counters().requests(Verb::List, PODS), 20);
}
