// SPDX-License-Identifier: Apache-2.0
//! The live page: its own few files, and nothing from elsewhere.

mod changes;
mod row;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

pub(crate) use self::changes::Changes;
use super::app::App;
use super::metrics;
use crate::output::Exposition;

/// Its own files, its own API, and nothing else; no script makes markup of text, so names stay text.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// A script of this name.
macro_rules! script {
    ($name:literal) => {
        (
            concat!("/page/", $name),
            "text/javascript; charset=utf-8",
            include_str!(concat!("page/", $name)),
        )
    };
}

/// Path, media type and text of each file.
const FILES: [(&str, &str, &str); 10] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/page/page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("/page/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    script!("page.js"),
    script!("data.js"),
    script!("text.js"),
    script!("models.js"),
    script!("list.js"),
    script!("detail.js"),
    script!("internals.js"),
];

/// Whether a path is one of these files. They are the same for everyone, so they need no token; the page asks for it.
pub(super) fn is_file(path: &str) -> bool {
    FILES.iter().any(|(file, ..)| *file == path)
}

/// The routes of the page.
pub(super) fn routes() -> Router<Arc<App>> {
    let data = Router::new()
        .route("/page/changes", get(changes::changes))
        .route("/page/model", get(changes::model))
        .route("/page/internals", get(internals));
    FILES.into_iter().fold(data, |router, (path, media_type, text)| {
        router.route(path, get(move || async move { file(media_type, text) }))
    })
}

/// The counters and gauges of the collector itself, as on `/metrics`, without what is there for each model.
async fn internals(State(app): State<Arc<App>>) -> Response {
    let mut state = Exposition::default();
    metrics::describe_state(&mut state, &app.collector.state());
    let headers = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (headers, app.recorder.render() + &state.into_text()).into_response()
}

fn file(media_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, media_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, text).into_response()
}
