//! Runs the cache's tests under Miri.

use std::env;

use anyhow::{Result, bail};

use crate::run::{cargo_of, output, step};
use crate::workspace;

/// Tests of thousands of steps, which take many minutes under Miri. The model-based tests of `tests/it` cover
/// the same with fewer steps.
const TOO_LONG: [&str; 3] = [
    "a_group_is_found_whatever_came_and_left_before",
    "a_scan_pushes_out_nothing_that_is_read_again_under_sieve",
    "a_sweep_leaves_alone_what_is_not_due_and_finds_it_when_it_is",
];

/// Runs the tests of the crate with shared memory, if there is a nightly toolchain with Miri.
///
/// Miri needs a nightly toolchain and cannot be installed everywhere, so its absence is an error on CI only.
pub(crate) fn all() -> Result<()> {
    if output(&mut cargo_of("nightly", &["miri", "--version"])).is_none() {
        let how = "run `rustup toolchain install nightly --component miri,rust-src`";
        if env::var_os("CI").is_some() {
            bail!("there is no Miri: {how}");
        }
        println!("== Miri: skipped, because it is not installed: {how}");
        return Ok(());
    }
    let mut test =
        cargo_of("nightly", &["miri", "test", "--package", "collector-cache", "--tests", "--"]);
    for name in TOO_LONG {
        test.args(["--skip", name]);
    }
    // The map frees memory of readers at any time, possibly after the end.
    test.env("MIRIFLAGS", "-Zmiri-ignore-leaks")
        .env("CARGO_TARGET_DIR", workspace::target_folder()?.join("miri"));
    step("the cache under Miri", &mut test)
}
