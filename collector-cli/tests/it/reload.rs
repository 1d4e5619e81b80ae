// SPDX-License-Identifier: Apache-2.0
//! `serve` reads its configuration again, and goes on serving.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use tempfile::TempDir;

#[cfg(all(feature = "epp", feature = "kubernetes"))]
use crate::faults::certificates::Authority;
use crate::faults::daemon::Daemon;
use crate::faults::fleet::{Fleet, MODEL, NAMESPACE, Quantity};
use crate::faults::server::Server;
use crate::process::collector;

/// A Prometheus whose model has these pods.
fn prometheus(pods: &[&str]) -> Server {
    let fleet = Fleet::of_pods(pods);
    Server::start(move |request| fleet.reply(request))
}

fn config(server: &Server, more: &str) -> String {
    format!(
        "{more}\n[prometheus]\nurl = \"{}\"\nallow_http = true\ntimeout = \"1s\"\n\
         [tracking]\ndiscover = false\n[server]\nlisten = \"127.0.0.1:0\"\n",
        server.url()
    )
}

fn variant(index: usize) -> String {
    format!(
        "[[variants]]\nname = \"v{index}\"\nnamespace = \"{NAMESPACE}\"\nmodel = \"m{index}\"\n"
    )
}

fn serve(file: &Path) -> Daemon {
    Daemon::start_as_configured(collector().arg("--config").arg(file))
}

fn write(folder: &TempDir, text: &str) -> std::path::PathBuf {
    let path = folder.path().join("collector.toml");
    fs::write(&path, text).unwrap();
    path
}

impl Daemon {
    /// A whole number of its own metrics.
    #[expect(clippy::cast_possible_truncation, reason = "counts and flags")]
    fn whole(&self, series: &str) -> i64 {
        self.metric(series) as i64
    }

    /// Waits until this line is in the log so often.
    #[track_caller]
    fn logs(&self, line: &str, times: usize) {
        self.eventually(line, |daemon| daemon.log().matches(line).count() >= times);
    }
}

const RELOADED: &str = "Reloaded the configuration";
const REFUSED: &str = "The new configuration cannot be used";

#[test]
fn a_signal_adds_variants_and_readings_keep_their_age() {
    let server = prometheus(&["m-0"]);
    let folder = tempfile::tempdir().unwrap();
    let more = "[cache]\nttl = \"1m\"\nfetch_interval = \"1m\"\n";
    let path = write(&folder, &config(&server, more));
    let daemon = serve(&path);
    let (status, before) = daemon.reading();
    assert_eq!(
        (status, &before["replicas"][0]["variantName"]),
        (200, &serde_json::Value::Null),
        "{before}"
    );
    let added = format!(
        "{more}[[variants]]\nname = \"small\"\nnamespace = \"{NAMESPACE}\"\nmodel = \"{MODEL}\"\n"
    );
    fs::write(&path, config(&server, &added)).unwrap();
    server.asked();
    daemon.signal("-HUP");
    daemon.logs(RELOADED, 1);
    let (status, after) = daemon.reading();
    assert_eq!((status, &after["replicas"][0]["variantName"]), (200, &"small".into()), "{after}");
    assert_eq!(after["sampledAt"], before["sampledAt"], "it is the same reading");
    let mut asked = server.asked();
    // Which models there are is asked at each start.
    asked.retain(|request| request.about() != Quantity::Models);
    assert!(asked.is_empty(), "its backend was not asked again: {asked:?}");
    assert!(daemon.log().contains("changed=\"variants\""), "{}", daemon.log());
    assert_eq!(daemon.whole("collector_config_last_reload_successful"), 1);
    // The counters go on.
    assert_eq!(daemon.whole("collector_cache_misses_total"), 1);
    daemon.signal("-HUP");
    daemon.logs("The configuration has not changed", 1);
}

#[test]
fn a_configmap_that_is_swapped_is_read() {
    let server = prometheus(&["m-0"]);
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (version, more) in [("..v1", String::new()), ("..v2", variant(1))] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("collector.toml"), config(&server, &more)).unwrap();
    }
    symlink("..v1", at("..data")).unwrap();
    symlink("..data/collector.toml", at("collector.toml")).unwrap();
    let daemon = serve(&at("collector.toml"));
    symlink("..v2", at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    fs::remove_dir_all(at("..v1")).unwrap();
    daemon.logs(RELOADED, 1);
    assert_eq!(daemon.get("/readyz").json()["tracked"], 1);
}

