// SPDX-License-Identifier: Apache-2.0
//! Defaults < file < environment < flags, and where each value came from.

use std::path::PathBuf;
use std::time::Duration;

use collector_config::{CollectorConfig, Loader, LogFormat, LogLevel, Origin};

use crate::{ConfigFile, URL, entry, variables};

#[test]
fn each_layer_beats_those_below_it_and_is_named() {
    let file = ConfigFile::toml("[cache]\nttl = \"40s\"\n[log]\nlevel = \"debug\"\n");
    let path = file.path().display().to_string();
    let layers = |env: &[(&str, &str)]| file.loader().env(variables(&[&[URL], env].concat()));

    let loaded = Loader::new().env(variables(&[URL])).load().unwrap();
    assert_eq!(loaded.config.cache.ttl, Duration::from_secs(30));
    assert_eq!(entry(&loaded, "cache.ttl").origin, "default");
    assert_eq!(entry(&loaded, "cache.ttl").value, "30s");

    let loaded = layers(&[]).load().unwrap();
    assert_eq!(loaded.config.cache.ttl, Duration::from_secs(40));
    assert_eq!(entry(&loaded, "cache.ttl").origin, format!("{path}:2"));
    assert_eq!(loaded.config.log.level, LogLevel::Debug);
    assert_eq!(loaded.origins.of("log.level"), Origin::File { path: file.path(), line: Some(4) });

    let env = [("COLLECTOR_CACHE__TTL", "45s"), ("COLLECTOR_LOG__LEVEL", "WARN")];
    let loaded = layers(&env).load().unwrap();
    assert_eq!(loaded.config.cache.ttl, Duration::from_secs(45));
    let origin = "environment variable COLLECTOR_CACHE__TTL";
    assert_eq!(entry(&loaded, "cache.ttl").origin, origin);

    let loaded = layers(&env).flag("log.level", "trace", "--log-level").load().unwrap();
    assert_eq!(loaded.config.log.level, LogLevel::Trace);
    assert_eq!(entry(&loaded, "log.level").origin, "--log-level");
}

#[test]
fn a_variable_of_another_tool_beats_the_file() {
    let file = ConfigFile::toml("[cache]\nttl = \"40s\"\n");
    let env = [URL, ("PROMETHEUS_METRICS_CACHE_TTL", "50s")];
    let loaded = file.loader().env(variables(&env)).load().unwrap();
    assert_eq!(loaded.config.cache.ttl, Duration::from_secs(50));
}

#[test]
fn a_url_in_the_environment_is_all_that_it_takes() {
    let env = [("PROMETHEUS_BASE_URL", "http://localhost:9090"), ("PROMETHEUS_ALLOW_HTTP", "true")];
    let loaded = Loader::new().env(variables(&env)).load().unwrap();
    assert_eq!(entry(&loaded, "prometheus.url").value, "http://localhost:9090");
    assert_eq!(loaded.warnings, [""; 0]);
}

#[test]
fn our_variables_take_precedence_with_a_warning() {
    let env = [URL, ("PROMETHEUS_BASE_URL", "https://other:9090")];
    let loaded = Loader::new().env(variables(&env)).load().unwrap();
    assert_eq!(entry(&loaded, "prometheus.url").value, URL.1);
    assert_eq!(
        loaded.warnings,
        ["environment variable PROMETHEUS_BASE_URL is ignored: COLLECTOR_PROMETHEUS__URL is set \
          too, and beats it"]
    );
    let agreeing = [URL, ("PROMETHEUS_BASE_URL", URL.1)];
    assert!(Loader::new().env(variables(&agreeing)).load().unwrap().warnings.is_empty());
}

#[test]
fn an_empty_variable_is_not_set() {
    let file = ConfigFile::toml("[cache]\nttl = \"40s\"");
    let env = [URL, ("COLLECTOR_CACHE__TTL", ""), ("WATCH_NAMESPACE", "")];
    let loaded = file.loader().env(variables(&env)).load().unwrap();
    assert_eq!(loaded.config.cache.ttl, Duration::from_secs(40));
    assert_eq!(entry(&loaded, "prometheus.namespaces").origin, "default");
}

