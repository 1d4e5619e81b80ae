// SPDX-License-Identifier: Apache-2.0
//! The limits of queries and the parser behind them: no text ends the process or holds it.

#![no_main]

use collector_promql::{Limits, describe};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(query) = std::str::from_utf8(input) else { return };
    // An answer either way; libFuzzer reports an input that takes seconds.
    let _ = describe(query, &Limits::default());
});
