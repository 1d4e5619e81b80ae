// SPDX-License-Identifier: Apache-2.0
//! The crate with the real client, against an API server on loopback.

mod faults;
mod fixture;
mod lifecycle;
mod scale;
mod unwatched;
