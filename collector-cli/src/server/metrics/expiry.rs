// SPDX-License-Identifier: Apache-2.0
//! When the certificates and tokens of the configuration expire. Of a token only the claim `exp` is read; nothing else
//! of it is shown.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use collector_config::CollectorConfig;
use collector_transport::{NamedFile, Section, certificate_expiry};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use crate::output::{Exposition, Kind};

/// Where a token is.
#[cfg_attr(
    not(any(feature = "epp", feature = "prometheus")),
    expect(dead_code, reason = "only backends have tokens")
)]
enum Token {
    Text(String, SecretString),
    File(NamedFile),
}

/// The files and tokens that may expire. They are read at each scrape, because they rotate.
#[derive(Default)]
pub(super) struct Credentials {
    certificates: Vec<NamedFile>,
    tokens: Vec<Token>,
}

impl Credentials {
    pub(super) fn of(config: &CollectorConfig) -> Self {
        let mut all = Self::default();
        all.certificate("server", "tls_cert_path", config.server.tls_cert_path.as_deref());
        if config.keda.listen.is_some() {
            all.certificate("keda", "tls_cert_path", config.keda.tls_cert_path.as_deref());
        }
        let external = &config.external_metrics;
        if external.enabled {
            let section = "external_metrics";
            all.certificate(section, "tls_cert_path", external.tls_cert_path.as_deref());
        }
        #[cfg(feature = "prometheus")]
        if let Some(it) = config.chosen_settings_of::<collector_prometheus::PrometheusConfig>() {
            all.certificate("prometheus", "client_cert_path", it.client_cert_path.as_deref());
            all.token("prometheus", it.bearer_token.as_ref(), it.token_path.as_deref());
        }
        #[cfg(feature = "epp")]
        if let Some(it) = config.chosen_settings_of::<collector_epp::EppConfig>() {
            all.token(it.section, it.bearer_token.as_ref(), it.token_path.as_deref());
            if let Some(path) = &it.picker_token_path {
                all.tokens.push(Token::File(file(it.section, "picker_token_path", path)));
            }
        }
        all
    }

    fn certificate(&mut self, section: &'static str, key: &'static str, path: Option<&Path>) {
        self.certificates.extend(path.map(|path| file(section, key, path)));
    }

    /// The token of a section; that of the configuration overrides that of a file.
    #[cfg(any(feature = "epp", feature = "prometheus"))]
    fn token(&mut self, section: &'static str, text: Option<&SecretString>, path: Option<&Path>) {
        let text = text.map(|text| Token::Text(format!("{section}.bearer_token"), text.clone()));
        let file = || path.map(|path| Token::File(file(section, "token_path", path)));
        self.tokens.extend(text.or_else(file));
    }

    /// Describes them. It reads files, so it blocks. What cannot be read has no series, nor has a token that does not
    /// say when it expires.
    pub(super) fn describe(&self, page: &mut Exposition) {
        let mut family = page.family(
            "collector_certificate_expiry_timestamp_seconds",
            Kind::Gauge,
            "When the first certificate of a chain expires, as Unix time, by the key that names its file.",
        );
        for file in &self.certificates {
            if let Some(expiry) = certificate_expiry(file) {
                family.sample(&[("key", &key_of(file))], expiry as f64);
            }
        }
        let mut family = page.family(
            "collector_token_expiry_timestamp_seconds",
            Kind::Gauge,
            "When a token expires, as Unix time, by its key; absent unless it is a JWT with the claim exp.",
        );
        for token in &self.tokens {
            let (key, expiry) = match token {
                Token::Text(key, text) => (key.clone(), token_expiry(text)),
                Token::File(file) => (key_of(file), text_of(file).as_ref().and_then(token_expiry)),
            };
            if let Some(expiry) = expiry {
                family.sample(&[("key", &key)], expiry);
            }
        }
    }
}

fn file(section: &'static str, key: &'static str, path: &Path) -> NamedFile {
    NamedFile::new(Section { name: section, variables: None }, key, path)
}

fn key_of(file: &NamedFile) -> String {
    file.section.key(file.key)
}

fn text_of(file: &NamedFile) -> Option<SecretString> {
    Some(String::from_utf8(file.read().ok()?).ok()?.into())
}

/// Returns the claim `exp` of a JWT, in Unix seconds. Its signature is not checked: the server does that.
fn token_expiry(token: &SecretString) -> Option<f64> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
    }
    let mut parts = token.expose_secret().trim().split('.');
    let (Some(_), Some(claims), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
    serde_json::from_slice::<Claims>(&claims).ok().map(|claims| claims.exp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expiry_of_a_token_is_its_claim_and_other_tokens_have_none() {
        let of = |claims: &str| {
            let token = format!("e30.{}.c2ln\n", URL_SAFE_NO_PAD.encode(claims));
            token_expiry(&token.into())
        };
        assert_eq!(of(r#"{"iss":"k","exp":1764480000,"sub":"s"}"#), Some(1_764_480_000.0));
        assert_eq!(of(r#"{"exp":1764480000.5}"#), Some(1_764_480_000.5));
        assert_eq!(of(r#"{"sub":"s"}"#), None);
        assert_eq!(of(r#"{"exp":"soon"}"#), None);
        for opaque in ["", "s3cret", "a.b.c", "a.b", "e30.e30.e30.e30"] {
            assert_eq!(token_expiry(&opaque.to_owned().into()), None, "{opaque}");
        }
    }
}
