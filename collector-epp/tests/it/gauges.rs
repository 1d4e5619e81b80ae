// SPDX-License-Identifier: Apache-2.0
//! The gauges of pods as their pages show them.

use std::fmt::Write as _;

use collector_core::{Backend as _, PodsGauges};
use collector_epp::EppBackend;

use crate::fake_pod::{FakePod, Says, vllm};
use crate::world::{backend, config, in_prod, look};

async fn scraped(backend: &EppBackend) -> PodsGauges {
    // An invalid page is no answer about a model.
    let _ = look(backend, &[in_prod("m")]).await;
    let mut all = backend.gauges().unwrap().pods(&|namespace| namespace.as_str() == "prod");
    all.pods.sort_by(|a, b| a.pod.cmp(&b.pod));
    all
}

fn keeping(pods: &[&FakePod]) -> EppBackend {
    let targets = pods.iter().enumerate().map(|(number, pod)| pod.target(&format!("m-{number}")));
    let backend = backend(config(targets.collect()));
    backend.gauges().unwrap().keep();
    backend
}

/// The samples of a pod as lines of a page.
fn lines(pods: &PodsGauges, pod: usize) -> Vec<String> {
    let (page, _) = pods.pods[pod].page.as_ref().unwrap();
    let samples = page.samples.iter().map(|sample| {
        let labels = sample.labels.iter().map(|(name, value)| format!("{name}={value:?}"));
        format!("{}{{{}}} {}", sample.name, labels.collect::<Vec<_>>().join(","), sample.value)
    });
    samples.collect()
}

#[tokio::test(start_paused = true)]
async fn gauges_are_kept_with_their_own_names_and_labels() {
    let page = "vllm:num_requests_waiting{model_name=\"m\",engine=\"1\"} 3\n\
                vllm:num_requests_waiting{engine=\"0\",model_name=\"m\\\"\\n\"} NaN\n\
                vllm:num_requests_waiting{engine=\"1\",model_name=\"m\"} 4\n\
                vllm:prompt_tokens_total{model_name=\"m\",engine=\"0\"} 7\n\
                vllm:cache_config_info{block_size=\"16\"} 1\n\
                process_start_time_seconds 1.7e9\nother{a=\"b\"} 1\n";
    let pods = [
        FakePod::with_page(page).await,
        FakePod::with_page(
            "sglang:num_queue_reqs{model_name=\"m\"} 1\n\
                            sglang:num_running_reqs{model_name=\"m\"} 0\n",
        )
        .await,
        FakePod::with_page(
            "sglang_num_queue_reqs{model_name=\"m\"} 2\n\
                            sglang_num_running_reqs{model_name=\"m\"} 0\n",
        )
        .await,
    ];
    let backend = keeping(&[&pods[0], &pods[1], &pods[2]]);
    let gauges = scraped(&backend).await;
    assert_eq!(gauges.unknown, None);
    assert_eq!(
        lines(&gauges, 0),
        [
            r#"vllm:num_requests_waiting{engine="0",model_name="m\"\n"} NaN"#,
            // The first of equal series counts.
            r#"vllm:num_requests_waiting{engine="1",model_name="m"} 3"#,
        ]
    );
    assert_eq!(lines(&gauges, 1)[0], r#"sglang:num_queue_reqs{model_name="m"} 1"#);
    assert_eq!(lines(&gauges, 2)[0], r#"sglang_num_queue_reqs{model_name="m"} 2"#);
    let (page, _) = gauges.pods[0].page.as_ref().unwrap();
    assert_eq!((page.of("vllm:num_requests_waiting").count(), page.incomplete), (2, None));
    assert_eq!(page.of("vllm:num_requests_wait").count(), 0);
    let source = backend.gauges().unwrap();
    assert!(source.looks_for("sglang_num_queue_reqs") && !source.looks_for("other"));
    assert!(!source.looks_for("vllm:prompt_tokens_total"), "it is a counter");
    assert!(source.pods(&|_| false).pods.is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_unless_it_is_wanted() {
    let pod = FakePod::with_page(&vllm("m", 3.0, 0.5, 10.0)).await;
    let backend = backend(config(vec![pod.target("m-0")]));
    let gauges = scraped(&backend).await;
    assert_eq!((&gauges.pods[0].page, &gauges.pods[0].failure), (&None, &None));
}

#[tokio::test(start_paused = true)]
async fn a_silent_pod_keeps_its_gauges_and_a_series_that_left_the_page_is_gone() {
    let pods = [
        FakePod::with_page(&vllm("m", 3.0, 0.5, 10.0)).await,
        FakePod::start(Says::Raw(b"HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n".to_vec())).await,
    ];
    let backend = keeping(&[&pods[0], &pods[1]]);
    let untried = backend.gauges().unwrap().pods(&|_| true);
    assert_eq!(untried.unknown.as_deref(), Some("the targets are not known yet"));
    let first = scraped(&backend).await;
    assert!(first.pods[0].failure.is_none());
    let (page, asked_at) = first.pods[0].page.clone().unwrap();
    assert!(page.of("vllm:num_requests_waiting").count() == 1, "{page:?}");
    assert!(first.pods[1].page.is_none() && first.pods[1].failure.is_some());

    pods[0].say(Says::Raw(b"HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n".to_vec()));
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    let silent = scraped(&backend).await;
    assert!(silent.pods[0].failure.as_ref().unwrap().contains("500"), "{silent:?}");
    assert!(silent.pods[0].page.as_ref().unwrap().1 >= asked_at);
    assert_eq!(silent.pods[0].page.as_ref().unwrap().0, page);

    pods[0].say(Says::Page("vllm:num_requests_running{model_name=\"m\"} 1\n".to_owned()));
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    let gone = scraped(&backend).await;
    assert_eq!(lines(&gone, 0), [r#"vllm:num_requests_running{model_name="m"} 1"#]);
    assert!(gone.pods[0].failure.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_page_of_which_gauges_are_lost_is_incomplete() {
    let base = vllm("m", 3.0, 0.5, 10.0);
    let mut many = base.clone();
    for rank in 0..600 {
        let _ = writeln!(many, "vllm:num_requests_waiting{{model_name=\"m\",a=\"{rank}\"}} 1");
    }
    let long =
        format!("vllm:num_requests_waiting{{model_name=\"m\",a=\"{}\"}} 1\n", "x".repeat(60_000));
    for (page, why) in [
        (many, "it has too many gauges"),
        (format!("{base}{long}{}", long.replace("a=", "b=")), "it has too many gauges"),
        (
            format!("{base}vllm:num_requests_waiting{{model_name=\"n\"}} x\n"),
            "some lines cannot be read",
        ),
        (
            format!("{base}vllm:num_requests_waiting{{model_name=\"n\"}} 1 1700000000000\n"),
            "its samples have timestamps",
        ),
    ] {
        let pod = FakePod::with_page(&page).await;
        let gauges = scraped(&keeping(&[&pod])).await;
        let (page, _) = gauges.pods[0].page.as_ref().unwrap();
        assert_eq!(page.incomplete, Some(why));
        assert!(page.samples.len() <= 512);
    }
}
