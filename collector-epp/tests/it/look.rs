// SPDX-License-Identifier: Apache-2.0
//! Looks at pods that keep the rules: what is found, missing and unknown.

use std::time::Duration;

use collector_core::{
    Answer, Ask, Backend as _, ErrorKind, Field, ListAsk, LoadRows, ProbeAsk, SystemClock,
};
use collector_epp::EppConfig;

use crate::fake_pod::{FakePod, Says, vllm};
use crate::world::{answer, backend, config, failure, found, in_prod, look};

#[tokio::test(start_paused = true)]
async fn a_first_look_scrapes_twice_so_that_it_has_rates() {
    let pod = FakePod::with_page(&vllm("m", 3.0, 0.5, 10.0)).await;
    let backend = backend(EppConfig {
        scrape_interval: Duration::from_millis(200),
        ..config(vec![pod.target("m-0")])
    });
    let sample = found(answer(&backend, "m").await);
    assert!(sample.absent.is_none());
    let replica = &sample.replicas[0];
    assert_eq!(replica.pod_name.as_str(), "m-0");
    assert_eq!(replica.engine.as_ref().unwrap().as_str(), "vllm");
    assert_eq!(
        (replica.queue_length, replica.running_requests, replica.kv_cache_usage),
        (Some(3), Some(2), Some(0.5))
    );
    assert_eq!((replica.num_gpu_blocks, replica.block_size), (Some(1000), Some(16)));
    // The counters did not move: a known zero.
    assert_eq!(sample.load.pods()[0].1.rates.requests, Some(0.0));
    assert_eq!(sample.load.pods()[0].1.rates.load(true).avg_input_tokens, Some(0.0));
    // What is not on the page is unknown.
    assert_eq!(sample.load.pods()[0].1.rates.ttft_count, None);
    assert_eq!(replica.prefix_cache_hit_rate, None);
    assert_eq!((pod.requests().len(), pod.connections()), (2, 1));
    // From then on once, over the same connection.
    found(answer(&backend, "m").await);
    assert_eq!((pod.requests().len(), pod.connections()), (3, 1));
    let request = pod.requests().remove(0).to_ascii_lowercase();
    assert!(request.starts_with("get /metrics http/1.1\r\n"), "{request}");
    assert!(request.contains("accept: text/plain;version=0.0.4\r\n"), "{request}");
    assert!(request.contains(&format!("host: {}\r\n", pod.address)), "{request}");
}

#[tokio::test(start_paused = true)]
async fn a_listing_just_before_does_not_shorten_the_time_that_rates_span() {
    let pod = FakePod::with_page(&vllm("m", 3.0, 0.5, 10.0)).await;
    let config = EppConfig {
        scrape_interval: Duration::from_millis(200),
        ..config(vec![pod.target("m-0")])
    };
    let backend = backend(config);
    let clock = SystemClock::new();
    assert_eq!(backend.list_models(ListAsk::new(&clock)).await.unwrap().len(), 1);
    found(answer(&backend, "m").await);
    assert_eq!(pod.requests().len(), 3, "one by the listing, and two an interval apart");
}

