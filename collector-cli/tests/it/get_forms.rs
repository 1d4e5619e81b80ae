// SPDX-License-Identifier: Apache-2.0
//! `get`: which models it reads, and the forms for programs.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::fake_prometheus::{MODEL, NAMESPACE, empty, with_one_model};
use crate::process::{Ended, collector, collector_of, run};

fn get(server: &str, args: &[&str]) -> Ended {
    run(collector_of(server).arg("get"), args)
}

#[track_caller]
fn prints(ended: &Ended, expected: &str) {
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    assert_eq!(ended.stdout, expected);
}

#[tokio::test]
async fn a_model_is_named_by_an_argument_an_option_or_a_variable() {
    let server = with_one_model(Duration::ZERO).await.uri();
    let names = "m-0\nm-1\n";
    prints(&get(&server, &["replicas", MODEL, "-n", NAMESPACE, "-o", "name"]), names);
    prints(&get(&server, &["replica", "-m", MODEL, "-n", NAMESPACE, "-o", "name"]), names);
    let of_environment = |args: &[&str]| {
        let mut command = collector_of(&server);
        command.env("COLLECTOR_MODEL", MODEL).env("COLLECTOR_NAMESPACE", NAMESPACE);
        run(&mut command, args)
    };
    prints(&of_environment(&["get", "replicas", "-o", "name"]), names);
    assert_eq!(of_environment(&["explain"]).exit, 0);
    assert_eq!(of_environment(&["get", "replicas", "other"]).exit, 3);
    // An argument for all beats a variable for one, and files name their own models.
    prints(&of_environment(&["get", "models", "-A", "-o", "name"]), &format!("{MODEL}\n"));
    let checked = of_environment(&["check", "-o", "json"]);
    assert!(checked.stdout.contains("model.available"), "{}", checked.stdout);
    let both = get(&server, &["replicas", MODEL, "-m", MODEL, "-n", NAMESPACE]);
    assert_eq!((both.exit, both.stdout.as_str()), (2, ""));
}

#[tokio::test]
async fn all_models_of_a_namespace_or_of_all_are_a_list() {
    let server = with_one_model(Duration::ZERO).await.uri();
    for args in [&["-A"][..], &["-n", NAMESPACE], &[MODEL, "-A"]] {
        let mut line = vec!["replicas", "-o", "json"];
        line.extend(args);
        let ended = get(&server, &line);
        assert_eq!(ended.exit, 0, "{}", ended.stderr);
        let list = ended.json();
        assert_eq!(list["items"].as_array().unwrap().len(), 1);
        assert_eq!(list["items"][0]["model"], MODEL);
        assert_eq!(list["items"][0]["replicas"].as_array().unwrap().len(), 2);
    }
    let table = get(&server, &["replicas", "-A"]).stdout;
    let lines: Vec<Vec<&str>> =
        table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][..3], ["NAMESPACE", "MODEL", "POD"], "{table}");
    assert_eq!(lines[2][..3], [NAMESPACE, MODEL, "m-1"], "{table}");
    assert_eq!(lines[2].last(), Some(&"fresh"), "{table}");
}

#[tokio::test]
async fn a_selection_without_a_model_exits_with_3_and_names_what_exists() {
    let server = with_one_model(Duration::ZERO).await.uri();
    let ended = get(&server, &["replicas", "-n", "prdo", "-o", "json"]);
    assert_eq!(ended.exit, 3, "{}", ended.stderr);
    assert_eq!(ended.json()["error"]["reason"], "MetricsMissing");
    assert!(ended.stderr.contains("namespace with models: \"prod\""), "{}", ended.stderr);
    let ended = get(&server, &["replicas", "org/modle", "-A", "-o", "json"]);
    assert_eq!(ended.exit, 3, "{}", ended.stderr);
    assert_eq!(ended.json()["error"]["suggestions"][0], MODEL);
    let nothing = empty().await.uri();
    assert_eq!(get(&nothing, &["replicas", "-A"]).exit, 3);
    assert_eq!(get("http://127.0.0.1:9", &["replicas", "-A"]).exit, 5);
}

#[tokio::test]
async fn fields_are_columns_that_programs_choose() {
    let server = with_one_model(Duration::ZERO).await.uri();
    let of = ["replicas", MODEL, "-n", NAMESPACE];
    let with = |args: &[&str]| get(&server, &[&of[..], args].concat());
    let columns = "custom-columns=POD:.podName,WAITING:.queueLength,COST:.cost,MODEL:.model";
    prints(
        &with(&["-o", columns, "--sort-by=-podName"]),
        "POD   WAITING   COST   MODEL\nm-1   3         -      org/model\nm-0   3         -      \
         org/model\n",
    );
    prints(&with(&["-o", "custom-columns=POD:.podName", "--no-headers"]), "m-0\nm-1\n");
    let csv = with(&["-o", "csv"]).stdout;
    let lines: Vec<&str> = csv.lines().collect();
    assert!(lines[0].starts_with("namespace,model,podName,variantName,"), "{csv}");
    assert!(lines[1].starts_with("prod,org/model,m-0,,"), "unmeasured is empty: {csv}");
    assert_eq!(lines.len(), 3, "{csv}");
    let rows = with(&["--no-headers", "--sort-by=-podName"]).stdout;
    let first: Vec<&str> = rows.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(first, ["m-1", "m-0"], "{rows}");

    // A misspelt field would look like an unmeasured one.
    for args in [&["-o", "custom-columns=POD:.podNmae"][..], &["--sort-by", "podNmae"]] {
        let refused = with(args);
        assert_eq!((refused.exit, refused.stdout.as_str()), (2, ""), "{args:?}");
        assert!(refused.stderr.contains("\"podName\""), "{}", refused.stderr);
    }
    for args in [
        &["-o", "custom-columns"][..],
        &["-o", "custom-columns=POD"],
        &["-o", "json", "--sort-by", "podName"],
    ] {
        assert_eq!(with(args).exit, 2, "{args:?}");
    }
}

