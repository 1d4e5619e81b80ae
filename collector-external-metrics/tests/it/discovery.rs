// SPDX-License-Identifier: Apache-2.0
//! The documents that the API server and its clients look for.

use collector_keda::Signal;
use serde_json::json;

use crate::fixture::{Down, Fixture, ROOT};

#[tokio::test]
async fn the_documents_of_discovery_are_those_of_kubernetes() {
    let fixture = Fixture::start().await;
    fixture.client.get(ROOT).await;
    // A user without any rights reads them too, and the cluster is not asked.
    fixture.cluster.is(Some(Down::Refuses));
    let version = json!({"groupVersion": "external.metrics.k8s.io/v1beta1", "version": "v1beta1"});
    let group = json!({
        "name": "external.metrics.k8s.io", "versions": [version], "preferredVersion": version
    });
    let answer = fixture.client.get("/apis").await;
    assert_eq!(answer.body, json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]}));
    let answer = fixture.client.get("/apis/external.metrics.k8s.io").await;
    let mut expected = group;
    expected["kind"] = "APIGroup".into();
    expected["apiVersion"] = "v1".into();
    assert_eq!(answer.body, expected);
    for path in [ROOT, &format!("{ROOT}/"), &format!("{ROOT}?timeout=32s")] {
        let answer = fixture.client.get(path).await;
        assert_eq!((answer.code, &answer.body["kind"]), (200, &"APIResourceList".into()), "{path}");
        assert_eq!(answer.body["groupVersion"], "external.metrics.k8s.io/v1beta1");
        let resources = answer.body["resources"].as_array().unwrap();
        assert_eq!(resources.len(), Signal::NAMES.len());
        assert_eq!(
            resources[0],
            json!({
                "name": "collector-queue", "singularName": "", "namespaced": true,
                "kind": "ExternalMetricValueList", "verbs": ["get"]
            })
        );
    }
    fixture.client.get("/apis/external.metrics.k8s.io/v1").await.error(404);
    fixture.client.get("/apis/custom.metrics.k8s.io").await.error(404);
}
