// SPDX-License-Identifier: Apache-2.0
//! Queries over several models of a real Prometheus, of which one goes: missed at first, and 0 if a list of targets says
//! that it has no pods.

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::fixture::{World, eventually, variant};
use crate::pods::target_file;
use crate::process::{Answer, Served, collector};

const ALL: &str = r#"sum(vllm:num_requests_running{namespace="prod"})"#;
const LLAMA: &str = r#"sum(vllm:num_requests_running{namespace="prod",model_name="org/llama"})"#;

/// A `collector serve` with its PromQL API, in front of a Prometheus that scrapes `org/llama` and `org/qwen`.
struct Fixture {
    world: World,
    served: Served,
    folder: TempDir,
}

impl Fixture {
    /// With these settings before those of the API. The targets of the fleet are in a file.
    async fn start(first: &str) -> Option<Self> {
        let variants = vec![variant("llama", "org/llama"), variant("qwen", "org/qwen")];
        let world = World::start(variants).await?;
        let folder = tempfile::tempdir().unwrap();
        write_targets(&world, &folder);
        let config = folder.path().join("collector.toml");
        let settings = format!(
            "{first}\n[promql]\nenabled = true\nttl = \"500ms\"\nvanished_after = \"8s\"\n\
             [cache]\nttl = \"2s\"\n"
        );
        std::fs::write(&config, world.toml(&settings)).unwrap();
        let served = Served::start(collector().arg("--config").arg(&config));
        Some(Self { world, served, folder })
    }

    fn ask(&self, query: &str) -> Answer {
        let query: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
        self.served.get(&format!("/api/v1/query?query={query}"))
    }

    async fn until(&self, what: &str, query: &str, says: &str) -> Answer {
        eventually(what, Duration::from_secs(30), || async { self.ask(query).body.contains(says) })
            .await;
        self.ask(query)
    }

    /// Scales `org/llama` to zero.
    async fn remove_llama(&self) {
        for pod in self.world.fleet.targets().iter().filter(|it| it.pod.starts_with("llama-")) {
            self.world.fleet.delete_pod("prod", &pod.pod).await.unwrap();
        }
        write_targets(&self.world, &self.folder);
    }
}

fn write_targets(world: &World, folder: &TempDir) {
    // In one step, as such files are written.
    let new: PathBuf = folder.path().join("targets.new");
    std::fs::write(&new, target_file(&world.fleet)).unwrap();
    std::fs::rename(&new, folder.path().join("targets.json")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sum_without_a_model_that_vanished_is_refused_and_later_answered_with_a_warning() {
    let Some(fixture) = Fixture::start("").await else { return };
    let both = fixture.until("both are heard", ALL, "\"success\"").await;
    assert!(!both.body.contains("warnings"), "{}", both.body);
    fixture.remove_llama().await;
    let named = r#"nothing is known of \"org/llama\" in \"prod\" since"#;
    let refused = fixture.until("it is missed", ALL, named).await;
    assert_eq!((refused.status, refused.header("x-collector-reason")), (503, Some("partial")));
    // Of one model alone, as ever.
    assert_eq!(fixture.ask(LLAMA).header("x-collector-reason"), Some("missing"));
    let named = r#"without \"org/llama\" in \"prod\", which "#;
    let rest = fixture.until("it is no longer missed", ALL, named).await;
    assert_eq!(rest.status, 200, "{}", rest.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_model_without_targets_is_zero_and_is_not_missed() {
    let configured = "backend = [\"scrape\", \"prometheus\"]\n\
                      [scrape]\nscrape_interval = \"500ms\"\nwindow = \"3s\"\ntarget_file = \"targets.json\"\n\
                      [[variants]]\nname = \"llama\"\nnamespace = \"prod\"\nmodel = \"org/llama\"\n\
                      pods = \"llama-*\"\n";
    let Some(fixture) = Fixture::start(configured).await else { return };
    fixture.until("both are heard", ALL, "\"success\"").await;
    fixture.remove_llama().await;
    let reason = r#"0: \"org/llama\" in \"prod\" has no pods (directory)"#;
    let zero = fixture.until("it is zero", LLAMA, reason).await;
    assert_eq!(zero.status, 200, "{}", zero.body);
    assert_eq!(zero.json()["data"]["result"][0]["value"][1], "0");
    let rest = fixture.until("the others are summed", ALL, reason).await;
    assert_eq!(rest.status, 200, "{}", rest.body);
    // After its window the model is missing. That its targets were removed is remembered.
    eventually("its reading is old", Duration::from_secs(20), || async {
        let reading = fixture.served.get("/api/v1/replicas?model=org/llama&namespace=prod");
        reading.json()["status"] != "fresh"
    })
    .await;
    // Longer than an answer is kept.
    fixture.world.scrapes(2).await;
    let zero = fixture.ask(LLAMA);
    assert!(zero.status == 200 && zero.body.contains(reason), "{}", zero.body);
    // Not configured, so no list says that it has no pods.
    let other = LLAMA.replace("org/llama", "org/other");
    assert_ne!(fixture.ask(&other).status, 200);
}
