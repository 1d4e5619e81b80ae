// SPDX-License-Identifier: Apache-2.0
//! Prometheus' own checks of what it reads: pages, configurations and rules.

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use crate::prometheus_server::{PrometheusError, find_program, skip};

/// Runs `promtool`, which is installed with `prometheus`, with `input` as its standard input, and returns what it
/// complains about. `None`, after saying so, where it is not installed, unless
/// [`REQUIRE_REAL_SERVERS`](crate::REQUIRE_REAL_SERVERS) is `1`.
///
/// # Panics
/// When it cannot be run, or is required and not installed.
pub fn promtool_or_skip(
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    input: &str,
) -> Option<Result<(), String>> {
    let Some(program) = find_program().map(|path| path.with_file_name("promtool")) else {
        skip(&PrometheusError::NotInstalled.to_string());
        return None;
    };
    let run = || -> io::Result<Result<(), String>> {
        let mut child = Command::new(&program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // It reads all of it before it writes. One that ends before that has said why.
        let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output()?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let complaints = said(&output.stderr);
        let is_clean = output.status.success() && complaints.is_empty();
        Ok(if is_clean { Ok(()) } else { Err(complaints + &said(&output.stdout)) })
    };
    Some(run().unwrap_or_else(|error| panic!("cannot run {}: {error}", program.display())))
}
