// SPDX-License-Identifier: Apache-2.0
//! Push streams: what they send, and when they end.

use std::time::Duration;

use collector_core::ErrorKind;
use collector_keda::api::IsActiveResponse;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::time::{Instant, timeout};
use tonic::{Code, Streaming};

use crate::fixture::{Fixture, held_back, queue_of, seconds, trigger};

/// The next message within this time.
async fn next(stream: &mut Streaming<IsActiveResponse>, within: Duration) -> Option<bool> {
    let message = timeout(within, stream.message()).await.ok()?;
    Some(message.unwrap().expect("the stream goes on").result)
}

#[tokio::test(start_paused = true)]
async fn active_is_sent_at_the_opening_and_every_30_seconds() {
    let fixture = Fixture::start().await;
    fixture.serve(queue_of(3));
    let client = fixture.client().await;
    let begun = Instant::now();
    let mut stream = client.stream(trigger(&[])).await.unwrap();
    assert_eq!(next(&mut stream, seconds(1)).await, Some(true));
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
    for repeat in 1..=3 {
        assert_eq!(next(&mut stream, seconds(31)).await, Some(true));
        assert_eq!(begun.elapsed().as_secs(), 30 * repeat);
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_is_sent_within_a_second_of_its_reading_and_inactive_once() {
    let fixture = Fixture::start().await;
    fixture.serve(held_back(0));
    let client = fixture.client().await;
    let mut stream = client.stream(trigger(&[])).await.unwrap();
    assert_eq!(next(&mut stream, seconds(100)).await, None, "it is not active");
    fixture.serve(held_back(1));
    fixture.forget();
    assert_eq!(next(&mut stream, seconds(2)).await, Some(true));
    fixture.serve(held_back(0));
    fixture.forget();
    assert_eq!(next(&mut stream, seconds(2)).await, Some(false));
    assert_eq!(next(&mut stream, seconds(100)).await, None, "false is sent once");
}

#[tokio::test(start_paused = true)]
async fn the_stream_is_silent_while_nothing_is_known() {
    let fixture = Fixture::start().await;
    fixture.backend.fail(ErrorKind::Connect);
    let client = fixture.client().await;
    let mut stream = client.stream(trigger(&[])).await.unwrap();
    assert_eq!(next(&mut stream, seconds(60)).await, None);
    fixture.serve(queue_of(3));
    fixture.backend.restore();
    assert_eq!(next(&mut stream, seconds(60)).await, Some(true));
    fixture.backend.fail(ErrorKind::Connect);
    fixture.forget();
    assert_eq!(next(&mut stream, seconds(400)).await, None, "unknown is not inactive");
}

#[tokio::test(start_paused = true)]
async fn bad_metadata_keep_the_stream_open_and_silent() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    let mut stream = client.stream(trigger(&[("signal", "nonsense")])).await.unwrap();
    assert_eq!(next(&mut stream, seconds(3600)).await, None);
    let _ended = fixture.stop();
    assert_eq!(stream.message().await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_streams_with_ok_and_lets_go_of_the_connection() {
    let fixture = Fixture::start().await;
    fixture.serve(queue_of(3));
    let client = fixture.client().await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = client.stream(trigger(&[])).await.unwrap();
        assert_eq!(next(&mut stream, seconds(1)).await, Some(true));
        streams.push(stream);
    }
    let begun = Instant::now();
    let ended = fixture.stop();
    for stream in &mut streams {
        // OK: neither a message nor an error.
        assert_eq!(stream.message().await.unwrap(), None);
        assert!(stream.trailers().await.unwrap().is_some());
    }
    ended.await.unwrap();
    assert!(begun.elapsed() < seconds(1), "{:?}", begun.elapsed());
    let refused = client.is_active(trigger(&[])).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_a_stream_that_waits_for_a_backend_that_hangs() {
    let fixture = Fixture::start().await;
    fixture.backend.hang();
    let client = fixture.client().await;
    let mut stream = client.stream(trigger(&[])).await.unwrap();
    fixture.backend.entered().await;
    let begun = Instant::now();
    let ended = fixture.stop();
    assert_eq!(stream.message().await.unwrap(), None);
    ended.await.unwrap();
    assert!(begun.elapsed() < seconds(1), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn calls_are_answered_beside_500_streams_on_one_connection() {
    let fixture = Fixture::start().await;
    fixture.serve(queue_of(3));
    let client = fixture.client().await;
    let mut streams = Vec::new();
    for _ in 0..500 {
        let mut stream = client.stream(trigger(&[])).await.unwrap();
        assert_eq!(next(&mut stream, seconds(1)).await, Some(true));
        streams.push(stream);
    }
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(client.value(&[]).await, Ok(3.0));
        client.spec(trigger(&[])).await;
    }
    assert!(begun.elapsed() < seconds(1), "{:?}", begun.elapsed());
    for stream in &mut streams {
        assert_eq!(next(stream, seconds(31)).await, Some(true));
    }
}

#[tokio::test(start_paused = true)]
async fn calls_and_open_streams_are_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let page = recorder.handle();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let has = |line: &str| {
        let page = page.render();
        assert!(page.lines().any(|it| it == line), "no {line} in {page}");
    };
    let fixture = Fixture::start().await;
    tokio::task::yield_now().await;
    has("collector_keda_streams 0");
    has("collector_keda_calls_total{rpc=\"GetMetrics\",code=\"OK\"} 0");
    fixture.serve(queue_of(3));
    let client = fixture.client().await;
    let first = client.stream(trigger(&[])).await.unwrap();
    let second = client.stream(trigger(&[])).await.unwrap();
    has("collector_keda_streams 2");
    client.metric(trigger(&[])).await.unwrap();
    client.metric(trigger(&[("signal", "x")])).await.unwrap_err();
    client.metric(trigger(&[("model", "x")])).await.unwrap_err();
    drop(first);
    tokio::time::sleep(seconds(1)).await;
    has("collector_keda_streams 1");
    drop(second);
    for line in [
        "{rpc=\"GetMetrics\",code=\"OK\"} 1",
        "{rpc=\"GetMetrics\",code=\"INVALID_ARGUMENT\"} 1",
        "{rpc=\"GetMetrics\",code=\"NOT_FOUND\"} 1",
        "{rpc=\"StreamIsActive\",code=\"OK\"} 2",
    ] {
        has(&format!("collector_keda_calls_total{line}"));
    }
}