#[tokio::test(start_paused = true)]
async fn a_model_is_missing_only_when_every_target_has_answered() {
    let pods = [FakePod::with_page(&vllm("m", 0.0, 0.0, 0.0)).await];
    let other = FakePod::start(Says::Raw(b"HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n".to_vec()));
    let other = other.await;
    let backend = backend(config(vec![pods[0].target("m-0"), other.target("o-0")]));
    // The pod that fails may be of any model.
    let error = failure(&backend, "absent").await;
    assert_eq!(error.kind(), ErrorKind::ServerError);
    assert!(error.to_string().contains(&other.address.to_string()), "{error}");
    let sample = found(answer(&backend, "m").await);
    assert!(!sample.absent.is_none());
    assert_eq!(sample.replicas.len(), 1);
    other.say(Says::Page(vllm("o", 0.0, 0.0, 0.0)));
    assert!(matches!(answer(&backend, "absent").await, Answer::Missing { .. }));
    assert!(found(answer(&backend, "m").await).absent.is_none());
    // Of a pod that is known to serve another model nothing is missed.
    other.say(Says::Raw(b"HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n".to_vec()));
    assert!(found(answer(&backend, "m").await).absent.is_none());
    assert_eq!(failure(&backend, "o").await.kind(), ErrorKind::ServerError);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_without_targets_has_no_models() {
    let pod = FakePod::with_page(&vllm("m", 0.0, 0.0, 0.0)).await;
    let backend = backend(config(vec![pod.target("m-0")]));
    let models = [collector_core::ModelRef::new("m", "elsewhere")];
    let answers = look(&backend, &models).await.unwrap();
    assert!(matches!(answers.get(&models[0]), Some(Answer::Missing { .. })), "{answers:?}");
    assert!(pod.requests().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pod_belongs_to_the_model_that_it_serves_now() {
    let pod = FakePod::with_page(&vllm("one", 1.0, 0.5, 10.0)).await;
    let backend = backend(config(vec![pod.target("m-0")]));
    assert_eq!(found(answer(&backend, "one").await).replicas.len(), 1);
    pod.say(Says::Page(vllm("two", 2.0, 0.1, 5.0)));
    let sample = found(answer(&backend, "two").await);
    assert_eq!(sample.replicas[0].queue_length, Some(2));
    // The one that it served is known, and has no pod.
    let sample = found(answer(&backend, "one").await);
    assert!(sample.absent.is_none() && sample.replicas.is_empty());
}

fn pods_of(load: &LoadRows) -> Vec<&str> {
    load.pods().iter().map(|(pod, _)| pod.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_load_is_told_pod_by_pod() {
    let page = vllm("m", 0.0, 0.0, 10.0);
    let pods = [FakePod::with_page(&page).await, FakePod::with_page(&page).await];
    let backend = backend(config(vec![pods[0].target("m-0"), pods[1].target("m-1")]));
    let sample = found(answer(&backend, "m").await);
    assert_eq!(pods_of(&sample.load), ["m-0", "m-1"]);
}

#[tokio::test(start_paused = true)]
async fn where_a_pod_fails_the_load_of_the_others_is_told_pod_by_pod() {
    let page = vllm("m", 0.0, 0.0, 10.0);
    let pods = [FakePod::with_page(&page).await, FakePod::with_page(&page).await];
    let backend = backend(config(vec![pods[0].target("m-0"), pods[1].target("m-1")]));
    found(answer(&backend, "m").await);
    pods[1].say(Says::Raw(Vec::new()));
    let sample = found(answer(&backend, "m").await);
    assert!(!sample.absent.is_none());
    // A sum over those that answered would pass for the load of the model.
    assert_eq!(pods_of(&sample.load), ["m-0"]);
}

#[tokio::test(start_paused = true)]
async fn role_and_adapters_are_carried_through() {
    let page = vllm("m", 0.0, 0.0, 0.0)
        + "vllm:lora_requests_info{max_lora=\"4\",running_lora_adapters=\"b,a\",\
           waiting_lora_adapters=\"\"} 1755400400.5\n";
    let pod = FakePod::with_page(&page).await;
    let mut target = pod.target("m-0");
    target.role = Some("decode".into());
    let backend = backend(config(vec![target]));
    let replica = found(answer(&backend, "m").await).replicas.remove(0);
    assert_eq!(replica.role.unwrap().as_str(), "decode");
    let lora = replica.lora_adapters.unwrap();
    assert_eq!(
        (&*lora.running, &*lora.waiting, lora.max),
        (&["a".into(), "b".into()][..], &[][..], Some(4))
    );
}

#[tokio::test(start_paused = true)]
async fn a_forced_engine_is_not_guessed_and_an_unknown_one_is_told() {
    let pod = FakePod::with_page(&vllm("m", 0.0, 0.0, 0.0)).await;
    let with_engine = |engine: &str| {
        let mut target = pod.target("m-0");
        target.engine = Some(engine.into());
        backend(config(vec![target]))
    };
    let error = failure(&with_engine("sglang"), "m").await;
    assert_eq!(error.kind(), ErrorKind::BadAnswer);
    assert!(error.to_string().contains("not of sglang, but of vllm"), "{error}");
    let error = failure(&with_engine("vlm"), "m").await;
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("\"vlm\" is not known; there are "), "{error}");
    assert_eq!(found(answer(&with_engine("vllm"), "m").await).replicas.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_picker_is_no_replica_and_may_be_down() {
    let page = include_str!("../captures/epp.txt");
    let picker = FakePod::with_page(page).await;
    let pod = FakePod::with_page(&vllm("m", 0.0, 0.0, 0.0)).await;
    let backend = backend(config(vec![pod.target("m-0"), picker.target("epp-0")]));
    let sample = found(answer(&backend, "m").await);
    assert_eq!((sample.replicas.len(), sample.absent.is_none()), (1, true));
    picker.say(Says::Raw(Vec::new()));
    assert!(found(answer(&backend, "m").await).absent.is_none());
    assert!(matches!(answer(&backend, "absent").await, Answer::Missing { .. }));
    assert_eq!(backend.list_models(ListAsk::new(&SystemClock::new())).await.unwrap().len(), 1);
    // Named as what it is, it need not even have answered once.
    let target = collector_epp::discover::TargetSpec {
        engine: Some(collector_epp::engines::ENDPOINT_PICKER.into()),
        ..picker.target("epp-0")
    };
    let named = crate::world::backend(config(vec![pod.target("m-0"), target]));
    assert!(found(answer(&named, "m").await).absent.is_none());
    picker.say(Says::Page(page.into()));
    let probe = named.probe(ProbeAsk::new(&SystemClock::new())).await.unwrap();
    let check = probe.checks.iter().find(|check| check.id == "metrics.picker").unwrap();
    assert!(check.detail.contains("ready pods"), "{check:?}");
}

#[tokio::test(start_paused = true)]
async fn a_trace_tells_how_each_value_came_about() {
    let pod = FakePod::with_page(&vllm("m", 3.0, 0.5, 10.0)).await;
    let backend = backend(config(vec![pod.target("m-0")]));
    let models = [in_prod("m")];
    let clock = SystemClock::new();
    let mut ask = Ask::new(&models, &clock);
    ask.trace = true;
    let sample = found(backend.fetch(ask).await.unwrap().remove(&models[0]).unwrap());
    let of = |field| sample.trace.iter().find(|row| row.field == field).unwrap();
    let queue = of(Field::QueueLength);
    assert_eq!(queue.raw, Some(3.0));
    assert_eq!(queue.matched.as_deref(), Some("vllm:num_requests_waiting"));
    assert_eq!(queue.pod, Some("m-0".into()));
    assert!(queue.asked_at <= queue.answered_at);
    let ttft = of(Field::TtftAverage);
    assert_eq!((ttft.raw, &ttft.matched, ttft.sampled_at), (None, &None, None));
    assert!(found(answer(&backend, "m").await).trace.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_kept_connection_that_ended_is_replaced_unseen() {
    let pod = FakePod::start(Says::PageThenGone(vllm("m", 0.0, 0.0, 0.0))).await;
    let backend = backend(config(vec![pod.target("m-0")]));
    for _ in 0..3 {
        assert!(found(answer(&backend, "m").await).absent.is_none());
    }
    assert!(pod.connections() >= 3, "{}", pod.connections());
    // Likewise one that ends only when it is used again.
    pod.say(Says::PageOnce(vllm("m", 0.0, 0.0, 0.0)));
    for _ in 0..3 {
        assert!(found(answer(&backend, "m").await).absent.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn the_list_has_models_with_their_pods_or_is_an_error() {
    let page = vllm("m", 0.0, 0.0, 0.0);
    let pods = [FakePod::with_page(&page).await, FakePod::with_page(&page).await];
    let backend = backend(config(vec![pods[0].target("m-0"), pods[1].target("m-1")]));
    let known = backend.list_models(ListAsk::new(&SystemClock::new())).await.unwrap();
    assert_eq!((&known[0].model, known[0].replicas, known.len()), (&in_prod("m"), Some(2), 1));
    for pod in &pods {
        pod.say(Says::Raw(Vec::new()));
    }
    let error = backend.list_models(ListAsk::new(&SystemClock::new())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected);
}

#[tokio::test(start_paused = true)]
async fn a_model_stays_in_the_list_although_its_only_pod_does_not_answer() {
    let pods = [
        FakePod::with_page(&vllm("m", 0.0, 0.0, 0.0)).await,
        FakePod::with_page(&vllm("n", 0.0, 0.0, 0.0)).await,
    ];
    let backend = backend(config(vec![pods[0].target("m-0"), pods[1].target("n-0")]));
    let list = async || backend.list_models(ListAsk::new(&SystemClock::new())).await.unwrap();
    assert_eq!(list().await.len(), 2);
    pods[1].say(Says::Raw(Vec::new()));
    let known = list().await;
    let known: Vec<_> = known.iter().map(|it| (&it.model, it.replicas)).collect();
    assert_eq!(known, [(&in_prod("m"), Some(1)), (&in_prod("n"), None)]);
    // It serves something else now.
    pods[1].say(Says::Page(vllm("o", 0.0, 0.0, 0.0)));
    let known = list().await;
    assert_eq!(
        known.iter().map(|it| &it.model).collect::<Vec<_>>(),
        [&in_prod("m"), &in_prod("o")]
    );
}
