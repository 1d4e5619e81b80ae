// SPDX-License-Identifier: Apache-2.0
//! URLs that users write, and those that servers redirect to.

use collector_core::ErrorKind;
use collector_core::text::quote;
use http::HeaderValue;
use url::Url;

use crate::explain::Cause;

/// Parses the URL of a server as a user writes it. `instead` names the keys for credentials.
///
/// # Errors
/// The problem, to follow the name of the key.
pub fn server_url(text: &str, instead: &str) -> Result<Url, String> {
    let text = text.trim();
    // There may be a password before an `@`, or a token in a parameter.
    let may_hold_secrets = text.contains(['@', '?', '#']);
    let it = if may_hold_secrets { "it".to_owned() } else { format!("{:?}", quote(text)) };
    let url = Url::parse(text).map_err(|error| {
        format!(
            "{it} is not a URL ({error}); write https://HOST:PORT, and the path if there is one"
        )
    })?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("it holds credentials, which would show in logs; use {instead}"));
    }
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("{it} does not begin with https:// or http://"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(format!("{it} names no host"));
    }
    if url.fragment().is_some() {
        return Err("it has a fragment; leave out what follows the #".to_owned());
    }
    Ok(url)
}

/// Returns the target of a redirect, which must be on the same server. `followed` are the codes that keep the request,
/// and `key` is what the user can set to another URL.
///
/// # Errors
/// Why it is not followed.
pub fn redirect(
    from: &Url,
    code: u16,
    location: Option<&HeaderValue>,
    followed: &[u16],
    key: &str,
) -> Result<Url, Cause> {
    let refused = |detail: String| {
        Err(Cause::new(ErrorKind::Redirected, detail)
            .with_remedy(format!("if that is the right address, set {key} to it")))
    };
    let location = location.map(|location| String::from_utf8_lossy(location.as_bytes()));
    let Some(mut to) = location.and_then(|location| from.join(&location).ok()) else {
        return refused(format!("{code} without a Location to read"));
    };
    let _ = to.set_username("");
    let _ = to.set_password(None);
    to.set_fragment(None);
    let problem = if to.origin() != from.origin() {
        "it is another server"
    } else if followed.contains(&code) {
        return Ok(to);
    } else {
        "such a redirect may change the request"
    };
    refused(format!("{code} to {}, which was not followed: {problem}", shown(&to)))
}

/// Returns a URL as messages show it: without credentials and parameters, which may be secret.
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    quote(url.as_str())
}
