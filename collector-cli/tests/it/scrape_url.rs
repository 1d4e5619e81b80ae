// SPDX-License-Identifier: Apache-2.0
//! `scrape` of a URL: the page as the daemon gets it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::thread;

use tempfile::TempDir;

use crate::process::{collector, run};
use crate::scrape::{error_of, page, scrape, server};

/// A target of the configuration at this URL, and more keys of the section.
fn configuration(folder: &TempDir, url: &str, keys: &str) -> PathBuf {
    let path = folder.path().join("collector.toml");
    let target = format!("targets = [{{ url = \"{url}\", namespace = \"prod\", pod = \"m-0\" }}]");
    fs::write(&path, format!("backend = \"epp\"\n[epp]\n{keys}\n{target}\n")).unwrap();
    path
}

/// A server of one page that wants to see this in the head of each request, and says 401 otherwise.
fn guarded(wanted: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/metrics", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap_or_default();
            let head = String::from_utf8_lossy(&request[..length]).to_ascii_lowercase();
            let answer = if head.contains(&wanted.to_ascii_lowercase()) {
                page("text/plain", "vllm:num_requests_waiting{model_name=\"m\"} 3\n")
            } else {
                let refusal = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 9\r\n\r\nwrong key";
                refusal.as_bytes().to_vec()
            };
            let _ = stream.write_all(&answer);
        }
    });
    url
}

#[test]
fn a_target_gets_the_token_as_from_the_daemon_and_no_other_url_does() {
    let folder = TempDir::new().unwrap();
    let url = guarded("Authorization: Bearer hunter2");
    let keys = "bearer_token = \"hunter2\"\nallow_token_over_http = true";
    let config = configuration(&folder, &url, keys);
    let args = ["--config", config.to_str().unwrap(), "-o", "json"];
    let ended = scrape(&url, &args);
    assert_eq!(ended.json()["rows"][0]["waiting"], 3, "{}", ended.stderr);
    // Another page of the same server is none of the targets.
    let error = error_of(&scrape(&format!("{url}?all"), &args), 5);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("not a target of the configuration"), "{error}");
    assert!(message.contains("the server said: \"wrong key\""), "{error}");
    let hint = error["hints"][0].as_str().unwrap();
    assert!(hint.contains("epp.bearer_token or epp.token_path"), "{error}");
    // It needs no file of a token either, nor one of certificates over http.
    let absent = "token_path = \"absent\"\nca_cert_path = \"absent.pem\"";
    let config = configuration(&folder, "http://127.0.0.1:9/metrics", absent);
    let open = server(page("text/plain", "vllm:num_requests_waiting{model_name=\"m\"} 3\n"), false);
    let absent = ["--config", config.to_str().unwrap(), "-o", "json"];
    let ended = scrape(&open, &absent);
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    let target = scrape("http://127.0.0.1:9/metrics", &absent);
    assert_eq!(target.exit, 2, "{}", target.stderr);
    assert!(target.stderr.contains("epp.token_path"), "{}", target.stderr);
    // One of a file of targets is.
    let address = url.trim_start_matches("http://").trim_end_matches("/metrics");
    let file = format!(r#"[{{"targets": ["{address}"], "labels": {{"namespace": "prod"}}}}]"#);
    fs::write(folder.path().join("targets.json"), file).unwrap();
    let config = configuration(
        &folder,
        "http://127.0.0.1:9/metrics",
        &format!("{keys}\ntarget_file = \"targets.json\""),
    );
    let ended = scrape(&url, &["--config", config.to_str().unwrap(), "-o", "json"]);
    assert_eq!(ended.json()["rows"][0]["waiting"], 3, "{}", ended.stderr);
}

#[test]
fn a_name_and_a_password_in_the_url_are_sent() {
    // me:hunter2@
    let url = guarded("Authorization: Basic bWU6aHVudGVyMkA=");
    let own = url.replace("http://", "http://me:hunter2%40@");
    let ended = scrape(&own, &["-o", "json"]);
    assert_eq!(ended.json()["rows"][0]["waiting"], 3, "{}", ended.stderr);
    let error = error_of(&scrape(&own.replace("me:", "you:"), &["-o", "json"]), 5);
    assert!(error["message"].as_str().unwrap().contains("of the URL were sent"), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
    // A server that shows it is not quoted with it.
    let telltale = "HTTP/1.1 401 x\r\nContent-Length: 18\r\n\r\nhunter2@ is wrong!";
    let telltale = server(telltale, false).replace("http://", "http://me:hunter2%40@");
    let error = error_of(&scrape(&telltale, &["-o", "json"]), 5);
    assert!(error["message"].as_str().unwrap().contains("[password] is wrong!"), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn a_target_is_read_as_the_engine_that_the_configuration_gives_it() {
    let folder = TempDir::new().unwrap();
    let url = server(page("text/plain", "vllm:num_requests_waiting{model_name=\"m\"} 3\n"), false);
    let config = folder.path().join("collector.toml");
    let target = format!("{{ url = \"{url}\", namespace = \"prod\", engine = \"sglang\" }}");
    fs::write(&config, format!("[epp]\ntargets = [{target}]\n")).unwrap();
    let args = ["--config", config.to_str().unwrap(), "-o", "json"];
    let error = error_of(&scrape(&url, &args), 1);
    assert!(error["message"].as_str().unwrap().contains("engine \"sglang\""), "{error}");
}

#[test]
fn redirects_are_followed_within_the_origin_alone() {
    let body = "vllm:num_requests_waiting{model_name=\"m\"} 3\n";
    let elsewhere = server(page("text/plain", body), false);
    let to_elsewhere =
        format!("HTTP/1.1 307 x\r\nLocation: {elsewhere}?t=hunter2\r\nContent-Length: 0\r\n\r\n");
    let error = error_of(&scrape(&server(to_elsewhere, false), &["-o", "json"]), 5);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(&format!("307 to {elsewhere}, which was not followed")), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn the_daemons_deadline_applies_unless_a_timeout_is_given() {
    let folder = TempDir::new().unwrap();
    // It answers nobody.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/metrics", silent.local_addr().unwrap());
    let config = configuration(&folder, &url, "timeout = \"20ms\"");
    let args = ["scrape", &url, "--config", config.to_str().unwrap(), "-o", "json"];
    let error = error_of(&run(&mut collector(), &args), 5);
    let message = error["message"].as_str().unwrap();
    for part in ["timed out", "raise epp.timeout (20ms)", "--timeout lets this command wait"] {
        assert!(message.contains(part), "{part}: {error}");
    }
    // Less than any page takes.
    let url = server(page("text/plain", "vllm:num_requests_waiting{model_name=\"m\"} 3\n"), false);
    let config = configuration(&folder, &url, "timeout = \"1us\"");
    let ended = scrape(&url, &["--config", config.to_str().unwrap(), "-o", "json"]);
    assert_eq!(ended.json()["rows"][0]["waiting"], 3, "{}", ended.stderr);
    assert!(ended.stderr.contains("longer than the daemon waits"), "{}", ended.stderr);
    assert!(ended.stderr.contains("epp.timeout"), "{}", ended.stderr);
}
