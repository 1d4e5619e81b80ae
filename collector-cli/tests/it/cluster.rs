// SPDX-License-Identifier: Apache-2.0
//! What is deployed in a cluster: the Helm chart and the kustomizations, as `helm` and `kubectl` render them.

#[cfg(feature = "kubernetes")]
mod access;
mod chart;
mod confined;
mod examples;
mod kustomize;
mod rendered;