#[test]
fn text_from_the_environment_is_read_by_the_kind_of_its_key() {
    #[track_caller]
    fn check(variable: &str, text: &str, expected: impl FnOnce(&CollectorConfig) -> bool) {
        let env = variables(&[URL, (variable, text)]);
        let loaded = Loader::new().env(env).load().unwrap();
        assert!(expected(&loaded.config), "{variable}={text}: {:?}", loaded.config);
    }
    check("CONTROLLER_INSTANCE", "00123", |config| config.instance.as_deref() == Some("00123"));
    check("COLLECTOR_INSTANCE", "true", |config| config.instance.as_deref() == Some("true"));
    check("COLLECTOR_INSTANCE", "[a, b]", |config| config.instance.as_deref() == Some("[a, b]"));
    check("COLLECTOR_INSTANCE", " \"q\" ", |config| config.instance.as_deref() == Some(" \"q\" "));
    check("COLLECTOR_CACHE__ENABLED", "False", |config| !config.cache.enabled);
    check("COLLECTOR_CACHE__ENABLED", " 0 ", |config| !config.cache.enabled);
    check("COLLECTOR_CACHE__MAX_ENTRIES", "007", |config| config.cache.max_entries == 7);
    check("COLLECTOR_CACHE__FETCH_INTERVAL", "0", |config| config.cache.fetch_interval.is_zero());
    check("COLLECTOR_CACHE__TTL", "1m30s", |config| config.cache.ttl == Duration::from_secs(90));
    check("COLLECTOR_BACKEND", " prometheus, ", |config| config.backend == ["prometheus"]);
    check("COLLECTOR_LOG__FORMAT", "JSON", |config| config.log.format == LogFormat::Json);
    check("COLLECTOR_SERVER__LISTEN", "[::1]:80", |config| config.server.listen.port() == 80);
}

#[test]
fn namespaces_are_one_or_several() {
    #[track_caller]
    fn check(text: &str, expected: &str) {
        let env = variables(&[URL, ("WATCH_NAMESPACE", text)]);
        let loaded = Loader::new().env(env).load().unwrap();
        let shown = entry(&loaded, "prometheus.namespaces");
        assert_eq!(shown.value, expected);
        assert_eq!(shown.origin, "environment variable WATCH_NAMESPACE");
        assert!(
            format!("{:?}", loaded.config)
                .contains(&format!("namespaces: {:?}", expected.split(',').collect::<Vec<_>>())),
        );
    }
    check("prod", "prod");
    check("prod, dev", "prod,dev");
    check("123", "123");
}

#[test]
fn the_cache_is_set_by_the_variables_of_the_prometheus_collector() {
    let env = [
        URL,
        ("PROMETHEUS_METRICS_CACHE_ENABLED", "false"),
        ("PROMETHEUS_METRICS_CACHE_TTL", "60s"),
        ("PROMETHEUS_METRICS_CACHE_CLEANUP_INTERVAL", "2m"),
        ("PROMETHEUS_METRICS_CACHE_FETCH_INTERVAL", "45s"),
        ("PROMETHEUS_METRICS_CACHE_FRESH_THRESHOLD", "90s"),
        ("PROMETHEUS_METRICS_CACHE_STALE_THRESHOLD", "3m"),
        ("PROMETHEUS_METRICS_CACHE_UNAVAILABLE_THRESHOLD", "10m"),
    ];
    let loaded = Loader::new().env(variables(&env)).load().unwrap();
    assert_eq!(loaded.warnings, [""; 0]);
    let cache = loaded.config.cache;
    assert!(!cache.enabled);
    assert_eq!(cache.ttl, Duration::from_secs(60));
    assert_eq!(cache.cleanup_interval, Duration::from_secs(120));
    assert_eq!(cache.fetch_interval, Duration::from_secs(45));
    assert_eq!(cache.freshness.fresh_threshold, Duration::from_secs(90));
    assert_eq!(cache.freshness.stale_threshold, Duration::from_secs(180));
    assert_eq!(cache.freshness.unavailable_threshold, Duration::from_secs(600));
}

#[test]
fn the_epps_cache_variables_count_only_where_it_is_the_only_backend() {
    let env = [URL, ("EPP_METRICS_CACHE_TTL", "15s"), ("EPP_METRICS_CACHE_MAX_SIZE", "500")];
    let loaded = Loader::new().env(variables(&env)).load().unwrap();
    assert_eq!(loaded.config.cache.ttl, Duration::from_secs(30));
    assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);
    assert!(loaded.warnings[0].contains("EPP_METRICS_CACHE_TTL is ignored"));

    let loaded = Loader::new().env(variables(&env)).flag("backend", "epp", "--backend").read();
    let cache = loaded.unwrap().config.cache;
    assert_eq!(cache.ttl, Duration::from_secs(15));
    assert_eq!(cache.max_entries, 500);
}

#[test]
fn what_kubernetes_sets_for_a_service_called_collector_is_no_setting() {
    let env = [
        URL,
        ("COLLECTOR_CONFIG", "/etc/collector.toml"),
        ("COLLECTOR_SERVICE_HOST", "10.0.0.1"),
        ("COLLECTOR_PORT", "tcp://10.0.0.1:9464"),
        ("COLLECTOR_PORT_9464_TCP_ADDR", "10.0.0.1"),
    ];
    assert!(Loader::new().env(variables(&env)).load().unwrap().warnings.is_empty());
}

