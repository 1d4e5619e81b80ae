//! The backend against scripted servers, TLS servers, a real Prometheus and a real VictoriaMetrics.

mod clock;
mod connection;
mod empty;
mod fake;
mod gateway;
mod limits;
mod look;
mod raw;
mod real;
mod real_labels;
mod real_names;
mod real_servers;
mod real_times;
mod tls;
mod written;
