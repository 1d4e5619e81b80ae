// SPDX-License-Identifier: Apache-2.0
//! A headless Chromium, driven over WebDriver and stopped for certain.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs, iter};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The page asks every two seconds; the rest is for a busy machine.
const PATIENCE_MS: u64 = 60_000;

const FLAGS: [&str; 8] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

pub(super) struct Browser {
    driver: Child,
    port: u16,
    session: String,
    profile: TempDir,
}

impl Browser {
    /// Starts one; `None`, after saying so, where Chromium is not installed and not required.
    pub(super) fn start() -> Option<Self> {
        for program in ["chromedriver", "chromium"] {
            let version = Command::new(program).arg("--version").stdout(Stdio::null()).status();
            if !version.is_ok_and(|status| status.success()) {
                let required = env::var(collector_testkit::REQUIRE_REAL_SERVERS);
                assert_ne!(required.as_deref(), Ok("1"), "{program} is not installed");
                eprintln!("SKIPPED: {program} is not installed");
                return None;
            }
        }
        let profile = tempfile::tempdir().unwrap();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(driver.stdout.take().unwrap());
        // From here on it is killed if anything fails.
        let mut browser = Self { driver, port: 0, session: String::new(), profile };
        let mut lines = output.lines().map_while(Result::ok);
        let port = lines.find_map(|line| {
            line.split_once("started successfully on port ")?.1.trim_end_matches('.').parse().ok()
        });
        browser.port = port.expect("chromedriver names its port");
        let profile = format!("--user-data-dir={}", browser.profile.path().display());
        let args: Vec<&str> = FLAGS.into_iter().chain([profile.as_str()]).collect();
        let answer = browser.call(
            "POST",
            "/session",
            &json!({"capabilities": {"alwaysMatch": {
                "goog:chromeOptions": {"args": args},
                "goog:loggingPrefs": {"browser": "ALL"},
                "timeouts": {"script": 2 * PATIENCE_MS},
            }}}),
        );
        browser.session = format!("/session/{}", answer["sessionId"].as_str().unwrap());
        browser.size(1280, 800);
        Some(browser)
    }

    pub(super) fn open(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
    }

    /// Sets the size of the page in pixels.
    pub(super) fn size(&self, width: u32, height: u32) {
        let params =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", &params);
    }

    /// Sets what the user prefers: `light` or `dark`.
    pub(super) fn colours(&self, scheme: &str) {
        let features = json!([
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]);
        self.devtools("Emulation.setEmulatedMedia", &json!({ "features": features }));
    }

    /// Hides scroll bars, as telephones do.
    pub(super) fn hide_scroll_bars(&self) {
        self.devtools("Emulation.setScrollbarsHidden", &json!({"hidden": true}));
    }

    fn devtools(&self, command: &str, params: &Value) {
        self.post("/goog/cdp/execute", &json!({"cmd": command, "params": params}));
    }

    /// Runs the body of a function in the page, and waits for a promise that it returns.
    pub(super) fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// The text of what the selector finds first.
    pub(super) fn text(&self, selector: &str) -> String {
        let text = self.run(&format!("return document.querySelector({selector:?}).textContent"));
        text.as_str().unwrap().to_owned()
    }

    /// Waits until an expression is true in the page.
    #[track_caller]
    pub(super) fn wait_for(&self, expression: &str) {
        let script = format!(
            "return new Promise(done => {{
                const end = performance.now() + {PATIENCE_MS};
                (function look() {{
                    if ({expression}) done(null);
                    else if (performance.now() > end) done(document.body.innerText);
                    else setTimeout(look, 50);
                }})();
            }})"
        );
        let page = self.run(&script);
        assert!(page.is_null(), "not so: {expression}\n{}", page.as_str().unwrap_or_default());
    }

    /// Types, key by key; `\u{e007}` is Enter and its like, as WebDriver has them.
    pub(super) fn keys(&self, keys: &str) {
        let actions: Vec<Value> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key})))
            .collect();
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": actions});
        self.post("/actions", &json!({ "actions": [keyboard] }));
    }

    /// The messages on the console so far.
    pub(super) fn console(&self) -> Value {
        self.post("/se/log", &json!({"type": "browser"}))
    }

    /// What is seen, as a PNG.
    pub(super) fn picture(&self) -> Vec<u8> {
        let answer = self.call("GET", &format!("{}/screenshot", self.session), &Value::Null);
        STANDARD.decode(answer.as_str().unwrap()).unwrap()
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.call("POST", &format!("{}{path}", self.session), body)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let length = body.len();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(3 * PATIENCE_MS))).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = BufReader::new(stream);
        let mut line = || {
            let mut line = String::new();
            answer.read_line(&mut line).unwrap();
            line.trim_end().to_ascii_lowercase()
        };
        let status = line();
        let head: Vec<String> =
            iter::repeat_with(line).take_while(|line| !line.is_empty()).collect();
        // It does not close the connection, whatever it is asked for.
        let length = head.iter().find_map(|line| line.strip_prefix("content-length:"));
        let mut body = vec![0; length.unwrap().trim().parse().unwrap()];
        answer.read_exact(&mut body).unwrap();
        let mut body: Value = serde_json::from_slice(&body).unwrap();
        assert!(status.starts_with("http/1.1 200"), "{method} {path}: {body}");
        body["value"].take()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends Chromium with it; without an answer there is nothing else to do.
        if !self.session.is_empty()
            && let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port))
        {
            let path = &self.session;
            let end =
                format!("DELETE {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
            let _ = stream.write_all(end.as_bytes());
            let _ = stream.read(&mut [0; 1000]);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The accessibility checker axe, which `cargo xtask test` fetches; `None`, after saying so, without.
pub(super) fn axe() -> Option<String> {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let file = target.parent().unwrap().join("axe/node_modules/axe-core/axe.min.js");
    let script = fs::read_to_string(&file).ok();
    if script.is_none() {
        eprintln!("SKIPPED: axe-core is not there: `cargo xtask test` fetches it with npm");
    }
    script
}