#[test]
fn a_file_that_cannot_be_used_leaves_the_former_configuration() {
    let server = prometheus(&["m-0"]);
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, &config(&server, ""));
    let daemon = serve(&path);
    assert_eq!(daemon.reading().0, 200);
    let missing = folder.path().join("no-such-token");
    let with_token = format!("token_path = {missing:?}\n[tracking]");
    let cases = [
        ("[cache]\ntll = \"1s\"\n".to_owned(), "cache.ttl"),
        ("[cache\n".to_owned(), "not valid TOML"),
        ("[cache]\nfetch_interval = \"1s\"\n".to_owned(), "prometheus.timeout"),
        // It is valid, and what it names cannot be used.
        (config(&server, "").replace("[tracking]", &with_token), "prometheus.token_path"),
    ];
    for (index, (text, says)) in cases.into_iter().enumerate() {
        let text = if text.starts_with("[cache") { config(&server, &text) } else { text };
        fs::write(&path, text).unwrap();
        daemon.logs(REFUSED, index + 1);
        let log = daemon.log();
        let line = log.lines().rfind(|line| line.contains(REFUSED)).unwrap();
        assert!(line.contains(says) && line.contains("ERROR"), "{line}");
        daemon.eventually("readyz says so", |daemon| {
            let configuration = &daemon.get("/readyz").json()["configuration"];
            configuration["error"].as_str().is_some_and(|error| error.contains(says))
        });
        assert_eq!(daemon.get("/readyz").status, 200);
        assert_eq!(daemon.whole("collector_config_last_reload_successful"), 0);
        assert_eq!(daemon.reading().0, 200);
    }
    assert_eq!(daemon.whole("collector_config_reloads_total{result=\"failed\"}"), 4);
    fs::write(&path, config(&server, "")).unwrap();
    daemon.logs("The configuration can be used again", 1);
    fs::write(&path, config(&server, &variant(1))).unwrap();
    daemon.logs(RELOADED, 1);
    daemon.eventually("good again", |daemon| {
        daemon.whole("collector_config_last_reload_successful") == 1
    });
    assert_eq!(daemon.get("/readyz").json()["configuration"]["error"], serde_json::Value::Null);
}

#[test]
fn no_read_fails_while_the_backend_and_a_thousand_variants_change() {
    let (one, two) = (prometheus(&["m-0"]), prometheus(&["m-0", "m-1"]));
    let folder = tempfile::tempdir().unwrap();
    let variants: String = (0..1000).map(variant).collect();
    let path = write(&folder, &config(&one, &variants));
    let daemon = serve(&path);
    assert_eq!(daemon.reading().0, 200);
    let (stop, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let answer = daemon.replicas();
                    assert_eq!(answer.status, 200, "{}", answer.body);
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // However the reads end, they are stopped.
        let _stops = Stops(&stop);
        let mut reloads = 0;
        for (server, count) in [(&two, 1000), (&one, 999), (&two, 998)] {
            let variants: String = (0..count).map(variant).collect();
            fs::write(&path, config(server, &variants)).unwrap();
            server.asked();
            daemon.signal("-HUP");
            reloads += 1;
            daemon.logs(RELOADED, reloads);
            daemon.eventually("the new server is asked", |_| !server.asked().is_empty());
        }
        daemon.eventually("both pods are there", |daemon| {
            daemon.reading().1["replicas"].as_array().is_some_and(|pods| pods.len() == 2)
        });
    });
    assert!(reads.load(Ordering::Relaxed) > 100);
    assert!(!daemon.log().contains(REFUSED), "{}", daemon.log());
}

struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn log_level_doors_and_tokens_change_and_what_cannot_is_said() {
    let server = prometheus(&["m-0"]);
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, &config(&server, "[log]\nlevel = \"warn\"\n"));
    let token = folder.path().join("token");
    fs::write(&token, "s3cret").unwrap();
    // It logs no address at this level.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text =
        config(&server, "[log]\nlevel = \"info\"\n").replace("127.0.0.1:0", &port.to_string());
    fs::write(&path, text).unwrap();
    let daemon = serve(&path);
    assert_eq!(daemon.get("/api/v1/query?query=1").status, 404);
    let text = config(&server, "[log]\nlevel = \"debug\"\n[promql]\nenabled = true\n");
    fs::write(&path, text + &format!("read_token_path = {token:?}\n")).unwrap();
    daemon.logs(RELOADED, 1);
    daemon.eventually("the token is needed", |daemon| daemon.get("/metrics").status == 401);
    let with_token = |path: &str| {
        let request = format!("GET {path} HTTP/1.0\r\nAuthorization: Bearer s3cret\r\n\r\n");
        daemon.send(request.as_bytes())
    };
    let query = "/api/v1/query?query=collector_replica_queue_length";
    assert_ne!(with_token(query).status, 404, "PromQL queries are answered");
    assert_eq!(daemon.get(query).status, 401);
    assert_eq!(with_token("/metrics").status, 200);
    assert!(daemon.log().contains("take effect only after a restart"), "{}", daemon.log());
    assert_eq!(
        with_token("/readyz").json()["configuration"]["restartFor"],
        serde_json::json!(["server.listen"])
    );
    let probed = daemon.get("/readyz");
    assert_eq!((probed.status, probed.json().as_object().unwrap().len()), (200, 2));
    let read = format!("/api/v1/replicas?model={MODEL}&namespace={NAMESPACE}");
    assert_eq!(with_token(&read).status, 200);
    daemon.logs("DEBUG", 1);
}

