// SPDX-License-Identifier: Apache-2.0
//! What must not be in a recording.

use std::fs;

use super::{once, place, pods, prometheus, record, recorder, unpacked};
use crate::faults::fleet::{Fleet, MODEL, NAMESPACE};
use crate::faults::server::{Reply, Server};
use crate::process::{collector, run};

const SECRETS: [&str; 3] = ["s3cr3t-in-url", "s3cr3t-token", "s3cr3t-header"];

/// A Prometheus that sends the secrets of requests back in its errors.
fn echoing() -> Server {
    let fleet = Fleet::of_pods(&["m-0"]);
    Server::start(move |request| {
        if request.query.contains("num_requests_waiting") {
            let echo =
                format!("denied: {} {} {:?}", request.authorization, request.path, &SECRETS[1..]);
            return Reply::status(500, echo).header("X-Trace", SECRETS[1]);
        }
        fleet.reply(request)
    })
}

/// Records with this configuration, and looks for secrets in the recording. Returns what was recorded.
#[track_caller]
fn check(config: &str, exit: i32) -> String {
    let (folder, file) = place();
    let path = folder.path().join("collector.toml");
    fs::write(&path, format!("{config}[cache]\nttl = \"1s\"\nfetch_interval = \"1s\"\n")).unwrap();
    let args =
        ["record", file.to_str().unwrap(), "-m", MODEL, "-n", NAMESPACE, "--duration", "1500ms"];
    let ended = run(collector().arg("--config").arg(&path), &args);
    assert_eq!(ended.exit, exit, "{}", ended.stderr);
    // A configuration that is refused leaves no file.
    let recorded = if exit == 0 { unpacked(&file) } else { String::new() };
    assert_eq!(file.exists(), exit == 0);
    for secret in SECRETS {
        assert!(!recorded.contains(secret), "{secret}: {recorded}");
    }
    recorded
}

/// A pod that refuses every request, and names it.
#[cfg(feature = "epp")]
fn refusing() -> Server {
    Server::start(|request| Reply::status(403, format!("no {}", request.path)))
}

/// Credentials of a Prometheus at this address.
fn of_prometheus(url: &str) -> String {
    let [_, token, header] = SECRETS;
    format!(
        "[prometheus]\nurl = \"{url}\"\nallow_http = true\nbearer_token = \"{token}\"\n\
         headers = {{ X-Key = \"{header}\" }}\ntimeout = \"500ms\"\n"
    )
}

#[test]
fn no_secret_of_headers_or_of_the_configuration_is_recorded() {
    let server = echoing();
    let recorded = check(&of_prometheus(&server.url()), 0);
    assert!(recorded.contains("queueLength"), "the error of the server is there: {recorded}");
    assert!(server.asked().iter().all(|request| request.authorization.contains(SECRETS[1])));
    let recorded = check(&of_prometheus("http://127.0.0.1:9"), 0);
    assert!(recorded.contains("\"failed\":{\"error\""), "{recorded}");
}

#[test]
fn no_secret_of_an_address_is_recorded() {
    let server = echoing();
    let (address, secret) = (server.address, SECRETS[0]);
    // Those of a Prometheus are refused before anything is recorded.
    check(&of_prometheus(&format!("http://{address}/?key={secret}")), 2);
    check(&of_prometheus(&format!("http://{secret}:{secret}@{address}")), 2);
    // Of a pod they may be needed.
    #[cfg(feature = "epp")]
    for address in [refusing().address.to_string(), "127.0.0.1:9".to_owned()] {
        let recorded = check(
            &format!(
                "backend = \"scrape\"\n[scrape]\nscrape_interval = \"300ms\"\nbearer_token = \"{}\"\n\
                 targets = [{{ url = \"http://{address}/metrics?key={secret}\", namespace = \"prod\", pod = \"m-0\" }}]\n",
                SECRETS[1]
            ),
            0,
        );
        assert!(recorded.contains("\"answer\""), "{recorded}");
    }
}

#[test]
fn an_anonymized_recording_has_numbers_and_no_names() {
    let server = prometheus(&["acme-llama-7f9c-0", "acme-llama-7f9c-1"]);
    let (_folder, file) = place();
    record(&server, &file, &["--anonymize"]);
    let recorded = unpacked(&file);
    for name in [MODEL, NAMESPACE, "acme", "127.0.0.1", &server.address.port().to_string()] {
        assert!(!recorded.contains(name), "{name}: {recorded}");
    }
    let ended = once(&file, &["-m", "model-1", "-n", "namespace-1"]);
    assert_eq!(ended.exit, 2, "an argument is given twice: {}", ended.stderr);
    let mut command = collector();
    let args =
        ["replay", file.to_str().unwrap(), "--once", "model-1", "-n", "namespace-1", "-o", "json"];
    let ended = run(&mut command, &args);
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    let reading = ended.json();
    assert_eq!(pods(&reading), ["pod-1", "pod-2"]);
    assert_eq!(reading["replicas"][0]["queueLength"], 3);

    // It cannot be continued: the same names would get others.
    for more in [&["--anonymize"][..], &[]] {
        let mut args = vec!["record", file.to_str().unwrap(), "--duration", "1s"];
        args.extend(more);
        let ended = run(&mut recorder(&server), &args);
        assert_eq!(ended.exit, 2, "{}", ended.stderr);
        assert!(ended.stderr.contains("record to another"), "{}", ended.stderr);
    }
    assert_eq!(unpacked(&file), recorded);
}
