// SPDX-License-Identifier: Apache-2.0
//! A thousand callers that miss one key at once: how often the backend is asked.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use collector_core::{MetricsCollector, ModelRef, SystemClock};
use collector_engine::CachingCollector;
use collector_testkit::FakeBackend;
use tokio::task::JoinSet;

use crate::report::{Figure, Report};

const SUITE: &str = "miss";
const CALLERS: usize = 1000;

/// Counts the fetches, with all callers patient and with the first one gone.
pub(crate) async fn measure(report: &mut Report) -> Result<()> {
    let patient = fetches(false).await?;
    let cancelled = fetches(true).await?;
    let figure = |value: usize| [Figure { name: "fetches", value: value as f64, unit: "" }];
    report.row(SUITE, "1000 callers at once", "collector", &figure(patient));
    report.row(SUITE, "1000 callers, the first cancelled", "collector", &figure(cancelled));
    // No fetch at all would be as wrong as two.
    ensure!(patient.min(cancelled) > 0, "the backend was never asked");
    report.goal("miss.1000.fetches", 1.0, patient.max(cancelled) as f64);
    Ok(())
}

async fn fetches(cancel_first: bool) -> Result<usize> {
    let backend = FakeBackend::new(Arc::new(SystemClock::new()));
    let model = ModelRef::new("meta-llama/Llama-3.1-8B-Instruct", "inference-prod");
    backend.serve_pods(&model, &["pod-0", "pod-1"]);
    backend.hang();
    let collector = Arc::new(CachingCollector::new(backend.clone())?);
    let read = || {
        let (collector, model) = (Arc::clone(&collector), model.clone());
        async move {
            collector
                .collect_replica_metrics(&model)
                .await
                .map(|reading| reading.value().replicas.len())
        }
    };
    let first = tokio::spawn(read());
    backend.entered().await;
    let mut others = JoinSet::new();
    for _ in 1..CALLERS {
        others.spawn(read());
    }
    if cancel_first {
        first.abort();
    }
    // Every caller is in its place before the backend answers.
    while collector.state().misses < CALLERS as u64 {
        tokio::task::yield_now().await;
    }
    backend.release();
    if !cancel_first {
        ensure!(first.await?? == 2, "the first caller got another value");
    }
    while let Some(read) = others.join_next().await {
        ensure!(read.context("a caller panicked")?? == 2, "a caller got another value");
    }
    Ok(backend.fetches())
}
