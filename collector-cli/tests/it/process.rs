// SPDX-License-Identifier: Apache-2.0
//! Runs the binary, with nothing of the environment of whoever runs the tests.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Command, Stdio};

use serde_json::Value;

pub(crate) fn collector() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_collector"));
    command.env_clear().stdin(Stdio::null());
    command
}

/// The binary with a Prometheus to ask.
pub(crate) fn collector_of(prometheus: &str) -> Command {
    let mut command = collector();
    command
        .env("PROMETHEUS_BASE_URL", prometheus)
        .env("PROMETHEUS_ALLOW_HTTP", "true")
        .env("COLLECTOR_PROMETHEUS__TIMEOUT", "1s");
    command
}

pub(crate) struct Ended {
    pub(crate) exit: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {:?} {}", self.stdout, self.stderr))
    }
}

/// Runs it to its end.
#[track_caller]
pub(crate) fn run(command: &mut Command, args: &[&str]) -> Ended {
    let output = command.args(args).output().unwrap();
    let ended = Ended {
        exit: output.status.code().expect("it ended by itself"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    // What holds for every run whatever it was about.
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    assert!(ended.exit == 0 || !ended.stderr.is_empty() || !ended.stdout.is_empty());
    ended
}

/// A running `serve`, killed with this.
pub(crate) struct Served {
    child: Child,
    log: BufReader<ChildStderr>,
    started: String,
    pub(crate) address: SocketAddr,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The value of a header, in small letters.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let headers = self.head.lines().filter_map(|line| line.split_once(": "));
        headers.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

impl Served {
    /// Starts it on a free port and waits for it to listen.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .args(["serve", "--listen", "127.0.0.1:0"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut seen = String::new();
        let address = loop {
            let start = seen.len();
            assert!(log.read_line(&mut seen).unwrap() > 0, "it ended: {seen}");
            if let Some((_, address)) = seen[start..].split_once("listening on http://") {
                break address.trim().parse().unwrap();
            }
        };
        Self { child, log, started: seen, address }
    }

    /// What was logged until it listened.
    #[cfg_attr(not(all(feature = "epp", feature = "keda")), expect(dead_code))]
    pub(crate) fn log_so_far(&self) -> &str {
        &self.started
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        // 1.0, so that no body comes in chunks and the connection ends with the answer.
        self.send(&format!("GET {path} HTTP/1.0\r\n\r\n"))
    }

    pub(crate) fn send(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }

    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(sent.success());
    }

    /// Sends a signal and waits for the end; the exit code and what was logged until then.
    pub(crate) fn stop(mut self, signal: &str) -> (Option<i32>, String) {
        self.signal(signal);
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
