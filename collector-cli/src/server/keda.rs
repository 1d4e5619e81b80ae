// SPDX-License-Identifier: Apache-2.0
//! The external scaler of `serve`, which KEDA calls.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use collector_config::{CollectorConfig, Loaded, NamedBackend};
use collector_core::Clock;
use collector_engine::CachingCollector;
use collector_keda::Scaler;
use collector_transport::server::Listener;

use super::scaler_door::{ScalerDoor, settings};
use super::tls::{address_of, keda_tls, listen};
use crate::exit::Failure;

/// The external scaler, listening.
pub(crate) struct Keda {
    listener: Listener,
    scaler: Arc<Scaler>,
}

impl ScalerDoor for Keda {
    fn address(config: &CollectorConfig) -> Option<SocketAddr> {
        config.keda.listen
    }

    fn is_fixed(key: &str, _: &CollectorConfig) -> bool {
        key.starts_with("keda.tls_")
    }

    async fn listen(
        loaded: &Loaded,
        _: &[NamedBackend],
        collector: Arc<CachingCollector>,
        clock: Arc<dyn Clock>,
        address: SocketAddr,
    ) -> Result<Self, Failure> {
        let tls = keda_tls(&loaded.config.keda);
        let listener = listen(address, "keda.listen", tls.as_ref()).await?;
        let scaler = Arc::new(Scaler::new(collector, clock, settings(loaded)?));
        Ok(Self { listener, scaler })
    }

    fn scaler(&self) -> Arc<Scaler> {
        Arc::clone(&self.scaler)
    }

    fn announce(&self, loaded: &Loaded) -> Result<SocketAddr, Failure> {
        let address = address_of(&self.listener)?;
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

    async fn serve(self, stop: impl Future<Output = ()> + Send + 'static) {
        collector_keda::serve(self.listener, self.scaler, stop).await;
    }
}
