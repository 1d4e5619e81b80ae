//! Servers with limits on a query: groups are split, whatever the words of the refusal.

use collector_core::{Answer, ErrorKind, ModelRef, Urgency};
use wiremock::ResponseTemplate;

use crate::fake::{Fake, NOW, error, found, m, two_pods};

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
        let named = named.filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit())).count();
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
        for (model, answer) in fake.look(&models, &[], Urgency::Background).await.unwrap() {
            let sample = found(answer);
            assert_eq!(sample.replicas.len(), 1, "{model:?}");
            assert!(sample.failed.is_empty(), "{model:?}: {:?}", sample.failed);
        }
        let asked = fake.asked().len();
        assert!(asked <= 2 + 7 + 8 * 14, "{asked} requests");
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
        let failure = fake.look(&models, &[], Urgency::Background).await.unwrap_err();
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
        fake.answer("kv_cache_usage_perc{", refusal);
        let answers = fake.look(&[m()], &[], Urgency::Waiting).await.unwrap();
        let Answer::Found(sample) = &answers[0].1 else { panic!("{answers:?}") };
        assert!(sample.failed.contains(collector_core::Field::KvCacheUsage));
        let asked = fake.queries();
        let of_usage = asked.iter().filter(|query| query.contains("kv_cache_usage_perc{"));
        assert_eq!(of_usage.filter(|query| !query.contains("label_replace")).count(), 1);
    }
}
