//! The backend against scripted servers, TLS servers and a real Prometheus.

mod clock;
mod connection;
mod fake;
mod look;
mod raw;
mod real;
mod tls;
mod truth;
