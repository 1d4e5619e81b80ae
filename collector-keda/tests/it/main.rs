// SPDX-License-Identifier: Apache-2.0
//! The external scaler as KEDA calls it: a gRPC client over TCP, in front of a collector whose backend is scripted.

mod calls;
mod connections;
mod fixture;
mod states;
mod streams;
mod tls;
