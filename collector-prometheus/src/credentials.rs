// SPDX-License-Identifier: Apache-2.0
//! What is sent with each request: credentials, and the user's headers and parameters.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use collector_core::Clock;
use collector_transport::{ConfigError, NamedFile, Secret, Token, sensitive};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret;
use tokio::time::Instant;

use crate::SECTION;
use crate::command::{PrintedToken, TokenCommand};
use crate::config::{PrometheusConfig, check_header_value, check_password};
use crate::failure::Failure;
#[cfg(feature = "sigv4")]
use crate::sigv4::Signer;

/// Values of headers shorter than this are not redacted from what a server says: `a` is no secret, and a text
/// without any `a` is unreadable.
const REDACTED_BYTES_MIN: usize = 4;

/// What is sent with each request, apart from the query.
pub(crate) struct Credentials {
    authorization: Authorization,
    tenant: Option<HeaderValue>,
    headers: Vec<(HeaderName, Secret)>,
    /// URL-encoded; empty where there are none.
    parameters: String,
}

enum Authorization {
    /// A bearer token, or nothing.
    Token(Token),
    Command(TokenCommand),
    Basic {
        username: String,
        password: Secret,
    },
    #[cfg(feature = "sigv4")]
    Signature(Box<Signer>),
}

/// The headers of one request, and what is needed if the server refuses them.
pub(crate) struct Sent {
    pub(crate) headers: HeaderMap,
    printed: Option<PrintedToken>,
}

impl Credentials {
    /// Reads the files for the first time. Runs no command.
    pub(crate) fn new(config: &PrometheusConfig) -> Result<Self, ConfigError> {
        Self::with(config, Authorization::new(config)?)
    }

    /// Creates credentials with requests that `signer` signs.
    #[cfg(all(test, feature = "sigv4"))]
    pub(crate) fn signed(config: &PrometheusConfig, signer: Signer) -> Result<Self, ConfigError> {
        Self::with(config, Authorization::Signature(Box::new(signer)))
    }

