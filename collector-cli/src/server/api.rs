//! `/api/v1`: readings, models, refresh intervals, and the removal of cache entries.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use collector_core::{CollectError, MetricsCollector as _};

use super::app::{App, Peer};
use super::query::Query;
use super::respond::{Answered, Refusal, found, list};
use crate::output::{
    AllocationDocument, ErrorDocument, ListDocument, ModelItem, PaceDocument, RemovedDocument,
    ReplicasDocument, allocation_items, model_items, replicas_item, to_json,
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

/// Returns the refresh interval of a model and its reason. Neither tracks the model nor counts as a read.
pub(super) async fn pace(State(app): State<Arc<App>>, uri: Uri) -> Answered {
    let Some(model) = Query::parse(&uri, &["model", "namespace"])?.model()? else {
        return Err(Refusal::bad_request("parameters \"model\" and \"namespace\" are missing"));
    };
    Ok(found(&PaceDocument::new(&model, app.collector.pace(&model))))
}

/// Drops a model's entries.
pub(super) async fn drop_entries(
    State(app): State<Arc<App>>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    uri: Uri,
) -> Answered {
    if !app.access.may_change(peer, &headers) {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            ErrorDocument::new(
                "Forbidden",
                "this needs the header Authorization: Bearer with the token of \
                 server.admin_token_path; without that key it is for loopback",
            ),
        ));
    }
    let Some(model) = Query::parse(&uri, &["model", "namespace"])?.model()? else {
        return Err(Refusal::bad_request(
            "parameters \"model\" and \"namespace\" are missing: they say what to drop",
        ));
    };
    let removed = app.collector.invalidate_cache(&model);
    Ok(found(&RemovedDocument { removed }))
}

/// Waits for a read, at most until the server exits, so that every caller gets an answer.
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
