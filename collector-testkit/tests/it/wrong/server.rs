// SPDX-License-Identifier: Apache-2.0
//! A server in memory that counts its requests and can be broken.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use collector_core::{Clock, ErrorKind, Field, LoadRates, ModelRef, PodName, ReplicaMetrics, Tick};
use collector_testkit::TokioClock;
use collector_testkit::conformance::{BreakableServer, Breakage, Fleet, FleetModel, FleetPod};

/// How old the values are when they are fetched.
pub(crate) const AGE: Duration = Duration::from_secs(2);

pub(crate) const SECRET: &str = "s3cr3t-token";

pub(crate) struct Server {
    pub(crate) clock: Arc<TokioClock>,
    requests: AtomicU64,
    broken: Mutex<Option<Breakage>>,
}

/// What the server answers.
pub(crate) struct Reply {
    pub(crate) models: BTreeMap<ModelRef, Vec<FleetPod>>,
    /// Of these the server does not answer.
    pub(crate) broken_field: Option<Field>,
    pub(crate) hidden: Option<(ModelRef, PodName)>,
}

/// What the server says when it does not answer.
pub(crate) struct Refusal(pub(crate) ErrorKind, pub(crate) String);

pub(crate) fn busy() -> ModelRef {
    ModelRef::new("Org/busy-8b", "prod")
}

fn pod(name: &str, scale: u32, hit_rate: Option<f64>) -> FleetPod {
    let mut row = ReplicaMetrics::new(name, Tick::MIN);
    let times = f64::from(scale);
    row.kv_cache_usage = Some(0.25 * times);
    row.queue_length = Some(3 * u64::from(scale));
    row.running_requests = Some(7 * u64::from(scale));
    row.num_gpu_blocks = Some(1000);
    row.block_size = Some(16);
    row.prefix_cache_hit_rate = hit_rate;
    let rates = [0.5, 50.0, 10.0, 0.1, 0.4, 0.2, 9.0];
    let load = LoadRates::from(rates.map(|rate| Some(rate * times)));
    let pod = FleetPod::from(row).with_load(load);
    if hit_rate.is_none() { pod.without([Field::PrefixCacheHitRate]) } else { pod }
}

fn models() -> Vec<FleetModel> {
    let none: [FleetPod; 0] = [];
    vec![
        FleetModel::new(busy(), [pod("busy-0", 1, Some(0.6)), pod("busy-1", 2, None)]),
        FleetModel::new(ModelRef::new("Org/idle", "prod"), none),
        FleetModel::new(ModelRef::new("Org/busy-8b", "dev"), [pod("dev-0", 1, Some(0.1))]),
    ]
}

impl Server {
    pub(crate) fn new() -> Self {
        Self {
            clock: Arc::new(TokioClock::new()),
            requests: AtomicU64::new(0),
            broken: Mutex::new(None),
        }
    }

    /// One request.
    pub(crate) async fn answer(&self) -> Result<Reply, Refusal> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(5)).await;
        let broken = self.broken.lock().unwrap().clone();
        let mut reply = Reply {
            models: models().into_iter().map(|known| (known.model, known.pods)).collect(),
            broken_field: None,
            hidden: None,
        };
        match broken {
            Some(Breakage::Down) => {
                let text = format!("\u{1b}[31mpanic in handler\r\n authorization: Bearer {SECRET}");
                return Err(Refusal(ErrorKind::ServerError, text));
            }
            Some(Breakage::Stall) => std::future::pending().await,
            Some(Breakage::Unauthorized) => {
                return Err(Refusal(ErrorKind::Unauthorized, "who are you?".to_owned()));
            }
            Some(Breakage::RateLimited) => {
                return Err(Refusal(ErrorKind::RateLimited, "slow down".to_owned()));
            }
            Some(Breakage::Field(field)) => reply.broken_field = Some(field),
            Some(Breakage::Pod(model, pod)) => {
                let pods = reply.models.get_mut(&model).unwrap();
                pods.retain(|known| known.row.pod_name != pod);
                reply.hidden = Some((model, pod));
            }
            _ => {}
        }
        Ok(reply)
    }
}

#[async_trait]
impl Fleet for Server {
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::<TokioClock>::clone(&self.clock)
    }

    fn models(&self) -> Vec<FleetModel> {
        models()
    }

    fn ages(&self) -> RangeInclusive<Duration> {
        AGE..=AGE * 10
    }

    fn requests(&self) -> Option<u64> {
        Some(self.requests.load(Ordering::SeqCst))
    }

    fn secrets(&self) -> Vec<String> {
        vec![SECRET.to_owned()]
    }

    fn breakable(&self) -> Option<&dyn BreakableServer> {
        Some(self)
    }
}

#[async_trait]
impl BreakableServer for Server {
    async fn break_down(&self, how: &Breakage) -> bool {
        *self.broken.lock().unwrap() = Some(how.clone());
        true
    }

    async fn restore(&self) {
        *self.broken.lock().unwrap() = None;
    }
}
