// SPDX-License-Identifier: Apache-2.0
//! Failures on the way to a proxy, and through it, in words.

use std::error::Error;

use collector_core::ErrorKind;
use collector_transport::{ConfigError, Unresolved, find, root_cause, shown};
use reqwest::Url;

use crate::SECTION;
use crate::config::PrometheusConfig;
use crate::failure::Failure;

/// How the HTTP client's errors of a tunnel begin; their type is not public.
const TUNNEL: &str = "tunnel error: ";

/// The HTTP proxy between us and the server.
pub(crate) struct Proxy {
    /// Its URL without credentials.
    shown: String,
    /// Its key, and where it was set.
    key: String,
    /// The host and port that the proxy connects to.
    target: String,
    /// Whether the server's URL begins with https://, so that the proxy opens a tunnel.
    tunnels: bool,
}

impl Proxy {
    /// Returns the configured proxy, and its setting for the HTTP client.
    pub(crate) fn new(
        config: &PrometheusConfig,
        server: &Url,
    ) -> Result<Option<(Self, reqwest::Proxy)>, ConfigError> {
        let Some(url) = config.proxy_url()? else { return Ok(None) };
        let setting = reqwest::Proxy::all(url.as_str())
            .map_err(|_| SECTION.error("proxy", "the HTTP client cannot use it"))?;
        let port = server.port_or_known_default().unwrap_or_default();
        let proxy = Self {
            shown: shown(&url).trim_end_matches('/').to_owned(),
            key: SECTION.key_and_origin("proxy", config.proxy_origin.as_deref()),
            target: format!("{}:{port}", server.host_str().unwrap_or_default()),
            tunnels: server.scheme() == "https",
        };
        Ok(Some((proxy, setting)))
    }

    /// Explains a failed connection, unless the server's TLS is the reason.
    pub(crate) fn explain(&self, error: &(dyn Error + 'static)) -> Failure {
        let Self { shown, key, target, .. } = self;
        if let Some(unresolved) = find::<Unresolved>(error) {
            return Failure::new(ErrorKind::Dns, format!("of the proxy: {unresolved}"))
                .with_remedy(format!("is the host in {key} right?"));
        }
        let connect = |detail: String| Failure::new(ErrorKind::Connect, detail);
        let by_the_proxy = format!(
            "may this machine reach the server through it, and is {key} right? A server that needs \
             no proxy is named in NO_PROXY; prometheus.proxy = \"\" uses none"
        );
        match tunnel_error(error).as_deref() {
            Some("proxy authorization required") => self.wants_credentials(),
            Some("unsuccessful") => {
                connect(format!("the proxy {shown} refused to connect to {target}"))
                    .with_remedy(by_the_proxy)
            }
            Some("unexpected end of file") => connect(format!(
                "the proxy {shown} closed the connection when it was asked to connect to {target}"
            ))
            .with_remedy(by_the_proxy),
            _ => connect(format!("to the proxy {shown}: {}", root_cause(error)))
                .with_remedy(format!("is the proxy running, and is {key} right?")),
        }
    }

    /// 407, of a tunnel or of a single request.
    pub(crate) fn wants_credentials(&self) -> Failure {
        let detail = format!("the proxy {} wants credentials (407)", self.shown);
        Failure::new(ErrorKind::Connect, detail).with_remedy(format!(
            "put them into {}, as http://USER:PASSWORD@HOST:PORT; if they are there, the proxy \
             refused them",
            self.key
        ))
    }

    /// The connection took too long.
    pub(crate) fn no_connection_in_time(&self) -> Failure {
        let Self { shown, key, target, .. } = self;
        let detail = format!("no connection to {target} through the proxy {shown} in time");
        Failure::timeout(detail)
            .with_remedy(format!("is the proxy of {key} reachable, and the server from there?"))
    }

    /// Returns a suffix for an answer that may be the proxy's own; empty otherwise.
    pub(crate) fn answered(&self) -> String {
        if self.tunnels {
            return String::new();
        }
        format!(" (asked through the proxy {})", self.shown)
    }
}

/// Returns the HTTP client's reason for a failed tunnel.
fn tunnel_error(error: &(dyn Error + 'static)) -> Option<String> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(reason) = error.to_string().strip_prefix(TUNNEL) {
            return Some(reason.to_owned());
        }
        current = error.source();
    }
    None
}
