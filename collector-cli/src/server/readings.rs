//! `/api/v1/replicas`, `/api/v1/allocation` and `/api/v1/models`.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;

use axum::extract::State;
use axum::http::Uri;
use collector_core::{CollectError, MetricsCollector as _};

use super::app::App;
use super::query::Query;
use super::respond::{Answered, Refusal, found, list};
use crate::output::{
    AllocationDocument, ListDocument, ModelItem, ReplicasDocument, allocation_items, model_items,
    replicas_item, to_json,
};

/// One model's replicas, or those of everything tracked.
pub(super) async fn replicas(State(app): State<Arc<App>>, uri: Uri) -> Answered {
    let Some(model) = Query::parse(&uri, &["model", "namespace"])?.model()? else {
        let wall = app.clock.wall();
        let tracked = app.collector.tracked().into_iter();
        return Ok(list(tracked.map(move |tracked| to_json(&replicas_item(&tracked, wall)))));
    };
    app.reads_namespace_of(&model)?;
    let reading = read(&app, app.collector.collect_replica_metrics(&model)).await?;
    let document = ReplicasDocument::new(&reading, app.clock.wall());
    Ok(found(&document))
}

/// One variant's allocation, or those of everything tracked.
pub(super) async fn allocation(State(app): State<Arc<App>>, uri: Uri) -> Answered {
    let query = Query::parse(&uri, &["model", "namespace", "variant"])?.variant()?;
    let Some((model, variant)) = query else {
        let wall = app.clock.wall();
        let tracked = app.collector.tracked().into_iter();
        return Ok(list(tracked.flat_map(move |tracked| {
            let items = allocation_items(&tracked, wall);
            items.map(|item| to_json(&item)).collect::<Vec<_>>()
        })));
    };
    app.reads_namespace_of(&model)?;
    let reading = read(&app, app.collector.collect_allocation(&model, &variant)).await?;
    let document = AllocationDocument::new(&reading, app.clock.wall());
    Ok(found(&document))
}

/// What the backend knows, tracked or not.
pub(super) async fn models(State(app): State<Arc<App>>, uri: Uri) -> Answered {
    Query::parse(&uri, &[])?;
    let known = read(&app, app.collector.list_models()).await?;
    let tracked: HashSet<_> =
        app.collector.tracked().into_iter().map(|tracked| tracked.model).collect();
    let list: ListDocument<ModelItem> =
        model_items(known, |model| tracked.contains(model)).collect();
    Ok(found(&list))
}

/// Waits for a read, but not beyond the server's end: whoever waits gets an answer.
async fn read<T>(
    app: &App,
    reading: impl Future<Output = Result<T, CollectError>>,
) -> Result<T, Refusal> {
    tokio::select! {
        biased;
        result = reading => Ok(result?),
        () = app.leaving() => Err(Refusal::leaving()),
    }
}
