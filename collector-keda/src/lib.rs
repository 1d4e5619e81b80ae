// SPDX-License-Identifier: Apache-2.0
//! An external scaler for [KEDA](https://keda.sh), which reads from a collector: the triggers `external` and
//! `external-push`.
//!
//! KEDA reads errors as "nothing is known" and everything else as the truth, so an answer is a number only where there is
//! one. [`Signal`]s are computed from a reading by [`View::measure`]; what is unknown, partial or missing has a reason
//! ([`Unknown`]) and is an error, never 0. [`Trigger`] is the metadata of a trigger, and [`Trigger::measure`] its value
//! or the text of the error. [`Scaler`] answers calls, and [`serve`] runs the server. [`api`] has the messages.

mod activity;
pub mod api;
mod counters;
mod credit;
mod memory;
mod metadata;
mod positive;
mod refusal;
mod scaler;
mod server;
mod service;
mod signal;

pub use credit::Credit;
pub use metadata::{Invalid, OnMissing, Spec, Subject, Trigger, known_keys, unknown_keys};
pub use positive::Positive;
pub use refusal::Refusal;
pub use scaler::{LeftOut, Scaler, Settings};
pub use server::serve;
pub use signal::{Latency, Measured, Part, Signal, Slo, Unknown, View};
