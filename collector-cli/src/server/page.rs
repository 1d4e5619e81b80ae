//! The live page: one file without anything from elsewhere.

use axum::http::header;
use axum::response::{Html, IntoResponse as _, Response};

/// Its own inline script and style, its own API, and nothing else. Names reach the page as text
/// nodes only.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

pub(super) async fn show() -> Response {
    let headers = [(header::CONTENT_SECURITY_POLICY, POLICY)];
    (headers, Html(include_str!("page.html"))).into_response()
}
