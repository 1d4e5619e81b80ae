// SPDX-License-Identifier: Apache-2.0
//! Runs commands that print credentials, with limits and without leaving a process behind.

use std::io;
use std::process::{ExitStatus, Stdio};

use secrecy::SecretSlice;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

/// Bytes of error output that are kept.
const ERROR_BYTES_MAX: usize = 4 << 10;

/// What a command printed, and how it ended.
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub printed: SecretSlice<u8>,
    /// The beginning of its error output, if the caller made that a pipe.
    pub errors: Vec<u8>,
}

/// Why a command has no output.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It was not started.
    #[error("cannot be run: {0}")]
    NotStarted(#[source] io::Error),
    /// Its output or its end could not be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// It prints more than is taken.
    #[error("prints too much")]
    TooLong,
}

/// Runs a command without input, and returns its output of at most so many bytes. It has no time limit.
///
/// # Errors
/// If it cannot be run or read, or prints more.
///
/// # Cancel safety
/// Dropping the future kills the command, and on Unix those that it has started.
pub async fn output(command: &mut Command, bytes_max: usize) -> Result<Output, CommandError> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    #[cfg(unix)]
    command.process_group(0);
    let mut group = Group(command.spawn().map_err(CommandError::NotStarted)?);
    let child = &mut group.0;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    // Both streams are read to the end, so that the command never waits for a full pipe.
    let printed = async {
        match beginning(stdout, bytes_max + 1).await?.0 {
            printed if printed.len() > bytes_max => Err(CommandError::TooLong),
            printed => Ok(printed),
        }
    };
    let errors = async {
        let (errors, rest) = beginning(stderr, ERROR_BYTES_MAX).await?;
        if let Some(mut rest) = rest {
            let ended = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
            ended.map_err(CommandError::Unreadable)?;
        }
        Ok(errors)
    };
    let (printed, errors) = tokio::try_join!(printed, errors)?;
    let status = child.wait().await.map_err(CommandError::Unreadable)?;
    Ok(Output { status, printed: printed.into(), errors })
}

/// A running command. Dropping it kills the whole process group: children would outlive a shell script that
/// hangs.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // A command that has ended has no id.
        #[cfg(unix)]
        if let Some(group) = self
            .0
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

/// Reads at most `limit` bytes of a stream. Returns the stream for the rest.
async fn beginning<S: AsyncRead + Unpin>(
    stream: Option<S>,
    limit: usize,
) -> Result<(Vec<u8>, Option<S>), CommandError> {
    let mut bytes = Vec::new();
    let Some(stream) = stream else { return Ok((bytes, None)) };
    let mut stream = stream.take(limit as u64);
    stream.read_to_end(&mut bytes).await.map_err(CommandError::Unreadable)?;
    Ok((bytes, Some(stream.into_inner())))
}
