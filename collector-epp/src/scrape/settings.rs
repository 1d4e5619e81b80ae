// SPDX-License-Identifier: Apache-2.0
//! The settings that all scrapes share: credentials, certificates, limits.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use collector_core::{Clock, duration};
use collector_transport::{Cause, ConfigError, Tls, TlsSettings, Token, Wording};
use http::HeaderValue;
use tokio_rustls::TlsConnector;
use url::Url;

use crate::SECTION;
use crate::config::EppConfig;
use crate::scan::Limits;

/// The settings that all scrapes share.
pub(crate) struct Settings {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) timeout: Duration,
    /// The name of the section of the configuration.
    pub(crate) section: &'static str,
    /// Advice on which key gives a scrape more time.
    pub(crate) more_time: String,
    pub(crate) limits: Limits,
    pub(crate) token: Token,
    /// The token for endpoint pickers, if they have one of their own.
    picker_token: Option<Token>,
    allow_token_over_http: bool,
    /// The settings of TLS.
    tls_by: TlsSettings,
    /// Created when first needed, because the system's authorities take time and memory.
    tls: OnceLock<Result<Arc<Encryption>, Cause>>,
}

/// TLS for all connections.
pub(crate) struct Encryption {
    pub(crate) tls: Tls,
    pub(crate) connector: TlsConnector,
}

impl Settings {
    /// Reads the files that the configuration names.
    pub(crate) fn new(config: &EppConfig, clock: Arc<dyn Clock>) -> Result<Self, ConfigError> {
        let token =
            Token::new(SECTION, config.bearer_token.as_ref(), config.token_path.as_deref())?;
        let of_pickers = config.picker_token_path.as_deref();
        let picker_token =
            of_pickers.map(|path| Token::new(SECTION, None, Some(path))).transpose()?;
        let settings = Self {
            clock,
            timeout: config.effective_timeout(),
            section: config.section,
            more_time: more_time(config),
            limits: config.limits(),
            token,
            picker_token,
            allow_token_over_http: config.allow_token_over_http,
            tls_by: TlsSettings {
                ca_cert_path: config.ca_cert_path.clone(),
                server_name: config.server_name.clone(),
                tls_insecure_skip_verify: config.tls_insecure_skip_verify,
                ..TlsSettings::new(SECTION, "the pods")
            },
            tls: OnceLock::new(),
        };
        // An unusable file is an error at the start, whether a pod needs it or not.
        if config.ca_cert_path.is_some() {
            let made = Encryption::new(&settings.tls_by)?;
            let _ = settings.tls.set(Ok(Arc::new(made)));
        }
        Ok(settings)
    }

    pub(crate) fn encryption(&self) -> Result<Arc<Encryption>, Cause> {
        self.tls
            .get_or_init(|| {
                Encryption::new(&self.tls_by).map(Arc::new).map_err(|error| {
                    Cause::new(collector_core::ErrorKind::Configuration, error.to_string())
                })
            })
            .clone()
    }

    /// Returns the token for endpoint pickers.
    pub(crate) fn picker_token(&self) -> &Token {
        self.picker_token.as_ref().unwrap_or(&self.token)
    }

    /// Returns the header for this URL; a token is sent encrypted only, unless the configuration allows otherwise.
    pub(crate) fn authorization(&self, token: &Token, url: &Url) -> Option<HeaderValue> {
        if url.scheme() == "https" || self.allow_token_over_http { token.header() } else { None }
    }

    /// Describes the credential that was sent.
    pub(crate) fn credential(&self, token: &Token, url: &Url) -> String {
        if token.is_some() && self.authorization(token, url).is_none() {
            "the token was not sent over http:// (epp.allow_token_over_http)".to_owned()
        } else {
            token.describe()
        }
    }

    /// Returns the wording of connection errors for this URL.
    pub(crate) fn wording(&self, url: &Url) -> Wording {
        Wording {
            section: SECTION,
            server: "a model server",
            address: "the target's URL".into(),
            unencrypted: "",
            host: url.host_str().unwrap_or_default().to_owned(),
            server_name: self.tls_by.server_name.clone(),
            has_ca: self.tls_by.ca_cert_path.is_some(),
            has_client_cert: false,
        }
    }

    /// Returns the name for the handshake: the configured one, else the host.
    pub(crate) fn server_name(&self, url: &Url) -> String {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        self.tls_by.server_name.clone().unwrap_or_else(|| host.to_owned())
    }
}

fn more_time(config: &EppConfig) -> String {
    let interval = duration::format(config.scrape_interval);
    match config.timeout {
        Some(timeout) => format!(
            "raise epp.timeout ({}) if it is only slow; it must stay below epp.scrape_interval \
             ({interval})",
            duration::format(timeout)
        ),
        None => format!(
            "raise epp.scrape_interval ({interval}) if it is only slow: a scrape may take nine tenths \
             of it, unless epp.timeout is set"
        ),
    }
}

impl Encryption {
    fn new(settings: &TlsSettings) -> Result<Self, ConfigError> {
        let tls = Tls::new(settings)?;
        let connector = TlsConnector::from(Arc::new(tls.config.clone()));
        Ok(Self { tls, connector })
    }
}
