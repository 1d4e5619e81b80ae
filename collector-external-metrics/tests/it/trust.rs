// SPDX-License-Identifier: Apache-2.0
//! The front proxy's authorities change, or cannot be read.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use collector_keda::Settings;
use tokio::time::advance;

use collector_testkit::certificates::Authority;

use crate::fixture::{Down, Fixture, ROOT, ScriptedCluster, client};

#[tokio::test(start_paused = true)]
async fn a_new_authority_is_read_when_its_certificate_is_first_seen() {
    let fixture = Fixture::start().await;
    fixture.client.get(ROOT).await;
    let next = Authority::new();
    let renewed = fixture.client_with(&client(&next, "front-proxy-client", |_| ()));
    renewed.get(ROOT).await.error(401);
    fixture.cluster.trust(&next);
    // Anyone can show a certificate, so not each one is a reason to read.
    let reads = fixture.cluster.reads.load(Ordering::Relaxed);
    for _ in 0..20 {
        renewed.get(ROOT).await.error(401);
    }
    assert_eq!(fixture.cluster.reads.load(Ordering::Relaxed), reads);
    advance(Duration::from_secs(11)).await;
    assert_eq!(renewed.get(ROOT).await.code, 200);
    fixture.client.get(ROOT).await.error(401);
}

#[tokio::test(start_paused = true)]
async fn a_front_proxy_that_cannot_be_read_again_stays() {
    let fixture = Fixture::start().await;
    assert_eq!(fixture.client.get(ROOT).await.code, 200);
    for down in [Down::Refuses, Down::Hangs] {
        fixture.cluster.is(Some(down));
        advance(Duration::from_secs(120)).await;
        assert_eq!(fixture.client.get(ROOT).await.code, 200);
        assert_eq!(fixture.client.get("/readyz").await.code, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_front_proxy_nobody_is_served_and_the_reason_is_shown() {
    let cluster = Arc::new(ScriptedCluster::default());
    let fixture = Fixture::over(Authority::new(), cluster, Settings::default()).await;
    let answer = fixture.client.get(ROOT).await;
    let expected = "the front proxy's certificates are not known: there is no ConfigMap";
    assert_eq!(answer.error(503), expected);
    assert_eq!(fixture.client.get("/readyz").await.code, 503);
    assert_eq!(fixture.client.get("/livez").await.code, 200);
    fixture.cluster.trust(&fixture.authority);
    advance(Duration::from_secs(61)).await;
    assert_eq!(fixture.client.get(ROOT).await.code, 200);
    assert_eq!(fixture.client.get("/readyz").await.code, 200);
}
