// SPDX-License-Identifier: Apache-2.0
//! Runs every test.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::run::{cargo, has_subcommand, step};
use crate::{install, new_backend, workspace};

/// Without the benchmarks: their competitors take long to compile, and `cargo xtask bench` runs them.
const TESTED: [&str; 4] =
    ["--workspace", "--exclude=collector-bench", "--all-features", "--no-fail-fast"];

/// Installs what is missing and runs the tests; none is skipped for lack of a real server.
pub(crate) fn all() -> Result<()> {
    install::prometheus()?;
    install::victoria_metrics()?;
    install::chromium()?;
    install::axe()?;
    install::go()?;
    if has_subcommand("nextest") {
        tests("test", &["nextest", "run"])?;
        tests("test the examples in the docs", &["test", "--doc"])?;
    } else {
        tests("test", &["test"])?;
    }
    what_new_backend_makes("made-backend", &new_backend::FILE)?;
    what_new_backend_makes("made-http-backend", &new_backend::HTTP)
}

fn tests(title: &str, command: &[&str]) -> Result<()> {
    let mut tests = cargo(command);
    tests.args(TESTED).env("COLLECTOR_REQUIRE_REAL_SERVERS", "1");
    // Many tests wait for what real servers do, and for nothing of the processor.
    let threads = std::thread::available_parallelism().map_or(1, usize::from) * 3;
    tests.env("NEXTEST_TEST_THREADS", threads.to_string());
    tests.env("RUST_TEST_THREADS", threads.to_string());
    if let Some(tools) = install::python_tools()? {
        tests.env("COLLECTOR_PYTHON_TOOLS", tools);
    }
    // Without these the tests of the chart fail.
    if let Some(tools) = install::cluster_tools()? {
        tests.env("COLLECTOR_CLUSTER_TOOLS", tools);
    }
    step(title, &mut tests)
}

fn what_new_backend_makes(name: &str, template: &new_backend::Template) -> Result<()> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let crate_folder = folder.path().join(name);
    new_backend::make(template, name, &crate_folder)?;
    if fs::exists(crate_folder.join("src/main.rs"))? {
        add_readme_program(&crate_folder).context("cannot add the README's program")?;
    }
    // The versions that the workspace is tested with, and what is compiled of them already.
    fs::copy(workspace::root().join("Cargo.lock"), crate_folder.join("Cargo.lock"))
        .context("cannot copy Cargo.lock")?;
    let target = workspace::target_folder()?;
    for arguments in [["clippy", "--all-targets", "--", "-Dwarnings"].as_slice(), &["test"]] {
        step(
            &format!("{} what new-backend makes: {name}", arguments[0]),
            cargo(arguments).current_dir(&crate_folder).env("CARGO_TARGET_DIR", &target),
        )?;
    }
    Ok(())
}

/// The README's program, beside a backend: neither has another dependency of ours than the one library.
fn add_readme_program(crate_folder: &Path) -> Result<()> {
    let readme = fs::read_to_string(workspace::root().join("README.md"))?;
    let program = readme.split("```rust,no_run\n").nth(1).and_then(|rest| rest.split("```").next());
    let program = program.context("README.md has no block of Rust")?;
    fs::create_dir(crate_folder.join("examples"))?;
    fs::write(crate_folder.join("examples/readme.rs"), program)?;
    let manifest = crate_folder.join("Cargo.toml");
    let text = fs::read_to_string(&manifest)?;
    let with_prometheus =
        text.replace(r#"features = ["cli"]"#, r#"features = ["cli", "prometheus"]"#);
    ensure!(with_prometheus != text, "the manifest has no feature to add `prometheus` to");
    fs::write(&manifest, with_prometheus)?;
    Ok(())
}
