// SPDX-License-Identifier: Apache-2.0
//! `watch`: a line for each change.

use std::io::{BufRead as _, BufReader, Lines, Read as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use wiremock::ResponseTemplate;

use crate::fake_prometheus::answering;
use crate::process::collector;

fn page(waiting: u32) -> String {
    let value = |name: &str, value: &str| {
        format!("# TYPE vllm:{name} gauge\nvllm:{name}{{model_name=\"org/model\"}} {value}\n")
    };
    value("num_requests_running", "2")
        + &value("num_requests_waiting", &waiting.to_string())
        + &value("kv_cache_usage_perc", "0.5")
}

/// A pod of one model whose page can change; 500 without a page.
struct Pod {
    page: Arc<Mutex<Option<String>>>,
    _server: wiremock::MockServer,
    config: tempfile::TempPath,
}

impl Pod {
    async fn start() -> Self {
        let page = Arc::new(Mutex::new(Some(page(0))));
        let said = Arc::clone(&page);
        let server = answering(move |_| match &*said.lock().unwrap() {
            Some(page) => {
                ResponseTemplate::new(200).set_body_raw(page.clone(), "text/plain; version=0.0.4")
            }
            None => ResponseTemplate::new(500),
        })
        .await;
        let config = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        let text = format!(
            "backend = \"scrape\"\n[scrape]\nscrape_interval = \"200ms\"\n[[scrape.targets]]\nurl = \
             \"{}/metrics\"\nnamespace = \"n\"\npod = \"m-0\"\n",
            server.uri()
        );
        std::fs::write(config.path(), text).unwrap();
        Self { page, _server: server, config: config.into_temp_path() }
    }

    fn says(&self, waiting: Option<u32>) {
        *self.page.lock().unwrap() = waiting.map(page);
    }

    fn watch(&self, args: &[&str]) -> Watch {
        let mut command = collector();
        command.arg("--config").arg(&self.config).args(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Watch { child, lines }
    }
}

struct Watch {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watch {
    #[track_caller]
    fn line(&mut self) -> String {
        let Some(line) = self.lines.next() else {
            let mut stderr = String::new();
            self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
            panic!("it ended: {stderr}");
        };
        line.unwrap()
    }

    /// Sends a signal, and returns the exit code.
    fn stop(mut self, signal: &str) -> Option<i32> {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_value_is_a_line() {
    let pod = Pod::start().await;
    let mut watch = pod.watch(&["watch", "org/model", "-n", "n"]);
    let first = watch.line();
    assert!(first.ends_with("Z n org/model fresh 1 pod, queue 0, running 2, KV 50.0%"), "{first}");
    pod.says(Some(4));
    // The peak over the window.
    let next = watch.line();
    assert!(next.ends_with("Z n org/model fresh m-0 queue 0 → 4"), "{next}");
    assert_eq!(watch.stop("-INT"), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn json_lines_are_documents() {
    let pod = Pod::start().await;
    let mut watch = pod.watch(&["get", "replicas", "-A", "--watch", "-o", "json"]);
    let queue = |line: &str| {
        let document: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (&document["schemaVersion"], &document["kind"]),
            (&1.into(), &"replicas".into())
        );
        document["replicas"][0]["queueLength"].as_u64()
    };
    assert_eq!(queue(&watch.line()), Some(0));
    pod.says(Some(7));
    // A rate may become known before the queue changes.
    while queue(&watch.line()) != Some(7) {}
    assert_eq!(watch.stop("-TERM"), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_a_line_and_so_is_its_end() {
    let pod = Pod::start().await;
    pod.says(None);
    let mut watch = pod.watch(&["watch", "org/model", "-n", "n"]);
    let failed = watch.line();
    assert!(failed.contains("Z n org/model error ") && failed.contains("500"), "{failed}");
    pod.says(Some(0));
    let back = watch.line();
    assert!(back.contains("fresh was error; 1 pod, queue 0, running 2"), "{back}");
    assert_eq!(watch.stop("-INT"), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_and_a_closed_pipe_end_it_with_0() {
    let pod = Pod::start().await;
    let mut watch = pod.watch(&["watch", "-n", "n", "--timeout", "1s"]);
    assert!(watch.line().contains(" n org/model fresh "));
    assert_eq!(watch.child.wait().unwrap().code(), Some(0));
    let mut watch = pod.watch(&["watch", "-n", "n"]);
    watch.line();
    let Watch { mut child, lines } = watch;
    drop(lines);
    pod.says(Some(9));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
