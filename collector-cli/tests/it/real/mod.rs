//! The whole path against a real Prometheus that scrapes a simulated fleet: what the fleet knows of
//! itself is what a reading must say.

mod both;
mod fixture;
#[cfg(all(feature = "epp", feature = "promql"))]
mod local;
mod outage;
mod parity;
#[cfg(feature = "promql")]
mod promql;
mod requests;
mod truth;
