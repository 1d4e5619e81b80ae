// SPDX-License-Identifier: Apache-2.0
//! The client of the API server: made of a configuration, or given, and exchanged while the watches run.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use collector_core::text::shortened;
use collector_core::{ErrorKind, Namespace};
use collector_transport::root_cause;
use jiff::Timestamp;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::credentials;
use crate::failure::Failure;
use crate::pages::PageSource;

/// How long before they expire credentials are renewed.
const RENEW_BEFORE: Duration = Duration::from_secs(60);

/// How the API server is reached, and which namespaces are watched.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ClusterConfig {
    /// A kubeconfig. Default: the credentials that each pod of a cluster has.
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig. Default: its current one.
    pub context: Option<String>,
    /// The namespaces to watch. Default: all, for which a ClusterRole is needed.
    pub namespaces: Vec<Namespace>,
    /// What tells which pods have metrics pages to scrape. Default: nothing, and nothing about pages is asked for.
    pub pages: Option<PageSource>,
}

/// Why no client can be made of a configuration.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ClientError(String);

impl ClusterConfig {
    /// Checks what can be checked without a request: the names of namespaces, and that a named kubeconfig can be read and
    /// has the context.
    ///
    /// # Errors
    /// When no client can ever be made of it, with what to correct.
    pub fn check(&self) -> Result<(), ClientError> {
        if let Some(name) = self.namespaces.iter().find(|name| !is_namespace(name.as_str())) {
            return Err(ClientError(format!(
                "kubernetes.namespaces: {:?} cannot be the name of a namespace: write letters, digits and hyphens",
                shortened(name.as_str())
            )));
        }
        let Some(path) = &self.kubeconfig else { return Ok(()) };
        let named = self.read_kubeconfig()?;
        let context = self.context.as_ref().or(named.current_context.as_ref());
        let Some(context) = context else {
            return Err(ClientError(format!(
                "kubernetes.context: {} has no current context; set one",
                path.display()
            )));
        };
        if named.contexts.iter().any(|of_file| of_file.name == *context) {
            return Ok(());
        }
        let contexts: Vec<&str> = named.contexts.iter().map(|of_file| &*of_file.name).collect();
        Err(ClientError(format!(
            "kubernetes.context: {} has no context {context:?}, but {}",
            path.display(),
            if contexts.is_empty() { "none".to_owned() } else { contexts.join(", ") }
        )))
    }

    fn read_kubeconfig(&self) -> Result<Kubeconfig, ClientError> {
        let path = self.kubeconfig.as_deref().unwrap_or_else(|| "".as_ref());
        Kubeconfig::read_from(path).map_err(|error| {
            ClientError(format!(
                "kubernetes.kubeconfig: cannot use {}: {}",
                path.display(),
                root_cause(&error)
            ))
        })
    }

    /// Makes a client. Files are read again, and a command for credentials runs for at most 10 s; nothing is sent.
    ///
    /// # Errors
    /// When the kubeconfig, the credentials or the certificates cannot be used, or when this is no pod of a cluster.
    pub async fn connect(&self) -> Result<Client, ClientError> {
        self.make().await.map(|made| made.client)
    }

    async fn make(&self) -> Result<Made, ClientError> {
        let mut config = self.client_config().await?;
        // Watches have their own pauses.
        config.default_retry = false;
        let expires = credentials::obtain(&mut config.auth_info).await.map_err(ClientError)?;
        let client = Client::try_from(config).map_err(|error| {
            ClientError(format!("the credentials cannot be used: {}", root_cause(&error)))
        })?;
        // Of a time that is past, a command says that its credentials are for one request.
        let lasts = expires.map(|expires| {
            let left = expires.duration_since(Timestamp::now());
            Duration::try_from(left).unwrap_or_default().saturating_sub(RENEW_BEFORE)
        });
        Ok(Made { client, renew_at: lasts.and_then(|lasts| Instant::now().checked_add(lasts)) })
    }

    async fn client_config(&self) -> Result<Config, ClientError> {
        if self.kubeconfig.is_some() {
            let options =
                KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
            let config = Config::from_custom_kubeconfig(self.read_kubeconfig()?, &options).await;
            config.map_err(|error| {
                ClientError(format!("kubernetes.kubeconfig: {}", root_cause(&error)))
            })
        } else {
            Config::incluster().map_err(|error| {
                ClientError(format!(
                    "this is not a pod with a service account ({}); set kubernetes.kubeconfig",
                    root_cause(&error)
                ))
            })
        }
    }
}

/// Whether this can be the name of a namespace; it becomes a part of paths.
fn is_namespace(name: &str) -> bool {
    let is_letter = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(is_letter)
}

/// A client, and when its credentials are to be renewed.
#[derive(Clone)]
struct Made {
    client: Client,
    renew_at: Option<Instant>,
}

