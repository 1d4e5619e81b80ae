// SPDX-License-Identifier: Apache-2.0
//! Each error names the key, where it came from, and what to do.

use collector_config::Loader;

use crate::{ConfigFile, URL, variables};

/// The lines of the message about a TOML file, whose path shows as FILE.
#[track_caller]
fn check(toml: &str, expected: &[&str]) {
    let file = ConfigFile::toml(toml);
    check_loader(&file, file.loader().env(variables(&[URL])), expected);
}

#[track_caller]
fn check_yaml(yaml: &str, expected: &[&str]) {
    let file = ConfigFile::yaml(yaml);
    check_loader(&file, file.loader().env(variables(&[URL])), expected);
}

#[track_caller]
fn check_env(env: &[(&str, &str)], expected: &[&str]) {
    let file = ConfigFile::toml("");
    check_loader(&file, Loader::new().env(variables(&[&[URL], env].concat())), expected);
}

#[track_caller]
fn check_loader(file: &ConfigFile, loader: Loader, expected: &[&str]) {
    let errors = loader.load().unwrap_err();
    let text = errors.to_string().replace(&file.path().display().to_string(), "FILE");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines, expected);
    assert_eq!(errors.iter().count(), expected.len());
}

#[test]
fn an_unknown_key_is_reported_with_its_line_and_the_nearest() {
    check(
        "[cache]\nttl = \"30s\"\ntll = \"30s\"",
        &["FILE:3: cache.tll: unknown key; did you mean cache.ttl?"],
    );
    check("ttl = \"30s\"", &["FILE:1: ttl: unknown key; did you mean cache.ttl?"]);
    check("[cach]\nttl = \"30s\"", &["FILE:1: cach: unknown key; did you mean cache?"]);
    check(
        "[cache]\ncleanupInterval = \"1m\"",
        &["FILE:2: cache.cleanupInterval: unknown key; did you mean cache.cleanup_interval?"],
    );
    check("variant = 1", &["FILE:1: variant: unknown key; did you mean variants?"]);
    check(
        "zzzzzzzzzzzz = 1",
        &[
            "FILE:1: zzzzzzzzzzzz: unknown key; `collector config show --defaults` lists those there are",
        ],
    );
    check("\"cache.ttl\" = \"30s\"", &["FILE:1: cache.ttl: unknown key; did you mean cache.ttl?"]);
    check(
        "\"a\\u001b[31m\" = 1",
        &[
            "FILE:1: a\\u{1b}[31m: unknown key; `collector config show --defaults` lists those there are",
        ],
    );
    check_yaml(
        "cache:\n  ttl: 30s\n  tll: 30s\n",
        &["FILE:3: cache.tll: unknown key; did you mean cache.ttl?"],
    );
    check_env(
        &[("COLLECTOR_CACHE__TLL", "30s"), ("COLLECTOR_CACHE_TTL", "30s")],
        &[
            "environment variable COLLECTOR_CACHE_TTL: unknown variable; did you mean COLLECTOR_CACHE__TTL?",
            "environment variable COLLECTOR_CACHE__TLL: unknown variable; did you mean COLLECTOR_CACHE__TTL?",
        ],
    );
    check_env(
        &[("COLLECTOR_VARIANTS__0__NAME", "x")],
        &[
            "environment variable COLLECTOR_VARIANTS__0__NAME: variants can be set in a configuration file only",
        ],
    );
    check_env(
        &[("COLLECTOR_ZZZZZZZZZZZ", "x")],
        &[
            "environment variable COLLECTOR_ZZZZZZZZZZZ: unknown variable; a key's variable is COLLECTOR_ and its path with __ between levels, such as COLLECTOR_CACHE__TTL",
        ],
    );
}

#[test]
fn errors_stand_in_the_order_of_the_file() {
    let unknown = "unknown key; `collector config show --defaults` lists those there are";
    check(
        "zzzzzzzz = 1\naaaaaaaaaa = 1\n[mmmmmmmmmm]\n[bbbbbbbbbb]\n",
        &[
            &format!("FILE:1: zzzzzzzz: {unknown}"),
            &format!("FILE:2: aaaaaaaaaa: {unknown}"),
            &format!("FILE:3: mmmmmmmmmm: {unknown}"),
            &format!("FILE:4: bbbbbbbbbb: {unknown}"),
        ],
    );
}

