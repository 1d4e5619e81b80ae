// SPDX-License-Identifier: Apache-2.0
//! `collector serve` while its Prometheus goes away and comes back.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::fixture::{World, eventually, now, variant};

/// A `collector serve` that is killed when dropped.
struct Serve {
    child: Child,
    address: String,
}

impl Serve {
    fn start(config: &std::path::Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_collector"))
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(config)
            .env_clear()
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("listening on http://")?.1.trim().to_owned()))
            .expect("it says where it listens");
        // Nobody reads on: the pipe must not fill up and stop the program.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap())
    }

    async fn replicas(&self) -> (u16, Value) {
        self.get("/api/v1/replicas?model=llama&namespace=prod").await
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readings_go_on_through_an_outage_and_are_fresh_again_after_it() {
    let Some(mut world) = World::start(vec![variant("llama", "llama")]).await else { return };
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("collector.toml");
    let settings = "[cache]\nttl = \"2s\"\nfetch_interval = \"2s\"\n[cache.freshness]\n\
                    fresh_threshold = \"4s\"\nstale_threshold = \"5s\"\nunavailable_threshold = \"9s\"\n\
                    [[variants]]\nname = \"llama\"\nnamespace = \"prod\"\nmodel = \"llama\"";
    std::fs::write(&config, format!("{}timeout = \"500ms\"\n", world.toml(settings))).unwrap();
    let serve = Serve::start(&config);
    eventually("ready", Duration::from_secs(10), || async { serve.get("/readyz").await.0 == 200 })
        .await;
    let (status, reading) = serve.replicas().await;
    assert_eq!((status, &reading["status"]), (200, &"fresh".into()), "{reading}");

    world.prometheus.stop();
    let stopped = now();
    let mut seen: Vec<String> = Vec::new();
    let mut last_age = 0.0;
    while stopped.elapsed() < Duration::from_secs(14) {
        let (status, document) = serve.replicas().await;
        let state = match status {
            200 => {
                let age = document["ageSeconds"].as_f64().unwrap();
                // A refresh that was under way when the server stopped may still bring news.
                assert!(
                    age >= last_age || stopped.elapsed() < Duration::from_secs(1),
                    "{document}"
                );
                last_age = age;
                assert_eq!(document["replicas"].as_array().unwrap().len(), 2);
                document["status"].as_str().unwrap().to_owned()
            }
            503 => document["error"]["reason"].as_str().unwrap().to_owned(),
            other => panic!("{other}: {document}"),
        };
        if seen.last() != Some(&state) {
            seen.push(state);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(seen, ["fresh", "stale", "MetricsStale"]);
    let (status, ready) = serve.get("/readyz").await;
    assert_eq!(status, 200);
    assert!(ready.to_string().contains("open"), "the backend's state is told: {ready}");
    assert_eq!(serve.get("/healthz").await.0, 200);

    world.prometheus.start_again().await.unwrap();
    world.scrapes(1).await;
    // One interval, and a moment for the machine.
    eventually("fresh again", Duration::from_secs(5), || async {
        let (status, document) = serve.replicas().await;
        status == 200 && document["status"] == "fresh"
    })
    .await;
}
