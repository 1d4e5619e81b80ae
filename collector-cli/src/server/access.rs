// SPDX-License-Identifier: Apache-2.0
//! Who may read: the host that a request must name on loopback, and the token that reads may need.

use std::net::IpAddr;
use std::path::PathBuf;

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use collector_config::ServerConfig;
use collector_core::text::quote;
use collector_transport::{NamedFile, Secret, Section};
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

use super::page;
use super::respond::Refusal;
use crate::exit::Failure;
use crate::output::ErrorDocument;

/// The paths that probes of Kubernetes ask, which send no token.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// Longer than any token in use.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// A name that a browser resolves to an address of its own machine, whatever the name servers say.
const LOCALHOST: &str = "localhost";

/// The address of ours that a connection came to.
#[derive(Clone, Copy)]
pub(super) struct Local(pub(super) IpAddr);

/// Who may read, and who may change something.
pub(crate) struct Access {
    read_token: Option<Secret>,
    admin_token: Option<Secret>,
    /// In small letters.
    allowed_hosts: Vec<String>,
}

impl Access {
    /// Access as it is configured.
    ///
    /// # Errors
    /// When a file holds no token.
    pub(crate) fn new(server: &ServerConfig) -> Result<Self, Failure> {
        Ok(Self {
            read_token: token("read_token_path", server.read_token_path.as_ref())?,
            admin_token: token("admin_token_path", server.admin_token_path.as_ref())?,
            allowed_hosts: server.allowed_hosts.iter().map(|it| it.to_ascii_lowercase()).collect(),
        })
    }

    /// Whether a caller may change something: with the admin token, and if there is none, on loopback.
    pub(super) fn may_change(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        match &self.admin_token {
            Some(token) => has_token(headers, &token.get()),
            None => peer.to_canonical().is_loopback(),
        }
    }

    /// Returns whether a caller may read data of the process: it has the read or the admin token, or no read token is configured.
    pub(super) fn may_read(&self, headers: &HeaderMap) -> bool {
        let Some(read_token) = &self.read_token else { return true };
        let tokens = [Some(read_token), self.admin_token.as_ref()];
        tokens.into_iter().flatten().any(|token| has_token(headers, &token.get()))
    }

    /// Why a request is not served at all; `None` if it is.
    pub(super) fn refusal(&self, request: &Request) -> Option<Response> {
        let local = request.extensions().get::<Local>().map(|Local(address)| address);
        if local.is_some_and(|address| address.to_canonical().is_loopback())
            && let Some(host) = self.foreign_host(request.uri(), request.headers())
        {
            let document = ErrorDocument::new(
                "Forbidden",
                format!("{} is not a name of this machine", quote(host)),
            );
            let hint = "a request to a loopback address must name localhost or that address as its host, so that no web \
                        page can read along; add the names of port-forwards and proxies to server.allowed_hosts";
            let refusal = Refusal::new(StatusCode::FORBIDDEN, document.with_hint(hint));
            return Some(refusal.into_response());
        }
        let headers = request.headers();
        let path = request.uri().path();
        if PROBES.contains(&path) || page::is_file(path) || self.may_read(headers) {
            return None;
        }
        let document = ErrorDocument::new("Unauthorized", "this needs a token");
        let hint = "send the header Authorization: Bearer with the token of server.read_token_path";
        let refusal = Refusal::new(StatusCode::UNAUTHORIZED, document.with_hint(hint));
        let mut response = refusal.into_response();
        // The words of RFC 6750: a token that was sent was the wrong one.
        let challenge = if headers.contains_key(header::AUTHORIZATION) {
            "Bearer realm=\"collector\", error=\"invalid_token\""
        } else {
            "Bearer realm=\"collector\""
        };
        let challenge = HeaderValue::from_static(challenge);
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        Some(response)
    }

