//! `/api/v1/pace`: how often one model is refreshed, and why.

use std::sync::Arc;

use axum::extract::State;
use axum::http::Uri;

use super::app::App;
use super::query::Query;
use super::respond::{Answered, Refusal, found};
use crate::output::PaceDocument;

/// The pace of a model. Neither tracks it nor counts as a read.
pub(super) async fn show(State(app): State<Arc<App>>, uri: Uri) -> Answered {
    let Some(model) = Query::parse(&uri, &["model", "namespace"])?.model()? else {
        return Err(Refusal::bad_request("parameters \"model\" and \"namespace\" are missing"));
    };
    Ok(found(&PaceDocument::new(&model, app.collector.pace(&model))))
}