#[test]
fn relative_paths_in_a_file_start_at_that_file() {
    let file = ConfigFile::toml(
        "[prometheus]\ntoken_path = \"token\"\nca_cert_path = \"/etc/ca.pem\"\n\
         [server]\nadmin_token_path = \"../admin\"\n",
    );
    let loaded = file.loader().env(variables(&[URL])).load().unwrap();
    let shown = |key| PathBuf::from(entry(&loaded, key).value);
    assert_eq!(shown("prometheus.token_path"), file.folder().join("token"));
    assert_eq!(shown("prometheus.ca_cert_path"), PathBuf::from("/etc/ca.pem"));
    assert_eq!(loaded.config.server.admin_token_path, Some(file.folder().join("../admin")));

    let env = [URL, ("PROMETHEUS_TOKEN_PATH", "token")];
    let loaded = Loader::new().env(variables(&env)).load().unwrap();
    assert_eq!(entry(&loaded, "prometheus.token_path").value, "token");
}

#[cfg(not(feature = "epp"))]
#[test]
fn the_section_of_an_excluded_backend_is_ignored_with_a_warning() {
    let file = ConfigFile::toml("[epp]\nscrape_interval = \"1s\"\n");
    let env = [URL, ("COLLECTOR_EPP__TIMEOUT", "1s"), ("EPP_METRIC_READER_BEARER_TOKEN", "x")];
    let warnings = file.loader().env(variables(&env)).load().unwrap().warnings;
    let path = file.path().display().to_string();
    let reason = "is ignored: the backend \"epp\" is not compiled into this build, and `backend` \
                  does not ask for it";
    assert_eq!(
        warnings,
        [
            format!("{path}:1 {reason}"),
            format!("environment variable COLLECTOR_EPP__TIMEOUT {reason}"),
            format!("environment variable EPP_METRIC_READER_BEARER_TOKEN {reason}"),
        ]
    );
    // Where it is asked for, that is the error.
    let read = file.loader().flag("backend", "epp", "--backend").read().unwrap();
    assert_eq!(read.warnings, [""; 0]);
}

#[test]
fn wasteful_and_useless_settings_are_warned_of() {
    let env = [
        URL,
        ("COLLECTOR_CACHE__FETCH_INTERVAL", "1m"),
        ("PROMETHEUS_BEARER_TOKEN", "hunter2"),
        ("PROMETHEUS_TOKEN_PATH", "/token"),
    ];
    let warnings = Loader::new().env(variables(&env)).load().unwrap().warnings.join("\n");
    for part in
        ["cache.fetch_interval (1m) is above cache.ttl (30s)", "prometheus.token_path is ignored"]
    {
        assert!(warnings.contains(part), "{warnings} lacks {part}");
    }
    assert!(!warnings.contains("hunter2"));
}

#[test]
fn no_secret_is_shown() {
    let file = ConfigFile::toml(
        "[prometheus]\nurl = \"https://me:hunter2@host/path\"\nbearer_token = \"hunter2\"",
    );
    let loaded = file.loader().read().unwrap();
    assert_eq!(entry(&loaded, "prometheus.bearer_token").value, "***");
    assert_eq!(entry(&loaded, "prometheus.url").value, "https://***@host/path");
    assert!(!format!("{:?}", loaded.entries()).contains("hunter2"));
    assert!(!format!("{:?}", loaded.origins).contains("hunter2"));
    let errors = file.loader().load().unwrap_err();
    assert!(!format!("{errors} {errors:?}").contains("hunter2"), "{errors}");

    for url in ["me:hunter2@host:9090", "https://me:hunter/hunter2@host:9090"] {
        let env = variables(&[("PROMETHEUS_BASE_URL", url)]);
        let loaded = Loader::new().env(env.clone()).read().unwrap();
        assert!(entry(&loaded, "prometheus.url").value.ends_with("***@host:9090"), "{url}");
        let errors = Loader::new().env(env).load().unwrap_err();
        assert!(!errors.to_string().contains("hunter2"), "{errors}");
    }

    let env = [URL, ("PROMETHEUS_BEARER_TOKEN", "hunter2")];
    let loaded = Loader::new().env(variables(&env)).load().unwrap();
    assert!(!format!("{loaded:?}").contains("hunter2"));
}

#[test]
fn a_configuration_that_is_not_complete_can_be_read_and_not_loaded() {
    let loaded = Loader::new().read().unwrap();
    assert_eq!(entry(&loaded, "prometheus.url").value, "");
    let errors = Loader::new().load().unwrap_err().to_string();
    assert!(errors.starts_with("prometheus.url: not set"), "{errors}");
    assert!(errors.contains("PROMETHEUS_BASE_URL"), "{errors}");
}

