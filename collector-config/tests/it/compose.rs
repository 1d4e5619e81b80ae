// SPDX-License-Identifier: Apache-2.0
//! From a configuration to the parts.

use std::sync::Arc;
use std::time::Duration;

use collector_config::Loader;
use collector_core::{Clock, Freshness, ManualClock, MetricsCollector as _, ModelRef};
use collector_engine::StaticDirectory;
use collector_testkit::{FakeBackend, TokioClock};

use crate::{ConfigFile, URL, variables};

#[test]
fn the_collector_is_what_the_configuration_describes() {
    let file = ConfigFile::toml(
        "[cache.freshness]\nfresh_threshold = \"10s\"\n\
         [[variants]]\nname = \"v\"\nnamespace = \"prod\"\nmodel = \"org/m\"\n",
    );
    let config = file.loader().env(variables(&[URL])).load().unwrap().config;
    let collector = config.build(Arc::new(ManualClock::new())).unwrap();
    assert_eq!(collector.determine_status(Duration::from_secs(10)), Freshness::Stale);
    let backends = collector.state().backends;
    assert_eq!(backends.len(), 1);
    assert_eq!(backends[0].name.as_str(), "prometheus");
}

#[tokio::test(start_paused = true)]
async fn requests_are_sent_as_often_as_the_configuration_lets_them() {
    let file = ConfigFile::toml("[prometheus]\nrequests_per_second = 2\nrequest_burst = 4");
    let loaded = file.loader().env(variables(&[URL])).load().unwrap();
    assert!(loaded.warnings[0].contains("prometheus.request_burst to 16"), "{:?}", loaded.warnings);
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
    let set = loaded.config.build_backends(Arc::clone(&clock)).unwrap()[0].limits();
    let backend = FakeBackend::new(Arc::clone(&clock)).requests_per_fetch(24).with_limits(set);
    let model = ModelRef::new("org/m", "prod");
    backend.serve_pods(&model, &["m-0"]);
    let builder = loaded.config.builder_over(vec![Arc::new(backend)], clock).unwrap();
    let collector = builder.build().unwrap();
    let began = tokio::time::Instant::now();
    collector.collect_replica_metrics(&model).await.unwrap();
    let took = began.elapsed();
    assert!((10.0..10.1).contains(&took.as_secs_f64()), "{took:?}");
}

#[test]
fn the_chosen_backends_can_be_had_alone() {
    assert!(Loader::new().backends().any(|name| name == "prometheus"));
    let config = Loader::new().env(variables(&[URL])).load().unwrap().config;
    let backends = config.build_backends(Arc::new(ManualClock::new())).unwrap();
    let names: Vec<&str> = backends.iter().map(|backend| backend.name()).collect();
    assert_eq!(names, ["prometheus"]);
}

#[test]
fn a_missing_file_is_reported_with_its_key_and_path() {
    let file = ConfigFile::toml("[prometheus]\nca_cert_path = \"absent.pem\"");
    let config = file.loader().env(variables(&[URL])).load().unwrap().config;
    let errors = config.build(Arc::new(ManualClock::new())).err().unwrap().to_string();
    let path = file.folder().join("absent.pem").display().to_string();
    assert!(errors.starts_with("prometheus.ca_cert_path: "), "{errors}");
    assert!(errors.contains(&path), "{errors}");
    assert_eq!(errors.matches("No such file").count(), 1, "{errors}");
}

#[test]
fn a_configuration_that_was_only_read_is_checked_when_it_is_built() {
    let build = |loader: Loader| {
        let config = loader.read().unwrap().config;
        config.build(Arc::new(ManualClock::new())).err().unwrap().to_string()
    };
    assert!(build(Loader::new()).starts_with("prometheus.url: not set"));
    let epp = Loader::new().flag("backend", "epp", "--backend");
    if cfg!(feature = "epp") {
        assert!(build(epp).starts_with("epp.targets: not set"));
    } else {
        assert!(build(epp).starts_with("backend: \"epp\" is not compiled in"));
    }
    let timings = Loader::new().env(variables(&[URL])).flag("cache.ttl", "1h", "--ttl");
    assert!(build(timings).contains("cache.ttl (1h) must be below"));
}

