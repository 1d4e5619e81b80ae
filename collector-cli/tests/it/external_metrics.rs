// SPDX-License-Identifier: Apache-2.0
//! The External Metrics API of `serve`, in front of pods that it scrapes, as the API server reads it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use collector_testkit::kubernetes::{self, Cluster, Verb, kinds};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::faults::certificates::{Authority, Pair};
use crate::pods::Pods;
use crate::process::{Served, collector, run};

const QUEUE: &str = "/apis/external.metrics.k8s.io/v1beta1/namespaces/prod/collector-running?labelSelector=model%3D";

/// The section of the API, with files instead of a cluster.
pub(crate) fn section(authority: &Authority) -> String {
    let server = authority.sign("localhost");
    format!(
        "[external_metrics]\nenabled = true\nlisten = \"127.0.0.1:0\"\ntls_cert_path = \"{}\"\ntls_key_path = \"{}\"\n\
         front_proxy_ca_path = \"{}\"\n",
        authority.write("cert.pem", &server.cert).display(),
        authority.write("key.pem", &server.key).display(),
        authority.file(),
    )
}

/// The same with a cluster, from which the authorities of the front proxy are read.
fn section_of_cluster(authority: &Authority, kubeconfig: &Path) -> String {
    let section = section(authority);
    let lines: Vec<&str> = section.lines().filter(|line| !line.contains("_ca_path")).collect();
    format!("[kubernetes]\nkubeconfig = \"{}\"\n{}\n", kubeconfig.display(), lines.join("\n"))
}

fn address(served: &Served) -> SocketAddr {
    let mut lines = served.log_so_far().lines();
    let line = lines.find_map(|line| line.split_once("External Metrics API listens on https://"));
    line.expect("it says where").1.trim().parse().unwrap()
}

