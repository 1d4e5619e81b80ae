// SPDX-License-Identifier: Apache-2.0
//! The fleet as its users see it: pages, truth, time and sockets.

mod control;
mod faults;
mod page;
mod picker;
mod server;
mod simulation;
mod text;
