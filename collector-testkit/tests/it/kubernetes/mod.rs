// SPDX-License-Identifier: Apache-2.0
//! The API server, as the real client sees it.

mod fixtures;
mod lists;
mod watches;

use std::pin::Pin;
use std::time::Duration;

use collector_testkit::kubernetes::Cluster;
use futures_util::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::WatchParams;
use kube::core::WatchEvent;
use kube::{Api, Client, Config};
use secrecy::SecretString;
use tokio::time::timeout;

fn client(cluster: &Cluster) -> Client {
    Client::try_from(config(cluster)).unwrap()
}

fn client_with_token(cluster: &Cluster, token: &str) -> Client {
    let mut config = config(cluster);
    config.auth_info.token = Some(SecretString::from(token));
    Client::try_from(config).unwrap()
}

fn config(cluster: &Cluster) -> Config {
    let mut config = Config::new(cluster.url().parse().unwrap());
    // By itself the client repeats a request that was answered with 429 for many minutes.
    config.default_retry = false;
    config
}

fn pods(cluster: &Cluster) -> Api<Pod> {
    Api::all(client(cluster))
}

/// The status of an error that the server answered.
fn status(error: kube::Error) -> (u16, String) {
    match error {
        kube::Error::Api(status) => (status.code, status.reason.clone()),
        other => panic!("not a status: {other:?}"),
    }
}

/// When a test gives up waiting for an event that should have arrived.
const NO_EVENT: Duration = Duration::from_secs(30);

/// A watch of pods, each event in a few words.
struct PodEvents(Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<Pod>>> + Send>>);

impl PodEvents {
    async fn open(pods: &Api<Pod>, params: &WatchParams, version: &str) -> Self {
        Self(pods.watch(params, version).await.unwrap().boxed())
    }

    /// `ADDED name`, `BOOKMARK version`, `ERROR code reason`, `broken` or `end`.
    async fn next(&mut self) -> String {
        let name = |pod: Pod| pod.metadata.name.unwrap();
        match timeout(NO_EVENT, self.0.next()).await.expect("the watch sent nothing") {
            Some(Ok(WatchEvent::Added(pod))) => format!("ADDED {}", name(pod)),
            Some(Ok(WatchEvent::Modified(pod))) => format!("MODIFIED {}", name(pod)),
            Some(Ok(WatchEvent::Deleted(pod))) => format!("DELETED {}", name(pod)),
            Some(Ok(WatchEvent::Bookmark(bookmark))) => {
                let end = if bookmark.metadata.annotations.contains_key("k8s.io/initial-events-end")
                {
                    " end"
                } else {
                    ""
                };
                format!("BOOKMARK {}{end}", bookmark.metadata.resource_version)
            }
            Some(Ok(WatchEvent::Error(status))) => {
                format!("ERROR {} {}", status.code, status.reason)
            }
            Some(Err(_)) => "broken".to_owned(),
            None => "end".to_owned(),
        }
    }
}
