// SPDX-License-Identifier: Apache-2.0
//! The fleet on loopback, in step with the machine's clock.
//!
//! Each pod has its own listener, as in a cluster: a dead pod refuses connections, and each pod is a target
//! with its own address. A pod's page is computed when it is requested.

mod answer;
mod clock;
mod control;
mod error;
mod faults;
mod listener;
mod open_files;
mod targets;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::fleet::{Fleet, FleetError};
use crate::load::Load;
use crate::spec::FleetSpec;
use crate::truth::{Gauges, ModelTruth, PodTruth, VariantTruth};
use clock::SimClock;
pub use control::ControlServer;
pub use error::ServeError;
pub use faults::{BodyFault, Faults, TransferFault, ValueFault};
use listener::{Listener, PodPages};
pub use targets::{PodLabel, Target};

/// A fleet whose pods answer on loopback.
///
/// It needs a tokio runtime to start in, and answers only while that runtime runs: a test that blocks its
/// thread needs a multi-threaded one. Dropping it closes all listeners and connections; [`stop`](Self::stop)
/// also waits for their end.
#[derive(Debug)]
pub struct FleetServer {
    live: Arc<LiveFleet>,
    pods: Mutex<BTreeMap<PodKey, ServedPod>>,
    target_files: Mutex<Vec<(PathBuf, PodLabel)>>,
    /// The port of the next pod; `None` for any free one.
    next_port: Mutex<Option<u16>>,
    /// Serialises changes of the pods: opening and closing a listener takes a while.
    changes: tokio::sync::Mutex<()>,
}

/// Namespace and name.
type PodKey = (String, String);

#[derive(Debug)]
struct ServedPod {
    pages: Arc<PodPages>,
    address: SocketAddr,
    /// `None` while the pod is dead or has vanished.
    listener: Option<Listener>,
}

/// A fleet that follows a clock.
#[derive(Debug)]
struct LiveFleet {
    state: Mutex<(Fleet, SimClock)>,
}

impl LiveFleet {
    /// Calls a closure with the current fleet. No lock is held afterwards.
    fn with<T>(&self, work: impl FnOnce(&mut Fleet) -> T) -> T {
        let mut state = lock(&self.state);
        let (fleet, clock) = &mut *state;
        fleet.advance_to(clock.now());
        work(fleet)
    }
}