#[cfg(feature = "epp")]
#[test]
fn pods_of_the_configuration_file_are_scraped() {
    let file = ConfigFile::toml(
        "backend = \"epp\"\n[epp]\ntarget_file = \"targets.json\"\n\
         [[epp.targets]]\nurl = \"http://10.0.0.7:8000/metrics\"\nnamespace = \"prod\"\n\
         engine = \"acme\"\n[[epp.engines]]\nname = \"acme\"\nbase = \"vllm\"\n",
    );
    let loaded = file.loader().load().unwrap();
    let relative =
        loaded.entries().into_iter().find(|entry| entry.key == "epp.target_file").unwrap();
    assert_eq!(relative.value, file.folder().join("targets.json").display().to_string());
    let backends = loaded.config.build_backends(Arc::new(ManualClock::new())).unwrap();
    assert_eq!(backends[0].name(), "epp");
    assert!(loaded.config.build(Arc::new(ManualClock::new())).is_ok());
}

#[cfg(feature = "epp")]
#[test]
fn a_token_that_stays_at_home_or_travels_unencrypted_is_warned_of() {
    let file = ConfigFile::toml(
        "backend = \"epp\"\n[epp]\nbearer_token = \"hunter2\"\n\
         targets = [{ url = \"http://10.0.0.7:8000/metrics\", namespace = \"prod\" }]\n",
    );
    let warnings = |loader: Loader| loader.load().unwrap().warnings.join("\n");
    let kept = warnings(file.loader());
    assert!(kept.contains("epp.targets: the token is not sent to those of http://"), "{kept}");
    let flag = file.loader().flag("epp.allow_token_over_http", "true", "--allow");
    let sent = warnings(flag);
    assert!(sent.contains("epp.allow_token_over_http: who reads the traffic"), "{sent}");
    assert!(!kept.contains("hunter2") && !sent.contains("hunter2"));
}

#[cfg(feature = "epp")]
#[test]
fn a_targets_model_takes_precedence_over_its_engines() {
    let file = ConfigFile::toml(
        "backend = \"epp\"\n[[engines]]\nname = \"acme\"\nbase = \"vllm\"\nmodel = \"org/a\"\n\
         [epp]\ntargets = [{ url = \"http://10.0.0.7:8000/metrics\", namespace = \"prod\", \
         engine = \"acme\", model = \"org/b\" }]\n",
    );
    let loaded = file.loader().load().unwrap();
    assert_eq!(loaded.config.engines.len(), 1);
    let of_epp = &loaded.config.settings_of::<collector_epp::EppConfig>().unwrap().engines;
    assert_eq!(*of_epp, loaded.config.engines);
    let warnings = loaded.warnings.join("\n");
    let expected = "epp.targets: entry 1: its model \"org/b\" goes before \"org/a\"";
    assert!(warnings.contains(expected), "{warnings}");
    let before = ConfigFile::toml(
        "backend = \"epp\"\n[epp]\ntarget_file = \"t.json\"\n[[epp.engines]]\nname = \"acme\"\n\
         base = \"vllm\"\n",
    );
    assert_eq!(before.loader().load().unwrap().config.engines.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn parts_of_ones_own_are_put_into_what_is_configured() {
    let config = Loader::new().env(variables(&[URL])).load().unwrap().config;
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
    let backend = FakeBackend::new(Arc::clone(&clock));
    let model = ModelRef::new("org/m", "prod");
    backend.serve_pods(&model, &["m-0"]);
    let own =
        ConfigFile::toml("[[variants]]\nname = \"own\"\nnamespace = \"prod\"\nmodel = \"org/m\"\n");
    let own = own.loader().env(variables(&[URL])).load().unwrap().config.variants;
    let builder = config.builder_over(vec![Arc::new(backend)], clock).unwrap();
    let collector =
        builder.directory(Arc::new(StaticDirectory::new(own).unwrap())).build().unwrap();
    let reading = collector.collect_allocation(&model, &"own".into()).await.unwrap();
    assert_eq!(reading.value().num_replicas, 1);
}
