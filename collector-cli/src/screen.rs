//! The terminal's alternate screen. The normal screen is restored however the program ends.

use std::env;
use std::fmt::Write as _;
use std::future;
use std::io::{self, IsTerminal as _, Read as _};
use std::sync::{Mutex, PoisonError};
use std::thread;

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};
use tokio::sync::mpsc;

use crate::exit::Failure;
use crate::output::print;

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
    /// Shows the alternate screen, and reads keys where stdin is a terminal too; `None` where stdout is no
    /// terminal that has such a screen.
    pub(crate) fn enter() -> Result<Option<(Self, Keys)>, Failure> {
        let Some(screen) = Self::show()? else { return Ok(None) };
        let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let is_read = shown.as_ref().is_some_and(|before| before.input.is_some());
        drop(shown);
        Ok(Some((screen, Keys(is_read.then(keys)))))
    }

    /// The same for a caller who reads the keys.
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

/// Keys, from a thread that waits for them as long as the program runs.
fn keys() -> mpsc::UnboundedReceiver<u8> {
    let (sender, receiver) = mpsc::unbounded_channel();
    thread::spawn(move || {
        let mut key = [0];
        while matches!(io::stdin().read(&mut key), Ok(1)) && sender.send(key[0]).is_ok() {}
    });
    receiver
}

#[cfg(test)]
mod tests {
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