/// The status and the document that the front proxy gets, which shows this certificate.
async fn get(address: SocketAddr, authority: &Authority, pair: &Pair, path: &str) -> (u16, Value) {
    let config = authority.client(Some(pair));
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Remote-User: hpa\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hpa_reads_a_fleet_through_the_api_server() {
    let (pods, authority) = (Pods::start().await, Authority::new());
    let config = pods.config(&section(&authority));
    let served = Served::start(collector().arg("--config").arg(config));
    let (address, front_proxy) = (address(&served), authority.sign("front-proxy-client"));
    let read =
        async |label| get(address, &authority, &front_proxy, &format!("{QUEUE}{label}")).await;
    // The first scrape may take longer than a call.
    let list = loop {
        match read("org_model").await {
            (200, list) => break list,
            (code, status) => assert_eq!((code, &status["kind"]), (503, &"Status".into())),
        }
    };
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    let value = list["items"][0]["value"].as_str().unwrap();
    assert!(value.parse::<u64>().unwrap() > 0, "{value}");
    let (code, status) = read("org_modle").await;
    assert_eq!(code, 404, "{status}");
    let stranger = Authority::new().sign("front-proxy-client");
    let (code, status) = get(address, &authority, &stranger, "/apis").await;
    assert_eq!(code, 401, "{status}");
    let page = served.get("/metrics").body;
    for counted in [
        "collector_external_metrics_requests_total{code=\"404\"} 1\n",
        "collector_external_metrics_refused_clients_total{reason=\"unknown_authority\"} 1\n",
        "collector_external_metrics_front_proxy_up 1\n",
    ] {
        assert!(page.contains(counted), "no {counted} in {page}");
    }
    let (exit, log) = served.stop("-TERM");
    assert_eq!(exit, Some(0), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_says_who_the_api_server_is_and_what_users_may_read() {
    let (pods, authority) = (Pods::start().await, Authority::new());
    let cluster = Cluster::start().await.unwrap();
    cluster.allow(|access| access.namespace != "secret");
    let pem = authority.pem();
    cluster.apply(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": "kube-system", "name": "extension-apiserver-authentication"},
        "data": {
            "requestheader-client-ca-file": pem, "requestheader-allowed-names": "[]",
            "requestheader-username-headers": "[\"X-Remote-User\"]",
            "requestheader-group-headers": "[\"X-Remote-Group\"]",
            "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]"
        }
    }));
    let text = kubernetes::kubeconfig(&cluster.url(), &json!({}));
    let kubeconfig = authority.write("kubeconfig", &text);
    let section = section_of_cluster(&authority, &kubeconfig);
    let served = Served::start(collector().arg("--config").arg(pods.config(&section)));
    let (address, front_proxy) = (address(&served), authority.sign("front-proxy-client"));
    let read = async |path: &str| get(address, &authority, &front_proxy, path).await;
    // The first scrape may take longer than a call.
    loop {
        match read(&format!("{QUEUE}org_model")).await {
            (200, list) => break assert_eq!(list["kind"], "ExternalMetricValueList"),
            (code, status) => assert_eq!(code, 503, "{status}"),
        }
    }
    let (code, status) = read(&format!("{QUEUE}org_model").replace("/prod/", "/secret/")).await;
    assert_eq!(code, 403, "{status}");
    let asked = cluster.access_reviews();
    let asked: Vec<_> = asked
        .iter()
        .map(|it| (it.user.as_str(), it.verb.as_str(), it.namespace.as_str()))
        .collect();
    assert_eq!(asked, [("hpa", "list", "prod"), ("hpa", "list", "secret")]);
    let page = served.get("/metrics").body;
    let counted = "collector_external_metrics_access_reviews_total{outcome=\"denied\"} 1\n";
    assert!(page.contains(counted), "no {counted} in {page}");
}

/// A kubeconfig with a command for credentials.
fn with_command(authority: &Authority, cluster: &Cluster, script: &str) -> PathBuf {
    let exec = json!({
        "apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", script]
    });
    let text = kubernetes::kubeconfig(&cluster.url(), &json!({ "exec": exec }));
    authority.write("kubeconfig", &text)
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_and_reviews_share_a_connection() {
    let (pods, authority) = (Pods::start().await, Authority::new());
    let cluster = Cluster::start().await.unwrap();
    let runs = authority.write("runs", "");
    let script = format!("echo run >> {}; echo '{{status: {{token: t}}}}'", runs.display());
    let kubeconfig = with_command(&authority, &cluster, &script);
    let section = section_of_cluster(&authority, &kubeconfig);
    let section = section.replace("[kubernetes]", "[kubernetes]\nenabled = true");
    let served = Served::start(collector().arg("--config").arg(pods.config(&section)));
    cluster
        .wait_for(|counters| {
            counters.requests(Verb::Get, kinds::CONFIG_MAPS) > 0
                && counters.open_watches(kinds::PODS) > 0
        })
        .await;
    assert_eq!(std::fs::read_to_string(runs).unwrap(), "run\n");
    drop(served);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_for_credentials_that_hangs_keeps_nothing_from_being_served() {
    let (pods, authority) = (Pods::start().await, Authority::new());
    let cluster = Cluster::start().await.unwrap();
    let kubeconfig = with_command(&authority, &cluster, "sleep 1000");
    let section = section_of_cluster(&authority, &kubeconfig);
    let section = section.replace("[kubernetes]", "[kubernetes]\nenabled = true");
    let config = pods.config(&section);
    let served = Served::start(collector().arg("--config").arg(&config));
    assert_eq!(served.get("/healthz").status, 200);
    let args = ["--config", config.to_str().unwrap(), "get", "pods", "--timeout", "200ms"];
    let ended = run(&mut collector(), &args);
    let says = "the command of the kubeconfig for credentials has not ended within 0.2s";
    assert!(ended.exit == 5 && ended.stderr.contains(says), "{}", ended.stderr);
    let (exit, log) = served.stop("-TERM");
    assert_eq!(exit, Some(0), "{log}");
}

#[test]
fn a_file_that_cannot_be_used_ends_the_start() {
    let authority = Authority::new();
    let config = format!("{}[prometheus]\nurl = \"https://localhost:1\"\n", section(&authority));
    let without = config.replace("front_proxy_ca_path", "# front_proxy_ca_path");
    let cases = [
        (config.replace("ca.pem", "absent.pem"), "external_metrics.front_proxy_ca_path: "),
        (config.replace("key.pem", "absent.pem"), "external_metrics.tls_key_path: "),
        (format!("{without}[kubernetes]\nkubeconfig = \"/absent\"\n"), "kubernetes.kubeconfig: "),
    ];
    for (config, part) in cases {
        let path = authority.write("collector.toml", &config);
        let mut command = collector();
        let command = command.arg("--config").arg(path);
        let ended = run(command, &["serve", "--listen", "127.0.0.1:0"]);
        assert_eq!(ended.exit, 2, "{}", ended.stderr);
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
}