#[test]
fn a_value_of_the_wrong_type_is_reported_without_showing_it() {
    check(
        "backend = 3\n[cache]\nenabled = \"yes\"\nmax_entries = \"many\"\nttl = true\n\
         [prometheus]\nbearer_token = 4711\nnamespaces = [\"a\", 2]\n[server]\nlisten = 9464\n",
        &[
            "FILE:1: backend: expected text or a list of texts, found a number: put it in quotes",
            "FILE:3: cache.enabled: expected true or false, found text: write it without quotes",
            "FILE:4: cache.max_entries: expected a whole number, 1 or more, found text: write it without quotes",
            "FILE:5: cache.ttl: expected a duration such as 30s, 1m30s or 0, found a boolean",
            "FILE:7: prometheus.bearer_token: expected text, found a number: put it in quotes",
            "FILE:8: prometheus.namespaces: the list holds something that is not text: put each item in quotes",
            "FILE:10: server.listen: expected an address such as 127.0.0.1:9464, found a number: put it in quotes",
        ],
    );
    check(
        "cache = 5\nlog = []\n",
        &[
            "FILE:1: cache: expected a table of keys, found a number",
            "FILE:2: log: expected a table of keys, found a list",
        ],
    );
    check(
        "[cache.ttl]\nseconds = 3",
        &["FILE:1: cache.ttl: expected a duration such as 30s, 1m30s or 0, found a table"],
    );
    check_yaml(
        "prometheus:\n  bearer_token: 00123\n  tenant: no\n  server_name: true\n",
        &[
            "FILE:2: prometheus.bearer_token: expected text, found a number: put it in quotes",
            "FILE:3: prometheus.tenant: expected text, found a boolean: put it in quotes",
            "FILE:4: prometheus.server_name: expected text, found a boolean: put it in quotes",
        ],
    );
}

#[test]
fn an_unreadable_value_is_reported_with_what_works() {
    check(
        "[cache]\nttl = \"soon\"\nfetch_interval = 30\nmissing_ttl = \"-5s\"\nmax_entries = 0\n",
        &[
            "FILE:2: cache.ttl: \"soon\" is not a duration: expected number at 0; write for example 30s, 1m30s, 1.5h or 0",
            "FILE:3: cache.fetch_interval: \"30\" is not a duration: it has no unit; write for example 30s, 1m30s, 1.5h or 0",
            "FILE:4: cache.missing_ttl: \"-5s\" is not a duration: it is negative; write for example 30s, 1m30s, 1.5h or 0",
            "FILE:5: cache.max_entries: \"0\" is not a whole number, 1 or more",
        ],
    );
    check(
        "[server]\nlisten = \":9464\"\n[log]\nlevel = \"verbose\"\nformat = \"xml\"",
        &[
            "FILE:2: server.listen: \":9464\" is not an address: write 127.0.0.1:9464, or 0.0.0.0:9464 to listen on every interface",
            "FILE:4: log.level: \"verbose\" is not known: write one of off, error, warn, info, debug, trace",
            "FILE:5: log.format: \"xml\" is not known: write one of text, json",
        ],
    );
    check_env(
        &[
            ("COLLECTOR_CACHE__ENABLED", "perhaps"),
            ("COLLECTOR_CACHE__MAX_ENTRIES", "1e3"),
            ("COLLECTOR_SERVER__LISTEN", "localhost:80"),
            ("COLLECTOR_SERVER__MAX_TRACKED", "-1"),
            ("PROMETHEUS_METRICS_CACHE_TTL", "30"),
        ],
        &[
            "environment variable COLLECTOR_CACHE__ENABLED: cache.enabled: \"perhaps\" is not true or false",
            "environment variable COLLECTOR_CACHE__MAX_ENTRIES: cache.max_entries: \"1e3\" is not a whole number, 1 or more",
            "environment variable COLLECTOR_SERVER__LISTEN: server.listen: \"localhost:80\" is not an address: write 127.0.0.1:80",
            "environment variable COLLECTOR_SERVER__MAX_TRACKED: server.max_tracked: \"-1\" is not a whole number, 1 or more",
            "environment variable PROMETHEUS_METRICS_CACHE_TTL: cache.ttl: \"30\" is not a duration: it has no unit; write for example 30s, 1m30s, 1.5h or 0",
        ],
    );
}

