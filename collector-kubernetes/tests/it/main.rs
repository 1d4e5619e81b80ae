// SPDX-License-Identifier: Apache-2.0
//! The crate with the real client, against an API server on loopback.

mod credentials;
mod faults;
mod fixture;
mod lifecycle;
mod questions;
mod scale;
mod unwatched;
