//! The real binary, against a server that answers as Prometheus does.

mod access;
mod command_line;
mod configuration;
mod demo;
mod described;
mod discovery;
mod explain;
mod fake_prometheus;
mod faults;
mod generated;
mod get;
mod get_forms;
#[cfg(all(feature = "epp", feature = "keda"))]
mod keda;
#[cfg(feature = "promql")]
mod keda_arithmetic;
mod messages;
#[cfg(feature = "epp")]
mod pods;
mod process;
mod real;
mod reload;
#[cfg(all(feature = "epp", feature = "keda", feature = "promql"))]
mod scaled_objects;
#[cfg(feature = "epp")]
mod scrape;
#[cfg(feature = "epp")]
mod scrape_url;
mod serve;
mod sim;
#[cfg(feature = "epp")]
mod watch;
mod ways_in;
