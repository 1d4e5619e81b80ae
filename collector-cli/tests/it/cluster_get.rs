// SPDX-License-Identifier: Apache-2.0
//! `get variants` and `get pods` with a cluster.

use collector_testkit::kubernetes::{Fault, kinds};
use serde_json::{Value, json};

use crate::cluster_check::{Fixture, pod};
use crate::fake_prometheus::MODEL;
use crate::process::{collector_of, run};

#[tokio::test(flavor = "multi_thread")]
async fn variants_are_printed_in_every_form() {
    let fixture = Fixture::new().await;
    let ended = fixture.run(&["get", "variants", "-o", "json"]);
    let expected = json!({"schemaVersion": 1, "kind": "variants", "items": [{
        "namespace": "prod", "name": "v", "model": "org/model", "accelerator": null, "cost": 4.5, "role": "decode",
        "targetKind": "StatefulSet", "targetName": "m", "wanted": 2, "ready": 2, "starting": 0, "notReady": 0,
        "terminating": 0, "source": "ScaledObject",
    }]});
    assert_eq!((ended.exit, ended.json()), (0, expected));
    for (form, says) in [
        (
            "table",
            "prod        v         org/model   -             4.5    2        2       0          StatefulSet/m",
        ),
        ("wide", "decode"),
        ("yaml", "targetName: m"),
        ("name", "v\n"),
        ("csv", "prod,v,org/model,,4.5,decode,StatefulSet,m,2,2,0,0,0,ScaledObject"),
        ("custom-columns=A:.name,B:.ready", "v   2"),
    ] {
        let ended = fixture.run(&["get", "variants", "-n", "prod", "-o", form]);
        assert!(ended.exit == 0 && ended.stdout.contains(says), "{form}: {}", ended.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_variant_counts_with_the_pods_of_the_cluster() {
    let fixture = Fixture::new().await;
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    let toml = "[[variants]]\nname = \"v\"\nnamespace = \"prod\"\nmodel = \"org/model\"\naccelerator = \"H100\"\ncost = 7.0\n\
                pods = \"m-*\"\n[[variants]]\nname = \"a\"\nnamespace = \"dev\"\nmodel = \"b\"\npods = \"*\"\n";
    std::fs::write(file.path(), toml).unwrap();
    let mut command = fixture.command();
    let ended = run(
        command.arg("--config").arg(file.path()),
        &["get", "variants", "-o", "csv", "--sort-by=-cost"],
    );
    let lines: Vec<&str> = ended.stdout.lines().skip(1).collect();
    assert_eq!(lines[1], "prod,v,org/model,H100,7.0,decode,StatefulSet,m,2,2,0,0,0,configuration");
    assert!(
        lines[0].starts_with("dev,a,b,,") && lines[0].ends_with(",,,,,,,configuration"),
        "{lines:?}"
    );

    // Without a cluster, the configured ones alone.
    let ended = run(
        collector_of("http://127.0.0.1:9").arg("--config").arg(file.path()),
        &["get", "variants", "-A", "-o", "name"],
    );
    assert_eq!((ended.exit, ended.stdout.as_str()), (0, "a\nv\n"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_printed_with_whether_they_answer() {
    let fixture = Fixture::new().await;
    fixture.cluster.apply(pod("m-2", "m").terminating());
    let ended = fixture.run(&["get", "pods", "-m", MODEL, "-n", "prod", "-o", "json"]);
    let document = ended.json();
    assert_eq!(
        (ended.exit, &document["kind"], &document["schemaVersion"]),
        (0, &json!("pods"), &json!(1))
    );
    let mut first = document["items"][0].clone();
    assert!(first["answerAgeSeconds"].take().is_number());
    let expected = json!({"namespace": "prod", "podName": "m-0", "model": "org/model", "variantName": "v",
        "state": "ready", "since": "2026-01-01T00:01:00Z", "answers": "yes", "answerAgeSeconds": null});
    assert_eq!(first, expected);
    let last = &document["items"][2];
    assert_eq!((&last["state"], &last["answers"]), (&json!("terminating"), &json!("no")));
    assert_eq!(last["since"], "2026-01-01T00:09:30Z", "when its deletion began");
    for (form, says) in [
        ("table", "prod        m-2   org/model   v         terminating   no        -"),
        ("wide", "2026-01-01T00:09:30Z"),
        ("name", "m-0\nm-1\nm-2\n"),
        ("csv", "prod,m-2,org/model,v,terminating,2026-01-01T00:09:30Z,no,"),
        ("custom-columns=A:.podName,B:.answers", "m-2   no"),
    ] {
        let ended = fixture.run(&["get", "pods", "-A", "-o", form]);
        assert!(ended.exit == 0 && ended.stdout.contains(says), "{form}: {}", ended.stdout);
    }
    // What a backend cannot say is unknown.
    fixture.prometheus.reset().await;
    let ended = fixture.run(&["get", "pods", "-o", "json"]);
    assert_eq!((ended.exit, &ended.json()["items"][0]["answers"]), (0, &Value::Null));
    assert!(ended.stderr.contains("whether some pods answer is not known"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_tell_none_from_unknown() {
    let fixture = Fixture::new().await;
    for (args, says) in [
        (&["get", "variants", "-n", "pord"][..], "there are some in \"prod\""),
        (&["get", "pods", "-n", "pord"], "there are some in \"prod\""),
        (
            &["get", "pods", "-m", "org/modle"],
            "no object of the cluster describes model \"org/modle\"",
        ),
    ] {
        let ended = fixture.run(args);
        assert_eq!((ended.exit, ended.stdout.as_str()), (3, ""), "{args:?}");
        assert!(ended.stderr.contains(says), "{}", ended.stderr);
    }
    fixture.cluster.delete(kinds::PODS, "prod", "m-0");
    fixture.cluster.delete(kinds::PODS, "prod", "m-1");
    let ended = fixture.run(&["get", "pods", "-m", MODEL, "-n", "prod"]);
    assert!(ended.exit == 3 && ended.stderr.contains("has no pod"), "{}", ended.stderr);
    fixture.cluster.set_fault(kinds::PODS, Fault::InternalError);
    for command in ["variants", "pods"] {
        let ended = fixture.run(&["get", command, "-o", "json"]);
        assert_eq!(ended.exit, 5, "{}", ended.stderr);
        assert!(ended.json()["error"]["message"].as_str().unwrap().contains("pods"));
    }
    fixture.cluster.set_fault(kinds::PODS, Fault::NoAnswer);
    for command in ["variants", "pods"] {
        let ended = fixture.run(&["get", command, "--timeout", "200ms", "-o", "json"]);
        assert_eq!(ended.exit, 5, "{}", ended.stderr);
        let message = ended.json()["error"]["message"].as_str().unwrap().to_owned();
        let says = "from the API server: timed out: pods could not be read: no list within 0.2s; \
                    is the API server overloaded, or does a firewall";
        assert!(message.contains(says), "{message}");
        assert!(message.ends_with("--timeout gives it more time"), "{message}");
    }
    let mut fixture = fixture;
    fixture.cluster.stop().await.unwrap();
    let ended = fixture.run(&["get", "pods"]);
    assert!(ended.exit == 5 && ended.stderr.starts_with("error: kubernetes: "), "{}", ended.stderr);
    let ended = run(&mut collector_of(&fixture.prometheus.uri()), &["get", "pods", "-A"]);
    assert!(
        ended.exit == 2 && ended.stderr.contains("set kubernetes.enabled = true"),
        "{}",
        ended.stderr
    );
    let mut command = collector_of(&fixture.prometheus.uri());
    command
        .env("COLLECTOR_KUBERNETES__ENABLED", "true")
        .env("COLLECTOR_KUBERNETES__KUBECONFIG", "/absent");
    for args in [&["check"][..], &["get", "variants"]] {
        assert_eq!(run(&mut command, args).exit, 2);
    }
}
