// SPDX-License-Identifier: Apache-2.0
//! Watches, and what breaks them.

use std::time::Duration;

use collector_testkit::kubernetes::fixtures::pod;
use collector_testkit::kubernetes::kinds::PODS;
use collector_testkit::kubernetes::{Cluster, Fault, Interruption, Scope, Verb};
use futures_util::AsyncReadExt;
use kube::api::{ListParams, VersionMatch, WatchParams};

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

#[tokio::test]
async fn half_an_event_breaks_the_connection() {
    let cluster = Cluster::start().await.unwrap();
    let (pods, url) = (pods(&cluster), format!("{}/api/v1/pods?watch=true", cluster.url()));
    for interruption in [Interruption::HalfEvent, Interruption::BrokenConnection] {
        let mut events = PodEvents::open(&pods, &WatchParams::default(), "0").await;
        cluster.interrupt_watches(PODS, interruption);
        // The client takes half an event for the end.
        assert_eq!(events.next().await, "end", "{interruption:?}");
    }
    assert_eq!(raw_watch(&cluster, &url, Interruption::HalfEvent).await, HALF_EVENT);
    assert_eq!(raw_watch(&cluster, &url, Interruption::BrokenConnection).await, "");
    cluster.set_fault(Scope::Verb(Verb::Watch, PODS), Fault::HalfBody);
    let mut events = PodEvents::open(&pods, &WatchParams::default(), "0").await;
    assert_eq!(events.next().await, "end");
}

const HALF_EVENT: &str = r#"{"type":"MODIFIED","object":{"metadata":{"name":"half-"#;

/// What a watch sends until it breaks.
async fn raw_watch(cluster: &Cluster, url: &str, interruption: Interruption) -> String {
    let request = http::Request::get(url).body(Vec::new()).unwrap();
    let mut lines = Box::pin(super::client(cluster).request_stream(request).await.unwrap());
    cluster.interrupt_watches(PODS, interruption);
    let mut read = Vec::new();
    lines.read_to_end(&mut read).await.unwrap_err();
    String::from_utf8(read).unwrap()
}

#[tokio::test]
async fn a_silent_watch_sends_nothing_until_the_fault_is_cleared() {
    let cluster = Cluster::start().await.unwrap();
    let (pods, version) = (pods(&cluster), cluster.resource_version().to_string());
    let mut open = PodEvents::open(&pods, &WatchParams::default(), &version).await;
    cluster.set_fault(PODS, Fault::SilentWatch);
    let mut new = PodEvents::open(&pods, &WatchParams::default(), &version).await;
    cluster.apply(pod("chat", "a"));
    cluster.bookmark();
    // A list goes through the server meanwhile, so an event would have arrived before its answer.
    let params = ListParams::default();
    tokio::select! {
        biased;
        event = open.next() => panic!("an open watch sent {event}"),
        event = new.next() => panic!("a new watch sent {event}"),
        list = pods.list(&params) => assert_eq!(list.unwrap().items.len(), 1),
    }
    cluster.clear_faults();
    assert_eq!(open.next().await, "ADDED a");
    assert_eq!(new.next().await, "ADDED a");
}

#[tokio::test]
async fn a_watch_without_a_version_starts_with_every_object() {
    let cluster = Cluster::start().await.unwrap();
    cluster.apply_all(["a", "b"].map(|name| pod("chat", name)));
    let version = cluster.resource_version();
    let pods = pods(&cluster);
    let mut events = PodEvents::open(&pods, &WatchParams::default(), "0").await;
    assert_eq!(events.next().await, "ADDED a");
    assert_eq!(events.next().await, "ADDED b");
    let mut events = PodEvents::open(&pods, &WatchParams::default().initial_events(), "0").await;
    assert_eq!(events.next().await, "ADDED a");
    assert_eq!(events.next().await, "ADDED b");
    assert_eq!(events.next().await, format!("BOOKMARK {version} end"));
    cluster.delete(PODS, "chat", "a");
    assert_eq!(events.next().await, "DELETED a");
}

#[tokio::test]
async fn an_object_that_stops_matching_is_deleted() {
    let cluster = Cluster::start().await.unwrap();
    let (pods, version) = (pods(&cluster), cluster.resource_version().to_string());
    let params = WatchParams::default().labels("app=qwen");
    let mut events = PodEvents::open(&pods, &params, &version).await;
    let labelled = |app: &str| pod("chat", "a").labels(&[("app", app)]);
    cluster.apply(labelled("llama"));
    cluster.apply(labelled("qwen"));
    cluster.apply(labelled("qwen").ready(true));
    // Nothing changes.
    cluster.apply(labelled("qwen").ready(true));
    cluster.apply(labelled("llama"));
    cluster.delete(PODS, "chat", "a");
    cluster.bookmark();
    assert_eq!(events.next().await, "ADDED a");
    assert_eq!(events.next().await, "MODIFIED a");
    assert_eq!(events.next().await, "DELETED a");
    assert!(events.next().await.starts_with("BOOKMARK"));
}

