// SPDX-License-Identifier: Apache-2.0
//! Watches, and what breaks them.

use collector_testkit::kubernetes::fixtures::pod;
use collector_testkit::kubernetes::kinds::PODS;
use collector_testkit::kubernetes::{Cluster, Interruption};
use kube::api::WatchParams;

use super::{PodEvents, pods, status};

#[tokio::test]
async fn a_watch_sends_changes_and_bookmarks() {
    let cluster = Cluster::start().await.unwrap();
    cluster.apply(pod("chat", "old"));
    let version = cluster.resource_version().to_string();
    let mut events = PodEvents::open(&pods(&cluster), &WatchParams::default(), &version).await;
    cluster.apply(pod("chat", "new"));
    cluster.apply(pod("chat", "old").ready(true));
    cluster.delete(PODS, "chat", "new");
    cluster.bookmark();
    assert_eq!(events.next().await, "ADDED new");
    assert_eq!(events.next().await, "MODIFIED old");
    assert_eq!(events.next().await, "DELETED new");
    assert_eq!(events.next().await, format!("BOOKMARK {}", cluster.resource_version()));
}

#[tokio::test]
async fn an_expired_version_is_an_event_or_a_status() {
    let cluster = Cluster::start().await.unwrap();
    let version = cluster.resource_version().to_string();
    cluster.set_history(1);
    cluster.apply_all(["a", "b"].map(|name| pod("chat", name)));
    let pods = pods(&cluster);
    let mut events = PodEvents::open(&pods, &WatchParams::default(), &version).await;
    assert_eq!(events.next().await, "ERROR 410 Expired");
    assert_eq!(events.next().await, "end");
    cluster.refuse_expired_watches(true);
    let error = pods.watch(&WatchParams::default(), &version).await.err().unwrap();
    assert_eq!(status(error), (410, "Expired".to_owned()));
}

#[tokio::test]
async fn open_watches_are_interrupted() {
    let cluster = Cluster::start().await.unwrap();
    let pods = pods(&cluster);
    let cases = [
        (Interruption::End, "end"),
        (Interruption::Gone, "ERROR 410 Expired"),
        (Interruption::InternalError, "ERROR 500 InternalError"),
        (Interruption::Garbage, "broken"),
    ];
    for (interruption, expected) in cases {
        let mut events = PodEvents::open(&pods, &WatchParams::default(), "0").await;
        cluster.interrupt_watches(PODS, interruption);
        assert_eq!(events.next().await, expected, "{interruption:?}");
    }
}
