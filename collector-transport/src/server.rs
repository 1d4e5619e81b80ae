// SPDX-License-Identifier: Apache-2.0
//! The side of a server: connections with limits, and TLS whose certificates are read again when they change.

mod connections;
mod http;
mod tls;

pub use connections::{Listener, Stream, client_certificates, local_address, serve_until};
pub use http::{Answering, Body, Connect, Http, serve_http};
pub use tls::{ServerTls, ServerTlsSettings};