    /// A host that a request names and that is neither loopback's nor allowed. Browsers always name one, so a request
    /// that names none comes from no web page.
    fn foreign_host<'r>(&self, uri: &'r Uri, headers: &'r HeaderMap) -> Option<&'r str> {
        let in_headers = headers.get_all(header::HOST).iter();
        let in_headers = in_headers.map(|value| value.to_str().unwrap_or("not ASCII"));
        let mut named = in_headers.chain(uri.authority().map(Authority::as_str));
        named.find(|host| !self.is_ours(host))
    }

    fn is_ours(&self, host: &str) -> bool {
        let name = without_port(host);
        if let Ok(address) = name.parse::<IpAddr>() {
            return address.to_canonical().is_loopback() || self.allows(name);
        }
        let name = name.strip_suffix('.').unwrap_or(name);
        name.eq_ignore_ascii_case(LOCALHOST) || self.allows(name)
    }

    fn allows(&self, name: &str) -> bool {
        self.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
    }
}

/// The host of `host:port`; that of an IPv6 address without its brackets.
fn without_port(host: &str) -> &str {
    let is_port = |text: &str| text.chars().all(|it| it.is_ascii_digit());
    if let Some((address, rest)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        // What follows the bracket is a port, or the host is none.
        let is_host = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
        return if is_host { address } else { host };
    }
    match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) => name,
        _ => host,
    }
}

fn token(key: &'static str, path: Option<&PathBuf>) -> Result<Option<Secret>, Failure> {
    let Some(path) = path else { return Ok(None) };
    let file = NamedFile::new(Section { name: "server", variables: None }, key, path);
    Secret::in_file(file, only_token).map(Some).map_err(Failure::usage)
}

fn only_token(text: &str) -> Result<&str, String> {
    match text.trim() {
        "" => Err("is empty".to_owned()),
        token if token.len() > TOKEN_BYTES_MAX => Err("is too long for a token".to_owned()),
        token => Ok(token),
    }
}

/// Whether the headers have this token; takes as long for any other of its length.
fn has_token(headers: &HeaderMap, token: &SecretString) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.as_bytes().split_at_checked(b"Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
    });
    given.is_some_and(|given| token.expose_secret().as_bytes().ct_eq(given).into())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn access(allowed: &[&str]) -> Access {
        let allowed_hosts = allowed.iter().map(|it| (*it).to_owned()).collect();
        Access { read_token: None, admin_token: None, allowed_hosts }
    }

    fn status(access: &Access, local: &str, uri: &str, hosts: &[&str]) -> u16 {
        let mut request = Request::builder().uri(uri);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(Local(local.parse().unwrap()));
        access.refusal(&request).map_or(200, |response| response.status().as_u16())
    }

    #[test]
    fn on_loopback_only_its_own_names_and_allowed_ones_are_served() {
        let access = access(&["collector.example"]);
        for (host, expected) in [
            ("localhost", 200),
            ("LOCALHOST.:9464", 200),
            ("127.0.0.1:9464", 200),
            ("127.8.8.8", 200),
            ("[::1]", 200),
            ("[::1]:9464", 200),
            ("[::ffff:127.0.0.1]:1", 200),
            ("Collector.Example:80", 200),
            ("evil.example", 403),
            ("localhost.evil.example", 403),
            ("127.0.0.1.evil.example:9464", 403),
            ("10.0.0.1:9464", 403),
            ("[::1]evil.example", 403),
            ("localhost:80:evil", 403),
            ("", 403),
        ] {
            assert_eq!(status(&access, "127.0.0.1", "/", &[host]), expected, "{host:?}");
            assert_eq!(status(&access, "::1", "/", &[host]), expected, "{host:?}");
            assert_eq!(status(&access, "10.0.0.1", "/", &[host]), 200, "{host:?} elsewhere");
        }
    }

    #[test]
    fn every_host_that_a_request_names_counts() {
        let access = access(&[]);
        assert_eq!(status(&access, "127.0.0.1", "/", &[]), 200, "no browser sends this");
        assert_eq!(status(&access, "127.0.0.1", "http://evil.example/", &["localhost"]), 403);
        assert_eq!(status(&access, "127.0.0.1", "/", &["localhost", "evil.example"]), 403);
    }
}
