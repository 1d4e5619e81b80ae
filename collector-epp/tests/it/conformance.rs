// SPDX-License-Identifier: Apache-2.0
//! The promises of every backend, kept by this one on a simulated fleet.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use collector_core::{Backend as _, Clock, KnownModel, ListAsk, ReplicaMetrics, SystemClock, Tick};
use collector_epp::discover::TargetSpec;
use collector_epp::{EppBackend, EppConfig};
use collector_sim::{Faults, FleetServer, FleetSpec, Gauges, VariantSpec};
use collector_testkit::conformance::{
    self, BreakableServer, Breakage, Fleet, FleetModel, FleetPod,
};

use crate::world::in_prod;

/// Each pod of a variant, by its number.
fn gauges(number: u32) -> Gauges {
    let kv_cache_usage = 0.25 * f64::from(number + 1);
    Gauges { waiting: 3 + number, running: 7 + number, kv_cache_usage }
}

struct Conforming {
    fleet: FleetServer,
    clock: Arc<SystemClock>,
}

impl Conforming {
    async fn start() -> (Self, EppBackend) {
        let variant = |name: &str, model: &str, pods| VariantSpec {
            pods,
            ..VariantSpec::new(name, model, "prod")
        };
        let variants = vec![variant("a", "org/a", 2), variant("b", "org/b", 3)];
        let fleet =
            FleetServer::start(FleetSpec { variants, ..FleetSpec::default() }).await.unwrap();
        for target in fleet.targets() {
            let number = target.pod.rsplit('-').next().unwrap().parse().unwrap();
            fleet.pin("prod", &target.pod, 0, gauges(number)).unwrap();
        }
        let clock = Arc::new(SystemClock::new());
        let target = |target: collector_sim::Target| TargetSpec {
            url: format!("http://{}/metrics", target.address),
            namespace: target.namespace,
            pod: Some(target.pod),
            ..TargetSpec::default()
        };
        let config = EppConfig {
            targets: fleet.targets().into_iter().map(target).collect(),
            // Looks scrape twice; a busy machine must manage within nine tenths of it.
            scrape_interval: Duration::from_millis(500),
            ..EppConfig::default()
        };
        let backend = EppBackend::new(config, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        (Self { fleet, clock }, backend)
    }
}

#[async_trait]
impl Fleet for Conforming {
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::<SystemClock>::clone(&self.clock)
    }

    fn models(&self) -> Vec<FleetModel> {
        let pod = |name: &str, number| {
            let mut row = ReplicaMetrics::new(format!("{name}-{number}").as_str(), Tick::MIN);
            let gauges = gauges(number);
            row.queue_length = Some(gauges.waiting.into());
            row.running_requests = Some(gauges.running.into());
            row.kv_cache_usage = Some(gauges.kv_cache_usage);
            FleetPod::from(row)
        };
        vec![
            FleetModel::new(in_prod("org/a"), (0..2).map(|number| pod("a", number))),
            FleetModel::new(in_prod("org/b"), (0..3).map(|number| pod("b", number))),
        ]
    }

    fn ages(&self) -> RangeInclusive<Duration> {
        Duration::ZERO..=Duration::from_secs(30)
    }

    fn breakable(&self) -> Option<&dyn BreakableServer> {
        Some(self)
    }
}

#[async_trait]
impl BreakableServer for Conforming {
    async fn break_down(&self, how: &Breakage) -> bool {
        let mut faults = Faults::default();
        match how {
            Breakage::Down => {
                for target in self.fleet.targets() {
                    self.fleet.kill_pod(&target.namespace, &target.pod).await.unwrap();
                }
            }
            Breakage::Pod(model, pod) => {
                self.fleet.kill_pod(model.namespace.as_str(), pod.as_str()).await.unwrap();
            }
            Breakage::Stall => faults.hang = true,
            Breakage::Unauthorized => faults.status = Some(401),
            Breakage::RateLimited => faults.status = Some(429),
            _ => return false,
        }
        if faults != Faults::default() {
            self.fleet.set_all_faults(&faults).await.unwrap();
        }
        true
    }

    async fn restore(&self) {
        self.fleet.set_all_faults(&Faults::default()).await.unwrap();
        for target in self.fleet.targets() {
            self.fleet.restart_pod(&target.namespace, &target.pod).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_backend_conforms() {
    let (conforming, backend) = Conforming::start().await;
    let known = backend.list_models(ListAsk::new(&SystemClock::new())).await.unwrap();
    assert_eq!(known[0], KnownModel::new(in_prod("org/a"), Some(2)));
    conformance::backend(&backend, &conforming).await;
}
