// SPDX-License-Identifier: Apache-2.0
//! The front proxy as it was read last, and when it is read again: each minute, and when a client is not recognised.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::HeaderMap;
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::sync::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::access_control::AccessControl;
use crate::counters;
use crate::front_proxy::{FrontProxy, Stranger, User};

/// How often the front proxy is read again: authorities rotate with years between.
const READ_EVERY: Duration = Duration::from_secs(60);
/// How often it is read again at most, for clients that are not recognised: anyone can be one.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// For one read.
const READ_WITHIN: Duration = Duration::from_secs(5);
/// How often strangers are logged at most.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Why a request has no user.
#[derive(Debug)]
pub(crate) enum Untrusted {
    /// It is not from the front proxy.
    Stranger(Stranger),
    /// Who the front proxy is could not be read.
    Unknown(String),
}

/// The front proxy as it was read last.
pub(crate) struct Trust {
    cluster: Arc<dyn AccessControl>,
    current: RwLock<Result<Arc<FrontProxy>, String>>,
    /// When it was read last. Held over a read, so that clients who wait for one share it.
    read_at: Mutex<Option<Instant>>,
    /// When a stranger was logged last.
    logged_at: std::sync::Mutex<Option<Instant>>,
}

impl Trust {
    pub(crate) fn new(cluster: Arc<dyn AccessControl>) -> Self {
        Self {
            cluster,
            current: RwLock::new(Err("it has not been read yet".to_owned())),
            read_at: Mutex::default(),
            logged_at: std::sync::Mutex::default(),
        }
    }

    /// Reads the front proxy now and each minute, for ever.
    pub(crate) async fn keep_current(&self) {
        let mut ticks = interval(READ_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.read_if_older_than(Duration::ZERO).await;
        }
    }

    /// Whether it is known who the front proxy is.
    pub(crate) fn is_known(&self) -> bool {
        self.current().is_ok()
    }

    /// Returns the user whom the front proxy names, if a client with these certificates is the front proxy.
    pub(crate) async fn user(
        &self,
        certificates: &[CertificateDer<'_>],
        headers: &HeaderMap,
    ) -> Result<User, Untrusted> {
        let mut result = self.user_now(certificates, headers);
        let may_be_outdated = match &result {
            Ok(_) => false,
            Err(Untrusted::Stranger(stranger)) => stranger.may_be_outdated(),
            Err(Untrusted::Unknown(_)) => !certificates.is_empty(),
        };
        if may_be_outdated && self.read_if_older_than(READ_AGAIN_AFTER).await {
            result = self.user_now(certificates, headers);
        }
        if let Err(Untrusted::Stranger(stranger)) = &result {
            self.note(stranger);
        }
        result
    }

    fn user_now(
        &self,
        certificates: &[CertificateDer<'_>],
        headers: &HeaderMap,
    ) -> Result<User, Untrusted> {
        let front_proxy = self.current().map_err(Untrusted::Unknown)?;
        front_proxy.recognise(certificates, UnixTime::now()).map_err(Untrusted::Stranger)?;
        front_proxy.user(headers).map_err(Untrusted::Stranger)
    }

    fn current(&self) -> Result<Arc<FrontProxy>, String> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns whether it was read: by this call, or by another one meanwhile. What was read before stays if it cannot be.
    async fn read_if_older_than(&self, age: Duration) -> bool {
        let began = Instant::now();
        let mut read_at = self.read_at.lock().await;
        if read_at.is_some_and(|at| at > began) {
            return true;
        }
        if read_at.is_some_and(|at| at.elapsed() < age) {
            return false;
        }
        let read = timeout(READ_WITHIN, self.cluster.front_proxy()).await;
        *read_at = Some(Instant::now());
        let read = read.unwrap_or_else(|_| {
            Err(format!("there was no answer within {} s", READ_WITHIN.as_secs()))
        });
        let before = self.current();
        let read = match (read, &before) {
            (Ok(config), Ok(known)) if known.config() == &config => {
                counters::front_proxy_read(true);
                return true;
            }
            (Ok(config), _) => FrontProxy::new(config).map(Arc::new),
            (Err(error), _) => Err(error),
        };
        counters::front_proxy_read(read.is_ok());
        match (&read, &before) {
            (Ok(_), Ok(_)) => tracing::info!("The front proxy's certificates or headers changed"),
            (Ok(_), Err(_)) => {
                tracing::info!("The front proxy's certificates and headers were read");
            }
            (Err(error), Ok(_)) => {
                tracing::warn!(
                    error,
                    "The front proxy cannot be read again: what was read before stays"
                );
                return true;
            }
            (Err(error), Err(former)) if error == former => {}
            (Err(error), Err(_)) => tracing::error!(
                error,
                "The front proxy's certificates cannot be read: External Metrics are not served"
            ),
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = read;
        true
    }

    /// Counts a client that is not the front proxy, and logs it now and then: anyone can be one.
    fn note(&self, stranger: &Stranger) {
        counters::refused(stranger);
        let mut logged_at = self.logged_at.lock().unwrap_or_else(PoisonError::into_inner);
        if logged_at.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            *logged_at = Some(Instant::now());
            let error = stranger.text();
            if matches!(stranger, Stranger::Expired(_)) {
                tracing::error!(error, "Refused a client of the External Metrics API");
            } else {
                tracing::warn!(error, "Refused a client of the External Metrics API");
            }
        }
    }
}
