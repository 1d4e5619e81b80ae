// SPDX-License-Identifier: Apache-2.0
//! The External Metrics API as the API server and an HPA call it: HTTP over TLS, with the front proxy's certificate, in
//! front of a collector whose backend is scripted, or one that watches a cluster beside it.

mod access;
mod discovery;
mod fixture;
mod hpa;
mod in_a_cluster;
mod trust;
mod values;
