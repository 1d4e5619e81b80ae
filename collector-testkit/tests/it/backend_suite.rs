// SPDX-License-Identifier: Apache-2.0
//! The backend suite on the fake backend.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use collector_core::{Clock, ErrorKind, ModelRef, Supports};
use collector_testkit::conformance::{
    self, BreakableServer, Breakage, Fleet, FleetModel, FleetPod,
};
use collector_testkit::{FakeBackend, TokioClock};

struct FakeFleet {
    clock: Arc<TokioClock>,
    backend: FakeBackend,
}

fn idle() -> ModelRef {
    ModelRef::new("org/idle", "prod")
}

fn busy() -> ModelRef {
    ModelRef::new("org/busy", "prod")
}

impl FakeFleet {
    fn new(supports: Supports) -> Self {
        let clock = Arc::new(TokioClock::new());
        let backend = FakeBackend::new(Arc::<TokioClock>::clone(&clock)).supporting(supports);
        let fleet = Self { clock, backend };
        fleet.serve();
        fleet
    }

    fn serve(&self) {
        self.backend.serve_pods(&busy(), &["busy-0", "busy-1"]);
        self.backend.serve_pods(&idle(), &[]);
    }
}

#[async_trait]
impl Fleet for FakeFleet {
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::<TokioClock>::clone(&self.clock)
    }

    fn models(&self) -> Vec<FleetModel> {
        let none: [FleetPod; 0] = [];
        vec![FleetModel::new(busy(), ["busy-1", "busy-0"]), FleetModel::new(idle(), none)]
    }

    fn breakable(&self) -> Option<&dyn BreakableServer> {
        Some(self)
    }
}

#[async_trait]
impl BreakableServer for FakeFleet {
    async fn break_down(&self, how: &Breakage) -> bool {
        let kind = match how {
            Breakage::Down => ErrorKind::Connect,
            Breakage::Unauthorized => ErrorKind::Unauthorized,
            Breakage::RateLimited => ErrorKind::RateLimited,
            _ => return false,
        };
        self.backend.fail(kind);
        // What it pushes knows no failure but that of a model.
        self.backend.fail_model(&busy(), kind);
        self.backend.fail_model(&idle(), kind);
        true
    }

    async fn restore(&self) {
        self.backend.restore();
        self.serve();
    }
}

#[tokio::test(start_paused = true)]
async fn the_fake_backend_conforms() {
    let fleet = FakeFleet::new(Supports::ALL);
    conformance::backend(&fleet.backend.clone().requests_per_fetch(3), &fleet).await;
}

#[tokio::test(start_paused = true)]
async fn a_fake_backend_that_pushes_conforms() {
    let fleet = FakeFleet::new(Supports::ALL);
    let backend = fleet.backend.clone().pushing();
    let pushes = async {
        loop {
            backend.push_tracked();
            backend.end_cycle();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        () = pushes => {}
        () = conformance::backend(&backend, &fleet) => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_of_replicas_alone_conforms() {
    let fleet = FakeFleet::new(Supports::REPLICAS_ONLY);
    conformance::backend(&fleet.backend, &fleet).await;
}
