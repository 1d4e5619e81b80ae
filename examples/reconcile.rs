// SPDX-License-Identifier: Apache-2.0
//! A controller's loop: variants come and go, and each is read again and again through a handle.
//!
//! A fake backend stands in for the server, so that it runs anywhere:
//!
//! ```text
//! cargo run -p inference-collector --features testkit --example reconcile
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it decides")]

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use collector::core::{PodName, Variant, VariantDirectory, VariantName};
use collector::engine::WorkloadHandle;
use collector::prelude::*;
use collector::testkit::{FakeBackend, TokioClock};

/// The variants that there are at present: what a watch on your resources fills.
#[derive(Default)]
pub(crate) struct Variants {
    variants: RwLock<Vec<Arc<Variant>>>,
    generation: AtomicU64,
}

impl Variants {
    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Variant>>)) {
        change(&mut self.variants.write().unwrap_or_else(PoisonError::into_inner));
        // Last, so that whoever sees the new number sees the change.
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// A variant was created.
    pub(crate) fn add(&self, variant: Variant) {
        self.change(|variants| variants.push(Arc::new(variant)));
    }

    /// A variant was deleted.
    pub(crate) fn remove(&self, name: &VariantName) {
        self.change(|variants| variants.retain(|variant| variant.name != *name));
    }
}

impl VariantDirectory for Variants {
    fn variants(&self) -> Vec<Arc<Variant>> {
        self.variants.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn variants_of(&self, model: &ModelRef) -> Vec<Arc<Variant>> {
        self.variants().into_iter().filter(|variant| variant.model == *model).collect()
    }

    fn variant_of(&self, model: &ModelRef, pod: &PodName) -> Option<Arc<Variant>> {
        // Here a pod is called as its variant with a number behind it.
        let variants = self.variants_of(model).into_iter();
        variants.into_iter().find(|variant| pod.as_str().starts_with(variant.name.as_str()))
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

/// Keeps a handle for each variant: reading one compares a number while nothing new has come.
pub(crate) struct Controller {
    collector: CachingCollector,
    directory: Arc<Variants>,
    workloads: BTreeMap<VariantName, WorkloadHandle>,
}

impl Controller {
    /// A controller that reads `collector`, which has this directory.
    pub(crate) fn new(collector: CachingCollector, directory: Arc<Variants>) -> Self {
        Self { collector, directory, workloads: BTreeMap::new() }
    }

    /// Looks at every variant once, and says what it finds.
    pub(crate) async fn reconcile(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for variant in self.directory.variants() {
            let handle = self.workloads.entry(variant.name.clone()).or_insert_with(|| {
                self.collector.handle(variant.model.clone(), Some(variant.name.clone()))
            });
            // A handle never waits and never asks: what it does not have, yet, is collected.
            if handle.allocation().is_none()
                && let Err(error) =
                    self.collector.collect_allocation(&variant.model, &variant.name).await
            {
                // Not decided from nothing: leave the scale as it is.
                lines.push(format!("{}: {error}", variant.name));
                continue;
            }
            let Some(reading) = handle.allocation() else { continue };
            if reading.freshness() == Freshness::Unavailable {
                lines.push(format!("{}: too old to decide from", variant.name));
                continue;
            }
            let allocation = reading.value();
            let per_minute = allocation.load.arrival_rate;
            let replicas = allocation.num_replicas;
            lines.push(format!("{}: {replicas} replicas, {per_minute:?} a minute", variant.name));
        }
        lines
    }

    /// A variant was deleted: it is refreshed no longer, and what is cached of it goes.
    pub(crate) fn deleted(&mut self, variant: &VariantRef) {
        self.directory.remove(&variant.name);
        self.workloads.remove(&variant.name);
        self.collector.stop_tracking(variant);
    }
}

/// Two variants of a model, of which one is deleted after the first round.
pub(crate) async fn run() -> Result<Vec<String>, Box<dyn Error>> {
    let clock = Arc::new(TokioClock::new());
    let backend = FakeBackend::new(Arc::<TokioClock>::clone(&clock));
    let model = ModelRef::new("org/chat", "prod");
    backend.serve_pods(&model, &["h100-0", "h100-1", "l4-0"]);

    let directory = Arc::new(Variants::default());
    for name in ["h100", "l4"] {
        let (name, model) = (name.into(), model.clone());
        directory.add(Variant {
            name,
            model,
            accelerator: None,
            cost: 10.0,
            max_batch: None,
            fetch_interval: None,
        });
    }
    let collector = CachingCollector::builder(Arc::new(backend))
        .directory(Arc::<Variants>::clone(&directory))
        .clock(clock)
        .build()?;
    collector.start_background_worker().await.unwrap();

    let mut controller = Controller::new(collector, directory);
    let mut lines = controller.reconcile().await;
    controller.deleted(&VariantRef::new("l4", "prod"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    lines.extend(controller.reconcile().await);
    controller.collector.stop_background_worker().await;
    Ok(lines)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    for line in run().await? {
        println!("{line}");
    }
    Ok(())
}
