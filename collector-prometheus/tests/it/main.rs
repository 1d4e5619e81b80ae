//! The backend against scripted servers, TLS servers and a real Prometheus.

mod clock;
mod connection;
mod fake;
mod limits;
mod look;
mod proxy;
mod raw;
mod real;
mod tls;
mod ways_in;
