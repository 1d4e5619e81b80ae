// SPDX-License-Identifier: Apache-2.0
//! The endpoint picker of a model: what it holds back, and how absent, idle, silent and off are told apart.

use std::fs;
use std::time::Duration;

use collector_core::{Answer, EndpointPicker, EndpointPickerLoad, Saturation};
use collector_epp::EppConfig;
use collector_epp::discover::TargetSpec;

use crate::fake_pod::{FakePod, Says, vllm};
use crate::world::{Live, answer, backend, config, found};

/// The page of the pool `pool`, in the newest names, with flow control and these further lines.
fn page(pool: &str, pods: &[&str], lines: &str) -> String {
    let head = format!(
        "llm_d_epp_info{{commit=\"c\"}} 1\n\
         llm_d_epp_ready_endpoints{{name=\"{pool}\"}} {}\n\
         llm_d_epp_flow_control_pool_saturation{{inference_pool=\"{pool}\",stage=\"effective\"}} 0.5\n",
        pods.len()
    );
    let queue = |pod: &&str| {
        let labels = format!("name=\"{pool}\",model_server_endpoint=\"{pod}-rank-0\"");
        format!("llm_d_epp_per_endpoint_queue_size{{{labels}}} 0\n")
    };
    head + &pods.iter().map(queue).collect::<String>() + lines
}

/// A line about requests that are held back.
fn held(model: &str, tenant: &str, requests: u64) -> String {
    format!(
        "llm_d_epp_flow_control_queue_size{{fairness_id=\"{tenant}\",priority=\"0\",inference_pool=\"pool\",\
         model_name=\"{model}\",target_model_name=\"{model}\"}} {requests}\n"
    )
}

fn picker_target(picker: &FakePod, name: &str) -> TargetSpec {
    TargetSpec { engine: Some("epp".into()), ..picker.target(name) }
}

/// What is said of the model `m`, served by `m-0`, beside a picker with this page.
async fn of_m(page: &str) -> EndpointPicker {
    let pod = FakePod::with_page(&vllm("m", 1.0, 0.5, 1.0)).await;
    let picker = FakePod::with_page(page).await;
    let backend = backend(config(vec![pod.target("m-0"), picker_target(&picker, "epp-0")]));
    found(answer(&backend, "m").await).endpoint_picker
}

#[track_caller]
fn load(picker: &EndpointPicker) -> EndpointPickerLoad {
    picker.load().unwrap_or_else(|| panic!("{picker:?}")).clone()
}

#[tokio::test(start_paused = true)]
async fn every_number_is_of_the_model_and_its_live_pods() {
    let in_flight = |name: &str, endpoint: &str, producer: &str, value: u64| {
        format!(
            "llm_d_epp_inflight_{name}{{endpoint_name=\"{endpoint}\",namespace=\"prod\",\
             producer_name=\"{producer}\",fairness_id=\"f\",priority=\"0\"}} {value}\n"
        )
    };
    let lines = [
        held("m", "a", 2),
        held("m", "b", 3),
        held("other", "a", 40),
        "llm_d_epp_flow_control_queue_bytes{model_name=\"m\",target_model_name=\"m\"} 700\n".into(),
        "llm_d_epp_request_running{model_name=\"m\",target_model_name=\"m\"} 9\n".into(),
        "llm_d_epp_request_running{model_name=\"alias\",target_model_name=\"m\"} 1\n".into(),
        "llm_d_epp_request_running{model_name=\"m\",target_model_name=\"other\"} 50\n".into(),
        in_flight("requests", "m-0-rank-0", "p", 4),
        in_flight("requests", "m-0-rank-1", "p", 3),
        // Another producer counts the same requests, and a pod that is gone has none.
        in_flight("requests", "m-0-rank-0", "q", 4),
        in_flight("requests", "gone-rank-0", "p", 90),
        in_flight("tokens", "m-0-rank-0", "p", 1200),
        in_flight("tokens", "gone-rank-0", "p", 90_000),
        "llm_d_epp_flow_control_pool_saturation{inference_pool=\"pool\",stage=\"prefill\"} 0.1\n".into(),
        "llm_d_epp_flow_control_pool_saturation{inference_pool=\"pool\",stage=\"decode\"} 0.5\n".into(),
        "llm_d_epp_flow_control_stale_endpoints{detector=\"d\"} 1\n".into(),
        "llm_d_epp_flow_control_requests_total{outcome=\"Dispatched\",priority=\"0\",inference_pool=\"pool\"} 800\n"
            .into(),
        "llm_d_epp_flow_control_requests_total{outcome=\"RejectedCapacity\",priority=\"0\",inference_pool=\"pool\"} 5\n"
            .into(),
        "llm_d_epp_flow_control_requests_total{outcome=\"EvictedTTL\",priority=\"1\",inference_pool=\"pool\"} 2\n"
            .into(),
    ];
    let load = load(&of_m(&page("pool", &["m-0", "other-0"], &lines.concat())).await);
    let mut expected = EndpointPickerLoad::new(load.sampled_at);
    expected.flow_control = true;
    expected.queued_requests = Some(5);
    expected.queued_bytes = Some(700);
    expected.running_requests = Some(10);
    expected.in_flight_requests = Some(7);
    expected.in_flight_tokens = Some(1200);
    let mut saturation = Saturation::default();
    saturation.effective = Some(0.5);
    saturation.prefill = Some(0.1);
    saturation.decode = Some(0.5);
    expected.saturation = saturation;
    expected.stale_endpoints = Some(1);
    expected.rejected_requests = Some(7);
    assert_eq!(load, expected);
}

