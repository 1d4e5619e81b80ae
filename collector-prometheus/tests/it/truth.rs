// SPDX-License-Identifier: Apache-2.0
//! No faulty server yields a fresh wrong number: seeded scenes of a fleet with known values, read through a
//! gateway that damages the answers of a real Prometheus.
//!
//! `TRUTH_SEEDS` sets the number of scenes; `TRUTH_SEED` repeats one and prints its queries.

mod by_hand;
mod check;
mod fields;
mod fleet;
mod gateway;
mod plan;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use collector_core::{Answer, Ask, Backend, Clock, ModelRef};
use collector_prometheus::{PrometheusBackend, PrometheusConfig};
use collector_testkit::PrometheusServer;
use futures_util::{StreamExt, stream};

use self::check::{Reported, Verdict};
use self::fleet::Pod;
use self::gateway::{Gateway, Scene};
use self::plan::{Fault, Plan};

/// Default number of scenes.
const SEEDS: u64 = 2000;
/// Scenes that run at once.
const AT_ONCE: usize = 6;

/// The result of a scene.
struct Played {
    scene: Arc<Scene>,
    verdicts: Vec<Verdict>,
    violations: Vec<String>,
    /// The outcome of each fetch for the model of the scene; `None` if the fetch failed.
    answers: Vec<Option<Answer>>,
}

async fn play(plan: Plan, gateway: &Gateway, pods: &[Pod]) -> Played {
    let scene = Scene::new(plan);
    let plan = &scene.plan;
    let hangs = plan.faults.iter().any(|it| matches!(it.fault, Fault::Delay { hangs: true }));
    let config = PrometheusConfig {
        url: gateway.open(&scene),
        allow_http: true,
        timeout: if hangs { Duration::from_millis(250) } else { Duration::from_secs(20) },
        ..PrometheusConfig::default()
    };
    let clock: Arc<dyn Clock> = scene.clock.clone();
    let backend = PrometheusBackend::new(config, Arc::clone(&clock)).unwrap();
    let mut models = vec![plan.model.clone()];
    if plan.with_others {
        models.extend(plan::models().filter(|model| *model != plan.model));
    }
    let per_pod: HashSet<ModelRef> =
        if plan.per_pod { models.iter().cloned().collect() } else { HashSet::new() };
    let (mut verdicts, mut violations, mut said) = (Vec::new(), Vec::new(), Vec::new());
    let mut at = 0.0;
    for (fetch, time) in plan.times.iter().enumerate() {
        scene.clock.advance(time - at);
        at = *time;
        scene.fetch.store(fetch, Ordering::SeqCst);
        let mut ask = Ask::new(&models, &*clock).with_load_per_pod(&per_pod);
        ask.urgency = plan.urgency;
        if hangs {
            ask.time_left = Duration::from_secs(1);
        }
        let answers = backend.fetch(ask).await;
        let mut of_model = None;
        let reported = Reported::new(&scene, pods, at, fetch, clock.now());
        match answers {
            Err(_) => verdicts.push(Verdict::Failed),
            Ok(answers) => {
                for (model, answer) in answers {
                    match reported.check(&model, &answer) {
                        Ok(verdict) => verdicts.push(verdict),
                        Err(problem) => violations.push(format!(
                            "fetch {fetch}, {}/{}: {problem}\nsaid: {answer:#?}",
                            model.namespace.as_str(),
                            model.model.as_str()
                        )),
                    }
                    if model == scene.plan.model {
                        of_model = Some(answer);
                    }
                }
            }
        }
        said.push(of_model);
    }
    gateway.close(&scene);
    Played { scene, verdicts, violations, answers: said }
}

/// A gateway in front of a real Prometheus with the fleet's history; `None` if none is installed and none is
/// required.
async fn start() -> Option<(Gateway, Vec<Pod>)> {
    let pods = fleet::fleet();
    let server = PrometheusServer::start_with_history_or_skip(&fleet::history(&pods)).await?;
    Some((Gateway::start(server).await, pods))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stderr, reason = "the report is what the test is for")]
async fn no_odd_server_yields_a_fresh_wrong_number() {
    let Some((gateway, pods)) = start().await else { return };
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let one = number("TRUTH_SEED");
    let seeds: Vec<u64> = match one {
        Some(seed) => vec![seed],
        None => (0..number("TRUTH_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    let mut by_kind: BTreeMap<&str, BTreeMap<Verdict, u32>> = BTreeMap::new();
    let mut all: BTreeMap<Verdict, u32> = BTreeMap::new();
    let mut wrong: Vec<String> = Vec::new();
    let mut wrong_kinds: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut played = stream::iter(seeds)
        .map(|seed| play(Plan::new(seed), &gateway, &pods))
        .buffer_unordered(AT_ONCE);
    while let Some(Played { scene, verdicts, violations, .. }) = played.next().await {
        let touched = scene.touched.lock().unwrap();
        let kinds = touched.keys().copied();
        let kinds: Vec<&str> = if touched.is_empty() { vec!["none"] } else { kinds.collect() };
        for verdict in &verdicts {
            *all.entry(*verdict).or_default() += 1;
            for kind in &kinds {
                *by_kind.entry(kind).or_default().entry(*verdict).or_default() += 1;
            }
        }
        if one.is_some() {
            for (_, query, answer) in scene.log.lock().unwrap().iter() {
                eprintln!("{query}\n  -> {}", answer.chars().take(20_000).collect::<String>());
            }
            eprintln!("{:#?}", scene.plan);
        }
        for violation in violations {
            let first = violation.lines().next().unwrap_or_default();
            let kind = first.split(": ").nth(1).unwrap_or_default().to_owned();
            wrong_kinds.entry(kind).or_default().push(scene.plan.seed);
            let faults = &scene.plan.faults;
            eprintln!("WRONG seed {} {:?} {first} {faults:?}", scene.plan.seed, scene.plan.world);
            wrong.push(format!("seed {} {:?}\n{violation}", scene.plan.seed, scene.plan));
        }
    }
    drop(played);
    let (asked, behind) = gateway.counts();
    eprintln!("{asked} requests, {behind} of them different ones that a real Prometheus answered");
    eprintln!("all: {}", counts(&all));
    for (kind, verdicts) in &by_kind {
        eprintln!("{kind}: {}", counts(verdicts));
    }
    for (kind, seeds) in &wrong_kinds {
        eprintln!("WRONG {kind}: {} {:?}", seeds.len(), &seeds[..seeds.len().min(12)]);
    }
    assert!(gateway.refused().is_empty(), "queries that are none: {:?}", gateway.refused());
    assert!(wrong.is_empty(), "{} wrong, the first: {}", wrong.len(), wrong[0]);
    if one.is_none() {
        let right = all.get(&Verdict::Right).copied().unwrap_or(0);
        assert!(right > 0, "nothing was reported");
    }
}

fn counts(verdicts: &BTreeMap<Verdict, u32>) -> String {
    let words: Vec<String> =
        verdicts.iter().map(|(verdict, count)| format!("{verdict:?} {count}")).collect();
    words.join(", ")
}