#[test]
fn a_flag_is_named_as_the_user_typed_it() {
    let file = ConfigFile::toml("");
    let loader = Loader::new()
        .env(variables(&[URL]))
        .flag("server.listen", "nowhere", "--listen")
        .flag("backend", "promethius", "--backend");
    check_loader(
        &file,
        loader,
        &[
            "--listen: server.listen: \"nowhere\" is not an address: write an IP address and a port, for example 127.0.0.1:9464 or [::1]:9464",
            &format!(
                "--backend: backend: \"promethius\" is not a backend; did you mean \"prometheus\"? this build has {}",
                Loader::new().backends().collect::<Vec<_>>().join(", ")
            ),
        ],
    );
}

#[test]
fn impossible_timings_name_their_keys_and_a_value_that_works() {
    check(
        "[cache]\nfetch_interval = \"4s\"",
        &[
            "prometheus.timeout (5s) must be below cache.fetch_interval (4s): set cache.fetch_interval to 10s or more, or prometheus.timeout to 2s or less (cache.fetch_interval is set in FILE:2)",
        ],
    );
    check(
        "[prometheus]\ntimeout = \"1m\"\n[cache]\nttl = \"5m\"",
        &[
            "prometheus.timeout (1m) must be below cache.fetch_interval (30s): set cache.fetch_interval to 2m or more, or prometheus.timeout to 15s or less (prometheus.timeout is set in FILE:2)",
            "cache.ttl (5m) must be below cache.freshness.unavailable_threshold (5m): set cache.freshness.unavailable_threshold to 10m or more, or cache.ttl to 2m30s or less (cache.ttl is set in FILE:4)",
        ],
    );
    check(
        "[cache.freshness]\nstale_threshold = \"30s\"",
        &[
            "cache.freshness: fresh_threshold (1m) is above stale_threshold (30s): set stale_threshold to at least 1m (cache.freshness.stale_threshold is set in FILE:2)",
        ],
    );
    check(
        "[cache]\ncleanup_interval = 0",
        &[
            "cache.cleanup_interval is 0, which means nothing here: set it to 1m (cache.cleanup_interval is set in FILE:2)",
        ],
    );
}

#[test]
fn a_variants_interval_is_between_timeout_and_unavailable() {
    let variant = |name: &str, interval: &str| {
        format!(
            "[[variants]]\nname = \"{name}\"\nnamespace = \"n\"\nmodel = \"m\"\n\
             fetch_interval = \"{interval}\"\n"
        )
    };
    check(
        &[variant("a", "5s"), variant("b", "10s"), variant("c", "5m"), variant("d", "soon")]
            .concat(),
        &[
            "FILE:20: variants[3].fetch_interval: \"soon\" is not a duration: expected number at 0; write for example 30s, 1m30s, 1.5h or 0",
            "FILE:1: variants[0]: \"a\": a fetch interval of 5s is too short, because one request may take 5s: set it to 10s or more",
            "FILE:11: variants[2]: \"c\": a fetch interval of 5m is too long, because a reading is unavailable after 5m: set it to 2m30s or less",
        ],
    );
}

#[test]
fn a_relation_of_a_value_that_could_not_be_read_is_not_judged() {
    check(
        "[cache]\nfetch_interval = \"x\"\n[prometheus]\ntimeout = \"40s\"",
        &[
            "FILE:2: cache.fetch_interval: \"x\" is not a duration: expected number at 0; write for example 30s, 1m30s, 1.5h or 0",
        ],
    );
}