/// A panic in one test's closure must not hide the fleet from other tests.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FleetServer {
    /// Starts all pods of the described fleet on free loopback ports.
    ///
    /// # Errors
    /// If the description is invalid, or a listener cannot be opened: each pod needs a file descriptor, and
    /// one more for each connection to it. The process's soft limit is raised for them, as far as the hard
    /// limit allows.
    pub async fn start(spec: FleetSpec) -> Result<Self, ServeError> {
        Self::start_from_port(spec, None).await
    }

    /// Starts the fleet on consecutive ports from the given one on: first the pods of the variants as
    /// described, then those of the pickers, then added ones.
    ///
    /// # Errors
    /// As [`start`](Self::start), or if one of these ports is in use.
    pub async fn start_from_port(spec: FleetSpec, port: Option<u16>) -> Result<Self, ServeError> {
        let fleet = Fleet::new(spec, clock::wall())?;
        let of_variants =
            fleet.pods().map(|(namespace, pod)| (namespace.to_owned(), pod.to_owned()));
        let of_pickers = fleet.pickers().map(|(namespace, pod)| (namespace.to_owned(), pod));
        let pods: Vec<PodKey> = of_variants.chain(of_pickers).collect();
        let clock = SimClock::starting_at(fleet.now());
        let server = Self {
            live: Arc::new(LiveFleet { state: Mutex::new((fleet, clock)) }),
            pods: Mutex::default(),
            target_files: Mutex::default(),
            next_port: Mutex::new(port),
            changes: tokio::sync::Mutex::default(),
        };
        open_files::make_room_for(pods.len());
        for pod in pods {
            server.serve_new_pod(pod).await?;
        }
        Ok(server)
    }

    async fn serve_new_pod(&self, key: PodKey) -> Result<Target, ServeError> {
        let port = match &mut *lock(&self.next_port) {
            None => 0,
            // Port 0 comes after the last one.
            Some(0) => return Err(ServeError::NoPort { pod: key.1 }),
            Some(next) => {
                let port = *next;
                *next = port.wrapping_add(1);
                port
            }
        };
        let pages = Arc::new(PodPages::new(Arc::clone(&self.live), key.clone()));
        let listener = open(&pages, SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
        let address = listener.address();
        let target = Target { address, namespace: key.0.clone(), pod: key.1.clone() };
        lock(&self.pods).insert(key, ServedPod { pages, address, listener: Some(listener) });
        Ok(target)
    }

    /// Opens or closes a pod's listener, depending on whether the pod is alive and has not vanished.
    ///
    /// # Cancel safety
    /// A listener that is being closed closes anyway. Opening one on loopback never waits, so it is not left
    /// half done.
    async fn settle(&self, key: &PodKey) -> Result<(), ServeError> {
        let alive = self.live.with(|fleet| fleet.is_alive(&key.0, &key.1));
        let (closed, opened) = {
            let mut pods = lock(&self.pods);
            let Some(served) = pods.get_mut(key) else { return Ok(()) };
            let listens = alive && !served.pages.faults().vanish;
            let closed = if listens { None } else { served.listener.take() };
            let opens = listens && served.listener.is_none();
            (closed, opens.then(|| (Arc::clone(&served.pages), served.address)))
        };
        if let Some(listener) = closed {
            let _ = listener.stop().await;
        }
        if let Some((pages, address)) = opened {
            let listener = open(&pages, address).await?;
            if let Some(served) = lock(&self.pods).get_mut(key) {
                served.listener = Some(listener);
            }
        }
        Ok(())
    }

    /// Sets the faults of a pod of a variant or a picker. Requests that already hang or drip continue to do
    /// so.
    ///
    /// # Errors
    /// If there is no such pod, the faults are invalid, or the address of a pod that had vanished was taken
    /// by another program.
    pub async fn set_faults(
        &self,
        namespace: &str,
        pod: &str,
        faults: Faults,
    ) -> Result<(), ServeError> {
        faults.check().map_err(ServeError::BadFaults)?;
        let _one = self.changes.lock().await;
        let key = (namespace.to_owned(), pod.to_owned());
        let pages = lock(&self.pods).get(&key).map(|served| Arc::clone(&served.pages));
        let pages = pages.ok_or_else(|| FleetError::NoSuchPod {
            namespace: namespace.into(),
            pod: pod.into(),
        })?;
        pages.set_faults(faults);
        self.settle(&key).await
    }

    /// Sets the faults of every pod.
    ///
    /// # Errors
    /// As for one pod.
    pub async fn set_all_faults(&self, faults: &Faults) -> Result<(), ServeError> {
        faults.check().map_err(ServeError::BadFaults)?;
        let _one = self.changes.lock().await;
        let keys: Vec<PodKey> = lock(&self.pods).keys().cloned().collect();
        for key in keys {
            if let Some(served) = lock(&self.pods).get(&key) {
                served.pages.set_faults(faults.clone());
            }
            self.settle(&key).await?;
        }
        Ok(())
    }

    /// Returns the faults of a pod; `None` if there is no such pod.
    pub fn faults(&self, namespace: &str, pod: &str) -> Option<Faults> {
        let key = (namespace.to_owned(), pod.to_owned());
        lock(&self.pods).get(&key).map(|served| Faults::clone(&served.pages.faults()))
    }

    /// Returns the targets, including dead pods, sorted by namespace and name.
    pub fn targets(&self) -> Vec<Target> {
        lock(&self.pods)
            .iter()
            .map(|((namespace, pod), served)| Target {
                address: served.address,
                namespace: namespace.clone(),
                pod: pod.clone(),
            })
            .collect()
    }

    /// Writes the targets as a file for Prometheus' `file_sd_configs`, now and whenever a pod is added or
    /// deleted. The file is replaced atomically.
    ///
    /// # Errors
    /// If the file cannot be written.
    /// When the file cannot be written.
    pub fn write_targets_to(&self, path: &Path, label: PodLabel) -> Result<(), ServeError> {
        targets::write(path, label, &self.targets())
            .map_err(|source| ServeError::Targets { path: path.to_owned(), source })?;
        lock(&self.target_files).push((path.to_owned(), label));
        Ok(())
    }

    fn rewrite_targets(&self) -> Result<(), ServeError> {
        let targets = self.targets();
        for (path, label) in &*lock(&self.target_files) {
            targets::write(path, *label, &targets)
                .map_err(|source| ServeError::Targets { path: path.clone(), source })?;
        }
        Ok(())
    }

    /// Returns the true state of a pod; `None` if no such pod is alive. Pinned gauges are true.
    pub fn truth(&self, namespace: &str, pod: &str) -> Option<PodTruth> {
        self.live.with(|fleet| fleet.truth(namespace, pod))
    }

    /// Returns the true state of a model over all variants that serve it in the namespace; `None` if there is
    /// none.
    pub fn model_truth(&self, namespace: &str, model: &str) -> Option<ModelTruth> {
        self.live.with(|fleet| fleet.model_truth(namespace, model))
    }

    /// Returns the true state of every variant.
    pub fn variants(&self) -> Vec<VariantTruth> {
        self.live.with(Fleet::variants)
    }

    /// Returns the simulated time, the true state of every variant at that time, and the pickers' pods.
    fn full_truth(&self) -> (Duration, Vec<VariantTruth>, Vec<PodKey>) {
        self.live.with(|fleet| {
            let pickers = fleet.pickers().map(|(namespace, pod)| (namespace.to_owned(), pod));
            let pickers = pickers.collect();
            (fleet.now(), fleet.variants(), pickers)
        })
    }

    /// Returns the times of a pod's last scrapes, oldest first: the instants for which its pages were
    /// computed. At most the last 16; empty if there is no such pod.
    pub fn scrapes(&self, namespace: &str, pod: &str) -> Vec<Instant> {
        lock(&self.pods)
            .get(&(namespace.to_owned(), pod.to_owned()))
            .map(|served| served.pages.scrapes())
            .unwrap_or_default()
    }

    /// Stops the time of the whole fleet: gauges and counters do not change, and pods continue to answer.
    pub fn freeze(&self) {
        lock(&self.live.state).1.freeze();
    }

    /// Continues the time after [`freeze`](Self::freeze).
    pub fn unfreeze(&self) {
        lock(&self.live.state).1.unfreeze();
    }

    /// Makes one engine of a pod show these gauges, whatever its state, until [`unpin`](Self::unpin).
    ///
    /// # Errors
    /// If there is no such pod or engine.
    pub fn pin(
        &self,
        namespace: &str,
        pod: &str,
        engine: usize,
        gauges: Gauges,
    ) -> Result<(), FleetError> {
        self.live.with(|fleet| fleet.pin(namespace, pod, engine, gauges))
    }

    /// Makes a pod show its own gauges again.
    ///
    /// # Errors
    /// If there is no such pod.
    pub fn unpin(&self, namespace: &str, pod: &str) -> Result<(), FleetError> {
        self.live.with(|fleet| fleet.unpin(namespace, pod))
    }

    /// Changes the request rate of a variant.
    ///
    /// # Errors
    /// If there is no such variant, or the rate cannot be simulated.
    pub fn set_requests_per_minute(
        &self,
        namespace: &str,
        variant: &str,
        requests_per_minute: f64,
    ) -> Result<(), FleetError> {
        self.live
            .with(|fleet| fleet.set_requests_per_minute(namespace, variant, requests_per_minute))
    }

    /// Returns the described load of a variant.
    ///
    /// # Errors
    /// If there is no such variant.
    pub fn load(&self, namespace: &str, variant: &str) -> Result<Load, FleetError> {
        self.live.with(|fleet| fleet.load(namespace, variant))
    }

    /// Changes the load of a variant; its shape starts now.
    ///
    /// # Errors
    /// If there is no such variant, or its pods cannot be under such a load.
    pub fn set_load(&self, namespace: &str, variant: &str, load: Load) -> Result<(), FleetError> {
        self.live.with(|fleet| fleet.set_load(namespace, variant, load))
    }

    /// Adds a pod to a variant. It answers, and takes its share of the load, at once.
    ///
    /// # Errors
    /// If there is no such variant, no listener can be opened, or a targets file cannot be written.
    pub async fn add_pod(&self, namespace: &str, variant: &str) -> Result<Target, ServeError> {
        let _one = self.changes.lock().await;
        let pod = self.live.with(|fleet| fleet.add_pod(namespace, variant))?;
        open_files::make_room_for(lock(&self.pods).len() + 1);
        let served = self.serve_new_pod((namespace.to_owned(), pod.clone())).await;
        if served.is_err() {
            // An unreachable pod must not take a share of the load.
            self.live.with(|fleet| fleet.delete_pod(namespace, &pod))?;
        }
        let target = served?;
        self.rewrite_targets()?;
        Ok(target)
    }

    /// Kills a pod: its requests are lost, its open connections end and, when this returns, it refuses new
    /// ones. It stays a target until it is deleted, like a crashed pod.
    ///
    /// # Errors
    /// If there is no such pod.
    pub async fn kill_pod(&self, namespace: &str, pod: &str) -> Result<(), FleetError> {
        let _one = self.changes.lock().await;
        self.live.with(|fleet| fleet.kill_pod(namespace, pod))?;
        // Only opening a listener can fail.
        let _ = self.settle(&(namespace.to_owned(), pod.to_owned())).await;
        Ok(())
    }

    /// Replaces a pod's process, alive or dead, by a new one on the same address, whose counters start at
    /// zero.
    ///
    /// # Errors
    /// If there is no such pod, or the address of a dead pod was taken by another program.
    pub async fn restart_pod(&self, namespace: &str, pod: &str) -> Result<(), ServeError> {
        let _one = self.changes.lock().await;
        self.live.with(|fleet| fleet.restart_pod(namespace, pod))?;
        self.settle(&(namespace.to_owned(), pod.to_owned())).await
    }

    /// Removes a pod: as [`kill_pod`](Self::kill_pod), and it is no longer a target.
    ///
    /// # Errors
    /// If there is no such pod, or a targets file cannot be written.
    pub async fn delete_pod(&self, namespace: &str, pod: &str) -> Result<(), ServeError> {
        let _one = self.changes.lock().await;
        self.live.with(|fleet| fleet.delete_pod(namespace, pod))?;
        let served = lock(&self.pods).remove(&(namespace.to_owned(), pod.to_owned()));
        if let Some(listener) = served.and_then(|served| served.listener) {
            let _ = listener.stop().await;
        }
        self.rewrite_targets()
    }

    /// Closes all listeners and connections, and returns when they are closed. No pod can be reached
    /// afterwards.
    pub async fn stop(&self) {
        let pods = std::mem::take(&mut *lock(&self.pods));
        let listeners = pods.into_values().filter_map(|served| served.listener);
        // All are notified before any is awaited.
        let ending: Vec<_> = listeners.map(Listener::stop).collect();
        for listener in ending {
            let _ = listener.await;
        }
    }
}

async fn open(pages: &Arc<PodPages>, address: SocketAddr) -> Result<Listener, ServeError> {
    Listener::open(Arc::clone(pages), address).await.map_err(|source| ServeError::Listen {
        pod: pages.pod().to_owned(),
        address,
        source,
    })
}
