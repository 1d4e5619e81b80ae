// SPDX-License-Identifier: Apache-2.0
//! [`Backend`] of a cluster. While the live source runs, it answers from memory; otherwise a fetch lists all objects.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use collector_core::text::counted;
use collector_core::{
    Answer, Answers, Ask, Backend, BackendError, Check, CheckStatus, ErrorKind, KnownModel, Limits,
    ListAsk, LiveContext, LiveSource, ModelRef, ModelSample, Operation, Permits, Probe, ProbeAsk,
    Supports, VariantDirectory,
};
use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};

use crate::cluster::{Cluster, Shared};
use crate::live;
use crate::store::{Known, Store};
use crate::watches::{Lost, Unheard};

/// The backend's name.
pub const NAME: &str = "kubernetes";

/// How long a request may take by default. A list of 10 000 pods takes a few of them.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Conditions that a probe shows one by one.
const CONDITIONS_SHOWN: usize = 20;

#[async_trait]
impl Backend for Cluster {
    fn name(&self) -> &'static str {
        NAME
    }

    fn supports(&self) -> Supports {
        let mut supports = Supports::REPLICAS_ONLY;
        supports.list_models = true;
        supports
    }

    fn limits(&self) -> Limits {
        Limits::new(TIMEOUT)
    }

    async fn fetch(&self, ask: Ask<'_>) -> Result<Answers, BackendError> {
        if ask.models.is_empty() {
            return Ok(Answers::new());
        }
        let shared = &self.shared;
        let unheard = bring_up_to_date(shared, ask.time_left, ask.permits).await.err();
        let unheard = unheard.or_else(|| shared.store.as_of().err());
        if let Some(unheard) = unheard {
            return Err(error_of(unheard, Operation::Fetch));
        }
        let answer =
            |model: &ModelRef| (model.clone(), answer(&shared.store, model, Operation::Fetch));
        Ok(ask.models.iter().map(answer).collect())
    }

    async fn list_models(&self, ask: ListAsk<'_>) -> Result<Vec<KnownModel>, BackendError> {
        let shared = &self.shared;
        let brought = bring_up_to_date(shared, ask.time_left, ask.permits).await;
        // A list that is not current may lack a model.
        let current = brought.and_then(|()| shared.store.as_of().map(|_| ()));
        current.map_err(|unheard| error_of(unheard, Operation::ListModels))?;
        Ok(shared.store.models())
    }

    async fn probe(&self, ask: ProbeAsk<'_>) -> Result<Probe, BackendError> {
        let shared = &self.shared;
        let brought = bring_up_to_date(shared, ask.time_left, ask.permits).await;
        let current = brought.and_then(|()| shared.store.as_of());
        Ok(probe(&shared.store, current))
    }

    fn live(&self) -> Option<&dyn LiveSource> {
        Some(self)
    }

    fn variants(&self) -> Option<Arc<dyn VariantDirectory>> {
        Some(Arc::new(self.directory()))
    }
}

#[async_trait]
impl LiveSource for Cluster {
    fn tracked(&self, models: Arc<HashSet<ModelRef>>) {
        self.shared.track(models);
    }

    async fn run(&self, context: LiveContext) {
        live::run(&self.shared, context.sink).await;
    }
}

/// The answer about a model, from memory.
pub(crate) fn answer(store: &Store, model: &ModelRef, operation: Operation) -> Answer {
    match store.known(model) {
        Ok(Known::Supply(known)) => {
            let mut sample = ModelSample::new(known.supply.as_of, Vec::new());
            sample.lists_pods = known.is_complete && known.supply.is_zero();
            sample.supply = Some(Arc::new(known.supply));
            Answer::Found(sample)
        }
        Ok(Known::No(as_of)) => Answer::Missing { as_of, last_seen: None },
        Err(unheard) => Answer::Failed(error_of(unheard, operation)),
    }
}