#[test]
fn the_backends_own_checks_are_made() {
    let file = ConfigFile::toml("");
    let loader = Loader::new().env(variables(&[("PROMETHEUS_BASE_URL", "http://h:9090")]));
    check_loader(
        &file,
        loader,
        &[
            "prometheus.url: http://h:9090 is not encrypted; use https://, or set prometheus.allow_http = true (PROMETHEUS_ALLOW_HTTP=true) if you trust the network (prometheus.url is set in environment variable PROMETHEUS_BASE_URL)",
        ],
    );
    check(
        "[prometheus]\nclient_cert_path = \"/c.pem\"",
        &[
            "prometheus.client_key_path: not set, and prometheus.client_cert_path is: set both or neither (PROMETHEUS_CLIENT_KEY_PATH)",
        ],
    );
    let loader = Loader::new().env(variables(&[("PROMETHEUS_BASE_URL", "https://h:99999")]));
    let errors = loader.load().unwrap_err().to_string();
    let start = "prometheus.url: \"https://h:99999\" is not a URL";
    assert!(errors.starts_with(start), "{errors}");
}

#[test]
fn a_certificate_of_the_server_needs_its_key() {
    check(
        "[server]\ntls_cert_path = \"c.pem\"",
        &["FILE:2: server.tls_cert_path: set without server.tls_key_path: set both, or neither"],
    );
    check(
        "[server]\ntls_key_path = \"k.pem\"",
        &["FILE:2: server.tls_key_path: set without server.tls_cert_path: set both, or neither"],
    );
    check(
        "[keda]\ntls_cert_path = \"c.pem\"",
        &["FILE:2: keda.tls_cert_path: set without keda.tls_key_path: set both, or neither"],
    );
}

#[test]
fn settings_of_the_scaler_that_cannot_work_are_named() {
    check(
        "[keda]\ntls_client_ca_path = \"ca.pem\"",
        &[
            "FILE:2: keda.tls_client_ca_path: set without keda.tls_cert_path: only a server with TLS \
           can ask for certificates",
        ],
    );
    for wait in ["0", "1001ms"] {
        check(
            &format!("[keda]\nwait = \"{wait}\""),
            &[
                "FILE:2: keda.wait: must be more than 0 and at most 1s: KEDA waits for ever, and a slow \
               error can make it scale a running model to zero",
            ],
        );
    }
}

#[test]
fn servers_on_one_port_are_refused() {
    check(
        "[server]\nlisten = \"0.0.0.0:9465\"\n[keda]\nlisten = \"127.0.0.1:9465\"",
        &[
            "keda.listen: 127.0.0.1:9465 is taken by server.listen; give each its own port (keda.listen is set in \
           FILE:4, server.listen is set in FILE:2)",
        ],
    );
    check(
        "[server]\nlisten = \"127.0.0.1:9465\"\n[keda]\nlisten = \"[::]:9465\"",
        &[
            "keda.listen: [::]:9465 is taken by server.listen; give each its own port (keda.listen is set in FILE:4, \
           server.listen is set in FILE:2)",
        ],
    );
    for (server, keda) in [("127.0.0.1:9464", "[::1]:9464"), ("127.0.0.1:0", "127.0.0.1:0")] {
        let file = ConfigFile::toml(&format!(
            "[server]\nlisten = \"{server}\"\n[keda]\nlisten = \"{keda}\""
        ));
        assert!(file.loader().env(variables(&[URL])).load().is_ok(), "{server} and {keda}");
    }
}

#[test]
fn external_metrics_need_tls() {
    check(
        "[external_metrics]\nenabled = true",
        &["FILE:2: external_metrics.enabled: needs external_metrics.tls_cert_path and \
           external_metrics.tls_key_path: the API server speaks TLS only"],
    );
    check(
        "[external_metrics]\nenabled = true\ntls_key_path = \"k.pem\"",
        &[
            "FILE:3: external_metrics.tls_key_path: set without external_metrics.tls_cert_path: set both, or neither",
        ],
    );
    check(
        "[external_metrics]\nfront_proxy_names = [\"front-proxy-client\"]",
        &[
            "FILE:2: external_metrics.front_proxy_names: set without external_metrics.front_proxy_ca_path: otherwise the \
           cluster says which names there are",
        ],
    );
}

