// SPDX-License-Identifier: Apache-2.0
//! Who is served: the front proxy alone, for users whom the cluster lets read.

use std::time::Duration;

use collector_core::ModelRef;
use futures_util::future::join_all;
use tokio::time::{Instant, advance};

use collector_testkit::certificates::{Authority, rcgen};

use crate::fixture::{Down, Fixture, HPA, ROOT, client, queue_of};

const QUEUE: &str = "collector-queue";

#[tokio::test]
async fn only_the_front_proxy_is_served() {
    let fixture = Fixture::start().await;
    fixture.serve(queue_of(3));
    let (authority, other) = (&fixture.authority, Authority::new());
    let day = |year| rcgen::date_time_ymd(year, 1, 1);
    let expired = client(authority, "front-proxy-client", |it| {
        it.not_before = day(2001);
        it.not_after = day(2002);
    });
    let future = client(authority, "front-proxy-client", |it| it.not_before = day(2999));
    let server = client(authority, "front-proxy-client", |it| {
        it.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    for (identity, part) in [
        (None, "shows no certificate"),
        (
            Some(client(&other, "front-proxy-client", |_| ())),
            "not signed by the front proxy's authority",
        ),
        (Some(client(authority, "kubelet", |_| ())), "the common name \"kubelet\""),
        (Some(expired), "the front proxy's certificate expired "),
        (Some(future), "is not valid yet"),
        (Some(server), "cannot be used"),
    ] {
        let client = fixture.connected(identity.as_ref());
        for path in [
            "/apis",
            ROOT,
            &format!("{ROOT}/namespaces/prod/{QUEUE}?labelSelector=model%3Dorg_chat"),
        ] {
            // The headers of anybody else mean nothing.
            let spoofed = [("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters")];
            let answer = client.request("GET", path, &spoofed).await;
            let message = answer.error(401);
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
        // Probes come without.
        for path in ["/healthz", "/livez", "/readyz"] {
            let answer = client.request("GET", path, &[]).await;
            assert_eq!((answer.code, answer.body), (200, "ok".into()), "{path}");
        }
    }
    assert_eq!(fixture.cluster.asked.lock().unwrap().len(), 0);
    assert_eq!(fixture.backend.fetches(), 0);
    // The front proxy without a user.
    let front_proxy = fixture.connected(Some(&fixture.front_proxy));
    let anonymous = front_proxy.request("GET", ROOT, &[("X-Remote-Group", "a")]).await;
    assert_eq!(anonymous.error(401), "the front proxy names no user");
    front_proxy.read("prod", QUEUE, "model=org_chat").await.value();
}

#[tokio::test(start_paused = true)]
async fn the_cluster_decides_what_a_user_may_read() {
    let fixture = Fixture::start().await;
    fixture.serve(queue_of(3));
    fixture.cluster.deny("secret");
    fixture.read(QUEUE, "model=org_chat").await.value();
    let asked = fixture.cluster.asked.lock().unwrap().remove(0);
    assert_eq!((asked.user.name.as_str(), asked.user.groups.len()), (HPA, 1));
    assert_eq!((asked.namespace.as_str(), asked.metric.as_str()), ("prod", QUEUE));
    let expected = format!(
        "user \"{HPA}\" cannot list resource \"collector-queue\" in API group \"external.metrics.k8s.io\" in the namespace \
         \"secret\": no role binding"
    );
    let denied = fixture.client.read("secret", QUEUE, "model=org_chat").await;
    assert_eq!(denied.error(403), expected);
    // The label is no way around it.
    let other = fixture.read(QUEUE, "model=org_chat,modelNamespace=secret").await;
    assert_eq!(other.error(403), expected);
    // Nor is the answer about a model that exists there alone, and in a namespace that may be read.
    for namespace in ["secret", "open"] {
        fixture.backend.serve(&ModelRef::new("elsewhere", namespace), queue_of(5));
    }
    let missing = fixture.read(QUEUE, "model=elsewhere").await;
    let expected =
        "there is no model \"elsewhere\" in \"prod\"; it exists in \"open\": set modelNamespace";
    assert_eq!(missing.error(404), expected);
    // What there is, is told to those who may read it.
    fixture.client.read("secret", "nonsense", "").await.error(403);
    // The API server's own administrators are not asked for.
    fixture.cluster.is(Some(Down::Refuses));
    let path = format!("{ROOT}/namespaces/secret/{QUEUE}?labelSelector=model%3Dnone");
    let masters = [("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters")];
    fixture.client.request("GET", &path, &masters).await.error(404);
}

#[tokio::test(start_paused = true)]
async fn a_decision_holds_for_ten_seconds() {
    let fixture = Fixture::start().await;
    fixture.serve(queue_of(3));
    fixture.cluster.deny("secret");
    let asked = || fixture.cluster.asked.lock().unwrap().len();
    for _ in 0..3 {
        fixture.read(QUEUE, "model=org_chat").await.value();
        fixture.client.read("secret", QUEUE, "model=org_chat").await.error(403);
    }
    assert_eq!(asked(), 2);
    // The API server is gone: what it has decided holds until it expires.
    fixture.cluster.is(Some(Down::Refuses));
    advance(Duration::from_secs(9)).await;
    fixture.read(QUEUE, "model=org_chat").await.value();
    fixture.client.read("secret", QUEUE, "model=org_chat").await.error(403);
    assert_eq!(asked(), 2);
    advance(Duration::from_secs(1)).await;
    for _ in 0..2 {
        let answer = fixture.read(QUEUE, "model=org_chat").await;
        let expected = "it is not known whether the user may read this: connection refused";
        assert_eq!(answer.error(500), expected);
    }
    // Errors are not remembered.
    assert_eq!(asked(), 4);
    fixture.cluster.is(None);
    fixture.read(QUEUE, "model=org_chat").await.value();
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_a_decision_share_one_question() {
    let fixture = Fixture::start().await;
    fixture.serve(queue_of(3));
    fixture.client.get(ROOT).await;
    fixture.cluster.is(Some(Down::Hangs));
    let begun = Instant::now();
    let answers = (0..200).map(|_| fixture.read(QUEUE, "model=org_chat"));
    for answer in join_all(answers).await {
        assert!(answer.error(500).contains("there was no answer within 5 s"), "{}", answer.body);
    }
    assert_eq!(fixture.cluster.asked.lock().unwrap().len(), 1);
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
}
