// SPDX-License-Identifier: Apache-2.0
//! One connection to one pod.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::Bytes;
use collector_core::ErrorKind;
use collector_transport::{Cause, resolve};
use http_body_util::Empty;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use url::{Host, Url};

use super::settings::Settings;

/// Bytes of a connection's buffer, the least that hyper allows: each pod has one, and the head of an answer must fit.
/// Twice as much made a page of 100 KB no cheaper.
const BUFFER_BYTES: usize = 8 << 10;

/// A connection with its driver, which moves bytes while it is polled.
///
/// The pod's own task polls the driver, in [`drive`](Self::drive), so it needs no task of its own, and a pod that is
/// dropped is disconnected.
pub(super) struct Connection {
    pub(super) sender: SendRequest<Empty<Bytes>>,
    driver: Option<Driver>,
}

type Driver = Pin<Box<dyn Future<Output = Result<(), hyper::Error>> + Send>>;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Connection {
    /// Resolves, connects and shakes hands. The caller sets the limit in time.
    pub(super) async fn open(url: &Url, settings: &Settings) -> Result<Self, Cause> {
        let wording = settings.wording(url);
        let tcp = connect(url).await.map_err(|error| wording.explain(&*error, true, false))?;
        // A request is one packet; there is nothing to wait for.
        let _ = tcp.set_nodelay(true);
        let stream: Box<dyn Stream> = if url.scheme() == "https" {
            let encryption = settings.encryption()?;
            let name = settings.server_name(url);
            let name = ServerName::try_from(name).map_err(|error| {
                Cause::new(
                    ErrorKind::Configuration,
                    format!("its host cannot be verified: {error}"),
                )
            })?;
            let shaken = encryption.connector.connect(name, tcp).await;
            let demanded = encryption.tls.take_client_cert_demanded();
            Box::new(shaken.map_err(|error| wording.explain(&error, true, demanded))?)
        } else {
            Box::new(tcp)
        };
        let (sender, driver) = Builder::new()
            .max_buf_size(BUFFER_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| wording.explain(&error, true, false))?;
        Ok(Self { sender, driver: Some(Box::pin(driver)) })
    }

    /// Moves bytes until `exchange` has ended. The exchange gets the error that ended the connection.
    pub(super) async fn drive<T>(
        driver: &mut ConnectionDriver<'_>,
        exchange: impl Future<Output = T>,
    ) -> T {
        let mut exchange = pin!(exchange);
        poll_fn(|context| {
            // First the bytes, because the exchange wants them.
            driver.poll(context);
            exchange.as_mut().poll(context)
        })
        .await
    }

    /// Its two halves: one to send with, one to be driven meanwhile.
    pub(super) fn split(&mut self) -> (&mut SendRequest<Empty<Bytes>>, ConnectionDriver<'_>) {
        (&mut self.sender, ConnectionDriver(&mut self.driver))
    }

    /// Whether it can take another request, as far as is known without sending one.
    pub(super) async fn is_open(&mut self) -> bool {
        let (sender, mut driver) = self.split();
        // Polls once for what has arrived since: mostly the end of the connection.
        poll_fn(|context| {
            driver.poll(context);
            Poll::Ready(())
        })
        .await;
        !sender.is_closed() && self.driver.is_some()
    }
}

/// The half of a connection that moves bytes.
pub(super) struct ConnectionDriver<'a>(&'a mut Option<Driver>);

impl ConnectionDriver<'_> {
    fn poll(&mut self, context: &mut std::task::Context<'_>) {
        if let Some(driver) = self.0
            && driver.as_mut().poll(context).is_ready()
        {
            *self.0 = None;
        }
    }
}

async fn connect(url: &Url) -> Result<TcpStream, Box<dyn std::error::Error + Send + Sync>> {
    let port = url.port_or_known_default().unwrap_or(80);
    let addresses = match url.host() {
        Some(Host::Ipv4(ip)) => vec![SocketAddr::from((ip, port))],
        Some(Host::Ipv6(ip)) => vec![SocketAddr::from((ip, port))],
        Some(Host::Domain(host)) => resolve(host, port).await?,
        None => Vec::new(),
    };
    Ok(TcpStream::connect(addresses.as_slice()).await?)
}
