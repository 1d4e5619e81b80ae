// SPDX-License-Identifier: Apache-2.0
//! The OpenAPI document against the running daemon: random requests, and clients that are generated from it.
//!
//! The tools come as Python packages, which `cargo xtask test` installs where Python can make a virtual environment; Go is
//! Debian's.

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

/// The same in Go.
const GO_PROGRAM: &str = r#"
package main

import (
	"client"
	"context"
	"fmt"
	"os"
)

func expect(holds bool, what ...interface{}) {
	if !holds {
		fmt.Println(what...)
		os.Exit(1)
	}
}

func main() {
	url, model, namespace := os.Args[1], os.Args[2], os.Args[3]
	configuration := client.NewConfiguration()
	configuration.Servers = client.ServerConfigurations{{URL: url}}
	api, ctx := client.NewAPIClient(configuration).DefaultAPI, context.Background()

	one, _, err := api.Replicas(ctx).Model(model).Namespace(namespace).Execute()
	expect(err == nil && one.Replicas != nil, err)
	reading := one.Replicas
	expect(reading.Status == "fresh" && len(reading.Replicas) == 2, reading)
	expect(reading.Replicas[0].PodName == "m-0" && *reading.Generation.Get() > 0, reading)
	_, answer, err := api.Replicas(ctx).Model("org/none").Namespace(namespace).Execute()
	expect(err != nil && answer.StatusCode == 404, err)
	missing, isDocument := err.(*client.GenericOpenAPIError).Model().(client.Error)
	expect(isDocument && missing.Error.Reason == "MetricsMissing", err)
	everything, _, err := api.Replicas(ctx).Execute()
	expect(err == nil && everything.ReplicasList != nil, err)
	expect(everything.ReplicasList.Items[0].Replicas.Model == model, everything)
	wanted := []client.Wanted{*client.NewWanted("org/none", namespace), *client.NewWanted(model, namespace)}
	many, _, err := api.ReadMany(ctx).ReadRequest(*client.NewReadRequest(wanted)).Execute()
	expect(err == nil && len(many.Items) == 2, err)
	fmt.Println("read")
}
"#;

/// Debian's Go packages, of which a generated client needs `gopkg.in/validator.v2`.
const GO_PACKAGES: &str = "/usr/share/gocode";

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
    // Of a document that it fetches it leaves out the path of the document.
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,\
                  response_headers_conformance,response_schema_conformance";
    let mut command = Command::new(tools.join("schemathesis"));
    command.current_dir(folder.path()).arg("run").arg(document).args(["--url", &url(&served)]);
    // Its answer does not end.
    command.args(["--exclude-path", "/api/v1/events", "--checks", checks]);
    command.args(["--phases", "examples,coverage,fuzzing", "--max-examples", "50", "--seed", "1"]);
    let said = run(command.args(["--no-color", "--warnings", "off"]));
    // All but one.
    assert!(said.contains("Tested: 11"), "{said}");
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

#[expect(clippy::print_stderr, reason = "whoever runs the tests should know")]
#[tokio::test]
async fn a_generated_go_client_reads_from_the_daemon() {
    let Some(tools) = tools() else { return };
    let prometheus = with_one_model(Duration::from_secs(2)).await;
    let served = Served::start(&mut collector_of(&prometheus.uri()));
    let folder = tempfile::tempdir().unwrap();
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let mut generate = Command::new(tools.join("openapi-generator-cli"));
    generate.args(["generate", "-g", "go", "-i"]).arg(document);
    generate.arg("-o").arg(folder.path().join("src/client"));
    let none = "apiTests=false,modelTests=false,apiDocs=false,modelDocs=false";
    generate.args(["--global-property", none, "--additional-properties"]);
    run(generate.arg("packageName=client,disallowAdditionalPropertiesIfNotPresent=false"));
    let has_go = Command::new("go").arg("version").output().is_ok();
    if !has_go || !Path::new(GO_PACKAGES).join("src/gopkg.in/validator.v2").exists() {
        eprintln!("generated, but not compiled: Go, or its package validator.v2, is not installed");
        return;
    }
    std::fs::create_dir(folder.path().join("src/reader")).unwrap();
    std::fs::write(folder.path().join("src/reader/main.go"), GO_PROGRAM).unwrap();
    let mut go = Command::new("go");
    // Packages are found in folders: nothing is fetched.
    go.env("GO111MODULE", "off").env("GOFLAGS", "").env("GOCACHE", folder.path().join("cache"));
    go.env("GOPATH", format!("{}:{GO_PACKAGES}", folder.path().display()));
    run(go.current_dir(folder.path()).args(["build", "-o", "read", "reader"]));
    let mut program = Command::new(folder.path().join("read"));
    program.args([&url(&served), MODEL, NAMESPACE]);
    assert_eq!(run(&mut program), "read");
}
