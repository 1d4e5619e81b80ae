// SPDX-License-Identifier: Apache-2.0
//! The External Metrics API as the API server and an HPA call it: HTTP over TLS, with the front proxy's certificate, in
//! front of a collector whose backend is scripted.

mod access;
mod discovery;
mod fixture;
mod hpa;
mod trust;
mod values;