#[cfg(all(feature = "epp", feature = "kubernetes"))]
#[test]
fn keys_of_an_open_port_that_need_a_restart_are_named() {
    use crate::external_metrics::section;
    let (server, authority) = (prometheus(&["m-0"]), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let before = section(&authority);
    let path = write(&folder, &config(&server, &before));
    let daemon = serve(&path);
    let names = |more: &str, expected: &[&str]| {
        fs::write(&path, config(&server, &format!("{before}{more}"))).unwrap();
        daemon.eventually(more, |daemon| {
            let keys = &daemon.get("/readyz").json()["configuration"]["restartFor"];
            keys.as_array().map_or(0, Vec::len) == expected.len()
                && expected.iter().all(|key| keys.to_string().contains(key))
        });
    };
    // A file says who the API server is, so that no cluster is asked.
    let other = "front_proxy_names = [\"one\"]\n[kubernetes]\ncontext = \"other\"\n";
    names(other, &["external_metrics.front_proxy_names"]);
    assert!(daemon.log().contains("take effect only after a restart"), "{}", daemon.log());
    names("", &[]);
}

#[cfg(feature = "keda")]
#[test]
fn the_port_of_the_external_scaler_opens_and_closes() {
    let server = prometheus(&["m-0"]);
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, &config(&server, ""));
    let daemon = serve(&path);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let connects = || std::net::TcpStream::connect(port).is_ok();
    assert!(!connects());
    fs::write(&path, config(&server, &format!("[keda]\nlisten = \"{port}\"\n"))).unwrap();
    daemon.eventually("it is open", |_| connects());
    fs::write(&path, config(&server, &format!("[keda]\nlisten = \"{port}\"\nwait = \"200ms\"\n")))
        .unwrap();
    daemon.logs(RELOADED, 2);
    assert!(connects());
    fs::write(&path, config(&server, "")).unwrap();
    daemon.eventually("it is closed", |_| !connects());
    // A port that is taken is no reason to end.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|address| (taken, address)).unwrap();
    fs::write(&path, config(&server, &format!("[keda]\nlisten = \"{}\"\n", taken.1))).unwrap();
    daemon.logs(REFUSED, 1);
    assert_eq!(daemon.reading().0, 200);
}

#[test]
fn a_signal_without_a_file_changes_nothing() {
    let server = prometheus(&["m-0"]);
    let daemon = Daemon::start(&mut crate::process::collector_of(&server.url()));
    daemon.signal("-HUP");
    daemon.logs("The configuration has not changed", 1);
    assert_eq!(daemon.reading().0, 200);
    let (exit, log) = daemon.stop("-TERM");
    assert_eq!(exit, Some(0), "{log}");
}

#[test]
fn systemd_is_told_each_stage() {
    let server = prometheus(&["m-0"]);
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, &config(&server, ""));
    let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let mut command = collector();
    command.env("NOTIFY_SOCKET", folder.path().join("notify")).env("WATCHDOG_USEC", "200000");
    let daemon = Daemon::start_as_configured(command.arg("--config").arg(&path));
    let next = || {
        let mut text = [0; 256];
        let length = manager.recv(&mut text).unwrap();
        String::from_utf8(text[..length].to_vec()).unwrap()
    };
    let until = |wanted: &str| {
        std::iter::repeat_with(next).take(1000).find(|text| text.starts_with(wanted)).unwrap()
    };
    assert_eq!(next(), "READY=1");
    for _ in 0..3 {
        assert_eq!(next(), "WATCHDOG=1");
    }
    daemon.signal("-HUP");
    let reloading = until("RELOADING=1");
    let (_, micros) = reloading.split_once("\nMONOTONIC_USEC=").unwrap();
    assert!(micros.parse::<u64>().unwrap() > 0);
    until("READY=1");
    daemon.signal("-TERM");
    until("STOPPING=1");
}

#[test]
fn a_page_of_another_host_cannot_read_along() {
    let server = prometheus(&["m-0"]);
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, &config(&server, ""));
    let daemon = serve(&path);
    let from = |host: &str| {
        daemon.send(format!("GET /metrics HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes())
    };
    assert_eq!(from("localhost:9464").status, 200);
    let refused = from("rebound.example:9464");
    assert_eq!(refused.status, 403);
    assert!(refused.json().to_string().contains("server.allowed_hosts"), "{}", refused.body);
    let allowed = config(&server, "") + "allowed_hosts = [\"rebound.example\"]\n";
    fs::write(&path, allowed).unwrap();
    daemon.eventually("it is allowed", |_| from("rebound.example:9464").status == 200);
}
