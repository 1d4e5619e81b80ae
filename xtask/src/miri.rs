// SPDX-License-Identifier: Apache-2.0
//! Runs the cache's tests under Miri.

use std::env;

use anyhow::{Result, bail};

use crate::run::{cargo_of, output, step};
use crate::workspace;

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
        cargo_of("nightly", &["miri", "test", "--package", "collector-cache", "--tests"]);
    // The suites print how long they take, and ask the machine for threads.
    test.env("MIRIFLAGS", "-Zmiri-disable-isolation")
        .env("CARGO_TARGET_DIR", workspace::target_folder()?.join("miri"));
    step("the cache under Miri", &mut test)
}
