// SPDX-License-Identifier: Apache-2.0
//! Servers with limits on a query: groups are split, whatever the message of the refusal.

use std::collections::HashSet;

use collector_core::{Answer, ErrorKind, ModelRef, Urgency};
use wiremock::ResponseTemplate;

use crate::fake::{Fake, NOW, POD_0, error, found, m, two_pods, vector};

/// Sixty models in sixty namespaces, and a server that lets a query touch ten of them.
async fn sixty(refusal: ResponseTemplate) -> (Fake, Vec<ModelRef>) {
    let fake = Fake::start().await;
    two_pods(&fake);
    let models: Vec<ModelRef> = (0..60).map(|i| ModelRef::new("m", format!("ns{i:02}"))).collect();
    let rows: Vec<String> = models
        .iter()
        .map(|model| format!(r#""namespace":"{}","model_name":"m","pod":"p-0""#, model.namespace))
        .collect();
    let rows: Vec<(&str, f64)> = rows.iter().map(|labels| (labels.as_str(), NOW)).collect();
    fake.rows("timestamp(", &rows);
    fake.rule(move |asked| {
        let named = asked.query.split("ns").skip(1);
        let named = named.filter_map(|rest| rest.get(..2)?.parse::<u8>().ok());
        // A query that joins two selectors names its namespaces twice.
        let named = named.collect::<HashSet<u8>>().len();
        let touches = asked.query.contains("vllm:") && asked.time.is_some();
        (touches && !(1..=10).contains(&named)).then(|| refusal.clone())
    });
    (fake, models)
}

#[tokio::test]
async fn a_group_is_split_whatever_the_words_of_the_refusal_are() {
    for refusal in [
        error(422, "execution", "this query loads too many samples into memory"),
        error(422, "execution", "the number of series that one query may read (1000) is used up"),
        error(422, "execution", "more chunks than a query is granted: 2000000"),
        error(400, "execution", "more chunks than a query is granted: 2000000"),
        error(400, "bad_data", "the query's length exceeds the limit"),
        error(422, "422", "cannot select more than 1000 time series"),
        ResponseTemplate::new(413).set_body_string("<html>too large"),
        ResponseTemplate::new(413),
    ] {
        let (fake, models) = sixty(refusal).await;
        for (model, answer) in fake.fetch_all(&models, &[], Urgency::Background).await.unwrap() {
            let sample = found(answer);
            assert_eq!(sample.replicas.len(), 1, "{model:?}");
            assert!(sample.failed.is_empty(), "{model:?}: {:?}", sample.failed);
        }
        let asked = fake.asked().len();
        // Discovery and clock, seven splits, and eight groups.
        assert!(asked <= 13 + 7 + 8 * 14, "{asked} requests");
    }
}

#[tokio::test]
async fn a_query_that_is_wrong_is_not_sent_in_pieces() {
    for refusal in [
        error(400, "bad_data", "1:7: parse error: unexpected end of input"),
        error(422, "bad_data", "unknown function"),
        ResponseTemplate::new(400).set_body_string("bad request"),
    ] {
        let (fake, models) = sixty(refusal).await;
        let failure = fake.fetch_all(&models, &[], Urgency::Background).await.unwrap_err();
        assert_eq!(failure.kind(), ErrorKind::Rejected, "{failure}");
        let asked = fake.queries();
        assert_eq!(asked.iter().filter(|query| query.contains("timestamp(")).count(), 1);
    }
}

#[tokio::test]
async fn a_refusal_about_one_model_is_a_refusal() {
    for refusal in [error(400, "execution", "no more chunks"), ResponseTemplate::new(413)] {
        let fake = Fake::start().await;
        two_pods(&fake);
        fake.answer("max_over_time(vllm:kv_cache_usage_perc{", refusal);
        let answers = fake.fetch_all(&[m()], &[], Urgency::Waiting).await.unwrap();
        let Answer::Found(sample) = &answers[0].1 else { panic!("{answers:?}") };
        assert!(sample.failed.contains(collector_core::Field::KvCacheUsage));
        let asked = fake.queries();
        let of_usage = asked.iter().filter(|query| query.contains("kv_cache_usage_perc{"));
        let of_usage: Vec<_> = of_usage.filter(|query| !query.contains("count(")).collect();
        assert_eq!(of_usage.len(), 1, "{of_usage:#?}");
    }
}

#[tokio::test]
async fn a_sample_limit_takes_one_split_and_returns_the_same_values() {
    let fake = Fake::start().await;
    two_pods(&fake);
    let other = r#""namespace":"test","model_name":"m","pod":"t-0""#;
    fake.rows("timestamp(", &[(POD_0, NOW), (other, NOW)]);
    let (both, one) = (vector(&[(POD_0, 0.5), (other, 0.6)]), vector(&[(POD_0, 0.5)]));
    let two = vector(&[(other, 0.6)]);
    fake.rule(move |asked| {
        let query = &asked.query;
        if !query.contains("kv_cache_usage_perc{") {
            return None;
        }
        Some(match (query.contains("prod"), query.contains("test")) {
            (true, true) => error(
                422,
                "execution",
                "query processing would load too many samples into memory in query execution",
            ),
            (true, false) => one.clone(),
            (false, true) => two.clone(),
            (false, false) => both.clone(),
        })
    });
    let models = [m(), ModelRef::new("m", "test")];
    let answers = fake.fetch_all(&models, &[], Urgency::Background).await.unwrap();
    for (model, answer) in answers {
        let sample = found(answer);
        assert!(sample.failed.is_empty(), "{:?}", sample.failed);
        let expected = if model == m() { 0.5 } else { 0.6 };
        assert_eq!(sample.replicas[0].kv_cache_usage, Some(expected));
    }
    let queries = fake.queries();
    let of_usage = queries.iter().filter(|query| query.contains("kv_cache_usage_perc{"));
    assert_eq!(of_usage.count(), 3);
    assert!(queries.len() <= 5 + 13 * 2 + 1, "{}", queries.len());
}

#[tokio::test]
async fn a_split_group_stays_split_for_the_rest_of_the_fetch() {
    let fake = Fake::start().await;
    two_pods(&fake);
    let namespaces: Vec<String> = (0..16).map(|i| format!("ns-{i:02}")).collect();
    let models: Vec<ModelRef> =
        namespaces.iter().map(|ns| ModelRef::new("m", ns.as_str())).collect();
    let rows: Vec<String> = namespaces
        .iter()
        .map(|ns| format!(r#""namespace":"{ns}","model_name":"m","pod":"p-0""#))
        .collect();
    let rows: Vec<(&str, f64)> = rows.iter().map(|labels| (labels.as_str(), NOW)).collect();
    fake.rows("timestamp(", &rows);
    fake.rule(|asked| {
        let large = asked.query.split(" or ").any(|part| part.matches("ns-").count() > 4);
        large.then(|| error(422, "execution", "too many samples"))
    });
    for (_, answer) in fake.fetch_all(&models, &[], Urgency::Background).await.unwrap() {
        assert!(found(answer).failed.is_empty());
    }
    // Three refusals of the first query, and then four pieces of each.
    assert_eq!(fake.asked().len(), 5 + 1 + 3 + 4 * 13);
}

#[tokio::test]
async fn queries_that_are_refused_at_once_split_their_group_once() {
    let fake = Fake::start().await;
    two_pods(&fake);
    let namespaces: Vec<String> = (0..16).map(|i| format!("ns-{i:02}")).collect();
    let models: Vec<ModelRef> =
        namespaces.iter().map(|ns| ModelRef::new("m", ns.as_str())).collect();
    let rows: Vec<String> = namespaces
        .iter()
        .map(|ns| format!(r#""namespace":"{ns}","model_name":"m","pod":"p-0""#))
        .collect();
    let rows: Vec<(&str, f64)> = rows.iter().map(|labels| (labels.as_str(), NOW)).collect();
    fake.rows("timestamp(", &rows);
    // One namespace takes 15 splits, and a fetch makes 16.
    fake.rule(|asked| {
        let large = asked.query.contains("max_over_time") && asked.query.matches("ns-").count() > 1;
        large.then(|| error(422, "execution", "too many samples"))
    });
    for (_, answer) in fake.fetch_all(&models, &[], Urgency::Background).await.unwrap() {
        let failed = found(answer).failed;
        assert!(failed.is_empty(), "{failed:?}");
    }
}

#[tokio::test]
async fn a_limit_that_nothing_gets_under_ends() {
    let fake = Fake::start().await;
    two_pods(&fake);
    let models: Vec<ModelRef> = (0..400).map(|i| ModelRef::new(format!("m{i}"), "prod")).collect();
    fake.answer("timestamp(", error(422, "execution", "too many samples"));
    let failed = fake.fetch_all(&models, &[], Urgency::Background).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Rejected);
    let asked = fake.asked().len();
    assert!(asked < 40, "{asked} requests");
}

#[tokio::test]
async fn a_time_out_is_split_once() {
    let fake = Fake::start().await;
    let models: Vec<ModelRef> = (0..64).map(|i| ModelRef::new(format!("m{i}"), "prod")).collect();
    fake.answer("timestamp(", error(503, "timeout", "query timed out in expression evaluation"));
    let failed = fake.fetch_all(&models, &[], Urgency::Background).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Overloaded);
    assert_eq!(fake.queries().iter().filter(|query| query.contains("timestamp(")).count(), 3);
}
