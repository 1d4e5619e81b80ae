//! `top`, in a real pseudo-terminal: `script` of util-linux makes it.

use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::fake_prometheus::{MODEL, with_one_model};
use crate::process::{collector_of, run};

const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";

struct Terminal {
    script: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    text: String,
}

impl Terminal {
    /// Starts `top` in a terminal of this size; `None` where there is no `script`.
    fn start(server: &str, rows: u16, columns: u16) -> Option<Self> {
        let program = env!("CARGO_BIN_EXE_collector");
        let command =
            format!("stty rows {rows} cols {columns}; echo pid $$; exec {program} top -A");
        let mut script = Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .envs([("TERM", "xterm"), ("LC_ALL", "C.UTF-8"), ("PROMETHEUS_ALLOW_HTTP", "true")])
            .env("PROMETHEUS_BASE_URL", server)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let (stdin, stdout) = (script.stdin.take().unwrap(), script.stdout.take().unwrap());
        Some(Self { script, stdin, stdout, text: String::new() })
    }

    /// Reads until the terminal was sent this.
    #[track_caller]
    fn wait_for(&mut self, part: &str) {
        let mut some = [0; 4096];
        while !self.text.contains(part) {
            let read = self.stdout.read(&mut some).unwrap();
            assert!(read > 0, "it ended without {part:?}: {:?}", self.text);
            self.text.push_str(&String::from_utf8_lossy(&some[..read]));
        }
    }

    fn press(&mut self, keys: &[u8]) {
        self.stdin.write_all(keys).unwrap();
    }

    fn kill(&mut self, signal: &str) {
        let id = self.text.split_whitespace().skip_while(|word| *word != "pid").nth(1).unwrap();
        assert!(Command::new("kill").args([signal, id]).status().unwrap().success());
    }

    /// Waits for the end; what came after the alternate screen was left.
    #[track_caller]
    fn end(mut self) -> String {
        self.stdout.read_to_string(&mut self.text).unwrap();
        let ended = self.script.wait().unwrap();
        assert!(ended.success(), "{ended}: {:?}", self.text);
        assert_eq!(self.text.matches(ENTER).count(), 1, "{:?}", self.text);
        let (_, after) = self.text.split_once(LEAVE).expect("it left the alternate screen");
        after.to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_shows_models_and_pods_and_restores_the_terminal_on_q() {
    let server = with_one_model(Duration::ZERO).await.uri();
    for (rows, columns) in [(24, 80), (50, 160)] {
        let Some(mut terminal) = Terminal::start(&server, rows, columns) else { return };
        terminal.wait_for(MODEL);
        terminal.wait_for("fresh");
        terminal.press(b"\r");
        terminal.wait_for("m-1");
        // An arrow is no Esc, and the pods stay.
        terminal.press(b"\x1b[Bq");
        assert_eq!(terminal.end(), "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_and_sigterm_restore_the_terminal_too() {
    let server = with_one_model(Duration::ZERO).await.uri();
    for signal in [None, Some("-TERM"), Some("-INT")] {
        let Some(mut terminal) = Terminal::start(&server, 24, 80) else { return };
        terminal.wait_for(MODEL);
        match signal {
            None => terminal.press(&[3]),
            Some(signal) => terminal.kill(signal),
        }
        assert_eq!(terminal.end(), "");
    }
}

#[test]
fn it_shows_why_there_is_nothing_while_the_server_is_down() {
    // Port 9 of loopback is closed everywhere.
    let Some(mut terminal) = Terminal::start("http://127.0.0.1:9", 24, 80) else { return };
    terminal.wait_for("0 models");
    terminal.wait_for("connect");
    terminal.press(b"q");
    assert_eq!(terminal.end(), "");
}

#[test]
fn without_a_terminal_it_is_refused() {
    let ended = run(&mut collector_of("http://127.0.0.1:9"), &["top", "-A"]);
    assert_eq!((ended.exit, ended.stdout.as_str()), (2, ""));
    assert!(ended.stderr.contains("collector watch"), "{}", ended.stderr);
}
