// SPDX-License-Identifier: Apache-2.0
//! The alternate screen, drawn line by line, and its keys.

use std::fmt::Write as _;
use std::future;
use std::io::{self, Read as _};
use std::sync::PoisonError;
use std::thread;

use rustix::termios::tcgetwinsize;
use tokio::sync::mpsc;

use super::{SHOWN, Screen};
use crate::exit::Failure;
use crate::output::print;

impl Screen {
    /// Shows the alternate screen, and reads keys where stdin is a terminal too; `None` where stdout is no
    /// terminal that has such a screen.
    pub(crate) fn enter() -> Result<Option<(Self, Keys)>, Failure> {
        let Some(screen) = Self::show()? else { return Ok(None) };
        let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let is_read = shown.as_ref().is_some_and(|before| before.input.is_some());
        drop(shown);
        Ok(Some((screen, Keys(is_read.then(keys)))))
    }

    /// Rows and columns, where the terminal says.
    pub(crate) fn size() -> Option<(usize, usize)> {
        let size = tcgetwinsize(io::stdout()).ok()?;
        let (rows, columns) = (usize::from(size.ws_row), usize::from(size.ws_col));
        (rows > 0 && columns > 0).then_some((rows, columns))
    }

    /// Draws lines from the top, over what was drawn before. False where the screen has been left: after a
    /// panic elsewhere.
    pub(crate) fn draw(&self, lines: &[String]) -> Result<bool, Failure> {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            return Ok(false);
        }
        // Each line is cleared before its text: behind a text that fills the line, that would clear its end.
        let mut frame = String::from("\x1b[H");
        for (index, line) in lines.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            let _ = write!(frame, "{separator}\x1b[2K{line}");
        }
        print(&frame)?;
        Ok(true)
    }
}

/// The keys that are pressed; `None` where they cannot be read.
pub(crate) struct Keys(Option<mpsc::UnboundedReceiver<u8>>);

impl Keys {
    /// Whether any key can be seen.
    pub(crate) fn are_read(&self) -> bool {
        self.0.is_some()
    }

    /// Resolves when `q` is pressed. Cancel safe.
    pub(crate) async fn quit(&mut self) {
        while let Some(keys) = &mut self.0 {
            match keys.recv().await {
                Some(b'q' | b'Q') => return,
                Some(_) => {}
                None => self.0 = None,
            }
        }
        future::pending::<()>().await;
    }
}

/// Keys, from a thread that waits for them as long as the program runs.
fn keys() -> mpsc::UnboundedReceiver<u8> {
    let (sender, receiver) = mpsc::unbounded_channel();
    thread::spawn(move || {
        let mut key = [0];
        while matches!(io::stdin().read(&mut key), Ok(1)) && sender.send(key[0]).is_ok() {}
    });
    receiver
}
