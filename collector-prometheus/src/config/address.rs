// SPDX-License-Identifier: Apache-2.0
//! The addresses under `[prometheus]`: the server's, and that of its proxy.

use collector_transport::{ConfigError, server_url};
use secrecy::ExposeSecret;
use url::Url;

use super::PrometheusConfig;
use crate::SECTION;

/// Ends of paths that belong to a page or to the API, not to the server's address.
const PAGES: [&str; 3] = ["/api/v1/query", "/api/v1", "/graph"];

impl PrometheusConfig {
    /// Returns the server's URL with a path that ends in `/`.
    pub(crate) fn base_url(&self) -> Result<Url, ConfigError> {
        let refuse = |problem: String| Err(SECTION.error("url", problem));
        let text = self.url.trim();
        if text.is_empty() {
            return refuse(
                "not set: give the server's address, https://prometheus:9090 for example \
                 (PROMETHEUS_BASE_URL)"
                    .into(),
            );
        }
        if !text.contains("://") {
            // There may be a password before an `@`.
            let (it, host) = if text.contains(['@', '?', '#']) {
                ("it".into(), "HOST:PORT")
            } else {
                (quoted(text), text)
            };
            return refuse(format!(
                "{it} has no scheme: write https://{host}, or http://{host} with \
                 prometheus.allow_http = true (PROMETHEUS_ALLOW_HTTP=true) if the server does not \
                 speak TLS"
            ));
        }
        let instead = "prometheus.username with prometheus.password_path, prometheus.bearer_token or \
                       prometheus.token_path";
        let mut url = match server_url(text, instead) {
            Ok(url) => url,
            Err(problem) => return refuse(problem),
        };
        // Before the messages below that show the address: there may be a token in it.
        if url.query().is_some() {
            return refuse("it has a query; give the address alone, without ?".into());
        }
        if url.scheme() == "http" && !self.allow_http {
            return refuse(format!(
                "{text} is not encrypted; use https://, or set prometheus.allow_http = true \
                 (PROMETHEUS_ALLOW_HTTP=true) if you trust the network"
            ));
        }
        let path = url.path().trim_end_matches('/');
        let path = PAGES.iter().find_map(|page| path.strip_suffix(page)).unwrap_or(path);
        let path = format!("{}/", path.trim_end_matches('/'));
        url.set_path(&path);
        Ok(url)
    }

    /// Returns the proxy's URL, including its credentials; `None` if no proxy is used.
    pub(crate) fn proxy_url(&self) -> Result<Option<Url>, ConfigError> {
        let text = self.proxy.as_ref().map_or("", |proxy| proxy.expose_secret().trim());
        if text.is_empty() {
            return Ok(None);
        }
        let refuse = |problem: &str| {
            // It may hold a password, or a token.
            let it = if text.contains(['@', '?', '#']) { "it".into() } else { quoted(text) };
            Err(SECTION.error("proxy", format!("{it} {problem}")))
        };
        // Like the variables of other tools: a proxy without a scheme speaks HTTP.
        let full = if text.contains("://") { text.into() } else { format!("http://{text}") };
        let Ok(url) = Url::parse(&full) else {
            return refuse("is not the URL of a proxy; write http://HOST:PORT");
        };
        if url.scheme() != "http" {
            return refuse(
                "is not a proxy of a kind that can be used; write http://HOST:PORT, or nothing to use \
                 no proxy",
            );
        }
        if url.host_str().is_none_or(str::is_empty) || !matches!(url.path(), "" | "/") {
            return refuse("is not the URL of a proxy; write http://HOST:PORT, without a path");
        }
        Ok(Some(url))
    }
}

fn quoted(text: &str) -> String {
    format!("{:?}", collector_transport::quote(text))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, refused};
    use super::*;

    #[test]
    fn a_url_that_cannot_work_says_what_to_write() {
        refused(&config(""), &["prometheus.url", "PROMETHEUS_BASE_URL"]);
        refused(&config("http://h"), &["allow_http", "PROMETHEUS_ALLOW_HTTP"]);
        refused(&config("https://me:hunter2@h"), &["bearer_token", "prometheus.username"]);
        refused(&config("https://me:hunter2@h:bad"), &["not a URL"]);
        refused(&config("https://h/?a=b"), &["query"]);
        refused(&config("http://h/?token=hunter2"), &["query"]);
        refused(&config("https://h:bad/?token=hunter2"), &["not a URL"]);
        refused(&config("ftp://h"), &["https:// or http://"]);
    }

    #[test]
    fn a_url_without_a_scheme_has_one_text_whatever_its_host() {
        for host in ["prometheus", "localhost:9090", "10.0.0.1:9090", "prom.example:9090/prom"] {
            let parts = [
                &format!("\"{host}\" has no scheme"),
                &format!("write https://{host}, or http://{host} with prometheus.allow_http"),
                "PROMETHEUS_ALLOW_HTTP=true",
            ];
            refused(&config(host), &parts);
        }
        refused(&config("me:hunter2@h:9090"), &["it has no scheme", "http://HOST:PORT"]);
    }

    #[test]
    fn a_path_prefix_is_kept_with_or_without_its_slash() {
        for url in ["https://h/prom", "https://h/prom/"] {
            let url = config(url).base_url().unwrap();
            assert_eq!(url.join("api/v1/query").unwrap().as_str(), "https://h/prom/api/v1/query");
        }
    }

    #[test]
    fn the_path_of_a_page_or_of_the_api_is_left_off() {
        for end in ["", "/", "/api/v1", "/api/v1/", "/api/v1/query", "/graph", "/graph/"] {
            for (start, expected) in [("https://h", "https://h/"), ("https://h/p", "https://h/p/")]
            {
                let url = config(&format!("{start}{end}")).base_url().unwrap();
                assert_eq!(url.as_str(), expected, "{start}{end}");
            }
        }
        let other = config("https://h/photograph").base_url().unwrap();
        assert_eq!(other.as_str(), "https://h/photograph/");
    }

    fn proxy(text: &str) -> PrometheusConfig {
        PrometheusConfig { proxy: Some(text.into()), ..config("https://h") }
    }

    #[test]
    fn a_proxy_is_an_http_url_with_or_without_its_scheme() {
        let url = |text: &str| proxy(text).proxy_url().unwrap().map(String::from);
        assert_eq!(url("http://p:3128").as_deref(), Some("http://p:3128/"));
        assert_eq!(url("p:3128").as_deref(), Some("http://p:3128/"));
        assert_eq!(url("http://me:pw@p").as_deref(), Some("http://me:pw@p/"));
        assert_eq!(url(" "), None);
        refused(
            &proxy("socks5://p:1080"),
            &["prometheus.proxy: \"socks5://p:1080\" is not a proxy"],
        );
        refused(&proxy("https://p"), &["prometheus.proxy", "http://HOST:PORT"]);
        refused(&proxy("http://p/path"), &["without a path"]);
        refused(&proxy("http://p/path?token=hunter2"), &["prometheus.proxy: it is not the URL"]);
        refused(&proxy("http://me:hunter2@p:x"), &["prometheus.proxy: it is not the URL"]);
    }
}
