//! Models that loom runs through every interleaving of their threads: `cargo xtask loom`.
//!
//! What is modelled is the code itself, over loom's locks, but for the handle; around it stands the
//! least that makes a collector of it: one model, a cache of one entry, and a server that counts how
//! often it has changed.

mod breaker;
mod flights;
mod handle;
mod invalidation;
mod world;
