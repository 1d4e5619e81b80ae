// SPDX-License-Identifier: Apache-2.0
//! Doors that answer from the scaler, each on a port of its own.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use collector_config::{CollectorConfig, LeftOut, Loaded, NamedBackend};
use collector_core::Clock;
use collector_engine::CachingCollector;
use collector_engines::Engines;
use collector_keda::{Scaler, Settings};

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

/// The settings of the scaler.
pub(crate) fn settings(loaded: &Loaded) -> Result<Settings, Failure> {
    let mut settings = Settings::default();
    settings.wait = loaded.config.keda.wait;
    settings.unavailable_threshold = loaded.config.cache.freshness.unavailable_threshold;
    settings.engines = Engines::new(&loaded.config.engines)
        .map_err(|error| Failure::usage(format!("engines: {error}")))?;
    let text = |left_out: LeftOut| format!("{}; {}", left_out.message, left_out.remedy);
    let of = loaded.clone();
    settings.left_out = Box::new(move |namespace| of.left_out(namespace).map(text));
    let of = loaded.clone();
    settings.unwatched = Box::new(move |namespace| of.unwatched(namespace).map(text));
    Ok(settings)
}
