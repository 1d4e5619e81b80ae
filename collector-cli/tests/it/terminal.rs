// SPDX-License-Identifier: Apache-2.0
//! A terminal: a pseudo-terminal with the screen that whoever sits before it would see.

use std::io::{Read, Write};
use std::num::NonZero;
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use vt100::{Parser, Screen};

/// A program in a terminal; killed with this.
pub(crate) struct Terminal {
    child: Box<dyn Child + Send + Sync>,
    master: Option<Box<dyn MasterPty + Send>>,
    output: Box<dyn Read + Send>,
    keys: Option<Box<dyn Write + Send>>,
    parser: Parser,
    /// How the terminal was before the program started, as text.
    before: String,
    /// While it is there, the program is not killed.
    _in_time: Sender<()>,
}

/// A program that shows something else than a test waits for is killed after this time, so that the test fails.
const LONGEST: Duration = Duration::from_secs(120);

fn size(rows: u16, cols: u16) -> PtySize {
    PtySize { rows, cols, ..PtySize::default() }
}

fn size_of_screen(rows: u16, columns: u16) -> (NonZero<u16>, NonZero<u16>) {
    (NonZero::new(rows).unwrap(), NonZero::new(columns).unwrap())
}

impl Terminal {
    /// Starts a program with these variables alone, in a terminal of this size.
    pub(crate) fn start(
        program: &str,
        args: &[&str],
        env: &[(&str, &str)],
        (rows, columns): (u16, u16),
    ) -> Self {
        let pair = native_pty_system().openpty(size(rows, columns)).unwrap();
        let mut command = CommandBuilder::new(program);
        command.args(args);
        command.env_clear();
        command.env("TERM", "xterm");
        for (name, value) in env {
            command.env(name, value);
        }
        let (screen_rows, screen_columns) = size_of_screen(rows, columns);
        let before = settings(&*pair.master);
        let child = pair.slave.spawn_command(command).unwrap();
        let (in_time, over) = channel();
        let mut killer = child.clone_killer();
        thread::spawn(move || {
            if over.recv_timeout(LONGEST) == Err(RecvTimeoutError::Timeout) {
                let _ = killer.kill();
            }
        });
        Self {
            _in_time: in_time,
            child,
            output: pair.master.try_clone_reader().unwrap(),
            keys: Some(pair.master.take_writer().unwrap()),
            master: Some(pair.master),
            parser: Parser::new(screen_rows, screen_columns, 0),
            before,
        }
    }

    pub(crate) fn screen(&self) -> &Screen {
        self.parser.screen()
    }

    /// The text on the screen.
    pub(crate) fn text(&self) -> String {
        self.screen().contents()
    }

    /// Reads what the program writes; false at its end.
    fn read(&mut self) -> bool {
        let mut some = [0; 4096];
        // A terminal that no program has open any more is an error on Linux, and an end elsewhere.
        let read = self.output.read(&mut some).unwrap_or(0);
        self.parser.process(&some[..read]);
        read > 0
    }

    /// Waits until the screen is as it should be.
    #[track_caller]
    pub(crate) fn wait_until(&mut self, is_so: impl Fn(&Screen) -> bool) {
        while !is_so(self.screen()) {
            assert!(self.read(), "it ended with this on the screen:\n{}", self.text());
        }
    }

    /// Waits until the screen has this text.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, part: &str) {
        while !self.text().contains(part) {
            assert!(self.read(), "it ended without {part:?}:\n{}", self.text());
        }
    }

    pub(crate) fn press(&mut self, keys: &str) {
        let writer = self.keys.as_mut().unwrap();
        writer.write_all(keys.as_bytes()).unwrap();
        writer.flush().unwrap();
    }

    #[cfg_attr(not(feature = "tui"), expect(dead_code))]
    pub(crate) fn resize(&mut self, rows: u16, columns: u16) {
        let (screen_rows, screen_columns) = size_of_screen(rows, columns);
        self.parser.screen_mut().set_size(screen_rows, screen_columns);
        self.master.as_ref().unwrap().resize(size(rows, columns)).unwrap();
    }

    #[cfg_attr(not(feature = "tui"), expect(dead_code))]
    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.process_id().unwrap().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// Closes the terminal, as a window does; the exit code.
    #[cfg_attr(not(feature = "tui"), expect(dead_code))]
    pub(crate) fn close(mut self) -> u32 {
        self.keys = None;
        self.master = None;
        self.output = Box::new(std::io::empty());
        self.child.wait().unwrap().exit_code()
    }

    /// Waits for the end. The terminal is as before; the exit code, and the text on the normal screen.
    #[track_caller]
    pub(crate) fn end(mut self) -> (u32, String) {
        while self.read() {}
        let ended = self.child.wait().unwrap();
        let (text, screen) = (self.text(), self.screen());
        assert!(!screen.alternate_screen(), "the alternate screen is left behind:\n{text}");
        assert!(!screen.hide_cursor(), "the cursor is left hidden");
        let after = settings(&**self.master.as_ref().unwrap());
        assert_eq!(after, self.before, "keys are left as the program needs them");
        (ended.exit_code(), text)
    }
}

/// How keys and text are treated. The speed is left out: it means nothing here, and is written by every change.
fn settings(master: &dyn MasterPty) -> String {
    let now = master.get_termios().unwrap();
    let flags = (now.input_flags, now.output_flags, now.local_flags);
    format!("{flags:?} {:?}", now.control_chars)
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
