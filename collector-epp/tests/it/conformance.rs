//! The promises of every backend, kept by this one on a simulated fleet.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use collector_core::{Backend as _, Clock, KnownModel, ListAsk, SystemClock};
use collector_epp::discover::TargetSpec;
use collector_epp::{EppBackend, EppConfig};
use collector_sim::{Faults, FleetServer, FleetSpec, VariantSpec};
use collector_testkit::conformance::{
    self, BreakableServer, Breakage, Fleet, FleetModel, FleetPod,
};

use crate::world::in_prod;

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
        let pods = |name: &str, count: u32| {
            let name = name.to_owned();
            (0..count).map(move |i| FleetPod::new(format!("{name}-{i}").as_str()))
        };
        vec![
            FleetModel::new(in_prod("org/a"), pods("a", 2)),
            FleetModel::new(in_prod("org/b"), pods("b", 3)),
        ]
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