pub(crate) fn error_of(unheard: Unheard, operation: Operation) -> BackendError {
    let error = BackendError::new(unheard.kind, NAME.into(), operation, "the API server");
    error.with_detail(unheard.why)
}

/// Waits until the live source has tried everything, or lists everything if it does not run.
pub(crate) async fn bring_up_to_date(
    shared: &Shared,
    time_left: Duration,
    permits: &dyn Permits,
) -> Result<(), Unheard> {
    // A little less than the time left, so that the reason is still returned.
    let deadline = Instant::now() + time_left.mul_f64(0.97);
    if shared.is_live.load(Ordering::Relaxed) {
        let mut news = shared.store.news();
        while !shared.store.is_tried() {
            match timeout_at(deadline, news.changed()).await {
                Ok(Ok(())) => {}
                // The reason is what the store says.
                Ok(Err(_)) | Err(_) => break,
            }
        }
    } else {
        let listing = timeout_at(deadline, list_all(shared, permits)).await;
        listing.unwrap_or_else(|_| {
            let why = "the objects could not be listed in time".to_owned();
            Err(Unheard { kind: ErrorKind::Timeout, why })
        })?;
    }
    shared.store.settle();
    Ok(())
}

/// Lists all objects once. Callers that come meanwhile share the next list.
async fn list_all(shared: &Shared, permits: &dyn Permits) -> Result<(), Unheard> {
    let asked = shared.store.now();
    // It is never closed.
    let Ok(_turn) = shared.listing.acquire().await else { return Ok(()) };
    if shared.listed().is_some_and(|began| began >= asked) {
        return Ok(());
    }
    let client = shared.connection.client().await;
    client.map_err(|failure| Unheard { kind: failure.kind, why: failure.why })?;
    let began = shared.store.now();
    let watches = shared.watches();
    shared.begin();
    let lists = watches.into_iter().map(|id| async {
        let watch = shared.watch(id);
        if let Err(failure) = watch.list(permits).await {
            let why = failure.to_string();
            shared.store.lost(&watch.id, Lost { since: began, kind: failure.kind, why });
        }
    });
    join_all(lists).await;
    if shared.has_another_client() {
        let why = "another client was given while the objects were listed".to_owned();
        return Err(Unheard { kind: ErrorKind::Disconnected, why });
    }
    shared.store.tidy();
    shared.set_listed(began);
    Ok(())
}

fn probe(store: &Store, current: Result<collector_core::Tick, Unheard>) -> Probe {
    if let Err(unheard) = current {
        let lists = Check::new("cluster.lists", CheckStatus::Fail, unheard.why).with_remedy(
            "see `collector docs kubernetes` for the credentials and the rights that are needed",
        );
        let objects = Check::new("cluster.objects", CheckStatus::Skip, "they are not listed");
        return Probe::new(vec![lists, objects]);
    }
    let models = counted(store.models().len(), "model", "models");
    let variants = counted(store.variants().len(), "variant", "variants");
    let detail = format!("the API server lists every kind: {models}, {variants}");
    let mut checks = vec![Check::new("cluster.lists", CheckStatus::Pass, detail)];
    let conditions = store.conditions();
    if conditions.is_empty() {
        checks.push(Check::new("cluster.objects", CheckStatus::Pass, "nothing is wrong with them"));
    }
    for condition in conditions.iter().take(CONDITIONS_SHOWN) {
        let detail = format!("{}: {}", condition.object, condition.problem);
        checks.push(
            Check::new("cluster.objects", CheckStatus::Warn, detail)
                .with_remedy(condition.remedy.clone()),
        );
    }
    if let Some(more) = conditions.len().checked_sub(CONDITIONS_SHOWN).filter(|more| *more > 0) {
        let detail = format!("{more} more objects have something wrong");
        checks.push(Check::new("cluster.objects", CheckStatus::Warn, detail));
    }
    Probe::new(checks)
}
