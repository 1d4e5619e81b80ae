//! `DELETE /api/v1/cache`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};

use super::app::{App, Peer};
use super::query::Query;
use super::respond::{Answered, Refusal, found};
use crate::output::{ErrorDocument, RemovedDocument};

/// Drops a model's entries.
pub(super) async fn drop_entries(
    State(app): State<Arc<App>>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    uri: Uri,
) -> Answered {
    if !app.admin.allows(peer, &headers) {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            ErrorDocument::new(
                "Forbidden",
                "this is for loopback, or with the header Authorization: Bearer and the token in \
                 server.admin_token_path",
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