#[cfg(not(feature = "epp"))]
#[test]
fn an_excluded_backend_is_one_error() {
    check(
        "backend = \"epp\"\n[epp]\nscrape_interval = \"1s\"",
        &["FILE:1: backend: \"epp\" is not compiled in; this build has prometheus"],
    );
    check("backend = []", &["FILE:1: backend: names no backend; this build has prometheus"]);
}

#[cfg(feature = "epp")]
#[test]
fn mistakes_in_direct_scraping_name_their_keys_and_lines() {
    check(
        "backend = \"epp\"\n[epp]\nscrape_interval = \"20ms\"\ntimeout = \"30ms\"",
        &[
            "epp.targets: not set: name the pods, as [{ url = \"http://10.0.0.7:8000/metrics\", namespace = \"prod\" }] for example, or set epp.target_file or epp.dns",
            "epp.scrape_interval: 20ms is less than 50ms; set it to 1s for example (epp.scrape_interval is set in FILE:3)",
            "epp.timeout: 30ms is not between 0 and epp.scrape_interval (20ms), so that a scrape would delay the next; set it to 18ms or leave it out (epp.timeout is set in FILE:4, epp.scrape_interval is set in FILE:3)",
        ],
    );
    let target = |rest: &str| {
        format!("backend = \"epp\"\n[[epp.targets]]\nurl = \"http://h/metrics\"\n{rest}")
    };
    check(
        &target("namespaces = \"n\""),
        &[
            "FILE:2: epp.targets: entry 1, namespaces: unknown key; did you mean namespace?",
            "FILE:2: epp.targets: entry 1: `namespace` is not set, and is required",
        ],
    );
    check(
        &target("namespace = \"\""),
        &["epp.targets: entry 1: its namespace is empty (epp.targets is set in FILE:2)"],
    );
    check(
        "backend = \"epp\"\n[epp]\ntargets = [1]",
        &["FILE:3: epp.targets: expected a list of tables, found a number in it"],
    );
    check(
        &target("namespace = \"n\"\n[[epp.engines]]\nname = \"acme\"\nmetrics.waiting = \"a{\""),
        &[
            "epp.engines: engine \"acme\", metrics.waiting, \"a{\": at character 3: expected the name of a label or }, found the end (epp.engines is set in FILE:5)",
        ],
    );
    let both = "[[engines]]\nname = \"b\"\nbase = \"vllm\"\n[[epp.engines]]\nname = \"acme\"\nbase = \"vllm\"";
    check(
        &target(&format!("namespace = \"n\"\n{both}")),
        &[
            "FILE:8: epp.engines: engines is set too: it is the same list, for every backend; keep engines alone",
        ],
    );
    check(
        &target("namespace = \"n\"\n[[engines]]\nname = \"acme\"\nmetrics.running = \"a / 0\""),
        &[
            "engines: engine \"acme\", metrics.running, \"a / 0\": at character 5: expected a divisor other than 0, found '0' (engines is set in FILE:5)",
        ],
    );
    check(
        &target(
            "namespace = \"n\"\n[[engines]]\nname = \"a\"\nbase = \"b\"\n[[engines]]\nname = \"b\"\nbase = \"a\"",
        ),
        &[
            "engines: engine \"a\": base \"b\" is defined after it, or is itself: define it before (engines is set in FILE:5)",
        ],
    );
    check(
        &target(
            "namespace = \"n\"\n[[engines]]\nname = \"a\"\nbase = \"vllm\"\nmetrics.running = 'a{b=~\"(\"}'",
        ),
        &[
            "engines: engine \"a\", metrics.running, \"a{b=~\\\"(\\\"}\": at character 6: expected a pattern that can be compiled, found '\"' (engines is set in FILE:5)",
        ],
    );
}

