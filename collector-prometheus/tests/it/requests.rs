// SPDX-License-Identifier: Apache-2.0
//! How the queries of a fetch are sent: their encoding, their permits, and none to a server that has failed.

use std::collections::HashSet;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use collector_core::{
    Ask, Backend as _, BackendError, ErrorKind, Field, Operation, Permit, Permits, SystemClock,
    Urgency,
};
use flate2::Compression;
use flate2::write::GzEncoder;
use wiremock::ResponseTemplate;

use crate::fake::{Fake, POD_0, m, ok, two_pods, vector_text};

#[tokio::test]
async fn a_large_answer_is_asked_compressed_the_next_time() {
    let fake = Fake::start().await;
    two_pods(&fake);
    fake.sample().await;
    let padded = vector_text(&[(POD_0, 0.5)]) + &" ".repeat(70_000);
    fake.answer("kv_cache_usage_perc{", ok(&padded));
    fake.sample().await;
    assert!(fake.asked().iter().all(|asked| asked.header("accept-encoding") == "identity"));
    fake.sample().await;
    for asked in fake.asked() {
        let large = asked.query.contains("kv_cache_usage_perc");
        let expected = if large { "gzip" } else { "identity" };
        assert_eq!(asked.header("accept-encoding"), expected, "{}", asked.query);
    }
}

#[tokio::test]
async fn a_compressed_refusal_is_read() {
    let fake = Fake::start().await;
    let body = br#"{"status":"error","errorType":"bad_data","error":"a word of the server"}"#;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(body).unwrap();
    let refusal = ResponseTemplate::new(400)
        .set_body_bytes(gzip.finish().unwrap())
        .insert_header("content-encoding", "gzip");
    fake.answer("timestamp(", refusal);
    let failed = fake.fetch_all(&[m()], &[], Urgency::Background).await.unwrap_err();
    assert!(failed.to_string().contains("bad_data: a word of the server"), "{failed}");
}

/// Permits that are counted, and may be refused.
struct Counting {
    given: AtomicUsize,
    limit: usize,
}

#[async_trait]
impl Permits for Counting {
    async fn acquire(&self) -> Result<Permit, BackendError> {
        if self.given.fetch_add(1, Ordering::SeqCst) >= self.limit {
            let open = ErrorKind::CircuitOpen;
            return Err(BackendError::new(open, "prometheus".into(), Operation::Fetch, "u"));
        }
        Ok(Permit::new(()))
    }
}

#[tokio::test]
async fn each_request_takes_a_permit_and_none_is_sent_without() {
    let fake = Fake::start().await;
    two_pods(&fake);
    let (models, per_pod) = ([m()], HashSet::new());
    let clock = SystemClock::new();
    let mut ask = Ask::new(&models, &clock).with_load_per_pod(&per_pod);
    let permits = Counting { given: AtomicUsize::new(0), limit: 100 };
    ask.permits = &permits;
    fake.backend.fetch(ask).await.unwrap();
    assert_eq!(permits.given.load(Ordering::SeqCst), fake.asked().len());

    let permits = Counting { given: AtomicUsize::new(0), limit: 0 };
    ask.permits = &permits;
    let refused = fake.backend.fetch(ask).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::CircuitOpen);
    assert!(fake.asked().is_empty());
}

#[tokio::test]
async fn a_server_that_dies_during_a_fetch_gets_no_more_queries() {
    let fake = Fake::start().await;
    two_pods(&fake);
    fake.answer("num_requests_waiting{", ResponseTemplate::new(429));
    let sample = fake.sample().await;
    assert_eq!(sample.replicas.len(), 2);
    assert!(sample.failed.contains(Field::QueueLength));
    assert!(sample.failed.contains(Field::ItlAverage));
    let probes_pickers_liveness_and_sizes = 5 + 1 + 1 + 1;
    // Two run at once; another may begin before the refusal arrives.
    assert!(fake.asked().len() <= probes_pickers_liveness_and_sizes + 3);
}