/// The client that is used now.
pub(crate) struct Connection {
    /// What it is made of again, after a refusal and before its credentials expire; `None`: it is given.
    config: Option<ClusterConfig>,
    current: Mutex<Option<Made>>,
    /// How the last try to make one has ended. Locked while one is made.
    last_try: tokio::sync::Mutex<Result<(), Failure>>,
    /// Counts the tries that have ended.
    tries: AtomicU64,
    /// Counts the clients that were given.
    given: watch::Sender<u64>,
}

impl Connection {
    pub(crate) fn new(config: Option<ClusterConfig>) -> Self {
        Self {
            config,
            current: Mutex::new(None),
            last_try: tokio::sync::Mutex::new(Ok(())),
            tries: AtomicU64::new(0),
            given: watch::Sender::new(0),
        }
    }

    /// Sees each client that is given from now on.
    pub(crate) fn given(&self) -> watch::Receiver<u64> {
        self.given.subscribe()
    }

    /// Uses another client from now on, perhaps of another cluster.
    pub(crate) fn give(&self, client: Client) {
        self.given.send_modify(|count| {
            self.set(Made { client, renew_at: None });
            *count += 1;
        });
    }

    fn set(&self, made: Made) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
    }

    fn current(&self) -> Option<Made> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The scheme, the host and the port of the API server; `None` where only the given client knows it.
    pub(crate) async fn address(&self) -> Option<String> {
        let url = self.config.as_ref()?.client_config().await.ok()?.cluster_url;
        // Not what may be in front of the host: a password.
        let port = url.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
        Some(format!("{}://{}{port}", url.scheme_str()?, url.host()?))
    }

    /// Returns the client; makes it if there is none, or if its credentials expire soon.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        match self.current() {
            Some(Made { client, renew_at }) if renew_at.is_none_or(|at| Instant::now() < at) => {
                Ok(client)
            }
            // Whether the former ones are still accepted is for the server to say.
            Some(Made { client, .. }) => Ok(self.renew().await.unwrap_or(client)),
            None => self.renew().await,
        }
    }

    /// Makes the client again, with the credentials as they are now. One that was given cannot be made. Callers that come
    /// while one is made get that one.
    pub(crate) async fn renew(&self) -> Result<Client, Failure> {
        let (given, tries) = (*self.given.borrow(), self.tries.load(Ordering::Relaxed));
        if let Some(config) = self.config.as_ref().filter(|_| given == 0) {
            let mut last_try = self.last_try.lock().await;
            if self.tries.load(Ordering::Relaxed) == tries {
                let made = config.make().await;
                let made =
                    made.map_err(|error| Failure::new(ErrorKind::Configuration, error.to_string()));
                *last_try = made.map(|made| {
                    let given = self.given.borrow();
                    // One that was given meanwhile is the newer one.
                    if *given == 0 {
                        self.set(made);
                    }
                });
                self.tries.fetch_add(1, Ordering::Relaxed);
            }
            last_try.clone()?;
        }
        let missing = || Failure::new(ErrorKind::Configuration, "no client has been given yet");
        self.current().map(|made| made.client).ok_or_else(missing)
    }

    /// After a failure that other credentials may mend, reads them again: tokens expire, and authorities change.
    ///
    /// # Errors
    /// Why there are none.
    pub(crate) async fn renew_after(&self, failure: &Failure) -> Result<(), Failure> {
        if matches!(failure.kind, ErrorKind::Unauthorized | ErrorKind::Tls) {
            self.renew().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kubeconfig: &str, context: Option<&str>, expected: Option<&str>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), kubeconfig).unwrap();
        let config = ClusterConfig {
            kubeconfig: Some(file.path().to_owned()),
            context: context.map(ToOwned::to_owned),
            ..ClusterConfig::default()
        };
        let error = config.check().err().map(|error| error.to_string());
        match (expected, error) {
            (None, None) => {}
            (Some(part), Some(error)) => assert!(error.contains(part), "{error:?} lacks {part:?}"),
            (expected, error) => panic!("expected {expected:?}, got {error:?}"),
        }
    }

    #[test]
    fn a_kubeconfig_that_cannot_be_used_is_refused_with_its_key() {
        let contexts = "current-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]";
        check(contexts, None, None);
        check(contexts, Some("b"), Some("kubernetes.context: "));
        check(contexts, Some("b"), Some("has no context \"b\", but a"));
        check("contexts: []", None, Some("has no current context"));
        check("[", None, Some("kubernetes.kubeconfig: cannot use "));
        let absent =
            ClusterConfig { kubeconfig: Some("/absent".into()), ..ClusterConfig::default() };
        let error = absent.check().unwrap_err().to_string();
        assert!(error.starts_with("kubernetes.kubeconfig: cannot use /absent: "), "{error}");
        assert!(ClusterConfig::default().check().is_ok());
        for name in ["", "a/b", "A", "..", "a b"] {
            let config =
                ClusterConfig { namespaces: vec![name.into()], ..ClusterConfig::default() };
            assert!(config.check().unwrap_err().to_string().starts_with("kubernetes.namespaces: "));
        }
    }
}
