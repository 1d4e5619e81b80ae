// SPDX-License-Identifier: Apache-2.0
//! What mistakes on the command line and in a configuration are answered with.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fake_prometheus::{MODEL, NAMESPACE, empty, with_one_model};
use crate::process::{Ended, collector, collector_of, run};

const PROMETHEUS: &str = "[prometheus]\nurl = \"https://prometheus:9090\"\n";

fn file(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

/// Lines of stderr that are an error.
fn errors(ended: &Ended) -> Vec<&str> {
    ended.stderr.lines().filter(|line| line.starts_with("error: ")).collect()
}

#[track_caller]
fn says(ended: &Ended, exit: i32, parts: &[&str]) {
    assert_eq!(ended.exit, exit, "{} {}", ended.stdout, ended.stderr);
    for part in parts {
        let times = ended.stderr.matches(part).count();
        assert_eq!(times, 1, "{part:?} stands {times} times in {}", ended.stderr);
    }
}

#[test]
fn an_address_without_an_ip_is_refused_with_the_form_that_works() {
    for text in ["localhost:9464", ":9464", "9464"] {
        let flag = run(&mut collector(), &["serve", "--listen", text]);
        says(&flag, 2, &["error: --listen: server.listen: ", "127.0.0.1:9464"]);
        let mut command = collector();
        let variable =
            run(command.env("COLLECTOR_SERVER__LISTEN", text), &["config", "show", "--origin"]);
        says(&variable, 2, &["COLLECTOR_SERVER__LISTEN: server.listen: ", "127.0.0.1:9464"]);
        let sim = run(&mut collector(), &["sim", "--fleet", "f.toml", "--listen", text]);
        says(&sim, 2, &["127.0.0.1:9464"]);
    }
}

#[test]
fn a_variable_in_lower_case_gets_a_warning() {
    let mut command = collector();
    let ended = run(command.env("collector_cache__ttl", "99s"), &["config", "show"]);
    says(&ended, 0, &["collector_cache__ttl", "COLLECTOR_CACHE__TTL"]);
    let ttl = ended.stdout.lines().find(|line| line.starts_with("cache.ttl")).unwrap();
    assert!(ttl.ends_with("30s"), "{ttl}");
}

#[test]
fn an_unsupported_output_form_is_refused_with_the_supported_ones() {
    let allocation = ["get", "allocation", "-m", "m", "-n", "n", "--variant", "v", "-o", "wide"];
    let explain = ["explain", "-m", "m", "-n", "n", "-o", "prometheus"];
    for (args, forms) in [
        (&allocation[..], "use table or json or yaml or prometheus"),
        (&["get", "models", "-o", "wide"], "use table or json or yaml"),
        (&["check", "-o", "wide"], "use table or json"),
        (&["config", "show", "-o", "wide"], "use table or json"),
        (&["validate", "c.toml", "-o", "wide"], "use table or json"),
        (&explain, "use table or wide or json or yaml"),
        (&["docs", "-o", "wide"], "it has one form"),
    ] {
        says(&run(&mut collector(), args), 2, &["does not work with this command", forms]);
    }
}

#[tokio::test]
async fn an_empty_namespace_is_answered_with_those_that_have_models() {
    let server = with_one_model(Duration::ZERO).await;
    let ended = run(&mut collector_of(&server.uri()), &["get", "models", "-n", "prdo"]);
    says(&ended, 0, &[r#"No model in namespace "prdo""#, r#"namespace with models: "prod""#]);
    assert!(!ended.stderr.contains("scraping"), "{}", ended.stderr);
    let ended = run(&mut collector_of(&server.uri()), &["get", "models", "-n", NAMESPACE]);
    assert_eq!((ended.exit, ended.stderr.as_str()), (0, ""));
}

/// The same model on two accelerators.
fn two_variants(folder: &TempDir) -> PathBuf {
    let variant = |name: &str, accelerator: &str| {
        format!(
            "[[variants]]\nname = \"{name}\"\nnamespace = \"prod\"\nmodel = \"org/model\"\n\
             accelerator = \"{accelerator}\"\npods = \"{name}-*\"\n"
        )
    };
    file(folder, "c.toml", &[variant("m", "H100"), variant("llama-a100", "A100")].concat())
}

#[tokio::test]
async fn accelerators_match_without_case_and_wrong_names_list_the_known_ones() {
    let server = with_one_model(Duration::ZERO).await;
    let folder = tempfile::tempdir().unwrap();
    let config = two_variants(&folder);
    let get = |args: &[&str]| {
        let mut command = collector_of(&server.uri());
        command.arg("--config").arg(&config).args(["get", "allocation", "-m", MODEL, "-n", "prod"]);
        run(&mut command, args)
    };
    let found = get(&["--accelerator", "h100", "-o", "json"]);
    assert_eq!(found.exit, 0, "{}", found.stderr);
    assert_eq!(found.json()["variant"], "m");
    let wrong = get(&["--accelerator", "H1000", "-o", "json"]);
    says(&wrong, 3, &[r#"no variant on accelerator "H1000"; its variants have "H100", "A100""#]);
    assert_eq!(wrong.json()["error"]["suggestions"], json!(["H100", "A100"]));
    assert_eq!(wrong.json()["error"]["reason"], "MetricsMissing");

    let misspelt = get(&["--variant", "lama-a100"]);
    says(&misspelt, 3, &[r#"no variant "lama-a100"; it has "llama-a100", "m""#]);
    assert_eq!(misspelt.stderr.lines().count(), 1, "{}", misspelt.stderr);
}

#[tokio::test]
async fn a_model_without_variants_is_answered_with_the_table_to_add() {
    let server = with_one_model(Duration::ZERO).await;
    for (flag, more) in [("--variant", r#"name = "x""#), ("--accelerator", r#"accelerator = "x""#)]
    {
        let mut command = collector_of(&server.uri());
        let args = ["get", "allocation", "-m", MODEL, "-n", NAMESPACE, flag, "x"];
        let ended = run(&mut command, &args);
        says(&ended, 3, &["[[variants]]", more, r#"namespace = "prod""#, r#"model = "org/model""#]);
    }
}

#[tokio::test]
async fn another_namespace_of_a_model_is_named_once() {
    let server = with_one_model(Duration::ZERO).await;
    let mut command = collector_of(&server.uri());
    let ended = run(&mut command, &["get", "replicas", "-m", MODEL, "-n", "staging", "-o", "json"]);
    says(&ended, 3, &[r#"in namespace "staging""#, "the model exists in namespace", r#""prod""#]);
    let hints = &ended.json()["error"]["hints"];
    assert_eq!(hints, &json!([r#"the model exists in namespace "prod""#]));
}

#[tokio::test]
async fn a_namespace_that_is_not_read_names_the_variable_or_the_line() {
    let server = with_one_model(Duration::ZERO).await;
    for args in [
        &["get", "replicas", "-m", MODEL, "-n", NAMESPACE][..],
        &["get", "allocation", "-m", MODEL, "-n", NAMESPACE, "--variant", "v"],
        &["get", "models", "-n", NAMESPACE],
        &["explain", "-m", MODEL, "-n", NAMESPACE],
    ] {
        let mut command = collector_of(&server.uri());
        let ended = run(command.env("WATCH_NAMESPACE", "dev,staging"), args);
        says(
            &ended,
            3,
            &[
                r#"namespace "prod" is not read"#,
                r#""dev", "staging" (environment variable WATCH_NAMESPACE)"#,
            ],
        );
    }
    let nothing = empty().await;
    for args in [&["get", "models"][..], &["check"]] {
        let mut command = collector_of(&nothing.uri());
        let ended = run(command.env("WATCH_NAMESPACE", "dev"), args);
        let printed = ended.stdout + &ended.stderr;
        let limit = r#"limited to "dev" (environment variable WATCH_NAMESPACE)"#;
        assert!(printed.contains(limit), "{printed}");
    }
    let mut command = collector_of(&server.uri());
    command.env("WATCH_NAMESPACE", "dev");
    let ended = run(&mut command, &["check", "-m", MODEL, "-n", NAMESPACE]);
    assert_eq!(ended.exit, 1, "{}", ended.stderr);
    assert!(ended.stdout.contains("(environment variable WATCH_NAMESPACE)"), "{}", ended.stdout);

    let folder = tempfile::tempdir().unwrap();
    let config = file(&folder, "c.toml", "[prometheus]\nnamespaces = [\"dev\"]\n");
    let mut command = collector_of(&server.uri());
    command.arg("--config").arg(&config);
    let ended = run(&mut command, &["get", "replicas", "-m", MODEL, "-n", NAMESPACE, "-o", "json"]);
    says(&ended, 3, &["c.toml:2)"]);
    assert_eq!(ended.json()["error"]["reason"], "MetricsMissing");
}

#[tokio::test]
async fn a_model_id_of_3000_letters_is_cut() {
    let server = with_one_model(Duration::ZERO).await;
    let id = "x".repeat(3000);
    let ended =
        run(&mut collector_of(&server.uri()), &["get", "replicas", "-m", &id, "-n", "prod"]);
    assert_eq!(ended.exit, 3, "{}", ended.stderr);
    assert!(ended.stderr.contains("... (2800 more characters)"), "{}", ended.stderr);
    assert!(ended.stderr.contains(&"x".repeat(200)) && !ended.stderr.contains(&"x".repeat(201)));
    let args = ["get", "allocation", "-m", MODEL, "-n", "prod", "--variant", &id];
    let ended = run(&mut collector_of(&server.uri()), &args);
    assert_eq!(ended.exit, 3, "{}", ended.stderr);
    assert!(!ended.stderr.contains(&"x".repeat(201)), "{}", ended.stderr);
    let mut command = collector_of(&server.uri());
    let ended = run(&mut command, &["check", "-m", &id, "-n", "prod"]);
    assert_eq!(ended.exit, 1);
    assert!(!ended.stdout.contains(&"x".repeat(201)), "{}", ended.stdout);
}

#[test]
fn every_mistake_has_its_own_error_line() {
    let folder = tempfile::tempdir().unwrap();
    let text =
        "cache:\n  ttl: 30s\n  tll: 1s\n  ttl: 40s\n  max_entries: many\nserver:\n  listen: x\n";
    let config = file(&folder, "c.yaml", text);
    let mut validate = collector();
    validate.arg("validate").arg(&config).env("PROMETHEUS_BASE_URL", "https://h");
    let mut get = collector();
    get.arg("--config").arg(&config).args(["get", "models"]);
    get.env("PROMETHEUS_BASE_URL", "https://h");
    for mut command in [validate, get] {
        let ended = run(&mut command, &[]);
        assert_eq!((ended.exit, ended.stdout.as_str()), (2, ""), "{}", ended.stderr);
        let lines: Vec<&str> = ended.stderr.lines().collect();
        assert_eq!(errors(&ended).len(), 4, "{}", ended.stderr);
        assert_eq!(lines.len(), 4, "{}", ended.stderr);
        let expected = [
            "c.yaml:3: cache.tll: ",
            "c.yaml:4: cache.ttl: the key is set twice, in lines 2 and 4",
            "c.yaml:5: cache.max_entries: ",
            "c.yaml:7: server.listen: ",
        ];
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.contains(expected), "{line:?} lacks {expected:?}");
        }
    }
}

#[cfg(feature = "epp")]
#[test]
fn two_wrong_targets_are_named_by_their_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let text = "backend = \"epp\"\n[[epp.targets]]\nurl = \"h:1\"\nnamespace = \"n\"\n\
                [[epp.targets]]\nurl = \"http://h:2/metrics\"\n";
    let ended = run(collector().arg("validate").arg(file(&folder, "c.toml", text)), &[]);
    says(&ended, 2, &["epp.targets: entry 1: ", "epp.targets: entry 2: `namespace`"]);
    assert_eq!(errors(&ended).len(), 2, "{}", ended.stderr);
    assert!(ended.stderr.contains("c.toml:5: epp.targets: entry 2"), "{}", ended.stderr);
}

#[cfg(feature = "epp")]
#[test]
fn validate_checks_the_target_file() {
    let folder = tempfile::tempdir().unwrap();
    let text = "backend = \"epp\"\n[epp]\ntarget_file = \"targets.json\"\n";
    let config = file(&folder, "c.toml", text);
    let validate = |args: &[&str]| run(collector().arg("validate").arg(&config), args);
    let targets = |text: &str| file(&folder, "targets.json", text);
    says(&validate(&[]), 2, &["c.toml:3: epp.target_file: ", "targets.json", "No such file"]);
    targets("[{]");
    says(&validate(&[]), 2, &["c.toml:3: epp.target_file: ", "targets.json", "line 1"]);
    targets(r#"[{"targets": ["h:1"], "labels": {"namespace": "n"}}, {"targets": ["h:2"]}]"#);
    let wrong = validate(&[]);
    says(&wrong, 2, &["c.toml:3: epp.target_file: ", "group 2, target \"h:2\"", "--no-files"]);
    assert_eq!(errors(&wrong).len(), 1, "{}", wrong.stderr);
    assert_eq!(validate(&["--no-files"]).exit, 0);
    targets(r#"[{"targets": ["h:1", "h:2"], "labels": {"namespace": "n"}}]"#);
    let good = validate(&[]);
    assert_eq!(good.exit, 0, "{}", good.stderr);
    assert!(
        good.stdout.contains("  targets: 0 in the configuration, 2 in the target file\n"),
        "{}",
        good.stdout
    );
}

#[test]
fn validate_checks_every_file_unless_no_files_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "{PROMETHEUS}token_path = \"/nowhere/token\"\n[cache]\nsnapshot_path = \"/nowhere/s\"\n\
         [server]\ntls_cert_path = \"cert.pem\"\ntls_key_path = \"key.pem\"\n\
         admin_token_path = \"/nowhere/admin\"\n"
    );
    let config = file(&folder, "c.toml", &text);
    let ended = run(collector().arg("validate").arg(&config), &[]);
    assert_eq!(ended.exit, 2, "{}", ended.stderr);
    for expected in [
        "c.toml:3: prometheus.token_path: ",
        "c.toml:5: cache.snapshot_path: ",
        "c.toml:7: server.tls_cert_path: ",
        "c.toml:9: server.admin_token_path: ",
    ] {
        let found = errors(&ended).into_iter().filter(|line| line.contains(expected)).count();
        assert_eq!(found, 1, "{expected:?} in {}", ended.stderr);
    }
    assert_eq!(errors(&ended).len(), 4, "{}", ended.stderr);
    says(&ended, 2, &["--no-files"]);
    let ended = run(collector().arg("validate").arg(&config), &["--no-files"]);
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    assert!(ended.stdout.contains("  files: not checked (--no-files)\n"), "{}", ended.stdout);
}

#[test]
fn validate_prints_what_it_found() {
    let folder = tempfile::tempdir().unwrap();
    file(&folder, "token", "secret-of-nobody\n");
    let variant = "[[variants]]\nname = \"a\"\nnamespace = \"n\"\nmodel = \"m\"\n";
    let text = format!("{PROMETHEUS}token_path = \"token\"\n{variant}");
    let config = file(&folder, "c.toml", &text);
    let ended = run(collector().arg("validate").arg(&config), &[]);
    let token = folder.path().join("token");
    assert_eq!(
        ended.stdout,
        format!(
            "{}: ok\n  backends: prometheus at https://prometheus:9090\n  variants: 1\n  \
             files checked:\n    prometheus.token_path: {}\n",
            config.display(),
            token.display()
        )
    );
    let ended = run(collector().arg("validate").arg(&config), &["-o", "json"]);
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    assert_eq!(
        ended.json(),
        json!({"schemaVersion": 1, "kind": "validation", "files": [{
            "file": config.to_str().unwrap(),
            "backends": [{"name": "prometheus", "url": "https://prometheus:9090"}],
            "variants": 1,
            "targets": null,
            "filesChecked": [{"key": "prometheus.token_path", "path": token.to_str().unwrap()}],
            "warnings": [],
        }]})
    );
}

#[test]
fn validate_names_the_files_of_headers_too() {
    let folder = tempfile::tempdir().unwrap();
    let token = file(&folder, "token", "secret-of-nobody\n");
    let config =
        file(&folder, "c.toml", &format!("{PROMETHEUS}header_paths = {{ X-Key = \"token\" }}\n"));
    let ended = run(collector().arg("validate").arg(&config), &[]);
    let line = format!("    prometheus.header_paths: X-Key={}\n", token.display());
    assert!(ended.stdout.contains(&line), "{} {}", ended.stdout, ended.stderr);
    fs::remove_file(token).unwrap();
    let ended = run(collector().arg("validate").arg(&config), &[]);
    says(&ended, 2, &["c.toml:3: prometheus.header_paths: "]);
}

#[cfg(feature = "epp")]
#[test]
fn a_missing_target_file_is_a_configuration_error() {
    let folder = tempfile::tempdir().unwrap();
    let text = "backend = \"epp\"\n[epp]\ntarget_file = \"targets.json\"\n";
    let config = file(&folder, "c.toml", text);
    for args in [
        &["get", "replicas", "-m", "m", "-n", "n", "-o", "json"][..],
        &["get", "models"],
        &["explain", "-m", "m", "-n", "n"],
        &["check"],
    ] {
        let ended = run(collector().arg("--config").arg(&config), args);
        says(&ended, 2, &["c.toml:3: epp.target_file: ", "No such file"]);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert_eq!(ended.stdout, "", "{args:?}");
    }
}

#[cfg(feature = "epp")]
#[tokio::test]
async fn another_backend_is_read_without_the_target_file() {
    let server = with_one_model(Duration::ZERO).await;
    let folder = tempfile::tempdir().unwrap();
    let text = "backend = [\"epp\", \"prometheus\"]\n[epp]\ntarget_file = \"targets.json\"\n";
    let config = file(&folder, "c.toml", text);
    let mut command = collector_of(&server.uri());
    command.arg("--config").arg(&config);
    let ended = run(&mut command, &["get", "replicas", "-m", MODEL, "-n", NAMESPACE]);
    says(&ended, 0, &["A source of targets has failed", "No such file"]);
    assert!(!ended.stderr.contains("kept"), "nothing can be kept yet: {}", ended.stderr);
}

/// `serve` on a port that is taken, so that it ends by itself.
fn serve_on_a_taken_port(command: &mut Command, args: &[&str]) -> Ended {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    command.env("PROMETHEUS_BASE_URL", "https://127.0.0.1:9");
    run(command.args(["serve", "--listen", &address]), args)
}

#[test]
fn an_unwritable_snapshot_is_warned_of_at_the_start() {
    let mut command = collector();
    command.env("COLLECTOR_CACHE__SNAPSHOT_PATH", "/nowhere/snapshot");
    let ended = serve_on_a_taken_port(&mut command, &[]);
    assert_eq!(ended.exit, 1, "{}", ended.stderr);
    let warning = ended.stderr.lines().find(|line| line.contains("cache.snapshot_path")).unwrap();
    for part in ["WARN", "COLLECTOR_CACHE__SNAPSHOT_PATH", "/nowhere/snapshot", "cannot be written"]
    {
        assert!(warning.contains(part), "{part:?} is not in {warning}");
    }
}

#[test]
fn a_json_log_is_json_to_its_last_line() {
    let json_lines = |ended: &Ended| -> Vec<Value> {
        let lines = ended.stderr.lines().map(|line| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
        });
        lines.collect()
    };
    let ended = serve_on_a_taken_port(&mut collector(), &["--log-format", "json"]);
    assert_eq!(ended.exit, 1, "{}", ended.stderr);
    let lines = json_lines(&ended);
    let last = lines.last().unwrap();
    assert_eq!(last["level"], "ERROR");
    assert!(last["message"].as_str().unwrap().contains("cannot listen on"), "{last}");
    assert!(last["timestamp"].as_str().unwrap().ends_with('Z'), "{last}");

    // Whatever sets it, and where the rest of the configuration is wrong.
    let folder = tempfile::tempdir().unwrap();
    let config = file(&folder, "c.toml", "[log]\nformat = \"json\"\n[cache]\nttl = 1\ntll = 2\n");
    let mut by_file = collector();
    by_file.arg("--config").arg(config);
    let mut by_variable = collector();
    by_variable.env("COLLECTOR_LOG__FORMAT", "json").env("COLLECTOR_CACHE__TTL", "1");
    for mut command in [by_file, by_variable] {
        let ended = run(&mut command, &["get", "models"]);
        assert_eq!(ended.exit, 2);
        let lines = json_lines(&ended);
        assert!(lines.len() > 1 && lines.iter().all(|line| line["level"] == "ERROR"), "{lines:?}");
    }
}

#[test]
fn check_announces_what_it_waits_for_and_keeps_what_it_printed() {
    // Connections are accepted by the system, and never answered.
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", hanging.local_addr().unwrap());
    for (args, ends) in [(&["check"][..], "stopped by SIGINT: "), (&["check", "-o", "json"], "{")] {
        let mut command = collector_of(&url);
        command.env("COLLECTOR_PROMETHEUS__TIMEOUT", "25s").args(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut printed = String::new();
        if ends != "{" {
            while !printed.contains("loaded: ") {
                assert!(stdout.read_line(&mut printed).unwrap() > 0, "it ended: {printed}");
            }
        }
        let mut note = String::new();
        assert!(stderr.read_line(&mut note).unwrap() > 0);
        assert_eq!(
            note,
            format!("waiting for prometheus at {url}: the connection and the metrics\n")
        );
        let id = child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        stdout.read_to_string(&mut printed).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1));
        let last = printed.lines().last().unwrap();
        assert!(last.starts_with(ends), "{printed}");
        assert!(printed.contains("loaded"), "{printed}");
    }
}

#[test]
fn check_with_wait_reports_each_attempt_and_ends_with_a_verdict() {
    // Port 9 of loopback is closed everywhere.
    let args = ["check", "--wait", "3s"];
    let ended = run(&mut collector_of("http://127.0.0.1:9"), &args);
    assert_eq!(ended.exit, 1);
    let attempt = ended.stderr.lines().next().unwrap();
    assert!(attempt.starts_with("attempt 1: 1 of "), "{}", ended.stderr);
    assert!(attempt.contains("trying again in 2s"), "{attempt}");
    assert!(ended.stderr.contains("\n  connection."), "{}", ended.stderr);
    let last = ended.stdout.lines().last().unwrap();
    assert!(last.starts_with("1 of ") && last.contains(" checks failed"), "{}", ended.stdout);
    assert_eq!(ended.stdout.matches("loaded: ").count(), 1, "the last attempt alone is printed");
}

#[test]
fn standard_input_without_an_object_is_named() {
    let mut command = collector_of("http://127.0.0.1:9");
    let ended = run(&mut command, &["check", "--scaled-object", "-"]);
    says(&ended, 2, &["standard input contains no object of kind ScaledObject"]);
}

#[tokio::test]
async fn the_pages_that_check_refers_to_are_in_the_binary() {
    let ended = run(&mut collector_of("http://127.0.0.1:9"), &["check"]);
    let pointer = "see `collector docs checks connection`";
    assert!(ended.stdout.contains(pointer), "{}", ended.stdout);
    let page = run(&mut collector(), &["docs", "checks", "connection"]);
    assert_eq!(page.exit, 0, "{}", page.stderr);
    assert!(page.stdout.starts_with("## connection\n"), "{}", page.stdout);
    assert!(!page.stdout.contains("## metrics"), "{}", page.stdout);
    assert!(run(&mut collector(), &["docs"]).stdout.contains("troubleshooting"));
    says(&run(&mut collector(), &["docs", "cheks"]), 2, &["no page \"cheks\"", "\"checks\""]);
    let wrong = run(&mut collector(), &["docs", "checks", "timing"]);
    says(&wrong, 2, &["no section \"timing\"", "\"timings\""]);

    let server = with_one_model(Duration::ZERO).await;
    let good = run(&mut collector_of(&server.uri()), &["check"]);
    assert_eq!(good.exit, 0, "{}", good.stdout);
    assert!(good.stdout.lines().last().unwrap().starts_with("none of "), "{}", good.stdout);
    assert!(good.stdout.contains("the backend knows 1 model;"), "{}", good.stdout);
}

#[cfg(feature = "epp")]
#[test]
fn one_target_is_singular() {
    let folder = tempfile::tempdir().unwrap();
    // Port 9 of loopback is closed everywhere.
    let text = "backend = \"epp\"\n[[epp.targets]]\nurl = \"http://127.0.0.1:9/metrics\"\n\
                namespace = \"n\"\n";
    let ended = run(collector().arg("--config").arg(file(&folder, "c.toml", text)), &["check"]);
    assert_eq!(ended.exit, 1);
    for part in ["1 target in 1 namespace: 1 of epp.targets\n", "the target does not answer\n"] {
        assert!(ended.stdout.contains(part), "{part:?} is not in {}", ended.stdout);
    }
}

#[test]
fn a_locale_without_utf8_gets_ascii_signs() {
    for (locale, is_ascii) in [("C", true), ("C.UTF-8", false)] {
        let mut command = collector_of("http://127.0.0.1:9");
        let ended = run(command.env("LANG", locale), &["check"]);
        assert_eq!(ended.stdout.is_ascii(), is_ascii, "{locale}: {}", ended.stdout);
        let sign = if is_ascii { "\n  x " } else { "\n  × " };
        assert!(ended.stdout.contains(sign), "{locale}: {}", ended.stdout);
    }
    let ended = run(collector().env("LC_ALL", "C"), &["demo", "--duration", "1500ms"]);
    assert!(ended.stdout.contains("(p99)"), "{}", ended.stdout);
    assert!(ended.stdout.is_ascii(), "{}", ended.stdout);
}

#[tokio::test]
async fn tables_fit_a_narrow_terminal() {
    let server = with_one_model(Duration::ZERO).await;
    for (columns, absent) in [(60, ""), (40, "ACCELERATOR"), (20, "RUNNING")] {
        for form in ["table", "wide"] {
            let mut command = collector_of(&server.uri());
            command.env("COLUMNS", columns.to_string()).args(["-o", form]);
            let ended = run(&mut command, &["get", "replicas", "-m", MODEL, "-n", NAMESPACE]);
            assert_eq!(ended.exit, 0, "{}", ended.stderr);
            // The first line is a sentence.
            let table: Vec<&str> = ended.stdout.lines().skip(1).collect();
            assert_eq!(table.len(), 3, "{}", ended.stdout);
            assert!(table.iter().all(|line| line.chars().count() <= columns), "{}", ended.stdout);
            assert!(table[0].starts_with("POD ") && table[0].contains("QUEUE"), "{}", ended.stdout);
            assert!(absent.is_empty() || !table[0].contains(absent), "{}", ended.stdout);
        }
    }
}
