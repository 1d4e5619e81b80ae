// SPDX-License-Identifier: Apache-2.0
//! Direct scraping under its two names, `scrape` and `epp`.

use std::sync::Arc;

use collector_config::Loader;
use collector_core::SystemClock;

use crate::{ConfigFile, entry, variables};

/// A configuration of direct scraping with the section and the backend under these names.
fn file(section: &str, backend: &str, more: &str) -> ConfigFile {
    ConfigFile::toml(&format!(
        "backend = \"{backend}\"\n[{section}]\n\
         targets = [{{ url = \"https://h/metrics\", namespace = \"n\" }}]\n{more}"
    ))
}

#[test]
fn either_name_of_section_and_backend_scrapes_without_a_warning() {
    for section in ["scrape", "epp"] {
        for backend in ["scrape", "epp"] {
            let loaded = file(section, backend, "timeout = \"800ms\"\n").loader().load().unwrap();
            assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
            assert_eq!(entry(&loaded, &format!("{section}.timeout")).value, "800ms");
            let backends = loaded.config.build_backends(Arc::new(SystemClock::new())).unwrap();
            assert_eq!(backends[0].name(), "epp");
        }
    }
}

#[test]
fn variables_of_either_name_set_its_keys() {
    for (name, section) in [("SCRAPE", "scrape"), ("EPP", "epp")] {
        let targets = r#"[{"url": "https://h/metrics", "namespace": "n"}]"#;
        let env = [
            ("COLLECTOR_BACKEND", section),
            (&format!("COLLECTOR_{name}__TARGETS"), targets),
            (&format!("COLLECTOR_{name}__WINDOW"), "17s"),
            ("EPP_METRIC_READER_BEARER_TOKEN", "token"),
            ("EPP_METRICS_CACHE_MAX_SIZE", "500"),
        ];
        let loaded = Loader::new().env(variables(&env)).load().unwrap();
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        assert_eq!(entry(&loaded, &format!("{section}.window")).value, "17s");
        assert_eq!(entry(&loaded, &format!("{section}.bearer_token")).value, "***");
        assert_eq!(loaded.config.cache.max_entries, 500);
    }
}

#[test]
fn messages_use_the_name_that_the_configuration_uses() {
    for section in ["scrape", "epp"] {
        let wrong = file(section, section, "scrape_interval = \"20ms\"\n");
        let error = wrong.loader().load().unwrap_err().to_string();
        let path = wrong.path();
        let path = path.display();
        let expected = format!(
            "{section}.scrape_interval: 20ms is less than 50ms; set it to 1s for example \
             ({section}.scrape_interval is set in {path}:4)"
        );
        assert!(error.contains(&expected), "{error}");
        let unset = Loader::new().flag("backend", section, "--backend").load().unwrap_err();
        assert!(unset.to_string().starts_with(&format!("{section}.targets: not set")), "{unset}");
        let absent = file(section, section, "ca_cert_path = \"/absent.pem\"\n").loader().load();
        let backends = absent.unwrap().config.build_backends(Arc::new(SystemClock::new()));
        let error = backends.map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{section}.ca_cert_path: /absent.pem")), "{error}");
    }
}

#[test]
fn sections_under_both_names_are_an_error_that_names_both() {
    let both = file("epp", "scrape", "[scrape]\nwindow = \"17s\"\n");
    let error = both.loader().load().unwrap_err().to_string();
    let path = both.path();
    let path = path.display();
    let expected = format!(
        "{path}:5: scrape: [epp] is set too ({path}:3): both are direct scraping; move all keys to \
         [scrape]"
    );
    assert_eq!(error, expected);
    let env = [("COLLECTOR_SCRAPE__WINDOW", "17s")];
    let mixed = file("epp", "epp", "").loader().env(variables(&env)).load().unwrap_err();
    assert!(mixed.to_string().contains("COLLECTOR_SCRAPE__WINDOW"), "{mixed}");
    let twice = Loader::new().flag("backend", "epp,scrape", "--backend").load().unwrap_err();
    assert!(twice.to_string().contains("\"epp\" is named twice"), "{twice}");
}
