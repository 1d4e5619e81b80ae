// SPDX-License-Identifier: Apache-2.0
//! Writing to stdout.

use std::io::{self, Write as _};

use crate::exit::Failure;

/// Writes a result to stdout. It succeeds even if the reader closes the pipe early (`| head`).
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_on(text).map(|_| ())
}

/// The same for one text of several. Returns false when the pipe is closed.
pub(crate) fn print_on(text: &str) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::other(format!("cannot write to stdout: {error}"))),
    }
}
