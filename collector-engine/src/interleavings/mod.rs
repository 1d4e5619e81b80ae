// SPDX-License-Identifier: Apache-2.0
//! Models that loom runs through every interleaving of their threads: `cargo xtask loom`.
//!
//! What runs is the code itself, over loom's locks; around it stands the least that makes a collector of it: one model,
//! a cache of one record, and a server that counts how often it has changed. The cache has models of its own.

mod breaker;
mod fetches;
mod handle;
mod invalidation;
mod world;