#[test]
fn a_variable_in_lower_case_gets_a_warning_with_the_right_spelling() {
    let warnings = |name: &str| {
        let env = variables(&[URL, (name, "1m")]);
        Loader::new().env(env).load().unwrap().warnings
    };
    for (name, right) in [
        ("collector_cache__missing_ttl", "COLLECTOR_CACHE__MISSING_TTL"),
        ("Collector_Cache__Missing_Tll", "COLLECTOR_CACHE__MISSING_TTL"),
        ("prometheus_base_url", "PROMETHEUS_BASE_URL"),
        ("watch_namespace", "WATCH_NAMESPACE"),
        ("collector_config", "COLLECTOR_CONFIG"),
    ] {
        let expected = format!(
            "environment variable {name} is ignored: names of variables are in capitals; did you mean \
             {right}?"
        );
        assert_eq!(warnings(name), [expected]);
    }
    assert!(warnings("collector_of_stamps_and_coins").is_empty(), "another program's");
    assert!(warnings("http_proxy").is_empty());
}

#[test]
fn a_namespace_that_is_not_read_names_the_key_and_its_origin() {
    let loaded = |namespaces: &str| {
        Loader::new().env(variables(&[URL, ("WATCH_NAMESPACE", namespaces)])).load().unwrap()
    };
    let left_out = loaded("prod,dev").left_out("staging").unwrap();
    assert_eq!(
        left_out.message,
        "namespace \"staging\" is not read: prometheus.namespaces is limited to \"prod\", \"dev\" \
         (environment variable WATCH_NAMESPACE)"
    );
    assert!(left_out.remedy.contains("prometheus.namespaces"), "{}", left_out.remedy);
    assert_eq!(loaded("prod,dev").left_out("dev"), None);
    assert_eq!(loaded("").left_out("staging"), None);
    let limited =
        r#"prometheus.namespaces is limited to "dev" (environment variable WATCH_NAMESPACE)"#;
    assert_eq!(loaded("dev").limited().as_deref(), Some(limited));
    assert_eq!(loaded("").limited(), None);
    let many = loaded("a,b,c,d,e,f,g").left_out("staging").unwrap();
    assert!(many.message.contains("\"e\", 2 more ("), "{}", many.message);
}

#[test]
fn a_variant_in_a_namespace_that_is_not_read_gets_a_warning() {
    let variant = |namespace: &str| {
        format!("[[variants]]\nname = \"a\"\nnamespace = \"{namespace}\"\nmodel = \"m\"\n")
    };
    let file = ConfigFile::toml(&[variant("dev"), variant("staging")].concat());
    let env = variables(&[URL, ("WATCH_NAMESPACE", "dev")]);
    let warnings = file.loader().env(env).load().unwrap().warnings;
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    let begins = format!("{}:5: variants[1]: its namespace \"staging\"", file.path().display());
    assert!(warning.starts_with(&begins) && warning.contains("WATCH_NAMESPACE"), "{warning}");
}

#[cfg(feature = "epp")]
#[test]
fn a_namespace_is_not_read_only_if_no_backend_reads_it() {
    let env = [
        URL,
        ("WATCH_NAMESPACE", "prod"),
        ("COLLECTOR_BACKEND", "epp,prometheus"),
        ("COLLECTOR_EPP__TARGETS", r#"[{"url": "http://h/metrics", "namespace": "dev"}]"#),
    ];
    let loaded = Loader::new().env(variables(&env)).load().unwrap();
    assert_eq!(loaded.left_out("dev"), None);
}

#[cfg(feature = "kubernetes")]
#[test]
fn a_namespace_in_which_the_cluster_is_not_watched_is_named_with_its_key() {
    let of = |enabled: &str, namespaces: &str| {
        let env = [
            URL,
            ("COLLECTOR_KUBERNETES__ENABLED", enabled),
            ("COLLECTOR_KUBERNETES__NAMESPACES", namespaces),
        ];
        Loader::new().env(variables(&env)).load().unwrap()
    };
    let limited = of("true", "prod,dev");
    let unwatched = limited.unwatched("staging").unwrap();
    let limit = "kubernetes.namespaces is limited to \"prod\", \"dev\" (environment variable \
                 COLLECTOR_KUBERNETES__NAMESPACES)";
    let message = format!("the cluster is not watched in namespace \"staging\": {limit}");
    assert_eq!(unwatched.message, message);
    assert!(unwatched.remedy.starts_with("add it to kubernetes.namespaces"), "{unwatched:?}");
    assert_eq!(limited.watch_limit().as_deref(), Some(limit));
    assert_eq!(limited.unwatched("dev"), None);
    // Its metrics are read.
    assert_eq!(limited.left_out("staging"), None);
    for all in [of("true", ""), of("false", "prod")] {
        assert_eq!((all.unwatched("staging"), all.watch_limit()), (None, None));
    }
}
