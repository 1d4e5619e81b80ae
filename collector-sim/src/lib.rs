// SPDX-License-Identifier: Apache-2.0
//! A simulated fleet of model servers with true-to-life metrics, whose true state can be read as well.
//!
//! A [`FleetSpec`] describes variants (a model on some pods of one server), the load on each, and the
//! Endpoint Pickers in front of them. A [`Fleet`] simulates their pods: a pure state machine, whose time is
//! passed in and whose numbers follow from the description and its seed. A [`FleetServer`] serves it on
//! loopback, with one listener per pod, in step with the machine's clock, and makes pods fail in the ways of
//! [`Faults`]. A [`ControlServer`] controls it over HTTP.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use collector_sim::{FleetServer, FleetSpec};
//!
//! let fleet = FleetServer::start(FleetSpec::demo()).await?;
//! for target in fleet.targets() {
//!     println!("http://{}/metrics is {}/{}", target.address, target.namespace, target.pod);
//! }
//! let truth = fleet.truth("chat", "llama-8b-0").expect("the demo has this pod");
//! println!("{} wait, {} run", truth.waiting(), truth.running());
//! fleet.stop().await;
//! # Ok(())
//! # }
//! ```

mod arrivals;
mod engine;
mod fleet;
mod load;
mod picker;
mod serve;
mod shape;
mod spec;
mod truth;
mod variant;

pub use fleet::{Fleet, FleetError};
pub use load::{Arrivals, Load, Variation};
pub use serve::{
    BodyFault, ControlServer, Faults, FleetServer, PodLabel, ServeError, Target, TransferFault,
    ValueFault,
};
pub use shape::Shape;
pub use spec::{
    EngineKind, EngineSpec, FleetSpec, HotModel, MetricNames, PickerNames, PickerSpec, SpecError,
    VariantSpec,
};
pub use truth::{Gauges, LoraTruth, ModelTruth, PodTruth, Totals, VariantTruth};
