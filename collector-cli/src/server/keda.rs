// SPDX-License-Identifier: Apache-2.0
//! The external scaler of `serve`, which KEDA calls.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use collector_config::Loaded;
use collector_core::Clock;
use collector_engine::CachingCollector;
use collector_engines::Engines;
use collector_keda::{Scaler, Settings};
use collector_transport::server::Listener;
use tokio::net::TcpListener;

use super::tls::{keda_tls, load_tls};
use crate::exit::Failure;

/// The external scaler, listening.
pub(crate) struct Keda {
    listener: Listener,
    scaler: Arc<Scaler>,
}

impl Keda {
    /// Listens if the configuration says so.
    pub(crate) async fn listen(
        loaded: &Loaded,
        collector: Arc<CachingCollector>,
        clock: Arc<dyn Clock>,
    ) -> Result<Option<Self>, Failure> {
        let config = &loaded.config.keda;
        let Some(address) = config.listen else { return Ok(None) };
        let tls = load_tls(&keda_tls(config))?;
        let socket = TcpListener::bind(address).await.map_err(|error| {
            Failure::other(format!(
                "cannot listen on {address}: {error}; choose another address with keda.listen"
            ))
        })?;
        let settings = settings(loaded)?;
        let scaler = Arc::new(Scaler::new(collector, clock, settings));
        Ok(Some(Self { listener: Listener { socket, tls, read_timeout: None }, scaler }))
    }

    /// The scaler, to give it another collector later.
    pub(crate) fn scaler(&self) -> Arc<Scaler> {
        Arc::clone(&self.scaler)
    }

    /// Says where it listens, and who can read there; returns the address.
    pub(crate) fn announce(&self, loaded: &Loaded) -> Result<SocketAddr, Failure> {
        let address: SocketAddr = self.listener.socket.local_addr().map_err(|error| {
            Failure::other(format!("the listening socket of the scaler is gone: {error}"))
        })?;
        let scheme = if self.listener.tls.is_some() { "https" } else { "http" };
        tracing::info!("The external scaler listens on {scheme}://{address}");
        if !address.ip().is_loopback() && loaded.config.keda.tls_client_ca_path.is_none() {
            tracing::warn!(
                "Whoever reaches {address} can read the load of every model: the external scaler has \
                 no log-in, so let only KEDA in, or set keda.tls_client_ca_path"
            );
        }
        Ok(address)
    }

    /// Serves until `stop` resolves; then ends streams, and resolves once the calls in flight are answered.
    pub(crate) async fn serve(self, stop: impl Future<Output = ()>) {
        collector_keda::serve(self.listener, self.scaler, stop).await;
    }
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
