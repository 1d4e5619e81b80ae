// SPDX-License-Identifier: Apache-2.0
//! The server's clock and ours.

use std::time::Duration;

use collector_core::{Answer, Clock, ErrorKind};

use crate::fake::{Fake, NOW, POD_0, POD_1, number, two_pods, vector};

#[tokio::test]
async fn a_clock_an_hour_ahead_makes_nothing_younger() {
    let fake = Fake::start().await;
    two_pods(&fake);
    fake.set_date_ahead(3600);
    fake.rule(|asked| (asked.query == "vector(time())").then(|| number(NOW + 3600.0)));
    fake.rows("timestamp(", &[(POD_0, NOW + 3600.0 - 45.0)]);
    let sample = fake.sample().await;
    let age = sample.replicas[0].sampled_at.age(fake.clock.now());
    assert_eq!(age, Duration::from_secs(45));
}

#[tokio::test]
async fn a_clock_jump_in_the_date_header_is_handled_in_the_same_fetch() {
    let fake = Fake::start().await;
    two_pods(&fake);
    fake.sample().await;
    fake.asked();
    fake.set_date_ahead(3600);
    fake.rule(|asked| (asked.query == "vector(time())").then(|| number(NOW + 3600.0)));
    fake.rows("timestamp(", &[(POD_0, NOW + 3600.0 - 2.0)]);
    let sample = fake.sample().await;
    assert_eq!(sample.replicas[0].sampled_at.age(fake.clock.now()), Duration::from_secs(2));
    let times: Vec<Option<f64>> = fake.asked().iter().map(|asked| asked.time).collect();
    // The clock is read twice: the server's own time, and a time of ours.
    assert_eq!(times[..4], [Some(NOW), None, Some(0.0), Some(NOW + 3600.0)]);
    assert!(times[4..].iter().all(|time| *time == Some(NOW + 3600.0)));
}

#[tokio::test]
async fn a_sample_from_the_future_is_as_old_as_now() {
    let fake = Fake::start().await;
    two_pods(&fake);
    fake.rows("timestamp(", &[(POD_0, NOW + 100.0)]);
    let sample = fake.sample().await;
    assert_eq!(sample.replicas[0].sampled_at, fake.clock.now());
}

#[tokio::test]
async fn a_pod_with_an_unknown_time_makes_the_answer_incomplete() {
    let fake = Fake::start().await;
    two_pods(&fake);
    fake.rows("timestamp(", &[(POD_0, f64::NAN), (POD_1, NOW - 4.0)]);
    let sample = fake.sample().await;
    assert!(sample.replicas.len() == 1 && !sample.absent.is_none());

    // A fleet of such pods is unknown, not empty.
    fake.rows("timestamp(", &[(POD_0, f64::NAN)]);
    let answer = fake.answer_for_m().await;
    assert!(matches!(answer, Ok(Answer::Failed(_))), "{answer:?}");
}

#[tokio::test]
async fn a_server_without_time_is_read_by_its_date_header() {
    let fake = Fake::start().await;
    two_pods(&fake);
    fake.answer("vector(time())", vector(&[]));
    fake.rows("timestamp(", &[(POD_0, NOW - 10.0)]);
    let sample = fake.sample().await;
    let age = sample.replicas[0].sampled_at.age(fake.clock.now());
    assert!(age.abs_diff(Duration::from_secs(10)) <= Duration::from_secs(1), "{age:?}");
}

#[tokio::test]
async fn the_clock_is_read_again_every_few_minutes() {
    let fake = Fake::start().await;
    let reads = |fake: &Fake| {
        let asked = fake.asked();
        asked.iter().filter(|asked| asked.query == "vector(time())" && asked.time.is_none()).count()
    };
    for (advance, expected) in [(0, 1), (60, 0), (300, 1)] {
        fake.clock.advance(Duration::from_secs(advance));
        assert!(matches!(fake.answer_for_m().await, Ok(Answer::Missing { .. })));
        assert_eq!(reads(&fake), expected, "after {advance} s");
    }
    fake.clock.advance(Duration::from_secs(600));
    fake.answer("vector(time())", crate::fake::error(401, "x", "y"));
    assert_eq!(fake.failure().await.kind(), ErrorKind::Unauthorized);
}

#[tokio::test]
async fn a_date_that_contradicts_the_servers_own_time_is_wrong_itself() {
    let fake = Fake::start().await;
    two_pods(&fake);
    fake.set_date_ahead(3600);
    let sample = fake.sample().await;
    assert_eq!(sample.replicas[0].sampled_at.age(fake.clock.now()), Duration::from_millis(2500));
    fake.asked();
    fake.sample().await;
    assert_eq!(fake.asked().len(), 11, "and is not read again with each fetch");
}
