// SPDX-License-Identifier: Apache-2.0
//! The documentation has every family that there is, and no other, and the page is sound after reloads.

use std::collections::BTreeSet;

use super::page::{aliases, documented, exported};
use super::{CERTIFICATE_ENDS, Everything, METRICS_PAGE, TOKEN_ENDS};

#[tokio::test(flavor = "multi_thread")]
async fn every_family_is_documented_with_its_type_and_labels() {
    let everything = Everything::start().await;
    let mut page = exported(&everything.page("running"));
    let aliases = aliases(METRICS_PAGE);
    for (theirs, ours) in &aliases {
        let alias = page.remove(*theirs).unwrap_or_else(|| panic!("there is no {theirs}"));
        assert_eq!(alias, page[*ours], "{theirs} is {ours}");
    }
    assert!(page.keys().all(|name| name.starts_with("collector_") || name.starts_with("process_")));
    let mut documented = documented(METRICS_PAGE);
    // There is no cluster here.
    documented.retain(|name, _| !name.starts_with("collector_kubernetes_"));
    if !cfg!(feature = "kubernetes") {
        documented.retain(|name, _| !name.starts_with("collector_external_metrics_"));
    }
    let names =
        |families: &super::page::Families| families.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&page), names(&documented));
    for (name, family) in &mut page {
        if name.starts_with("collector_supply_") {
            // Without a cluster it has no series.
            family.labels.clone_from(&documented[name].labels);
        }
        assert_eq!(family, &documented[name], "{name}");
    }
    for (of, prefix) in
        [("replica", "collector_replica_"), ("allocation of a variant", "collector_allocation_")]
    {
        let count = page.keys().filter(|name| name.starts_with(prefix)).count();
        let row = format!("| {of} | {count} (`{prefix}*`)");
        assert!(METRICS_PAGE.contains(&row), "no {row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn latencies_and_expiries_are_in_seconds() {
    let everything = Everything::start().await;
    let daemon = &everything.daemon;
    let labels =
        "{model_name=\"org/model\",namespace=\"prod\",variant_name=\"m\",accelerator_name=\"\"}";
    let itl = daemon.metric(&format!("collector_allocation_itl_average_seconds{labels}"));
    // The simulated engine takes 20 ms for a token, whose clock is a little coarse.
    assert!((0.015..0.025).contains(&itl), "{itl}");
    let page = everything.page("running");
    for line in [
        format!(
            "collector_certificate_expiry_timestamp_seconds{{key=\"keda.tls_cert_path\"}} {CERTIFICATE_ENDS}\n"
        ),
        format!(
            "collector_token_expiry_timestamp_seconds{{key=\"prometheus.token_path\"}} {TOKEN_ENDS}\n"
        ),
        format!("collector_build_info{{version=\"{}\",", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(page.contains(&line), "no {line} in {page}");
    }
    assert!(daemon.metric("process_resident_memory_bytes") > 1e6);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_sound_after_reloads_and_follows_them() {
    let everything = Everything::start().await;
    let (daemon, config) = (&everything.daemon, &everything.config);
    let reloads = |result: &str| {
        daemon.metric(&format!("collector_config_reloads_total{{result=\"{result}\"}}"))
    };
    let age = daemon.metric("collector_config_age_seconds");
    assert!(everything.page("running").contains("collector_replica_queue_length{"));

    everything
        .authority
        .write("collector.toml", &format!("{config}[metrics]\nper_replica = false\n"));
    daemon.eventually("it is loaded", |_| reloads("success") >= 1.0);
    let page = everything.page("after a reload");
    assert!(!page.contains("collector_replica_"), "{page}");
    assert!(daemon.metric("collector_config_age_seconds") < age, "it is that of the new one");

    everything.authority.write("collector.toml", "[metrics]\nper_replica = 1\n");
    daemon.eventually("it is refused", |_| reloads("failed") >= 1.0);
    let page = everything.page("after a refusal");
    assert!(page.contains("\ncollector_config_last_reload_successful 0\n"), "{page}");
}

/// A sum over a model's replicas.
const QUERY: &str =
    "sum(collector_replica_queue_length%7Bnamespace=%22prod%22,model_name=%22org/model%22%7D)";

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_by_route_and_never_by_what_clients_make_up() {
    let everything = Everything::start().await;
    let daemon = &everything.daemon;
    let made_up = "made-up-by-a-client";
    for request in [
        format!("GET /{made_up} HTTP/1.0\r\n\r\n"),
        format!("GET /api/v1/replicas?model={made_up}&namespace=prod HTTP/1.0\r\n\r\n"),
        "POST /readyz HTTP/1.0\r\n\r\n".to_owned(),
        format!("{} /readyz HTTP/1.0\r\n\r\n", made_up.to_uppercase()),
        format!("GET /api/v1/query?query={QUERY} HTTP/1.0\r\n\r\n"),
        format!("GET /raw/{made_up} HTTP/1.0\r\n\r\n"),
    ] {
        daemon.send(request.as_bytes());
    }
    let page = daemon.get("/metrics").body;
    for counted in [
        "{route=\"other\",method=\"GET\",code=\"404\"} 1",
        "{route=\"/api/v1/replicas\",method=\"GET\",code=\"404\"} 1",
        "{route=\"/readyz\",method=\"POST\",code=\"405\"} 1",
        "{route=\"/readyz\",method=\"other\",code=\"405\"} 1",
        "{route=\"/api/v1/query\",method=\"GET\",code=\"200\"} 1",
        "{route=\"/raw/{path}\",method=\"GET\",code=\"404\"} 1",
    ] {
        let line = format!("collector_http_requests_total{counted}");
        assert!(page.contains(&line), "no {line} in {page}");
    }
    assert!(!page.to_lowercase().contains(made_up), "{page}");
}
