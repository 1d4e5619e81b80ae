// SPDX-License-Identifier: Apache-2.0
//! The real binary, against a server that answers as Prometheus does.

mod access;
mod cluster;
#[cfg(feature = "kubernetes")]
mod cluster_check;
mod cluster_get;
mod command_line;
mod configuration;
mod demo;
mod deploy;
mod described;
mod discovery;
mod docs;
mod explain;
#[cfg(all(feature = "epp", feature = "kubernetes"))]
mod external_metrics;
mod fake_prometheus;
mod faults;
mod generated;
mod get;
mod get_forms;
#[cfg(all(feature = "record", feature = "server", feature = "sim", feature = "tui"))]
mod help;
#[cfg(all(feature = "epp", feature = "keda"))]
mod keda;
#[cfg(feature = "promql")]
mod keda_arithmetic;
mod messages;
#[cfg(feature = "epp")]
mod messages_of_servers;
mod on_a_terminal;
#[cfg(all(feature = "epp", feature = "keda", feature = "promql"))]
mod own_metrics;
#[cfg(feature = "epp")]
mod page;
#[cfg(feature = "epp")]
mod pods;
mod process;
mod real;
#[cfg(feature = "record")]
mod record;
mod reload;
#[cfg(all(feature = "epp", feature = "keda", feature = "promql"))]
mod scaled_objects;
#[cfg(feature = "epp")]
mod scrape;
#[cfg(feature = "epp")]
mod scrape_url;
mod serve;
mod sim;
mod terminal;
#[cfg(feature = "tui")]
mod top;
#[cfg(all(feature = "epp", feature = "keda"))]
mod two_replicas;
#[cfg(feature = "epp")]
mod watch;
mod ways_in;
