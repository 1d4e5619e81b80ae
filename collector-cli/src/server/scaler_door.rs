// SPDX-License-Identifier: Apache-2.0
//! Doors that answer from the scaler, each on a port of its own.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use collector_config::{CollectorConfig, Loaded, NamedBackend};
use collector_core::Clock;
use collector_engine::CachingCollector;
use collector_engines::Engines;
use collector_keda::{Scaler, Settings};
use tokio::net::TcpListener;

use crate::exit::Failure;

/// A door that answers from the scaler.
pub(crate) trait ScalerDoor: Sized + Send + 'static {
    /// Where it is to listen; `None`: it is not.
    fn address(config: &CollectorConfig) -> Option<SocketAddr>;

    /// Whether a key takes effect only when the door opens, for one that this configuration has opened.
    fn is_fixed(key: &str, config: &CollectorConfig) -> bool;

    /// Listens on this address.
    fn listen(
        loaded: &Loaded,
        backends: &[NamedBackend],
        collector: Arc<CachingCollector>,
        clock: Arc<dyn Clock>,
        address: SocketAddr,
    ) -> impl Future<Output = Result<Self, Failure>> + Send;

    /// The scaler, to give it another collector later.
    fn scaler(&self) -> Arc<Scaler>;

    /// Says where it listens, and who can read there; returns the address.
    fn announce(&self, loaded: &Loaded) -> Result<SocketAddr, Failure>;

    /// Serves until `stop` resolves; then resolves once the calls in flight are answered.
    fn serve(
        self,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static;
}

/// Binds the address that a key has.
pub(super) async fn bind(address: SocketAddr, key: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::other(format!(
            "cannot listen on {address}: {error}; choose another address with {key}"
        ))
    })
}

pub(super) fn address_of(socket: &TcpListener) -> Result<SocketAddr, Failure> {
    socket
        .local_addr()
        .map_err(|error| Failure::other(format!("the listening socket of a door is gone: {error}")))
}

/// The settings of the scaler.
pub(crate) fn settings(loaded: &Loaded) -> Result<Settings, Failure> {
    let mut settings = Settings::default();
    settings.wait = loaded.config.keda.wait;
    settings.unavailable_threshold = loaded.config.cache.freshness.unavailable_threshold;
    settings.engines = Engines::new(&loaded.config.engines)
        .map_err(|error| Failure::usage(format!("engines: {error}")))?;
    let loaded = loaded.clone();
    settings.left_out = Box::new(move |namespace| {
        let left_out = loaded.left_out(namespace)?;
        Some(format!("{}; {}", left_out.message, left_out.remedy))
    });
    Ok(settings)
}