#[tokio::test]
async fn the_allocations_of_all_variants_are_a_list() {
    let server = with_one_model(Duration::ZERO).await.uri();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c.toml");
    let variant = |name: &str| {
        format!(
            "[[variants]]\nname = \"{name}\"\nnamespace = \"prod\"\nmodel = \"org/model\"\n\
             accelerator = \"H100\"\npods = \"{name}-*\"\n"
        )
    };
    std::fs::write(&config, variant("m") + &variant("n")).unwrap();
    let with = |args: &[&str]| {
        let mut command = collector_of(&server);
        run(command.arg("--config").arg(&config).args(["get", "allocations"]), args)
    };
    prints(&with(&[MODEL, "-n", NAMESPACE, "-o", "name"]), "m\nn\n");
    let list = with(&["-A", "-o", "json"]).json();
    assert_eq!(list["items"][0]["variant"], "m");
    assert_eq!(
        (&list["items"][0]["numReplicas"], &list["items"][1]["numReplicas"]),
        (&2.into(), &0.into())
    );
    let table = with(&["-A", "--sort-by=numReplicas"]).stdout;
    assert!(table.lines().nth(1).unwrap().contains("   n   "), "{table}");
    // Without a variant there is no allocation, and the remedy is a table to add.
    let none = get(&server, &["allocations", MODEL, "-n", NAMESPACE]);
    assert_eq!(none.exit, 3, "{}", none.stderr);
    assert!(none.stderr.contains("no configured variant"), "{}", none.stderr);
    assert!(none.stderr.contains("[[variants]]"), "{}", none.stderr);
}

#[tokio::test]
async fn colours_are_printed_where_they_are_asked_for() {
    let server = with_one_model(Duration::ZERO).await.uri();
    let of = ["replicas", MODEL, "-n", NAMESPACE];
    let green = "\u{1b}[32mfresh\u{1b}[0m";
    let always = get(&server, &[&of[..], &["--color", "always"]].concat());
    assert!(always.stdout.contains(green), "{:?}", always.stdout);
    for when in ["auto", "never"] {
        let without = get(&server, &[&of[..], &["--color", when]].concat());
        assert!(!without.stdout.contains('\u{1b}'), "{:?}", without.stdout);
    }
    let check = run(collector_of(&server).arg("check"), &["--color", "always"]);
    assert!(check.stdout.contains("\u{1b}[32m✓\u{1b}[0m"), "{}", check.stdout);
}

#[test]
fn a_timeout_exits_with_5_and_says_how_long_it_was() {
    // Connections are accepted by the system, and never answered.
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", hanging.local_addr().unwrap());
    let mut command = collector_of(&url);
    command.env("COLLECTOR_PROMETHEUS__TIMEOUT", "15s");
    let args = ["get", "replicas", "-A", "--timeout", "200ms", "-o", "json"];
    let ended = run(&mut command, &args);
    assert_eq!(ended.exit, 5, "{}", ended.stderr);
    assert_eq!(ended.json()["error"]["reason"], "PrometheusError");
    assert!(ended.stderr.contains("no answer within 200ms"), "{}", ended.stderr);
    assert!(ended.stderr.contains(&url), "{}", ended.stderr);
}

#[test]
fn a_window_is_that_of_every_backend() {
    let ended = run(&mut collector(), &["get", "replicas", "-A", "--window", "soon"]);
    assert_eq!(ended.exit, 2);
    let mut command: Command = collector_of("http://127.0.0.1:9");
    let ended = run(&mut command, &["get", "replicas", "-A", "--window", "0s"]);
    assert_eq!(ended.exit, 2, "{}", ended.stderr);
    assert!(ended.stderr.contains("--window"), "{}", ended.stderr);
}

#[test]
fn every_column_is_a_field_of_the_published_schema() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
    let source = include_str!("../../src/output/rows.rs");
    for (list, schema) in [("REPLICA", "replicas"), ("ALLOCATION", "allocation")] {
        let schema = std::fs::read_to_string(folder.join(format!("{schema}.json"))).unwrap();
        let start = source.find(&format!("const {list}: ")).unwrap();
        let fields = source[start..].split(" = [").nth(1).unwrap().split("];").next().unwrap();
        let fields: Vec<&str> = fields.split('"').skip(1).step_by(2).collect();
        assert!(fields.len() > 10, "{fields:?}");
        for part in fields.iter().flat_map(|field| field.split('.')) {
            assert!(schema.contains(&format!("\"{part}\": ")), "{part} of {list}");
        }
    }
}
