// SPDX-License-Identifier: Apache-2.0
//! Running other programs.

use std::env;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::workspace;

/// Returns the cargo that runs this task, in the workspace's root.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(workspace::root());
    command
}

/// Returns the cargo of another toolchain, in the workspace's root.
pub(crate) fn cargo_of(toolchain: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", toolchain, "cargo"]).args(arguments).current_dir(workspace::root());
    command
}

/// Runs a step to its end, with a heading.
pub(crate) fn step(title: &str, command: &mut Command) -> Result<()> {
    println!("== {title}");
    let status =
        command.status().with_context(|| format!("{title}: cannot run {}", shown(command)))?;
    if !status.success() {
        bail!("{title}: {} failed ({status})", shown(command));
    }
    Ok(())
}

/// Returns the standard output of a command; `None` if it cannot be run or fails.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then_some(text)
}

/// Returns whether a cargo subcommand is installed.
pub(crate) fn has_subcommand(name: &str) -> bool {
    output(&mut cargo(&[name, "--version"])).is_some()
}

fn shown(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let program = program.rsplit('/').next().unwrap_or(&program).to_owned();
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
    std::iter::once(program).chain(arguments).collect::<Vec<_>>().join(" ")
}