#[test]
fn an_engine_with_a_wrong_key_is_one_error() {
    let prometheus = |rest: &str| {
        format!("[prometheus]\nurl = \"https://p\"\n[[engines]]\nname = \"a\"\n{rest}")
    };
    for (entry, error) in [
        ("bas = \"vllm\"", "entry 1, bas: unknown key; did you mean base?"),
        ("bas = \"vllm\"\nprefix = \"acme:\"", "entry 1, bas: unknown key; did you mean base?"),
        ("base = 3", "entry 1, base: expected text, found a number"),
        (
            "metrics.waiting = 3",
            "entry 1, metrics.waiting: an expression such as \"name{label=value}\", or a list of them",
        ),
    ] {
        check(&prometheus(entry), &[&format!("FILE:3: engines: {error}")]);
    }
    // What else is wrong is told all the same.
    check(
        &prometheus("bas = \"vllm\"\n[[engines]]\nname = \"b\""),
        &[
            "FILE:3: engines: entry 1, bas: unknown key; did you mean base?",
            "engines: engine \"b\" reads no series: give it a base, or metrics of its own (engines is set in FILE:3)",
        ],
    );
}

#[test]
fn an_address_is_refused_with_the_form_that_works() {
    for (text, advice) in [
        ("localhost:9464", "write 127.0.0.1:9464"),
        (":9464", "write 127.0.0.1:9464, or 0.0.0.0:9464 to listen on every interface"),
        ("9464", "write 127.0.0.1:9464, or 0.0.0.0:9464 to listen on every interface"),
        ("::1:9464", "write [::1]:9464"),
        ("myhost:80", "write an IP address and a port, for example 127.0.0.1:80"),
    ] {
        let message = format!("server.listen: \"{text}\" is not an address: {advice}");
        check(&format!("[server]\nlisten = \"{text}\""), &[&format!("FILE:2: {message}")]);
        let variable = "COLLECTOR_SERVER__LISTEN";
        check_env(&[(variable, text)], &[&format!("environment variable {variable}: {message}")]);
        let file = ConfigFile::toml("");
        let loader = Loader::new().env(variables(&[URL])).flag("server.listen", text, "--listen");
        check_loader(&file, loader, &[&format!("--listen: {message}")]);
    }
}

#[test]
fn a_key_that_stands_twice_is_named_with_both_lines() {
    check_yaml(
        "cache:\n  ttl: 30s\n  fetch_interval: 20s\n  ttl: 40s\ncache:\n  ttl: 1s\n",
        &[
            "FILE:4: cache.ttl: the key is set twice, in lines 2 and 4: remove one of the two",
            "FILE:5: cache: the key is set twice, in lines 1 and 5: remove one of the two",
            "FILE:6: cache.ttl: the key is set twice, in lines 2 and 6: remove one of the two",
        ],
    );
    check_yaml(
        "variants:\n- name: a\n  namespace: prod\n  model: m\n  name: b\n",
        &[
            "FILE:5: variants[0].name: the key is set twice, in lines 2 and 5: remove one of the two",
        ],
    );
    check(
        "backend = \"prometheus\"\n[cache]\nttl = \"30s\"\n[server]\nlisten = \"x\"\n[cache]\n\
         ttl = \"40s\"\n",
        &[
            "FILE:5: server.listen: \"x\" is not an address: write an IP address and a port, for example 127.0.0.1:9464 or [::1]:9464",
            "FILE:6: cache: the key is set twice, in lines 2 and 6: remove one of the two",
            "FILE:7: cache.ttl: the key is set twice, in lines 3 and 7: remove one of the two",
        ],
    );
    check(
        "[cache]\nttl = \"30s\"\n[prometheus]\ntimeout = \"2s\"\ntimeout = \"3s\"\n",
        &[
            "FILE:5: prometheus.timeout: the key is set twice, in lines 4 and 5: remove one of the two",
        ],
    );
    let variant = "[[variants]]\nname = \"a\"\nnamespace = \"n\"\nmodel = \"m\"\n";
    let other = variant.replace("\"a\"", "\"b\"");
    check(
        &format!("{variant}{other}name = \"c\"\n"),
        &[
            "FILE:9: variants[1].name: the key is set twice, in lines 6 and 9: remove one of the two",
        ],
    );
    check(
        "log.level = \"info\"\ncache.ttl = \"30s\"\n[cache]\nmax_entries = 5\n",
        &["FILE:3: cache: the key is set twice, in lines 2 and 3: remove one of the two"],
    );
    check(
        "cache.ttl = \"30s\"\nserver.listen = \"127.0.0.1:1\"\ncache.ttl = \"40s\"\n",
        &["FILE:3: cache.ttl: the key is set twice, in lines 1 and 3: remove one of the two"],
    );
}

