// SPDX-License-Identifier: Apache-2.0
//! Runs one call, and holds it to what is true of every fault.

use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::fleet::{MODEL, NAMESPACE};
use super::server::{Request, Server};
use crate::process::{Ended, collector, collector_of};

/// The token of every call; it may never be seen again.
pub(crate) const SECRET: &str = "hunter2-is-never-shown";

/// What a busy machine takes to start and to end a process, at the very most.
const SLACK: Duration = Duration::from_secs(10);

/// A call of the binary.
pub(crate) struct Call<'s> {
    server: Option<&'s Server>,
    url: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    timeout: Duration,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// What the server was asked.
    pub(crate) asked: Vec<Request>,
}

impl<'s> Call<'s> {
    /// `get replicas` from this server.
    pub(crate) fn to(server: &'s Server) -> Self {
        Self { server: Some(server), ..Self::to_url(&server.url()) }
    }

    /// `get replicas` from whatever is there.
    pub(crate) fn to_url(url: &str) -> Self {
        let args = ["get", "replicas", "-m", MODEL, "-n", NAMESPACE].map(str::to_owned);
        Self {
            server: None,
            url: url.to_owned(),
            args: args.to_vec(),
            env: Vec::new(),
            // Only what hangs should come near it.
            timeout: Duration::from_secs(5),
        }
    }

    /// Another command.
    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// So little time that a server may let it pass.
    pub(crate) fn in_haste(mut self) -> Self {
        self.timeout = Duration::from_millis(300);
        self
    }

    /// It fails with this exit code and reason, and says these things. Exit code 2 prints nothing
    /// on stdout and has no reason.
    #[track_caller]
    pub(crate) fn fails(&self, exit: i32, reason: &str, says: &[&str]) -> Verdict {
        if let Some(server) = self.server {
            server.asked();
        }
        let ended = self.run(&["-o", "json"], &[]);
        let asked = self.server.map(Server::asked).unwrap_or_default();
        assert_eq!(ended.exit, exit, "{} {}", ended.stdout, ended.stderr);
        if exit == 2 {
            assert_eq!(ended.stdout, "");
        } else {
            let error = &ended.json()["error"];
            assert_eq!(error["reason"], reason, "{}", ended.stdout);
            assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()));
        }
        // What to do may stand below the cause; nothing else does.
        let cause = &ended.stderr[ended.stderr.find("error: ").expect("the cause on stderr")..];
        let causes = ended.stderr.lines().filter(|line| line.starts_with("error: "));
        assert_eq!(causes.count(), 1, "not one cause: {}", ended.stderr);
        assert!(cause.chars().count() < 1500, "too long to read: {cause}");
        for part in says {
            assert!(cause.contains(part), "{part:?} is not said: {cause}");
        }
        // The same again, with all that the log has to say and for people.
        let told = self.run(&[], &[("RUST_LOG", "trace")]);
        assert_eq!(told.exit, exit, "{}", told.stderr);
        assert_eq!(told.stdout, "", "there is no result to print");
        Verdict { stdout: ended.stdout, stderr: ended.stderr, asked }
    }

    /// The backend failed.
    #[track_caller]
    pub(crate) fn backend_fails(&self, says: &[&str]) -> Verdict {
        let place = self.server.map(|server| server.address.to_string());
        let says: Vec<&str> = says.iter().copied().chain(place.as_deref()).collect();
        self.fails(5, "PrometheusError", &says)
    }

    /// It works, and prints this document.
    #[track_caller]
    pub(crate) fn finds(&self) -> (Value, Verdict) {
        if let Some(server) = self.server {
            server.asked();
        }
        let ended = self.run(&["-o", "json"], &[]);
        assert_eq!(ended.exit, 0, "{} {}", ended.stdout, ended.stderr);
        let document = ended.json();
        let asked = self.server.map(Server::asked).unwrap_or_default();
        (document, Verdict { stdout: ended.stdout, stderr: ended.stderr, asked })
    }

    /// It prints this document and ends with this code, and has told all in the document.
    #[track_caller]
    pub(crate) fn ends_with(&self, exit: i32) -> Value {
        let ended = self.run(&["-o", "json"], &[]);
        assert_eq!(ended.exit, exit, "{} {}", ended.stdout, ended.stderr);
        ended.json()
    }

    /// What it prints for people, when it works.
    #[track_caller]
    pub(crate) fn prints(&self) -> String {
        let ended = self.run(&[], &[]);
        assert_eq!(ended.exit, 0, "{} {}", ended.stdout, ended.stderr);
        ended.stdout
    }

    #[track_caller]
    fn run(&self, args: &[&str], env: &[(&str, &str)]) -> Ended {
        let mut command = if self.url.is_empty() { collector() } else { collector_of(&self.url) };
        command
            .env("PROMETHEUS_BEARER_TOKEN", SECRET)
            .env("RUST_BACKTRACE", "1")
            .env("COLLECTOR_PROMETHEUS__TIMEOUT", format!("{}ms", self.timeout.as_millis()))
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .envs(env.iter().copied())
            .args(&self.args)
            .args(args);
        let ended = run_within(command, self.timeout * 3 + Duration::from_secs(1) + SLACK);
        check(&ended.stdout, &ended.stderr);
        ended
    }
}

/// What is true of every output: it is fit for a terminal, and holds neither a secret nor a panic.
#[track_caller]
pub(crate) fn check(stdout: &str, stderr: &str) {
    for text in [stdout, stderr] {
        assert!(!text.contains(SECRET), "the token is shown: {text}");
        for sign in ["panicked", "internal error", "stack backtrace", "RUST_BACKTRACE"] {
            assert!(!text.contains(sign), "{text}");
        }
        let control = text.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(control, None, "not fit for a terminal: {text:?}");
    }
}

/// Runs it to its end, which must come in time.
#[track_caller]
pub(crate) fn run_within(mut command: Command, limit: Duration) -> Ended {
    let child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it can be started");
    let id = child.id().to_string();
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = ended.recv_timeout(limit) else {
        let _ = Command::new("kill").args(["-9", &id]).status();
        panic!("it hangs: {command:?} did not end within {limit:?}");
    };
    let output = output.unwrap();
    Ended {
        exit: output.status.code().unwrap_or_else(|| panic!("{:?}: {output:?}", output.status)),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs cases that mostly wait side by side.
pub(crate) fn side_by_side<T: Sync>(cases: &[T], case: impl Fn(&T) + Sync) {
    thread::scope(|scope| {
        for one in cases {
            scope.spawn(|| case(one));
        }
    });
}
