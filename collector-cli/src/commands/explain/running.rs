// SPDX-License-Identifier: Apache-2.0
//! Asks the collector that runs on this machine how much a model changes, which only it knows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use collector_config::ServerConfig;
use collector_core::ModelRef;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::output::PaceDocument;

/// For connection and answer: it runs on this machine and answers from memory.
const TIMEOUT: Duration = Duration::from_secs(1);
/// A pace has names of at most 4 KiB each, and escapes.
const LONGEST_ANSWER: usize = 64 * 1024;

/// Returns the refresh interval of a model in the collector that listens at the configured address, and that
/// address.
///
/// # Errors
/// Explains why the backend did not answer.
pub(super) async fn pace(
    server: &ServerConfig,
    model: &ModelRef,
) -> Result<(PaceDocument, SocketAddr), String> {
    let address = reachable(server.listen);
    if server.tls_cert_path.is_some() {
        return Err(format!(
            "the collector at {address} is not asked, because it speaks TLS: ask its /api/v1/pace"
        ));
    }
    let asked = timeout(TIMEOUT, ask(address, model)).await;
    let answer = asked.unwrap_or_else(|_| Err("no answer within 1s".to_owned()));
    let document = answer.map_err(|cause| {
        format!(
            "no running collector answers at {address} ({cause}), and only one knows how it moves"
        )
    })?;
    Ok((document, address))
}

async fn ask(address: SocketAddr, model: &ModelRef) -> Result<PaceDocument, String> {
    let failed = |error: &dyn std::error::Error| error.to_string();
    let stream = TcpStream::connect(address).await.map_err(|error| failed(&error))?;
    let connected = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = connected.map_err(|error| failed(&error))?;
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let (id, namespace) = (encoded(model.model.as_str()), encoded(model.namespace.as_str()));
    let request = Request::get(format!("/api/v1/pace?model={id}&namespace={namespace}"))
        .header(header::HOST, address.to_string())
        .body(Body::empty())
        .map_err(|error| failed(&error))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
        if answer.status() != StatusCode::OK {
            return Err(format!("it answers with status {}", answer.status().as_u16()));
        }
        let body = to_bytes(Body::new(answer.into_body()), LONGEST_ANSWER).await;
        let body = body.map_err(|error| failed(&error))?;
        let document: PaceDocument =
            serde_json::from_slice(&body).map_err(|_| "it is not a collector".to_owned())?;
        let is_of_model = document.model == model.model.as_str()
            && document.namespace == model.namespace.as_str();
        if is_of_model { Ok(document) } else { Err("it answers for another model".to_owned()) }
    };
    // The connection moves the bytes while the exchange waits for them.
    tokio::pin!(connection);
    tokio::select! {
        biased;
        answer = exchange => answer,
        _ = &mut connection => Err("it closed the connection".to_owned()),
    }
}

/// Where to reach what listens there.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