#[tokio::test(start_paused = true)]
async fn an_idle_queue_is_0_and_a_feature_that_is_off_is_not_known() {
    let idle = of_m(&page("pool", &["m-0"], "")).await;
    let numbers = load(&idle);
    assert!(numbers.flow_control);
    assert_eq!((numbers.queued_requests, numbers.running_requests), (Some(0), Some(0)));
    assert_eq!((numbers.in_flight_tokens, numbers.rejected_requests), (None, None));
    let off =
        of_m("llm_d_epp_info{commit=\"c\"} 1\nllm_d_epp_ready_endpoints{name=\"pool\"} 1\n").await;
    let numbers = load(&off);
    assert!(!numbers.flow_control);
    assert_eq!((numbers.queued_requests, numbers.saturation), (None, Saturation::default()));
    assert_eq!((idle.queued_requests(), off.queued_requests()), (Some(0), Some(0)));
}

#[tokio::test(start_paused = true)]
async fn all_generations_of_names_are_read_and_never_added() {
    let of = |prefix: &str| {
        format!(
            "{prefix}flow_control_pool_saturation{{inference_pool=\"pool\",stage=\"effective\"}} 0.25\n\
             {prefix}flow_control_queue_size{{model_name=\"m\",target_model_name=\"m\"}} 4\n\
             {prefix}flow_control_request_queue_duration_seconds_count{{outcome=\"RejectedOther\",\
             inference_pool=\"pool\"}} 6\n"
        )
    };
    let [first, router, llm_d] =
        ["inference_extension_", "llm_d_router_epp_", "llm_d_epp_"].map(of);
    for page in [&first, &router, &llm_d, &format!("{first}{router}"), &format!("{first}{llm_d}")] {
        let load = load(&of_m(page).await);
        assert_eq!(load.queued_requests, Some(4), "{page}");
        assert_eq!(load.saturation.effective, Some(0.25), "{page}");
        assert_eq!(load.rejected_requests, Some(6), "{page}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_all_pods_of_the_pool_are_the_models_so_are_its_adapters_requests() {
    let lines = [held("m", "a", 2), held("adapter", "a", 3)].concat();
    assert_eq!(of_m(&page("pool", &["m-0"], &lines)).await.queued_requests(), Some(5));
    assert_eq!(of_m(&page("pool", &["m-0", "x-0"], &lines)).await.queued_requests(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_line_that_cannot_be_read_makes_the_queue_unknown() {
    let lines = [held("m", "a", 2), held("m", "b", 3).replace("} 3", "} three")].concat();
    let picker = of_m(&page("pool", &["m-0"], &lines)).await;
    assert_eq!((picker.queued_requests(), load(&picker).running_requests), (None, Some(0)));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_gone_is_unknown_with_a_warning_and_no_pod_is() {
    let pod = FakePod::with_page(&vllm("m", 1.0, 0.5, 1.0)).await;
    let picker = FakePod::with_page(&page("pool", &["m-0"], "")).await;
    let backend = backend(config(vec![pod.target("m-0"), picker_target(&picker, "epp-0")]));
    assert_eq!(found(answer(&backend, "m").await).endpoint_picker.queued_requests(), Some(0));
    picker.say(Says::Raw(Vec::new()));
    let sample = found(answer(&backend, "m").await);
    let EndpointPicker::Silent { since: Some(_), reason } = &sample.endpoint_picker else {
        panic!("{:?}", sample.endpoint_picker)
    };
    assert!(sample.warnings[0].contains(&**reason), "{:?}", sample.warnings);
    assert!(sample.absent.is_none());
    assert_eq!(sample.replicas[0].queue_length, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_model_without_pods_has_the_requests_that_wait_for_it() {
    let picker = FakePod::with_page(&page("pool", &[], &held("m", "a", 3))).await;
    let backend = backend(config(vec![picker_target(&picker, "epp-0")]));
    let sample = found(answer(&backend, "m").await);
    assert_eq!((sample.replicas.len(), sample.endpoint_picker.queued_requests()), (0, Some(3)));
    assert!(!sample.lists_pods, "it may have pods that are no targets");
    assert!(matches!(answer(&backend, "misspelt").await, Answer::Missing { .. }));
    // Of a pool without pods it is not known whose adapter they are for.
    let other = [held("m", "a", 0), held("adapter", "a", 2)].concat();
    picker.say(Says::Page(page("pool", &[], &other)));
    assert_eq!(found(answer(&backend, "m").await).endpoint_picker.queued_requests(), None);
    picker.say(Says::Page(page("pool", &["x-0"], &other)));
    assert_eq!(found(answer(&backend, "m").await).endpoint_picker.queued_requests(), Some(0));
}

#[tokio::test(start_paused = true)]
async fn load_in_flight_to_endpoints_of_other_names_is_unknown() {
    let line =
        "llm_d_epp_inflight_tokens{endpoint_name=\"x-0-rank-0\",producer_name=\"p\"} 60000\n";
    let picker = of_m(&page("pool", &["x-0"], &[held("m", "a", 1), line.into()].concat())).await;
    assert_eq!(load(&picker).in_flight_tokens, None);
}

#[tokio::test(start_paused = true)]
async fn each_model_has_the_endpoint_picker_of_its_own_pool() {
    let pods = [
        FakePod::with_page(&vllm("m", 1.0, 0.5, 1.0)).await,
        FakePod::with_page(&vllm("n", 1.0, 0.5, 1.0)).await,
    ];
    let one = FakePod::with_page(&page("one", &["m-0"], &held("m", "a", 3))).await;
    let two = FakePod::with_page(&page("two", &["n-0"], "")).await;
    let targets = vec![
        pods[0].target("m-0"),
        pods[1].target("n-0"),
        picker_target(&one, "epp-one"),
        picker_target(&two, "epp-two"),
    ];
    let backend = backend(config(targets));
    let queued = |sample: collector_core::ModelSample| sample.endpoint_picker.queued_requests();
    assert_eq!(queued(found(answer(&backend, "m").await)), Some(3));
    assert_eq!(queued(found(answer(&backend, "n").await)), Some(0));
    two.say(Says::Raw(Vec::new()));
    assert_eq!(queued(found(answer(&backend, "m").await)), Some(3));
    assert_eq!(queued(found(answer(&backend, "n").await)), None);
}

#[tokio::test(start_paused = true)]
async fn replicas_of_an_endpoint_picker_are_summed_and_one_that_is_silent_makes_it_unknown() {
    let pod = FakePod::with_page(&vllm("m", 1.0, 0.5, 1.0)).await;
    let replicas = [
        FakePod::with_page(&page("pool", &["m-0"], &held("m", "a", 3))).await,
        FakePod::with_page(&page("pool", &["m-0"], &held("m", "a", 4))).await,
    ];
    let targets = vec![
        pod.target("m-0"),
        picker_target(&replicas[0], "epp-0"),
        picker_target(&replicas[1], "epp-1"),
    ];
    let backend = backend(config(targets));
    let sample = found(answer(&backend, "m").await);
    assert_eq!(sample.endpoint_picker.queued_requests(), Some(7));
    replicas[1].say(Says::Nothing);
    let sample = found(answer(&backend, "m").await);
    assert_eq!(sample.endpoint_picker.queued_requests(), None);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_never_answered_may_hold_requests_too() {
    let pod = FakePod::with_page(&vllm("m", 1.0, 0.5, 1.0)).await;
    let one = FakePod::with_page(&page("pool", &["m-0"], &held("m", "a", 3))).await;
    let other = FakePod::start(Says::Nothing).await;
    let targets =
        vec![pod.target("m-0"), picker_target(&one, "epp-0"), picker_target(&other, "epp-1")];
    let backend = backend(config(targets));
    let sample = found(answer(&backend, "m").await);
    assert_eq!(sample.endpoint_picker.queued_requests(), None);
    assert!(sample.warnings[0].contains(&*other.target("epp-1").url), "{:?}", sample.warnings);
    other.say(Says::Page(page("pool", &["m-0"], &held("m", "a", 4))));
    let sample = found(answer(&backend, "m").await);
    assert_eq!(sample.endpoint_picker.queued_requests(), Some(7));
}

#[tokio::test(start_paused = true)]
async fn no_endpoint_picker_is_unknown_only_where_one_is_required() {
    let pod = FakePod::with_page(&vllm("m", 1.0, 0.5, 1.0)).await;
    let free = config(vec![pod.target("m-0")]);
    let required = EppConfig { picker_required: true, ..free.clone() };
    let sample = found(answer(&backend(free), "m").await);
    assert_eq!((sample.endpoint_picker, sample.warnings.len()), (EndpointPicker::None, 0));
    let sample = found(answer(&backend(required), "m").await);
    assert!(matches!(sample.endpoint_picker, EndpointPicker::Silent { since: None, .. }));
    assert!(sample.warnings[0].contains("epp.picker_required"));
}

#[tokio::test(start_paused = true)]
async fn what_changes_in_an_endpoint_picker_is_pushed() {
    let pod = FakePod::with_page(&vllm("m", 1.0, 0.5, 1.0)).await;
    let picker = FakePod::with_page(&page("pool", &["m-0"], "")).await;
    let targets = vec![pod.target("m-0"), picker_target(&picker, "epp-0")];
    let live = Live::start(EppConfig {
        scrape_interval: Duration::from_millis(100),
        // The pod itself is scraped too rarely to push.
        idle_interval: Duration::from_secs(600),
        ..config(targets)
    });
    live.track(&["m"]);
    let queued = |answer: &Answer| match answer {
        Answer::Found(sample) => Some(sample.endpoint_picker.queued_requests()),
        _ => None,
    };
    live.pushed.wait_for("m", |answer| (queued(answer) == Some(Some(0))).then_some(())).await;
    picker.say(Says::Page(page("pool", &["m-0"], &held("m", "a", 8))));
    live.pushed.wait_for("m", |answer| (queued(answer) == Some(Some(8))).then_some(())).await;
    picker.say(Says::Raw(Vec::new()));
    live.pushed.wait_for("m", |answer| (queued(answer) == Some(None)).then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn the_token_of_endpoint_pickers_is_sent_to_no_pod() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    fs::write(&path, "for-pickers\n").unwrap();
    let pod = FakePod::with_page(&vllm("m", 1.0, 0.5, 1.0)).await;
    let picker = FakePod::with_page(&page("pool", &["m-0"], "")).await;
    let targets = vec![pod.target("m-0"), picker_target(&picker, "epp-0")];
    let config =
        EppConfig { picker_token_path: Some(path), allow_token_over_http: true, ..config(targets) };
    let sent = "authorization: Bearer for-pickers";
    let backend_with = backend(config.clone());
    assert!(found(answer(&backend_with, "m").await).endpoint_picker.load().is_some());
    assert!(
        picker.requests().iter().all(|request| request.contains(sent)),
        "{:?}",
        picker.requests()
    );
    assert!(!pod.requests().iter().any(|request| request.contains("authorization")));
    // The pods' own token stays theirs.
    let both = EppConfig { bearer_token: Some("for-pods".into()), ..config };
    let backend_with = backend(both);
    assert!(found(answer(&backend_with, "m").await).endpoint_picker.load().is_some());
    assert!(picker.requests().iter().all(|request| request.contains(sent)));
    assert!(pod.requests().last().unwrap().contains("authorization: Bearer for-pods"));
}
