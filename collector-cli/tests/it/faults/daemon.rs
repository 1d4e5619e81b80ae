// SPDX-License-Identifier: Apache-2.0
//! A running `serve` whose log is read along.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use super::fleet::{MODEL, NAMESPACE};
use crate::process::Answer;

/// Killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    pub(crate) address: SocketAddr,
}

impl Daemon {
    /// Starts it on a free port and waits for it to listen. The log is read for as long as it runs:
    /// a full pipe would stop it. Only what the test reads is tracked, so that the test knows what is asked.
    pub(crate) fn start(command: &mut Command) -> Self {
        command.env("COLLECTOR_TRACKING__DISCOVER", "false");
        Self::start_as_configured(command.env("COLLECTOR_SERVER__LISTEN", "127.0.0.1:0"))
    }

    /// The same where the configuration says to listen.
    pub(crate) fn start_as_configured(command: &mut Command) -> Self {
        let mut child = command.arg("serve").stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(String::new()));
        let (sender, listening) = mpsc::channel();
        let copy = Arc::clone(&log);
        let reader = thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
                if let Some((_, url)) = line.split_once("listening on http") {
                    let address = url.trim_start_matches('s').trim_start_matches("://");
                    let _ = sender.send(address.trim().parse().unwrap());
                }
                copy.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        let Ok(address) = listening.recv() else {
            panic!("it ended: {}", log.lock().unwrap());
        };
        Self { child, log, reader: Some(reader), address }
    }

    /// The same with cycles of a second, requests that time out after half of that, and thresholds
    /// to match, for a fleet whose samples are some seconds old.
    pub(crate) fn start_fast(command: &mut Command) -> Self {
        command
            .env("COLLECTOR_PROMETHEUS__TIMEOUT", "500ms")
            .env("COLLECTOR_CACHE__FETCH_INTERVAL", "1s")
            .env("COLLECTOR_CACHE__TTL", "1s")
            .env("COLLECTOR_CACHE__FRESHNESS__FRESH_THRESHOLD", "6s")
            .env("COLLECTOR_CACHE__FRESHNESS__STALE_THRESHOLD", "7s")
            .env("COLLECTOR_CACHE__FRESHNESS__UNAVAILABLE_THRESHOLD", "9s");
        Self::start(command)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
    }

    pub(crate) fn send(&self, request: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Answer {
            status: status.unwrap_or_else(|| panic!("no answer: {answer:?}")),
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }

    pub(crate) fn replicas(&self) -> Answer {
        self.get(&format!("/api/v1/replicas?model={MODEL}&namespace={NAMESPACE}"))
    }

    pub(crate) fn reading(&self) -> (u16, Value) {
        let answer = self.replicas();
        (answer.status, answer.json())
    }

    /// A sample of its own metrics; 0 where it has none of that name.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let page = self.get("/metrics").body;
        let sample = page.lines().find_map(|line| line.strip_prefix(series));
        sample.map_or(0.0, |value| value.trim().parse().unwrap())
    }

    /// How many queries about who lives have ended, well or badly: one for each cycle.
    pub(crate) fn cycles(&self) -> f64 {
        self.metric("collector_query_duration_seconds_count{query_type=\"liveness\"}")
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The most memory that it has had, in bytes.
    #[cfg(target_os = "linux")]
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10
    }

    /// Looks again and again until `condition` holds.
    #[track_caller]
    pub(crate) fn eventually(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        for _ in 0..1000 {
            if condition(self) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("not in 20 s: {what}: {} {}", self.replicas().body, self.log());
    }

    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// Sends a signal and waits for the end; the exit code, and the whole log.
    pub(crate) fn stop(self, signal: &str) -> (Option<i32>, String) {
        self.stop_within(signal, Duration::from_secs(20))
    }

    /// The same, and the end must come within this time, or a little later on a busy machine.
    pub(crate) fn stop_within(mut self, signal: &str, limit: Duration) -> (Option<i32>, String) {
        self.signal(signal);
        let reader = self.reader.take().unwrap();
        let (sender, ended) = mpsc::channel();
        thread::spawn(move || sender.send(reader.join()));
        // Its log ends when it does.
        let end = ended.recv_timeout(limit + Duration::from_secs(2));
        assert!(end.is_ok(), "it did not end within {limit:?}: {}", self.log());
        (self.child.wait().unwrap().code(), self.log())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