    fn with(config: &PrometheusConfig, authorization: Authorization) -> Result<Self, ConfigError> {
        let tenant =
            config.tenant.as_deref().map(HeaderValue::from_str).transpose().map_err(|error| {
                SECTION.error("tenant", "it cannot be an HTTP header").with_source(error)
            })?;
        let mut headers = Vec::new();
        let name_of = |key: &'static str, name: &str| {
            HeaderName::from_bytes(name.as_bytes()).map_err(|error| {
                SECTION.error(key, "a name in it is not the name of a header").with_source(error)
            })
        };
        for (name, value) in &config.headers {
            headers.push((name_of("headers", name)?, Secret::given(value)));
        }
        for (name, path) in &config.header_paths {
            let file = NamedFile::new(SECTION, "header_paths", path);
            headers.push((name_of("header_paths", name)?, Secret::in_file(file, header_value)?));
        }
        let mut parameters = url::form_urlencoded::Serializer::new(String::new());
        parameters.extend_pairs(&config.parameters);
        Ok(Self {
            authorization,
            tenant,
            headers,
            parameters: with_encoded_blanks(&parameters.finish()),
        })
    }

    /// Returns whether requests hold anything that must not be read on the network.
    pub(crate) fn hold_secrets(&self) -> bool {
        !self.headers.is_empty()
            || match &self.authorization {
                Authorization::Token(token) => token.is_some(),
                _ => true,
            }
    }

    /// Returns the user's parameters, URL-encoded.
    pub(crate) fn parameters(&self) -> &str {
        &self.parameters
    }

    /// Returns the headers for a request. Runs the token command if it is due.
    ///
    /// # Errors
    /// If no token is available.
    pub(crate) async fn headers(
        &self,
        clock: &dyn Clock,
        deadline: Instant,
    ) -> Result<Sent, Failure> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            if let Some(value) = sensitive(value.get().expose_secret()) {
                headers.insert(name.clone(), value);
            }
        }
        if let Some(tenant) = &self.tenant {
            headers.insert("x-scope-orgid", tenant.clone());
        }
        let mut printed = None;
        let authorization = match &self.authorization {
            Authorization::Token(token) => token.header(),
            Authorization::Command(command) => {
                let token = command.token(clock, deadline).await?;
                let header = sensitive(&format!("Bearer {}", token.token.expose_secret()));
                printed = Some(token);
                header
            }
            Authorization::Basic { username, password } => {
                sensitive(&basic(username, password.get().expose_secret()))
            }
            #[cfg(feature = "sigv4")]
            Authorization::Signature(_) => None,
        };
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, authorization);
        }
        Ok(Sent { headers, printed })
    }

    /// Signs a request, if requests are signed.
    #[cfg(feature = "sigv4")]
    pub(crate) async fn signature(
        &self,
        method: &reqwest::Method,
        url: &reqwest::Url,
        body: &str,
    ) -> Result<HeaderMap, Failure> {
        match &self.authorization {
            Authorization::Signature(signer) => signer.sign(method, url, body).await,
            _ => Ok(HeaderMap::new()),
        }
    }

    /// Handles a refusal of `sent`: reads files and runs the command again. Returns whether there is anything
    /// new to try.
    pub(crate) async fn renew(
        &self,
        sent: &Sent,
        clock: &dyn Clock,
        deadline: Instant,
    ) -> Result<bool, Failure> {
        let mut changed = false;
        for (_, value) in &self.headers {
            changed |= value.reread();
        }
        changed |= match &self.authorization {
            Authorization::Token(token) => token.changed_after_refusal(),
            Authorization::Command(command) => match &sent.printed {
                Some(printed) => command.renew(printed, clock, deadline).await?,
                None => false,
            },
            Authorization::Basic { password, .. } => password.reread(),
            #[cfg(feature = "sigv4")]
            Authorization::Signature(_) => false,
        };
        Ok(changed)
    }

    /// Removes the secrets from a text of the server.
    pub(crate) fn redact(&self, text: &str) -> String {
        let mut text = match &self.authorization {
            Authorization::Token(token) => token.redact(text),
            Authorization::Command(command) => match command.last() {
                Some(token) => text.replace(token.expose_secret(), "[token]"),
                None => text.to_owned(),
            },
            Authorization::Basic { username, password } => {
                let password = password.last();
                let encoded = BASE64.encode(format!("{username}:{}", password.expose_secret()));
                text.replace(password.expose_secret(), "[password]").replace(&encoded, "[password]")
            }
            #[cfg(feature = "sigv4")]
            Authorization::Signature(signer) => signer.redact(text),
        };
        for (_, value) in &self.headers {
            let value = value.last();
            let value = value.expose_secret();
            if value.len() >= REDACTED_BYTES_MIN && text.contains(value) {
                text = text.replace(value, "[header]");
            }
        }
        text
    }

    /// Returns the scheme of the `Authorization` header, and the keys that it comes from.
    pub(crate) fn scheme(&self) -> Option<(&'static str, &'static str)> {
        match &self.authorization {
            Authorization::Token(token) => token.is_some().then_some((
                "bearer",
                "prometheus.bearer_token or prometheus.token_path (PROMETHEUS_BEARER_TOKEN, \
                 PROMETHEUS_TOKEN_PATH)",
            )),
            Authorization::Command(_) => Some(("bearer", "prometheus.token_command")),
            Authorization::Basic { .. } => Some(("basic", "prometheus.username and its password")),
            #[cfg(feature = "sigv4")]
            Authorization::Signature(_) => Some(("aws4-hmac-sha256", "prometheus.sigv4")),
        }
    }

    /// Describes what was sent, for messages.
    pub(crate) fn describe(&self) -> String {
        let mut text = match &self.authorization {
            Authorization::Token(token) => token.describe(),
            Authorization::Command(_) => {
                "the bearer token of prometheus.token_command was sent".to_owned()
            }
            Authorization::Basic { username, password } => {
                let of = match password.path() {
                    None => "prometheus.password".to_owned(),
                    Some(path) => format!("{} (prometheus.password_path)", path.display()),
                };
                let username = collector_transport::quote(username);
                format!("the user name {username:?} was sent with the password of {of}")
            }
            #[cfg(feature = "sigv4")]
            Authorization::Signature(signer) => signer.describe(),
        };
        if !self.headers.is_empty() {
            let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
            let noun = if names.len() == 1 { "header" } else { "headers" };
            let _ = write!(text, ", with the {noun} {}", names.join(", "));
        }
        text
    }
}

impl Authorization {
    fn new(config: &PrometheusConfig) -> Result<Self, ConfigError> {
        #[cfg(feature = "sigv4")]
        if let Some(region) = &config.sigv4.region {
            return Ok(Self::Signature(Box::new(Signer::new(config, region)?)));
        }
        if !config.token_command.is_empty() {
            return Ok(Self::Command(TokenCommand::new(&config.token_command, config.token_ttl)));
        }
        let Some(username) = config.username.clone() else {
            let (token, path) = (config.bearer_token.as_ref(), config.token_path.as_deref());
            return Ok(Self::Token(Token::new(SECTION, token, path)?));
        };
        let password = match (&config.password, &config.password_path) {
            (Some(password), _) => Secret::given(password),
            (None, Some(path)) => {
                let file = NamedFile::new(SECTION, "password_path", path);
                Secret::in_file(file, password)?
            }
            (None, None) => return Err(SECTION.error("username", "set without a password")),
        };
        Ok(Self::Basic { username, password })
    }
}

/// Encodes a blank as `%20` instead of `+`, which a signature check may take for a plus sign.
pub(crate) fn with_encoded_blanks(parameters: &str) -> String {
    parameters.replace('+', "%20")
}

/// The value of basic authentication (RFC 7617).
fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", BASE64.encode(format!("{username}:{password}")))
}

/// Returns the password in a file: its text without the end of the line.
fn password(text: &str) -> Result<&str, String> {
    let password = text.trim_end_matches(['\r', '\n']);
    check_password(password).map_err(|problem| format!("holds a password that {problem}"))?;
    Ok(password)
}

/// Returns the value of a header in a file.
fn header_value(text: &str) -> Result<&str, String> {
    let value = text.trim();
    check_header_value(value).map_err(|problem| format!("cannot be sent: {problem}"))?;
    Ok(value)
}
