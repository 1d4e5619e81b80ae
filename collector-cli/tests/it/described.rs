// SPDX-License-Identifier: Apache-2.0
//! The OpenAPI document against the running daemon: random requests, and a client that is generated from it.
//!
//! The tools are Python programs, which `cargo xtask test` installs where Python can make a virtual environment.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::fake_prometheus::{MODEL, NAMESPACE, with_one_model};
use crate::process::{Served, collector_of};

/// The folder of the programs.
const TOOLS: &str = "COLLECTOR_PYTHON_TOOLS";

/// 503 is documented, and no other server error is.
const SETTINGS: &str =
    "[checks.not_a_server_error]\nexpected-statuses = [\"2xx\", \"3xx\", \"4xx\", 503]\n";

/// What a user's program looks like.
const PROGRAM: &str = r#"
import sys
from client import Client
from client.api.default import read_many, replicas
from client.models import Error, ReadRequest, Replicas, ReplicasList, Wanted

url, model, namespace = sys.argv[1:]
with Client(base_url=url) as client:
    one = replicas.sync(client=client, model=model, namespace=namespace)
    assert isinstance(one, Replicas), one
    assert one.status == "fresh" and len(one.replicas) == 2, one
    assert one.replicas[0].pod_name == "m-0" and one.generation > 0, one
    missing = replicas.sync(client=client, model="org/none", namespace=namespace)
    assert isinstance(missing, Error) and missing.error.reason == "MetricsMissing", missing
    everything = replicas.sync(client=client)
    assert isinstance(everything, ReplicasList) and everything.items[0].model == model, everything
    wanted = [Wanted(model="org/none", namespace=namespace), Wanted(model=model, namespace=namespace)]
    many = read_many.sync(client=client, body=ReadRequest(readings=wanted))
    assert many.items[0].error.reason == "MetricsMissing", many
    assert many.items[1].generation == one.generation, many
print("read")
"#;

#[expect(clippy::print_stderr, reason = "whoever runs the tests should know")]
fn tools() -> Option<PathBuf> {
    let tools = env::var_os(TOOLS).map(PathBuf::from);
    if tools.is_none() {
        eprintln!("not run: {TOOLS} is not set; `cargo xtask test` sets it");
    }
    tools
}

/// Runs a program to its end; what it printed.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    // Random requests may be long.
    let lines: Vec<String> = text.lines().map(|line| line.chars().take(300).collect()).collect();
    assert!(output.status.success(), "{command:?}\n{}", lines.join("\n"));
    lines.join("\n")
}

fn url(served: &Served) -> String {
    format!("http://{}", served.address)
}

#[tokio::test]
async fn random_requests_get_the_answers_that_are_described() {
    let Some(tools) = tools() else { return };
    let prometheus = with_one_model(Duration::from_secs(2)).await;
    let served = Served::start(&mut collector_of(&prometheus.uri()));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("schemathesis.toml"), SETTINGS).unwrap();
    let document = format!("{}/api/openapi.json", url(&served));
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,\
                  response_headers_conformance,response_schema_conformance";
    let mut command = Command::new(tools.join("schemathesis"));
    command.current_dir(folder.path()).args(["run", &document, "--url", &url(&served)]);
    // Its answer does not end.
    command.args(["--exclude-path", "/api/v1/events", "--checks", checks]);
    command.args(["--phases", "examples,coverage,fuzzing", "--max-examples", "50", "--seed", "1"]);
    let said = run(command.args(["--no-color", "--warnings", "off"]));
    assert!(said.contains("Tested: 10"), "{said}");
    assert_eq!(served.get("/healthz").status, 200);
    let (exit, log) = served.stop("-TERM");
    assert_eq!(exit, Some(0), "{log}");
}

#[tokio::test]
async fn a_generated_client_reads_from_the_daemon() {
    let Some(tools) = tools() else { return };
    let prometheus = with_one_model(Duration::from_secs(2)).await;
    let served = Served::start(&mut collector_of(&prometheus.uri()));
    let folder = tempfile::tempdir().unwrap();
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let mut generate = Command::new(tools.join("openapi-python-client"));
    generate.current_dir(folder.path()).args(["generate", "--meta", "none"]);
    run(generate.args(["--output-path", "client", "--path"]).arg(document));
    let mut python = Command::new(tools.join("python"));
    run(python.current_dir(folder.path()).args(["-m", "compileall", "-q", "client"]));
    let mut program = Command::new(tools.join("python"));
    program.current_dir(folder.path()).args(["-c", PROGRAM, &url(&served), MODEL, NAMESPACE]);
    assert_eq!(run(&mut program), "read");
}
