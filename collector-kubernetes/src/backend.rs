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
use crate::failure::Failure;
use crate::live;
use crate::store::{Known, Store};
use crate::watches::{Lost, Unheard};

/// The backend's name.
pub const NAME: &str = "kubernetes";

/// How long a request may take by default, as one to a Prometheus. All lists together may take three times that.
const TIMEOUT: Duration = Duration::from_secs(5);

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
    let error = error.with_detail(unheard.why);
    if unheard.kind != ErrorKind::Timeout {
        return error;
    }
    error.with_remedy(
        "is the API server overloaded, or does a firewall or a NetworkPolicy drop what is sent to it?",
    )
}

/// Waits until the live source has tried everything, or lists everything if it does not run.
pub(crate) async fn bring_up_to_date(
    shared: &Shared,
    time_left: Duration,
    permits: &dyn Permits,
) -> Result<(), Unheard> {
    // A little less, so that the reason is still returned.
    let time_left = time_left.mul_f64(0.97);
    if shared.is_live.load(Ordering::Relaxed) {
        let deadline = Instant::now() + time_left;
        let mut news = shared.store.news();
        while !shared.store.is_tried() {
            match timeout_at(deadline, news.changed()).await {
                Ok(Ok(())) => {}
                // The reason is what the store says.
                Ok(Err(_)) | Err(_) => break,
            }
        }
    } else {
        list_all(shared, permits, time_left).await?;
    }
    shared.store.settle();
    Ok(())
}

/// Lists all objects once, in this time. Callers that come meanwhile share the next list.
async fn list_all(
    shared: &Shared,
    permits: &dyn Permits,
    time_left: Duration,
) -> Result<(), Unheard> {
    let deadline = Instant::now() + time_left;
    let late = |what: &str| {
        let within = time_left.as_secs_f64();
        Failure::new(ErrorKind::Timeout, format!("{what} within {within:.1}s"))
    };
    let unheard = |failure: Failure| Unheard { kind: failure.kind, why: failure.why };
    let asked = shared.store.now();
    let turn = timeout_at(deadline, shared.listing.acquire()).await;
    let turn = turn.map_err(|_| unheard(late("the list before did not end")))?;
    // It is never closed.
    let Ok(_turn) = turn else { return Ok(()) };
    if shared.listed().is_some_and(|began| began >= asked) {
        return Ok(());
    }
    let client = timeout_at(deadline, shared.connection.client()).await;
    let client = client.unwrap_or_else(|_| {
        let why = late("the command of the kubeconfig for credentials has not ended").why;
        Err(Failure::new(ErrorKind::Configuration, why))
    });
    client.map_err(unheard)?;
    let began = shared.store.now();
    let watches = shared.watches();
    shared.begin();
    let lists = watches.into_iter().map(|id| async {
        let watch = shared.watch(id);
        let (kind, why) = match timeout_at(deadline, watch.list(permits)).await {
            Ok(Ok(_)) => return,
            Ok(Err(failure)) => (failure.kind, failure.to_string()),
            Err(_) => (ErrorKind::Timeout, late("no list").why),
        };
        shared.store.lost(&watch.id, Lost { since: shared.store.now(), kind, why });
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
