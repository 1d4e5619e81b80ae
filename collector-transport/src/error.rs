// SPDX-License-Identifier: Apache-2.0
//! Errors of settings, which name the key that the user wrote.

use std::error::Error;

use rustls::pki_types::ServerName;
use secrecy::{ExposeSecret, SecretString};

use crate::auth::check_token;

/// A section of the configuration, whose keys messages name as the user writes them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Section {
    /// Its name, `prometheus` for example.
    pub name: &'static str,
    /// The prefix of the environment variables of its keys, `PROMETHEUS` for example; `None` if its keys have none.
    pub variables: Option<&'static str>,
}

impl Section {
    /// The key with its section: `prometheus.url`.
    pub fn key(self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }

    /// The key with its section, and the environment variable that sets it too:
    /// `prometheus.token_path (PROMETHEUS_TOKEN_PATH)`.
    pub fn key_and_variable(self, key: &str) -> String {
        match self.variable(key) {
            Some(variable) => format!("{}.{key} ({variable})", self.name),
            None => self.key(key),
        }
    }

    /// The key with its section, and what set it where that is known:
    /// `prometheus.url (environment variable PROMETHEUS_BASE_URL)`.
    pub fn key_and_origin(self, key: &str, origin: Option<&str>) -> String {
        match origin {
            Some(origin) => format!("{} ({origin})", self.key(key)),
            None => self.key(key),
        }
    }

    /// The environment variable of a key.
    pub fn variable(self, key: &str) -> Option<String> {
        self.variables.map(|prefix| format!("{prefix}_{}", key.to_ascii_uppercase()))
    }

    /// Checks `bearer_token`, if it is set.
    pub fn check_bearer_token(self, token: Option<&SecretString>) -> Option<ConfigError> {
        let problem = check_token(token?.expose_secret()).err()?;
        Some(self.error("bearer_token", format!("the token {problem}")))
    }

    /// Checks `server_name`, if it is set.
    pub fn check_server_name(self, name: Option<&str>) -> Option<ConfigError> {
        let name = name.filter(|name| ServerName::try_from(*name).is_err())?;
        let problem = format!("{name:?} is neither a DNS name nor an IP address");
        Some(self.error("server_name", problem))
    }

    /// An error about one of its keys.
    pub fn error(self, key: &'static str, problem: impl Into<String>) -> ConfigError {
        ConfigError {
            section: self.name,
            key,
            others: Vec::new(),
            problem: problem.into(),
            source: None,
        }
    }
}

/// An invalid setting. The message names the key, and the file if there is one.
#[derive(Debug, thiserror::Error)]
#[error("{section}.{key}: {problem}")]
pub struct ConfigError {
    section: &'static str,
    key: &'static str,
    others: Vec<&'static str>,
    problem: String,
    #[source]
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl ConfigError {
    /// Adds the underlying error. Its text is not part of the message.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds other keys of the section that the problem is about too.
    #[must_use]
    pub fn with_keys(mut self, keys: impl IntoIterator<Item = &'static str>) -> Self {
        self.others.extend(keys);
        self
    }

    /// The keys that the problem is about, without their section; the one to change comes first.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.key).chain(self.others.iter().copied())
    }
}