#[tokio::test(start_paused = true)]
async fn bookmarks_and_the_timeout_follow_the_clock() {
    let cluster = Cluster::start().await.unwrap();
    cluster.set_bookmark_interval(Some(Duration::from_secs(10)));
    let version = cluster.resource_version();
    let params = WatchParams::default().timeout(25);
    let mut events = PodEvents::open(&pods(&cluster), &params, &version.to_string()).await;
    assert_eq!(events.next().await, format!("BOOKMARK {version}"));
    assert_eq!(events.next().await, format!("BOOKMARK {version}"));
    assert_eq!(events.next().await, "end");
    let mut silent =
        PodEvents::open(&pods(&cluster), &params.disable_bookmarks(), &version.to_string()).await;
    assert_eq!(silent.next().await, "end");
}

#[tokio::test]
async fn a_stopped_server_refuses_connections_and_returns_on_its_port() {
    let mut cluster = Cluster::start().await.unwrap();
    cluster.apply(pod("chat", "a"));
    let (pods, version) = (pods(&cluster), cluster.resource_version().to_string());
    let mut events = PodEvents::open(&pods, &WatchParams::default(), &version).await;
    cluster.stop().await.unwrap();
    assert_eq!(cluster.counters().open_watches(PODS), 0);
    assert_eq!(events.next().await, "end");
    let error = pods.list(&ListParams::default()).await.unwrap_err();
    assert!(format!("{error:?}").contains("ConnectionRefused"), "{error:?}");
    cluster.apply(pod("chat", "b"));
    cluster.resume().unwrap();
    // Versions go on, and so does a watch.
    let mut events = PodEvents::open(&pods, &WatchParams::default(), &version).await;
    assert_eq!(events.next().await, "ADDED b");
}

#[tokio::test]
async fn versions_start_again_after_a_restore() {
    let mut cluster = Cluster::start().await.unwrap();
    for ready in [true, false, true, false] {
        cluster.apply(pod("chat", "a").ready(ready));
    }
    let (pods, before) = (pods(&cluster), cluster.resource_version());
    cluster.stop().await.unwrap();
    cluster.renumber();
    cluster.resume().unwrap();
    assert!(cluster.resource_version() < before);
    let at_old_version =
        ListParams::default().at(&before.to_string()).matching(VersionMatch::NotOlderThan);
    assert_eq!(status(pods.list(&at_old_version).await.unwrap_err()).0, 504);
    let mut events = PodEvents::open(&pods, &WatchParams::default(), &before.to_string()).await;
    cluster.apply(pod("chat", "b"));
    cluster.interrupt_watches(PODS, Interruption::End);
    // The watch waits for a version that is still to come.
    assert_eq!(events.next().await, "end");
    let mut events = PodEvents::open(&pods, &WatchParams::default(), "1").await;
    assert_eq!(events.next().await, "ERROR 410 Expired");
    assert_eq!(pods.list(&ListParams::default()).await.unwrap().items.len(), 2);
}

#[tokio::test]
async fn forgotten_history_expires_watches() {
    let cluster = Cluster::start().await.unwrap();
    let (pods, version) = (pods(&cluster), cluster.resource_version().to_string());
    cluster.apply(pod("chat", "a"));
    cluster.forget_history();
    let mut events = PodEvents::open(&pods, &WatchParams::default(), &version).await;
    assert_eq!(events.next().await, "ERROR 410 Expired");
}

#[tokio::test]
async fn watches_are_counted_until_the_client_leaves() {
    let cluster = Cluster::start().await.unwrap();
    let pods = pods(&cluster);
    let events = PodEvents::open(&pods, &WatchParams::default(), "0").await;
    cluster.wait_for(|counters| counters.open_watches(PODS) == 1).await;
    drop(events);
    cluster.wait_for(|counters| counters.open_watches(PODS) == 0).await;
    assert_eq!(cluster.counters().requests(Verb::Watch, PODS), 1);
}

#[tokio::test]
async fn the_server_ends_with_its_handle() {
    let cluster = Cluster::start().await.unwrap();
    let pods = pods(&cluster);
    let mut events = PodEvents::open(&pods, &WatchParams::default(), "0").await;
    drop(cluster);
    assert_eq!(events.next().await, "end");
    assert!(pods.list(&ListParams::default()).await.is_err());
}