#[cfg(feature = "epp")]
#[test]
fn every_wrong_target_is_named_by_its_number() {
    let targets = "backend = \"epp\"\n[epp]\ntargets = [\n\
         { url = \"h:1\", namespace = \"n\" },\n\
         { url = \"http://h:2/metrics\" },\n\
         { url = \"http://h:3/metrics\", namespace = 3 },\n\
         { url = \"ftp://h:4/metrics\", namespac = \"n\", pod = \"p\" },\n\
         { url = \"http://h:5/metrics\", namespace = \"n\" },\n]\n";
    let file = ConfigFile::toml(targets);
    let errors = file.loader().load().unwrap_err().to_string();
    let errors = errors.replace(&file.path().display().to_string(), "FILE");
    let lines: Vec<&str> = errors.lines().collect();
    assert_eq!(
        lines[..4],
        [
            "FILE:5: epp.targets: entry 2: `namespace` is not set, and is required",
            "FILE:6: epp.targets: entry 3, namespace: expected text, found a number",
            "FILE:7: epp.targets: entry 4, namespac: unknown key; did you mean namespace?",
            "FILE:7: epp.targets: entry 4: `namespace` is not set, and is required",
        ]
    );
    assert!(lines[4].contains("entry 1: ") && lines[5].contains("entry 4: "), "{errors}");
    assert_eq!(lines.len(), 6, "{errors}");
}

#[test]
fn every_required_key_of_a_variant_is_named() {
    check(
        "[[variants]]\npods = \"a-*\"\n",
        &[
            "FILE:1: variants[0]: `name` is not set, and is required",
            "FILE:1: variants[0]: `namespace` is not set, and is required",
            "FILE:1: variants[0]: `model` is not set, and is required",
        ],
    );
}

#[test]
fn every_wrong_variant_is_reported_with_its_line() {
    check(
        "[[variants]]\nname = \"a\"\nnamespac = \"n\"\nmodel = \"m\"\n",
        &["FILE:3: variants[0].namespac: unknown key; did you mean namespace?"],
    );
    let variant = |name: &str, more: &str| {
        format!("[[variants]]\nname = \"{name}\"\nnamespace = \"n\"\nmodel = \"m\"\n{more}\n")
    };
    let text = [
        variant("a", "cost = -1"),
        variant("b", "costs = 1"),
        variant("c", "cost = \"1\""),
        variant("d", ""),
        variant("d", ""),
        variant("e", "max_batch = 5000000000"),
        "[[variants]]\nname = \"f\"\nmodel = \"m\"\n".to_owned(),
    ];
    check(
        &text.concat(),
        &[
            "FILE:10: variants[1].costs: unknown key; did you mean cost?",
            "FILE:15: variants[2].cost: expected a number, found text: write it without quotes",
            "FILE:26: variants[5].max_batch: 5000000000 is out of range",
            "FILE:31: variants[6]: `namespace` is not set, and is required",
            "FILE:1: variants[0]: \"a\": its cost is not an amount: write 0 or more",
            "FILE:21: variants[4]: \"d\": another variant of its namespace has the same name",
        ],
    );
    check(
        "[variants]\nname = \"a\"",
        &[
            "FILE:1: variants: expected a list of tables, found a table: in TOML each variant begins with [[variants]]",
        ],
    );
    check("variants = [1]", &["FILE:1: variants[0]: expected a table of keys, found a number"]);
}

#[test]
fn no_answer_of_the_promql_api_is_returned_again_until_its_samples_are_too_old() {
    check(
        "[promql]\nttl = \"2m\"",
        &[
            "FILE:2: promql.ttl: must be less than promql.max_age: an answer is returned again for so long, and its \
             samples grow old meanwhile",
        ],
    );
    check(
        "[promql]\nanswer_within = \"0s\"",
        &[
            "FILE:2: promql.answer_within: must be more than 0 and less than 1.4s: an adapter waits 3 s, for two tries",
        ],
    );
}
