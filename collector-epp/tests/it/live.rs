// SPDX-License-Identifier: Apache-2.0
//! The live half: what changes in a pod is pushed, and each pod is scraped at its own times.

use std::fs;
use std::time::Duration;

use collector_core::{Answer, Backend as _, ErrorKind, ListAsk, SystemClock};
use collector_epp::EppConfig;

use crate::fake_pod::{FakePod, Says, vllm};
use crate::world::{Live, answer, config, failure, found, in_prod, seconds};

/// Scrapes every 100 ms, tracked or not.
fn quick(config: EppConfig) -> EppConfig {
    EppConfig {
        scrape_interval: Duration::from_millis(100),
        idle_interval: Duration::from_millis(100),
        ..config
    }
}

fn queue(answer: &Answer) -> Option<u64> {
    match answer {
        Answer::Found(sample) => sample.replicas.first()?.queue_length,
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn what_changes_in_a_pod_is_pushed() {
    let pod = FakePod::with_page(&vllm("m", 3.0, 0.5, 10.0)).await;
    let live = Live::start(quick(config(vec![pod.target("m-0")])));
    live.pushed.wait_for("m", |answer| (queue(answer) == Some(3)).then_some(())).await;
    pod.say(Says::Page(vllm("m", 30.0, 0.5, 20.0)));
    live.pushed.wait_for("m", |answer| (queue(answer) == Some(30)).then_some(())).await;
    let rate = |answer: &Answer| match answer {
        Answer::Found(sample) => {
            let (pod, load) = &sample.load.pods()[0];
            assert_eq!(pod.as_str(), "m-0");
            load.rates.requests.filter(|rate| *rate > 0.0)
        }
        _ => None,
    };
    live.pushed.wait_for("m", rate).await;
    assert_eq!(pod.connections(), 1);
    // A fetch answers from memory.
    let before = pod.requests().len();
    assert_eq!(queue(&answer(&live.backend, "m").await), Some(30));
    assert!(pod.requests().len() <= before + 1, "it was scraped for the fetch");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_fails_is_told_once_and_so_is_its_return() {
    let page = vllm("m", 3.0, 0.5, 10.0);
    let pod = FakePod::with_page(&page).await;
    let live = Live::start(quick(config(vec![pod.target("m-0")])));
    live.pushed.wait_for("m", queue).await;
    pod.say(Says::Raw(b"HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n".to_vec()));
    let failed = |answer: &Answer| match answer {
        Answer::Failed(error) => Some(error.kind()),
        _ => None,
    };
    assert_eq!(live.pushed.wait_for("m", failed).await, ErrorKind::ServerError);
    // That it still fails is no news.
    let requests = pod.requests().len();
    while pod.requests().len() < requests + 5 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(live.pushed.count(), 0);
    assert_eq!(failure(&live.backend, "m").await.kind(), ErrorKind::ServerError);
    pod.say(Says::Page(page));
    live.pushed.wait_for("m", queue).await;
}

#[tokio::test(start_paused = true)]
async fn a_tracked_model_that_no_pod_serves_is_pushed_as_missing() {
    let pods =
        [FakePod::with_page(&vllm("m", 1.0, 0.5, 1.0)).await, FakePod::start(Says::Nothing).await];
    let live = Live::start(quick(config(vec![pods[0].target("m-0"), pods[1].target("m-1")])));
    live.track(&["m", "absent"]);
    // The silent pod may serve it.
    let failed = |answer: &Answer| matches!(answer, Answer::Failed(_)).then_some(());
    live.pushed.wait_for("absent", failed).await;
    assert!(live.pushed.cycles() > 0);
    pods[1].say(Says::Page(vllm("m", 1.0, 0.5, 1.0)));
    let missing = |answer: &Answer| matches!(answer, Answer::Missing { .. }).then_some(());
    let both = |answer: &Answer| match answer {
        Answer::Found(sample) => {
            (sample.absent.is_none() && sample.replicas.len() == 2).then_some(())
        }
        _ => None,
    };
    live.pushed.wait_for("m", both).await;
    assert_eq!(missing(&answer(&live.backend, "absent").await), Some(()));
    live.track(&["m", "other"]);
    live.pushed.wait_for("other", missing).await;
}

#[tokio::test(start_paused = true)]
async fn a_cycle_ends_when_every_pod_was_tried_well_or_badly() {
    let pods =
        [FakePod::with_page(&vllm("m", 1.0, 0.5, 1.0)).await, FakePod::start(Says::Nothing).await];
    let live = Live::start(quick(config(vec![pods[0].target("m-0"), pods[1].target("m-1")])));
    live.pushed.first_cycle().await;
    assert!(pods.iter().all(|pod| !pod.requests().is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_slow_pod_delays_no_other() {
    let slow = FakePod::start(Says::Nothing).await;
    let pods = [
        FakePod::with_page(&vllm("m", 1.0, 0.5, 1.0)).await,
        FakePod::with_page(&vllm("m", 1.0, 0.5, 1.0)).await,
    ];
    let live = Live::start(quick(config(vec![
        slow.target("m-0"),
        pods[0].target("m-1"),
        pods[1].target("m-2"),
    ])));
    let both = |answer: &Answer| match answer {
        Answer::Found(sample) if sample.replicas.len() == 2 => Some(sample.absent.is_none()),
        _ => None,
    };
    assert!(!live.pushed.wait_for("m", both).await);
    // While the slow one is tried, the others are scraped as often as they should be.
    let tries = slow.requests().len();
    let scrapes = pods[0].requests().len();
    while slow.requests().len() < tries + 5 {
        live.pushed.wait_for("m", |_| Some(())).await;
    }
    let scrapes = pods[0].requests().len() - scrapes;
    assert!((4..=7).contains(&scrapes), "{scrapes} scrapes while another had 5");
}

#[tokio::test(start_paused = true)]
async fn a_fetch_waits_until_every_pod_was_tried() {
    let pods = [
        FakePod::with_page(&vllm("m", 1.0, 0.5, 1.0)).await,
        FakePod::with_page(&vllm("m", 1.0, 0.5, 1.0)).await,
    ];
    let live = Live::start(config(vec![pods[0].target("m-0"), pods[1].target("m-1")]));
    tokio::task::yield_now().await;
    let sample = found(answer(&live.backend, "m").await);
    assert_eq!((sample.replicas.len(), sample.absent.is_none()), (2, true));
    assert!(matches!(answer(&live.backend, "absent").await, Answer::Missing { .. }));
}

#[tokio::test(start_paused = true)]
async fn pods_of_untracked_models_are_not_scraped_until_a_fetch() {
    let pod = FakePod::with_page(&vllm("m", 1.0, 0.5, 1.0)).await;
    let never = EppConfig {
        idle_interval: Duration::ZERO,
        scrape_interval: Duration::from_millis(50),
        ..config(vec![pod.target("m-0")])
    };
    let live = Live::start(never);
    live.pushed.wait_for("m", queue).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(pod.requests().len(), 1);
    // What is in memory is old: the pod is scraped for the fetch.
    pod.say(Says::Page(vllm("m", 8.0, 0.5, 1.0)));
    assert_eq!(queue(&answer(&live.backend, "m").await), Some(8));
    assert_eq!(pod.requests().len(), 2);
    live.track(&["m"]);
    while pod.requests().len() < 5 {
        live.pushed.wait_for("m", |_| Some(())).await;
    }
    live.track(&["other"]);
    live.pushed.wait_for("m", |_| Some(())).await;
    let requests = pod.requests().len();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(pod.requests().len() <= requests + 1);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_vanishes_is_dropped_at_once_and_its_model_later() {
    let pods = [
        FakePod::with_page(&vllm("m", 1.0, 0.5, 1.0)).await,
        FakePod::with_page(&vllm("gone", 1.0, 0.5, 1.0)).await,
    ];
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("targets.json");
    let targets = |pods: &[&FakePod]| {
        let groups: Vec<_> = pods
            .iter()
            .map(|pod| {
                let address = pod.address.to_string();
                let labels = serde_json::json!({"namespace": "prod", "pod": address});
                serde_json::json!({"targets": [address], "labels": labels})
            })
            .collect();
        let new = file.with_extension("new");
        fs::write(&new, serde_json::to_string(&groups).unwrap()).unwrap();
        fs::rename(new, &file).unwrap();
    };
    targets(&[&pods[0], &pods[1]]);
    let live = Live::start(quick(EppConfig {
        target_file: Some(file.clone()),
        window: Duration::from_millis(1500),
        ..config(Vec::new())
    }));
    live.pushed.wait_for("gone", queue).await;
    targets(&[&pods[0]]);
    let empty = |answer: &Answer| match answer {
        Answer::Found(sample) if sample.replicas.is_empty() => Some(sample.absent.is_none()),
        _ => None,
    };
    assert_eq!(pods[1].open_connections(), 1);
    assert!(live.pushed.wait_for("gone", empty).await);
    while pods[1].open_connections() > 0 {
        live.pushed.wait_for("m", |_| Some(())).await;
    }
    // It is forgotten with the window.
    while !matches!(answer(&live.backend, "gone").await, Answer::Missing { .. }) {
        live.pushed.wait_for("m", |_| Some(())).await;
    }
    // A file that is broken leaves what there was.
    fs::write(&file, "[{").unwrap();
    tokio::time::sleep(Duration::from_millis(2200)).await;
    assert!(found(answer(&live.backend, "m").await).absent.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_source_that_was_never_told_makes_nothing_missing() {
    let pod = FakePod::with_page(&vllm("m", 1.0, 0.5, 1.0)).await;
    let settings = EppConfig {
        target_file: Some("/does/not/exist.json".into()),
        ..config(vec![pod.target("m-0")])
    };
    let live = Live::start(settings.clone());
    tokio::task::yield_now().await;
    let sample = found(answer(&live.backend, "m").await);
    assert!(!sample.absent.is_none(), "there may be pods in that file");
    let error = failure(&live.backend, "absent").await;
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("epp.target_file: /does/not/exist.json"), "{error}");
    // Likewise without the live half, where the file is all there is.
    let alone = EppConfig { targets: Vec::new(), ..settings };
    let error = failure(&crate::world::backend(alone), "m").await;
    assert_eq!(error.kind(), ErrorKind::Configuration);
}

#[tokio::test(start_paused = true)]
async fn dropped_it_lets_go_of_every_pod() {
    let pod = FakePod::with_page(&vllm("m", 1.0, 0.5, 1.0)).await;
    let mut live = Live::start(quick(config(vec![pod.target("m-0")])));
    live.pushed.wait_for("m", queue).await;
    live.stop().await;
    let requests = pod.requests().len();
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(pod.requests().len(), requests);
    // It answers when it is asked, as if it had never run.
    assert_eq!(
        live.backend.list_models(ListAsk::new(&SystemClock::new())).await.unwrap()[0].model,
        in_prod("m")
    );
    assert_eq!(pod.requests().len(), requests + 1);
}
