// SPDX-License-Identifier: Apache-2.0
//! `/api/v1`: readings, models, refresh intervals, and the removal of cache entries.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::IntoResponse as _;
use collector_core::{CollectError, MetricsCollector as _, TrackedModel, VariantName};
use futures_util::future::join_all;

use super::app::{App, Peer};
use super::etag::{self, Tag};
use super::fields::Fields;
use super::lists;
use super::metrics::http::{Route, Routed};
use super::query::Query;
use super::respond::{Answered, Refusal, found, found_json, has_body};
use crate::output::{
    AllocationDocument, ErrorDocument, ListDocument, ModelItem, PaceDocument, RemovedDocument,
    ReplicasDocument, model_items,
};

/// The path of replicas.
pub(super) const REPLICAS: &str = "/api/v1/replicas";

static ROUTE_OF_REPLICAS: Route = Route::new(REPLICAS);

/// One model's replicas, or those of what is tracked.
pub(super) async fn replicas(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    uri: Uri,
) -> Answered {
    answer_replicas(&app, &headers, &uri).await
}

/// Whether a request is for replicas.
pub(super) fn is_for_replicas(request: &Request) -> bool {
    let is_get = request.method() == Method::GET && !has_body(request.headers());
    is_get && request.uri().path() == REPLICAS
}

/// Answers a request for replicas as the router does, which would be a part of what a reading costs.
pub(super) async fn replicas_directly(app: &App, request: &mut Request) -> Routed {
    let answer = answer_replicas(app, request.headers(), request.uri()).await;
    (answer.into_response(), Some(&ROUTE_OF_REPLICAS))
}

async fn answer_replicas(app: &App, headers: &HeaderMap, uri: &Uri) -> Answered {
    let known = ["model", "namespace", "accelerator", "variant", "fields", "limit", "after"];
    let mut query = Query::parse(uri, &known)?;
    let fields = Fields::take(&mut query, "Replicas")?;
    let Some(model) = query.one(&[])? else {
        return lists::replicas(app, query, fields, headers);
    };
    app.reads_namespace_of(&model)?;
    let reading = read(app, app.collector.collect_replica_metrics(&model)).await?;
    Ok(etag::unless_known(Tag::of(&reading), headers, || {
        let document = ReplicasDocument::new(&reading, app.clock.wall());
        let json = fields.map_or_else(|| document.to_json(), |fields| fields.json(&document));
        found_json(json)
    }))
}

/// One variant's allocation, those of a model's variants, or those of what is tracked.
pub(super) async fn allocation(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    uri: Uri,
) -> Answered {
    let known = ["model", "namespace", "variant", "accelerator", "fields", "limit", "after"];
    let mut query = Query::parse(&uri, &known)?;
    let fields = Fields::take(&mut query, "Allocation")?;
    let Some(model) = query.one(&["variant"])? else {
        return lists::allocations(&app, query, fields, &headers);
    };
    let variant = query.text("variant").map(VariantName::from);
    app.reads_namespace_of(&model)?;
    let Some(variant) = variant else {
        // A model that there is not has no list of variants, which is not an empty one.
        let replicas = Ok(read(&app, app.collector.collect_replica_metrics(&model)).await?);
        let variants = app.collector.variants_of(&model);
        let each = variants.iter().map(|name| app.collector.collect_allocation(&model, name));
        let readings = tokio::select! {
            biased;
            readings = join_all(each) => readings,
            () = app.leaving() => return Err(Refusal::leaving()),
        };
        let allocations = variants.iter().cloned().zip(readings).collect();
        let model = TrackedModel { model, replicas, allocations };
        return Ok(lists::variants(&app, model, fields, &headers));
    };
    let reading = read(&app, app.collector.collect_allocation(&model, &variant)).await?;
    Ok(etag::unless_known(Tag::of(&reading), &headers, || {
        let document = AllocationDocument::new(&reading, app.clock.wall());
        let json = fields.map_or_else(|| document.to_json(), |fields| fields.json(&document));
        found_json(json)
    }))
}

/// What the backend knows, tracked or not.
pub(super) async fn models(State(app): State<Arc<App>>, uri: Uri) -> Answered {
    Query::parse(&uri, &[])?;
    let known = read(&app, app.collector.list_models()).await?;
    let tracked: HashSet<_> = app.collector.tracked_names().into_iter().collect();
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
