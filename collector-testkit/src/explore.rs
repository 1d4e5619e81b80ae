// SPDX-License-Identifier: Apache-2.0
//! Every interleaving of the threads of a model.

/// Runs `body` through the interleavings of its threads with at most three preemptions, unless
/// `LOOM_MAX_PREEMPTIONS` allows more: mistakes of order need one or two, and each more makes seconds
/// seven times as many.
///
/// # Panics
/// When `body` does in one of them.
pub fn explore(body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(body);
}
