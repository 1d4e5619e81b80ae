// SPDX-License-Identifier: Apache-2.0
//! What a fetch makes of a server's answers.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use collector_core::{
    Answer, Backend, Clock, ErrorKind, Field, FieldSet, ListAsk, LoadRow, ModelRef, SystemClock,
    Urgency,
};

use crate::fake::{
    Fake, LABELS, MODEL, NOW, POD_0, POD_1, Parameters, VLLM, error, found, m, ok, two_pods,
    vector, vector_text,
};

#[tokio::test]
async fn every_field_is_read_in_thirteen_queries_of_one_time() {
    let fake = Fake::start().await;
    two_pods(&fake);
    // The first pod has two data-parallel ranks.
    let rank = |rank: u8| format!(r#"{POD_0},"engine":"{rank}""#);
    let (first, second) = (rank(0), rank(1));
    fake.rows("kv_cache_usage_perc{", &[(&first, 0.42), (&second, 0.1), (POD_1, 0.5)]);
    fake.rows("num_requests_waiting{", &[(&first, 1.0), (&second, 2.0), (POD_1, 0.0)]);
    fake.rows("num_requests_running{", &[(&first, 4.0), (&second, 3.0), (POD_1, 5.0)]);
    fake.rows("timestamp(", &[(&first, NOW - 2.5), (&second, NOW - 2.5), (POD_1, NOW - 4.0)]);
    let sizes =
        |labels: &str, blocks| format!(r#"{labels},"num_gpu_blocks":"{blocks}","block_size":"16""#);
    let sizes = [sizes(&first, "1000"), sizes(&second, "1001"), sizes(POD_1, "None")];
    let sizes: Vec<(&str, f64)> = sizes.iter().map(|labels| (labels.as_str(), 1.0)).collect();
    fake.rows("cache_config_info{", &sizes);
    let sample = fake.sample().await;
    assert!(sample.absent.is_none() && sample.failed.is_empty());
    let [first, second] = sample.replicas.as_slice() else { panic!("{:?}", sample.replicas) };
    assert_eq!(first.pod_name.as_str(), "m-0");
    assert_eq!(first.kv_cache_usage, Some(0.42));
    assert_eq!(first.queue_length, Some(3));
    assert_eq!(first.running_requests, Some(7));
    assert_eq!(first.num_gpu_blocks, Some(2001));
    assert_eq!(first.block_size, Some(16));
    // Each rank with its own usage: 0.42 of 16 000 and 0.1 of 16 016.
    assert_eq!(first.tokens_in_use(), Some(6720 + 1602));
    assert_eq!(first.servers, 2);
    assert_eq!(first.prefix_cache_hit_rate, Some(0.6));
    assert_eq!(first.avg_input_tokens, None);
    assert_eq!(first.engine.as_ref().unwrap().as_str(), "vllm");
    assert_eq!(first.sampled_at.age(fake.clock.now()), Duration::from_millis(2500));
    assert_eq!(second.sampled_at.age(fake.clock.now()), Duration::from_secs(4));
    assert_eq!(second.queue_length, Some(0), "idle is a known zero");
    assert_eq!(second.num_gpu_blocks, None, "the text None is not a number");
    assert_eq!(second.prefix_cache_hit_rate, None, "5 run, and none fetched anything up");
    let row = sample.load.of_model().unwrap();
    assert_eq!(row.rates.load(false).arrival_rate, Some(120.0));
    assert_eq!(row.rates.load(false).avg_input_tokens, Some(512.0));
    assert_eq!(row.rates.load(false).avg_output_tokens, Some(128.0));
    assert_eq!(row.rates.ttft_average(false), Some(250.0));
    assert_eq!(row.rates.itl_average(false), Some(20.0));

    let asked = fake.asked();
    let (probes, fetch): (Vec<_>, Vec<_>) = asked.iter().partition(|asked| asked.time.is_none());
    // The server's time, the names, the labels and the scrape interval; and the server's time for a time of
    // ours.
    assert_eq!(probes.len(), 4);
    assert_eq!(fetch.iter().filter(|asked| asked.query == "vector(time())").count(), 1);
    let fetch = fetch.into_iter().filter(|asked| asked.query != "vector(time())");
    let (pickers, fetch): (Vec<_>, Vec<_>) =
        fetch.partition(|asked| asked.query.contains("llm_d_epp_info"));
    assert_eq!((pickers.len(), fetch.len()), (1, 13));
    assert!(fetch.iter().all(|asked| asked.time == Some(NOW)));
    let distinct: HashSet<&String> = fetch.iter().map(|asked| &asked.query).collect();
    assert_eq!(distinct.len(), 13);

    fake.clock.advance(Duration::from_secs(30));
    assert_eq!(fake.sample().await.replicas.len(), 2);
    assert_eq!(fake.asked().len(), 11, "between two minutes, for several ranks too");
}

#[tokio::test]
async fn slow_quantities_are_queried_each_minute_with_their_own_time() {
    let fake = Fake::start().await;
    two_pods(&fake);
    fake.rows("timestamp(", &[(POD_0, NOW - 10.0)]);
    fake.sample().await;
    fake.asked();
    fake.clock.advance(Duration::from_secs(30));
    fake.rows("timestamp(", &[(POD_0, NOW + 29.0)]);
    let sample = fake.sample().await;
    assert_eq!(fake.asked().len(), 11);
    let replica = &sample.replicas[0];
    assert_eq!(replica.num_gpu_blocks, Some(2001));
    assert_eq!(replica.prefix_cache_hit_rate, Some(0.6));
    let age = |field| replica.sampled_at(field).age(fake.clock.now());
    assert_eq!(age(Field::PrefixCacheHitRate), Duration::from_secs(40), "of its own sample");
    assert_eq!(age(Field::KvCacheUsage), Duration::from_secs(1));
    fake.clock.advance(Duration::from_secs(30));
    fake.rows("timestamp(", &[(POD_0, NOW + 59.0)]);
    let sample = fake.sample().await;
    // And whether there are endpoint pickers.
    assert_eq!(fake.asked().len(), 1 + 13);
    assert!(sample.replicas[0].marks.is_empty());
}

#[tokio::test]
async fn a_new_pod_has_its_cache_size_asked_at_once() {
    let fake = Fake::start().await;
    two_pods(&fake);
    fake.rows("timestamp(", &[(POD_1, NOW)]);
    fake.sample().await;
    fake.asked();
    fake.rows("timestamp(", &[(POD_0, NOW), (POD_1, NOW)]);
    let sample = fake.sample().await;
    assert_eq!(sample.replicas[0].num_gpu_blocks, Some(2001));
    let queries = fake.queries();
    assert_eq!(queries.iter().filter(|query| query.contains("cache_config_info")).count(), 1);
}

#[tokio::test]
async fn a_dead_pod_is_left_out_and_an_unmeasured_field_is_unknown() {
    let fake = Fake::start().await;
    two_pods(&fake);
    fake.rows("timestamp(", &[(POD_1, NOW)]);
    fake.rows("kv_cache_usage_perc{", &[(POD_0, 0.9)]);
    let sample = fake.sample().await;
    assert_eq!(sample.replicas.len(), 1);
    assert_eq!(sample.replicas[0].pod_name.as_str(), "m-1");
    assert_eq!(sample.replicas[0].kv_cache_usage, None);
    // The dead pod has running requests all the same, which is a contradiction.
    assert!(!sample.absent.is_none());
}

#[tokio::test]
async fn missing_without_pods_and_unknown_are_three_answers() {
    let fake = Fake::start().await;
    assert!(matches!(fake.answer_for_m().await, Ok(Answer::Missing { .. })));
    let probes = "the clock twice, names, endpoint pickers, who lives, and who lately did";
    assert_eq!(fake.asked().len(), 6, "{probes}");

    fake.rows("max_over_time(vllm:num_requests_waiting{", &[(MODEL, 0.0)]);
    let sample = fake.sample().await;
    assert!(sample.replicas.is_empty() && sample.absent.is_none());

    let fake = Fake::start().await;
    fake.answer("num_requests_waiting{", error(500, "internal", "boom"));
    match fake.answer_for_m().await {
        Ok(Answer::Failed(error)) => assert_eq!(error.kind(), ErrorKind::ServerError),
        other => panic!("{other:?}"),
    }

    let warned = vector_text(&[]).replacen('{', r#"{"warnings":["a store is down"],"#, 1);
    fake.always(ok(&warned));
    fake.rule(|asked| (asked.query == "vector(time())").then(|| crate::fake::number(NOW)));
    match fake.answer_for_m().await {
        Ok(Answer::Failed(error)) => assert!(error.to_string().contains("incomplete"), "{error}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_fleet_that_starts_later_is_seen_by_the_next_fetch() {
    let fake = Fake::start().await;
    assert!(matches!(fake.answer_for_m().await, Ok(Answer::Missing { .. })));
    two_pods(&fake);
    let names = ["vllm:num_requests_running", "vllm:gpu_cache_usage_perc"];
    fake.holds(names, &["namespace", "model_name", "pod_name"], 1);
    let pod = r#""namespace":"prod","model_name":"m","pod_name":"m-0""#;
    fake.rows("timestamp(", &[(pod, NOW)]);
    fake.rows("gpu_cache_usage_perc{", &[(pod, 0.25)]);
    fake.asked();
    let sample = fake.sample().await;
    assert_eq!(sample.replicas[0].kv_cache_usage, Some(0.25));
    let queries = fake.queries();
    assert!(queries.iter().any(|q| q.contains("by (namespace,model_name,pod_name)")));
    assert!(!queries.iter().any(|q| q.contains("prefix_cache_hits_total{")));
}

#[tokio::test]
async fn a_first_fetch_with_a_waiting_caller_discovers_its_own_model_only() {
    let fake = Fake::start().await;
    two_pods(&fake);
    let probe = |queries: Vec<String>| {
        let is_probe = |query: &String| query.starts_with("label_replace(count(vllm:");
        let mut probes = queries.into_iter().filter(is_probe);
        let probe = probes.next();
        assert_eq!(probes.next(), None);
        probe
    };
    let fetched = fake.fetch_all(&[m()], &[], Urgency::Waiting).await.unwrap();
    assert_eq!(found(fetched.into_iter().next().unwrap().1).replicas.len(), 2);
    let narrow = probe(fake.queries()).unwrap();
    assert!(narrow.split(" or ").all(|part| part.contains(r#"="prod""#)), "{narrow}");
    // The names of one model say nothing about others.
    fake.sample().await;
    let whole = probe(fake.queries()).unwrap();
    assert!(!whole.contains("prod"), "{whole}");
    fake.sample().await;
    assert_eq!(probe(fake.queries()), None);
}

#[tokio::test]
async fn a_failed_first_fetch_remembers_nothing() {
    let fake = Fake::start().await;
    two_pods(&fake);
    fake.answer("label_replace(count(", vector(&[]));
    let other = ModelRef::new("other", "prod");
    let fetched = fake.fetch_all(&[other], &[], Urgency::Waiting).await.unwrap();
    assert!(matches!(fetched[0].1, Answer::Missing { .. }), "{fetched:?}");
    fake.answer("label_replace(count(", error(422, "bad_data", "no"));
    // Nothing is known about the whole server: all names are queried.
    fake.rows("gpu_cache_usage_perc{", &[(POD_0, 0.25)]);
    fake.asked();
    let sample = fake.sample().await;
    assert_eq!(sample.replicas.len(), 2);
    let queries = fake.queries();
    let both = |query: &&String| {
        query.contains("gpu_cache_usage_perc{") && query.contains("kv_cache_usage_perc{")
    };
    assert_eq!(queries.iter().filter(both).count(), 1, "{queries:#?}");
}

#[tokio::test]
async fn a_warning_makes_the_sample_incomplete() {
    let fake = Fake::start().await;
    two_pods(&fake);
    let rows = vector_text(&[(POD_0, NOW - 1.0)]);
    for extra in [r#""warnings":["a store is down"],"#, r#""isPartial":true,"#] {
        fake.answer("timestamp(", ok(&rows.replacen('{', &format!("{{{extra}"), 1)));
        let sample = fake.sample().await;
        assert_eq!(sample.replicas.len(), 1);
        assert!(!sample.absent.is_none());
    }
}

#[tokio::test]
async fn a_failed_query_leaves_its_own_fields_unknown_and_no_others() {
    #[track_caller]
    fn check(part: &str, failed: FieldSet, expected: &[Field]) {
        assert_eq!(failed, expected.iter().copied().collect(), "{part}");
    }
    for (part, expected) in [
        ("kv_cache_usage_perc{", &[Field::KvCacheUsage][..]),
        ("num_requests_waiting{", &[Field::QueueLength]),
        ("cache_config_info{", &[Field::CacheConfig]),
        ("prefix_cache_hits_total{", &[Field::PrefixCacheHitRate]),
        (
            "request_prompt_tokens_count{",
            &[Field::ArrivalRate, Field::AvgInputTokens, Field::AvgOutputTokens],
        ),
        ("inter_token_latency_seconds_sum{", &[Field::ItlAverage]),
    ] {
        let fake = Fake::start().await;
        two_pods(&fake);
        fake.answer(part, error(500, "internal", "boom"));
        let sample = fake.sample().await;
        check(part, sample.failed.fields(), expected);
        assert_eq!(sample.replicas.len(), 2);
        assert_eq!(sample.replicas[0].running_requests, Some(7));
        let asked = fake.queries();
        assert_eq!(asked.iter().filter(|query| query.contains(part)).count(), 1, "sent once");
    }
}

#[tokio::test]
async fn a_failed_probe_costs_exactness_nothing() {
    let fake = Fake::start().await;
    two_pods(&fake);
    fake.answer("label_replace(count(", error(422, "bad_data", "no"));
    let sample = fake.sample().await;
    assert_eq!(sample.replicas[0].kv_cache_usage, Some(0.42));
    assert_eq!(sample.load.of_model().unwrap().rates.itl_average(false), Some(20.0));
    let queries = fake.queries();
    assert!(queries.iter().any(|q| q.contains("gpu_cache_usage_perc")), "under both names");
    assert!(
        queries.iter().any(|q| q.contains("max by (namespace,model_name,pod,pod_name,engine)"))
    );
}

#[tokio::test]
async fn impossible_values_are_absent_and_the_others_stay() {
    let fake = Fake::start().await;
    two_pods(&fake);
    fake.rows("kv_cache_usage_perc{", &[(POD_0, 1.7), (POD_1, 1.000_000_1)]);
    fake.rows("num_requests_waiting{", &[(POD_0, -3.0), (POD_1, 1e308)]);
    fake.rows("request_prompt_tokens_sum{", &[(MODEL, f64::NAN)]);
    let sample = fake.sample().await;
    let [first, second] = sample.replicas.as_slice() else { panic!() };
    assert_eq!((first.kv_cache_usage, second.kv_cache_usage), (None, Some(1.0)));
    assert_eq!((first.queue_length, second.queue_length), (None, None));
    assert_eq!(first.running_requests, Some(7));
    assert_eq!(sample.load.of_model().unwrap().rates.load(false).avg_input_tokens, None);
    assert_eq!(sample.load.of_model().unwrap().rates.load(false).arrival_rate, Some(120.0));
}

#[tokio::test]
async fn doubled_rows_are_one_replica_and_rows_without_a_pod_are_left_out() {
    let fake = Fake::start().await;
    two_pods(&fake);
    fake.rows("timestamp(", &[(POD_0, NOW), (POD_0, NOW), (MODEL, NOW)]);
    fake.rows("num_requests_waiting{", &[(POD_0, 3.0), (POD_0, 3.0), (MODEL, 9.0)]);
    fake.rows("request_prompt_tokens_count{", &[(MODEL, 2.0), (MODEL, 2.0)]);
    let sample = fake.sample().await;
    assert_eq!(sample.replicas.len(), 1);
    assert_eq!(sample.replicas[0].queue_length, Some(3));
    assert_eq!(sample.load.of_model().unwrap().rates.requests, Some(2.0));
}

#[tokio::test]
async fn doubled_series_are_noticed_and_taken_once() {
    let fake = Fake::start().await;
    two_pods(&fake);
    // Two servers of a pair have stored each pod.
    fake.doubled();
    let copy =
        |replica: &str| format!(r#"{POD_0},"instance":"i","prometheus_replica":"{replica}""#);
    let (older, newer) = (copy("a"), copy("b"));
    let sizes = |labels: &str| format!(r#"{labels},"num_gpu_blocks":"1000","block_size":"16""#);
    fake.rows("cache_config_info{", &[(&sizes(&older), 1.0), (&sizes(&newer), 1.0)]);
    fake.rows("topk(1, count by", &[(&older, 1.0), (&newer, 1.0)]);
    fake.rows("timestamp(", &[(&older, NOW - 9.0), (&newer, NOW - 2.0)]);
    fake.rows("num_requests_waiting{", &[(&older, 8.0), (&newer, 3.0)]);
    for when in ["in the fetch that noticed it", "and from then on"] {
        let sample = fake.sample().await;
        assert_eq!(sample.replicas[0].queue_length, Some(3), "{when}: of the newest copy");
        assert_eq!(sample.replicas[0].num_gpu_blocks, Some(1000), "{when}");
        let queries = fake.queries();
        let apart = queries.iter().filter(|it| it.contains("engine,prometheus_replica,instance)"));
        assert!(apart.count() >= 4, "{when}: {queries:#?}");
        let again = queries.iter().filter(|it| it.starts_with("count by (__name__)")).count();
        assert_eq!(again, usize::from(when.starts_with("in")), "{when}");
    }
}

#[tokio::test]
async fn copies_that_begin_later_are_noticed_by_the_next_minute() {
    const SGLANG: [&str; 4] = [
        "sglang:num_running_reqs",
        "sglang:num_queue_reqs",
        "sglang:token_usage",
        "sglang:num_requests_total",
    ];
    let copy =
        |replica: &str| format!(r#"{POD_0},"instance":"i","prometheus_replica":"{replica}""#);
    let copies = [copy("a"), copy("b")];
    let fake = Fake::start().await;
    fake.holds(SGLANG, &["namespace", "pod", "model_name", "priority"], 1);
    let begun = Arc::new(AtomicBool::new(false));
    fake.rows("topk(1, count by", &[(&copies[0], 1.0), (&copies[1], 1.0)]);
    let has_begun = Arc::clone(&begun);
    fake.rule(move |asked| {
        let query = &asked.query;
        let apart = query.contains("prometheus_replica") && has_begun.load(Ordering::Relaxed);
        let each = |value: f64| copies.iter().map(|it| (it.as_str(), value)).collect::<Vec<_>>();
        let time = asked.time.unwrap_or(NOW);
        let rows = if query.contains("by (namespace,model_name,pod") && query.ends_with(") > 1") {
            if apart || !has_begun.load(Ordering::Relaxed) { vec![] } else { vec![(POD_0, 2.0)] }
        } else if query.contains(" (timestamp(sglang:num_running_reqs") {
            if apart { each(time) } else { vec![(POD_0, time)] }
        } else if query.contains("max_over_time(sglang:token_usage") {
            if apart { each(0.5) } else { vec![(POD_0, 0.5)] }
        } else if query.contains("rate(sglang:num_requests_total") {
            match has_begun.load(Ordering::Relaxed) {
                true if apart => each(2.0),
                true => vec![(MODEL, 4.0)],
                false => vec![(MODEL, 2.0)],
            }
        } else {
            return None;
        };
        Some(ok(&crate::fake::vector_text_at(time, &rows)))
    });
    let requests = |sample: collector_core::ModelSample| {
        sample.load.iter().map(|row| row.rates.requests).sum::<Option<f64>>()
    };
    assert_eq!(requests(fake.sample().await), Some(2.0));
    // From now on a second server scrapes the pods.
    begun.store(true, Ordering::Relaxed);
    fake.doubled();
    fake.clock.advance(Duration::from_secs(60));
    assert_eq!(requests(fake.sample().await), Some(2.0));
    let probes = |fake: &Fake| {
        fake.queries().iter().filter(|it| it.starts_with("count by (__name__)")).count()
    };
    assert_eq!(probes(&fake), 2);
    fake.clock.advance(Duration::from_secs(60));
    assert_eq!(requests(fake.sample().await), Some(2.0));
    assert_eq!(probes(&fake), 0, "the labels that tell copies apart are known");
}

#[tokio::test]
async fn load_per_pod_is_a_row_for_each_live_pod() {
    let fake = Fake::start().await;
    two_pods(&fake);
    let dead = r#""namespace":"prod","model_name":"m","pod":"m-9""#;
    let other = r#""namespace":"prod","model_name":"n","pod":"n-0""#;
    let n = ModelRef::new("n", "prod");
    fake.rows("timestamp(", &[(POD_0, NOW), (POD_1, NOW), (other, NOW)]);
    fake.rows("request_prompt_tokens_count{", &[(POD_0, 2.0), (dead, 1.0), (other, 4.0)]);
    fake.rows("request_prompt_tokens_sum{", &[(POD_0, 100.0), (other, 8.0)]);
    let answers = fake.fetch_all(&[m(), n.clone()], &[m()], Urgency::Background).await.unwrap();
    for (model, answer) in answers {
        let sample = found(answer);
        if model == n {
            let requests = sample.load.of_model().unwrap().rates.requests;
            assert_eq!(requests, Some(4.0), "summed for who did not ask per pod");
        } else {
            let [(one, busy), (other, idle)] = sample.load.pods() else { panic!("{sample:?}") };
            assert_eq!((one.as_str(), busy.rates.requests), ("m-0", Some(2.0)));
            assert_eq!((other.as_str(), idle.rates.requests), ("m-1", None));
            let mean = |row: &LoadRow| row.rates.load(true).avg_input_tokens;
            assert_eq!((mean(busy), mean(idle)), (Some(50.0), None));
            let reason = idle.reasons.get(Field::AvgInputTokens).unwrap();
            assert!(reason.starts_with("no two samples of vllm:"), "{reason}");
        }
    }
    assert_eq!(fake.asked().len(), 5 + 1 + 13, "no more queries than without");
}

#[tokio::test]
async fn a_fetch_per_model_after_one_per_pod_has_the_load() {
    let fake = Fake::start().await;
    two_pods(&fake);
    fake.rule(|asked| {
        let by_pod = asked.query.contains("pod");
        let rows = if by_pod { vec![(POD_0, 2.0), (POD_1, 3.0)] } else { vec![(MODEL, 5.0)] };
        let counts = asked.query.contains("rate(vllm:request_prompt_tokens_count{");
        counts.then(|| crate::fake::ok(&crate::fake::vector_text_at(NOW, &rows)))
    });
    for per_pod in [vec![m()], Vec::new()] {
        let answers = fake.fetch_all(&[m()], &per_pod, Urgency::Background).await.unwrap();
        let sample = found(answers.into_iter().next().unwrap().1);
        let requests: Option<f64> = sample.load.iter().map(|row| row.rates.requests).sum();
        assert_eq!(requests, Some(5.0), "{per_pod:?}: {:?}", sample.load);
    }
}

#[tokio::test]
async fn rows_of_others_never_leak() {
    let fake = Fake::start().await;
    two_pods(&fake);
    let twin = r#""namespace":"test","model_name":"m","pod":"twin-0""#;
    let near = r#""namespace":"prod","model_name":"m-8b","pod":"m-8b-0""#;
    fake.rows("timestamp(", &[(POD_0, NOW), (twin, NOW), (near, NOW)]);
    let models = [m(), ModelRef::new("other", "test")];
    for (model, answer) in fake.fetch_all(&models, &[], Urgency::Waiting).await.unwrap() {
        if model == m() {
            assert_eq!(found(answer).replicas.len(), 1);
        } else {
            assert!(matches!(answer, Answer::Missing { .. }), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn a_namespace_that_is_not_read_is_no_missing_model() {
    let fake = Fake::with(|config| config.namespaces = vec!["test".into()]).await;
    match fake.answer_for_m().await {
        Ok(Answer::Failed(error)) => {
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.to_string().contains("prometheus.namespaces"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert!(fake.asked().is_empty());
}

#[tokio::test]
async fn odd_names_are_asked_for_literally() {
    let fake = Fake::start().await;
    let names = [
        "a\"} or up{x=\"",
        "back\\slash",
        "{}",
        "モデル🦀",
        "line\nbreak",
        ".*",
        "",
        "org/model:7b",
        &"x".repeat(20_000),
        &"\\\"".repeat(6_000),
    ];
    for name in names {
        let model = ModelRef::new(name, "prod");
        let answers = fake.fetch_all(&[model], &[], Urgency::Waiting).await.unwrap();
        assert!(matches!(answers[0].1, Answer::Missing { .. }), "{name:.40}: {answers:?}");
        let namespace = ModelRef::new("m", name);
        let answers = fake.fetch_all(&[namespace], &[], Urgency::Waiting).await.unwrap();
        assert!(matches!(answers[0].1, Answer::Missing { .. }), "{name:.40}");
    }
}

#[tokio::test]
async fn three_hundred_models_cost_what_ten_do() {
    let fake = Fake::start().await;
    let count = async |models: usize| {
        let models: Vec<ModelRef> =
            (0..models).map(|i| ModelRef::new(format!("m{i}"), format!("ns{}", i % 9))).collect();
        let labels: Vec<String> = models
            .iter()
            .map(|model| {
                let (model, namespace) = (&model.model, &model.namespace);
                format!(r#""namespace":"{namespace}","model_name":"{model}","pod":"{model}-0""#)
            })
            .collect();
        let rows: Vec<(&str, f64)> = labels.iter().map(|labels| (labels.as_str(), NOW)).collect();
        fake.rows("timestamp(", &rows);
        fake.asked();
        let answers = fake.fetch_all(&models, &[], Urgency::Background).await.unwrap();
        assert!(answers.into_iter().all(|(_, answer)| found(answer).replicas.len() == 1));
        let is_of_look =
            |asked: &&Parameters| asked.time.is_some() && asked.query != "vector(time())";
        fake.asked().iter().filter(is_of_look).count()
    };
    // The first fetch also asks whether there are endpoint pickers.
    assert_eq!(count(10).await, 1 + 13);
    assert_eq!(count(300).await, 13);
}

#[tokio::test]
async fn an_engine_without_live_pods_gets_the_liveness_query_only() {
    let fake = Fake::start().await;
    two_pods(&fake);
    let sglang = ["num_running_reqs", "num_queue_reqs", "num_pages", "cache_config_info"];
    let sglang = sglang.map(|name| format!("sglang:{name}"));
    fake.holds(VLLM.into_iter().chain(sglang.iter().map(String::as_str)), &LABELS, 2);
    fake.rows("timestamp(sglang:", &[]);
    fake.sample().await;
    let asked = fake.asked().into_iter().filter(|asked| asked.time.is_some());
    let of_sglang: Vec<String> =
        asked.map(|asked| asked.query).filter(|query| query.contains("sglang:")).collect();
    assert!(matches!(&of_sglang[..], [only] if only.contains("timestamp(")), "{of_sglang:?}");
}

#[tokio::test]
async fn half_of_a_hit_rate_is_not_queried_and_the_other_half_is_named() {
    for (lacking, named) in [
        ("vllm:prefix_cache_hits_total", "vllm:prefix_cache_hits_total + "),
        ("vllm:prefix_cache_queries_total", "vllm:prefix_cache_queries_total"),
    ] {
        let fake = Fake::start().await;
        two_pods(&fake);
        fake.holds(VLLM.into_iter().filter(|name| *name != lacking), &LABELS, 2);
        let sample = fake.sample().await;
        let reason = sample.replicas[0].reasons.get(Field::PrefixCacheHitRate).unwrap();
        assert!(reason.starts_with(&format!("the server holds no {named}")), "{reason}");
        let asked = fake.queries();
        assert!(!asked.iter().any(|query| query.contains("rate(vllm:prefix")), "{asked:?}");
    }
}

#[tokio::test]
async fn models_are_listed_with_their_pods() {
    let fake = Fake::start().await;
    two_pods(&fake);
    let other = r#""namespace":"a","model_name":"b""#;
    fake.rows("count by (namespace,model_name) (", &[(MODEL, 2.0), (other, 1.0), (other, 1.0)]);
    let models = fake.backend.list_models(ListAsk::new(&SystemClock::new())).await.unwrap();
    let listed: Vec<(String, Option<u32>)> = models
        .iter()
        .map(|known| (format!("{}/{}", known.model.namespace, known.model.model), known.replicas))
        .collect();
    assert_eq!(listed, [("a/b".to_owned(), Some(1)), ("prod/m".to_owned(), Some(2))]);
}

#[tokio::test]
async fn a_discovery_that_fails_after_an_hour_is_tried_again_after_a_minute() {
    let fake = Fake::start().await;
    two_pods(&fake);
    fake.sample().await;
    let fails = Arc::new(AtomicBool::new(true));
    let is_failing = Arc::clone(&fails);
    fake.rule(move |asked| {
        let by_name = asked.query.contains("__name__") && is_failing.load(Ordering::Relaxed);
        let by_count = asked.query.contains("count(") && is_failing.load(Ordering::Relaxed);
        (by_name || by_count).then(|| error(422, "execution", "too many series"))
    });
    let discoveries =
        |fake: &Fake| fake.asked().iter().filter(|asked| asked.query.contains("__name__")).count();
    discoveries(&fake);
    for (seconds, fails_next, expected) in
        [(3600, true, 1), (30, false, 0), (30, false, 1), (60, false, 0)]
    {
        fails.store(fails_next, Ordering::Relaxed);
        fake.clock.advance(Duration::from_secs(seconds));
        fake.answer_for_m().await.unwrap();
        assert_eq!(discoveries(&fake), expected, "{seconds} s later");
    }
}
