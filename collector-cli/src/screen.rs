// SPDX-License-Identifier: Apache-2.0
//! The terminal's alternate screen. The normal screen is restored however the program ends.

use std::env;
use std::io::{self, IsTerminal as _};
use std::sync::{Mutex, PoisonError};

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

use crate::exit::Failure;
use crate::output::print;

#[cfg(feature = "sim")]
mod lines;
#[cfg(feature = "sim")]
pub(crate) use self::lines::Keys;

/// To the alternate screen, without a cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// A special character that no key has: `_POSIX_VDISABLE` of Linux and of the BSDs.
#[cfg(any(target_os = "linux", target_os = "android"))]
const DISABLED: u8 = 0;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const DISABLED: u8 = 0xff;

/// While the alternate screen is shown.
static SHOWN: Mutex<Option<Before>> = Mutex::new(None);

/// How the terminal was, where its keys are read.
struct Before {
    input: Option<Termios>,
}

/// The alternate screen, until it is dropped.
pub(crate) struct Screen(&'static Mutex<Option<Before>>);

impl Screen {
    /// Shows the alternate screen, and leaves the keys of stdin to the caller; `None` where stdout is no terminal that
    /// has such a screen.
    pub(crate) fn show() -> Result<Option<Self>, Failure> {
        let is_dumb = env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
        if is_dumb || !io::stdout().is_terminal() {
            return Ok(None);
        }
        let input = if io::stdin().is_terminal() { read_keys_at_once() } else { None };
        *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(Before { input });
        // From here on the normal screen is restored in any case.
        let screen = Self(&SHOWN);
        print(ENTER)?;
        Ok(Some(screen))
    }

    /// Whether it has not been left, as it is after a panic elsewhere.
    #[cfg(feature = "tui")]
    pub(crate) fn is_shown(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

/// Shows the normal screen again, where the alternate one is shown.
pub(crate) fn leave() {
    let Some(before) = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
    // Not through the buffer of stdout: the thread that panics may have locked it.
    let _ = rustix::io::write(io::stdout(), LEAVE.as_bytes());
    if let Some(input) = before.input {
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &input);
    }
}

/// Gives each key to the program when it is pressed, and does not show it. Ctrl-C stays a signal; the keys
/// that stop or kill the program would leave the alternate screen behind, and do nothing. Returns how the
/// terminal was; `None` where it cannot be changed.
fn read_keys_at_once() -> Option<Termios> {
    let before = tcgetattr(io::stdin()).ok()?;
    let mut raw = before.clone();
    raw.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
    raw.special_codes[SpecialCodeIndex::VMIN] = 1;
    raw.special_codes[SpecialCodeIndex::VTIME] = 0;
    for key in [SpecialCodeIndex::VSUSP, SpecialCodeIndex::VQUIT] {
        raw.special_codes[key] = DISABLED;
    }
    tcsetattr(io::stdin(), OptionalActions::Now, &raw).ok()?;
    Some(before)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::panic;

    use portable_pty::{CommandBuilder, PtySize, native_pty_system};

    use super::*;

    const TEST: &str = "screen::tests::a_panic_restores_the_terminal_before_it_is_reported";

    /// Set for the program that runs in the test's terminal: the test again.
    const INSIDE: &str = "COLLECTOR_TEST_IN_A_TERMINAL";

    #[test]
    fn a_panic_restores_the_terminal_before_it_is_reported() {
        if env::var_os(INSIDE).is_some() {
            panic::set_hook(Box::new(crate::report_panic));
            let _screen = Screen::show().unwrap().expect("a terminal");
            panic!("in the middle of drawing");
        }
        let terminal = native_pty_system().openpty(PtySize::default()).unwrap();
        let settings = || {
            let now = terminal.master.get_termios().unwrap();
            format!("{:?} {:?}", now.local_flags, now.control_chars)
        };
        let before = settings();
        let mut command = CommandBuilder::new(env::current_exe().unwrap());
        command.args(["--exact", TEST, "--nocapture"]);
        command.env(INSIDE, "1");
        command.env("TERM", "xterm");
        let mut child = terminal.slave.spawn_command(command).unwrap();
        let mut output = terminal.master.try_clone_reader().unwrap();
        let (mut text, mut some) = (Vec::new(), [0; 4096]);
        while !String::from_utf8_lossy(&text).contains("screen.rs:") {
            let read = output.read(&mut some).unwrap();
            text.extend_from_slice(&some[..read]);
        }
        assert_ne!(child.wait().unwrap().exit_code(), 0);
        let text = String::from_utf8(text).unwrap();
        let (before_it, after) = text.split_once(LEAVE).expect("it left the alternate screen");
        assert!(before_it.contains(ENTER), "{text:?}");
        assert!(after.contains("internal error, please report it: in the middle of drawing"));
        assert_eq!(settings(), before, "keys are left as the program needs them");
    }
}
