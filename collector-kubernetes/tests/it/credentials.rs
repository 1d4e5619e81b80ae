// SPDX-License-Identifier: Apache-2.0
//! A command of the kubeconfig prints the credentials.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use collector_core::{Ask, Backend as _, ErrorKind};
use collector_kubernetes::{Cluster, ClusterConfig};
use collector_testkit::TokioClock;
use collector_testkit::kubernetes::{self, Fault, Scope};
use serde_json::json;
use tempfile::TempDir;

use crate::fixture::{Kubeconfig, Watching, access, model, server, shown};

/// A kubeconfig with a command, which is a script in the folder that its files are in.
struct Plugin {
    folder: TempDir,
}

impl Plugin {
    fn new(url: &str, script: &str) -> Self {
        let plugin = Self { folder: TempDir::new().unwrap() };
        let exec = json!({
            "apiVersion": "client.authentication.k8s.io/v1", "command": "sh",
            "args": ["-c", format!("cd {}; {script}", plugin.folder.path().display())],
        });
        let text = kubernetes::kubeconfig(url, &json!({ "exec": exec }));
        std::fs::write(plugin.path("kubeconfig"), text).unwrap();
        plugin
    }

    /// One that prints a token that lasts, and writes a line with each run.
    fn with_token(url: &str, token: &str, lasts: Duration) -> Self {
        let expires = jiff::Timestamp::now() + lasts;
        let credential = json!({
            "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
            "status": {"token": token, "expirationTimestamp": expires.to_string()}
        });
        Self::new(url, &format!("echo run >> runs; echo '{credential}'"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self) -> ClusterConfig {
        ClusterConfig { kubeconfig: Some(self.path("kubeconfig")), ..ClusterConfig::default() }
    }

    fn cluster(&self) -> Cluster {
        Cluster::new(self.config(), Arc::new(TokioClock::new())).unwrap()
    }

    /// Waits until the script has begun, by a file that it makes.
    async fn started(&self) {
        while !self.path("started").exists() {
            tokio::task::yield_now().await;
        }
    }

    fn runs(&self) -> usize {
        std::fs::read_to_string(self.path("runs")).unwrap().lines().count()
    }
}

const HANGS: &str = "touch started; sleep 1000; true";

#[tokio::test(start_paused = true)]
async fn a_command_that_hangs_is_an_error_and_a_client_that_is_given_replaces_it() {
    let server = server(1).await;
    let plugin = Plugin::new(&server.url(), HANGS);
    let error = plugin.cluster().refresh(Duration::from_secs(16)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    let says = "(\"sh\") has not ended within 10 s and was stopped; run it by hand";
    assert!(error.to_string().contains(says), "{error}");
    let error = plugin.cluster().refresh(Duration::from_secs(2)).await.unwrap_err();
    let says = "the command of the kubeconfig for credentials has not ended within 1.9s";
    assert!(error.to_string().contains(says), "{error}");
    Watching::with_config(plugin.config()).wait_for_failure("was stopped").await;
    let plugin = Plugin::new(&server.url(), HANGS);
    let kubeconfig = Kubeconfig::new(&server.url());
    let client = kubeconfig.config().connect().await.unwrap();
    let watching = Watching::with_config(plugin.config());
    plugin.started().await;
    watching.cluster.set_client(client);
    let (clock, models) = (TokioClock::new(), [model()]);
    let answers = watching.cluster.fetch(Ask::new(&models, &clock)).await.unwrap();
    assert_eq!(shown(answers.get(&model()).unwrap()).as_deref(), Some("0=ready"));
}

/// Whether a process runs; one that has ended may not have been waited for yet.
#[cfg(target_os = "linux")]
fn runs(process: &str) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{process}/stat"));
    state.is_ok_and(|state| !state.contains(") Z"))
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn nothing_that_a_command_has_started_goes_on_without_it() {
    let plugin = Plugin::new("http://127.0.0.1:1", "sleep 1000 & echo $! > pid; wait");
    let config = plugin.config();
    let connecting = tokio::spawn(async move { config.connect().await.map(drop) });
    let process = loop {
        match std::fs::read_to_string(plugin.path("pid")) {
            Ok(process) if process.ends_with('\n') => break process.trim().to_owned(),
            _ => tokio::task::yield_now().await,
        }
    };
    assert!(runs(&process));
    connecting.abort();
    let ended = async {
        while runs(&process) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap();
}

#[tokio::test]
async fn a_command_runs_once_until_its_credentials_expire_or_are_refused() {
    let server = server(1).await;
    server.accept_tokens(["first"]);
    let plugin = Plugin::with_token(&server.url(), "first", Duration::from_secs(3600));
    let cluster = plugin.cluster();
    cluster.refresh(Duration::from_secs(60)).await.unwrap();
    cluster.api_server().await.unwrap();
    assert_eq!(plugin.runs(), 1);
    server.accept_tokens(["second"]);
    assert_eq!(cluster.api_server().await.unwrap_err().kind(), ErrorKind::Unauthorized);
    assert_eq!(plugin.runs(), 2);
    server.accept_tokens(["first"]);
    let plugin = Plugin::with_token(&server.url(), "first", Duration::from_secs(30));
    let cluster = plugin.cluster();
    cluster.api_server().await.unwrap();
    cluster.api_server().await.unwrap();
    assert_eq!(plugin.runs(), 2, "they expire within a minute");
    // The former ones are used as long as the server accepts them.
    std::fs::remove_file(plugin.path("kubeconfig")).unwrap();
    cluster.api_server().await.unwrap();
}

#[tokio::test]
async fn a_command_that_takes_its_time_is_waited_for_when_the_watches_start() {
    let server = server(1).await;
    let script = "touch started; until [ -e go ]; do :; done; echo '{status: {token: t}}'";
    let plugin = Plugin::new(&server.url(), script);
    let watching = Watching::with_config(plugin.config());
    plugin.started().await;
    let (clock, models) = (TokioClock::new(), [model()]);
    let asked = watching.cluster.fetch(Ask::new(&models, &clock));
    let go = async { std::fs::write(plugin.path("go"), "").unwrap() };
    let (answers, ()) = tokio::join!(asked, go);
    assert_eq!(shown(answers.unwrap().get(&model()).unwrap()).as_deref(), Some("0=ready"));
}

#[tokio::test]
async fn callers_that_need_a_client_at_the_same_time_share_a_run() {
    let server = server(1).await;
    let plugin = Plugin::with_token(&server.url(), "first", Duration::from_secs(3600));
    let cluster = plugin.cluster();
    let asked = tokio::join!(cluster.api_server(), cluster.api_server(), cluster.api_server());
    assert!(asked.0.is_ok() && asked.1.is_ok() && asked.2.is_ok());
    assert_eq!(plugin.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_given_client_is_asked_about_users_too() {
    let servers = [server(1).await, server(1).await];
    let kubeconfigs = servers.each_ref().map(|server| Kubeconfig::new(&server.url()));
    let cluster = Cluster::new(kubeconfigs[0].config(), Arc::new(TokioClock::new())).unwrap();
    let extra = BTreeMap::new();
    let question = access("prod", &[], &extra);
    assert!(cluster.review_access(&question).await.unwrap().is_allowed);
    cluster.set_client(kubeconfigs[1].config().connect().await.unwrap());
    servers[1].allow(|_| false);
    assert!(!cluster.review_access(&question).await.unwrap().is_allowed);
    assert_eq!(servers.each_ref().map(|server| server.access_reviews().len()), [1, 1]);
    servers[1].set_fault(Scope::Everything, Fault::NoAnswer);
    let error = cluster.request_headers().await.unwrap_err();
    assert!(error.ends_with("cannot be read: no answer within 5s"), "{error}");
}
