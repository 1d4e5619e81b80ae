//! The fleet on loopback, in step with the machine's clock.
//!
//! Each pod has a listener of its own, as it has in a cluster: a dead pod refuses connections, and
//! each pod is a target with its own address. What a pod shows is computed when it is asked.

mod clock;
mod listener;
mod open_files;
mod targets;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::fleet::{Fleet, FleetError};
use crate::spec::{FleetSpec, SpecError};
use crate::truth::{Gauges, ModelTruth, PodTruth};
use clock::SimClock;
use listener::{Listener, PodPages};
pub use targets::{PodLabel, Target};

/// A fleet whose pods answer on loopback.
///
/// It needs a tokio runtime to start in, and answers only while that runtime runs: in a test that
/// blocks its thread, use a multi-threaded one. Dropping it ends all listeners and connections;
/// [`stop`](Self::stop) also waits for their end.
#[derive(Debug)]
pub struct FleetServer {
    live: Arc<LiveFleet>,
    pods: Mutex<BTreeMap<PodKey, ServedPod>>,
    target_files: Mutex<Vec<(PathBuf, PodLabel)>>,
}

/// Namespace and name.
type PodKey = (String, String);

#[derive(Debug)]
struct ServedPod {
    pages: Arc<PodPages>,
    address: SocketAddr,
    /// `None` while the pod is dead.
    listener: Option<Listener>,
}

/// A fleet that follows a clock.
#[derive(Debug)]
struct LiveFleet {
    state: Mutex<(Fleet, SimClock)>,
}

impl LiveFleet {
    /// Does something with the fleet as it is now. No lock is held afterwards.
    fn with<T>(&self, work: impl FnOnce(&mut Fleet) -> T) -> T {
        let mut state = lock(&self.state);
        let (fleet, clock) = &mut *state;
        fleet.advance_to(clock.now());
        work(fleet)
    }
}

/// A panic in one test's closure must not hide the fleet from the others.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a fleet could not be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The description is impossible.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// What was asked for is not in the fleet.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// A pod's listener could not be opened.
    #[error("cannot listen on {address} for pod {pod:?}: {source}")]
    Listen {
        /// The pod.
        pod: String,
        /// Where it was to listen; port 0 means any free one.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A targets file could not be written.
    #[error("cannot write the targets file {}: {source}", path.display())]
    Targets {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl FleetServer {
    /// Starts all pods of the described fleet on free loopback ports.
    ///
    /// # Errors
    /// When the description is impossible, or a listener cannot be opened: each pod needs an open
    /// file, and another for each connection to it. The process's soft limit is raised for them,
    /// as far as the hard limit allows.
    pub async fn start(spec: FleetSpec) -> Result<Self, ServeError> {
        let fleet = Fleet::new(spec, clock::wall())?;
        let pods: Vec<PodKey> =
            fleet.pods().map(|(namespace, pod)| (namespace.to_owned(), pod.to_owned())).collect();
        let clock = SimClock::starting_at(fleet.now());
        let server = Self {
            live: Arc::new(LiveFleet { state: Mutex::new((fleet, clock)) }),
            pods: Mutex::default(),
            target_files: Mutex::default(),
        };
        open_files::make_room_for(pods.len());
        for pod in pods {
            server.serve_new_pod(pod).await?;
        }
        Ok(server)
    }

    async fn serve_new_pod(&self, key: PodKey) -> Result<Target, ServeError> {
        let pages = Arc::new(PodPages::new(Arc::clone(&self.live), key.clone()));
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = open(&pages, any_port).await?;
        let address = listener.address();
        let target = Target { address, namespace: key.0.clone(), pod: key.1.clone() };
        lock(&self.pods).insert(key, ServedPod { pages, address, listener: Some(listener) });
        Ok(target)
    }

    /// Where the pods are, dead ones included, sorted by namespace and name.
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

    /// Writes the targets as a file for Prometheus' `file_sd_configs`, now and again whenever a
    /// pod is added or deleted. The file is replaced in one step, so that it is never seen half
    /// written.
    ///
    /// # Errors
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

    /// What is true of a pod now; `None` when no such pod is alive. Pinned gauges are true.
    pub fn truth(&self, namespace: &str, pod: &str) -> Option<PodTruth> {
        self.live.with(|fleet| fleet.truth(namespace, pod))
    }

    /// What is true of a model now, over all variants that serve it in the namespace; `None` when
    /// there is none.
    pub fn model_truth(&self, namespace: &str, model: &str) -> Option<ModelTruth> {
        self.live.with(|fleet| fleet.model_truth(namespace, model))
    }

    /// When a pod was last scraped, oldest first: the instants at which the pages shown were
    /// computed. At most the last 16; empty when there is no such pod.
    pub fn scrapes(&self, namespace: &str, pod: &str) -> Vec<Instant> {
        lock(&self.pods)
            .get(&(namespace.to_owned(), pod.to_owned()))
            .map(|served| served.pages.scrapes())
            .unwrap_or_default()
    }

    /// Stops the time of the whole fleet: gauges and counters stand still, pods go on answering.
    pub fn freeze(&self) {
        lock(&self.live.state).1.freeze();
    }

    /// Lets the time go on from where it was frozen.
    pub fn unfreeze(&self) {
        lock(&self.live.state).1.unfreeze();
    }

    /// Lets one engine of a pod show these gauges, whatever it does underneath, until
    /// [`unpin`](Self::unpin).
    ///
    /// # Errors
    /// When there is no such pod or engine.
    pub fn pin(
        &self,
        namespace: &str,
        pod: &str,
        engine: usize,
        gauges: Gauges,
    ) -> Result<(), FleetError> {
        self.live.with(|fleet| fleet.pin(namespace, pod, engine, gauges))
    }

    /// Lets a pod show its own gauges again.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn unpin(&self, namespace: &str, pod: &str) -> Result<(), FleetError> {
        self.live.with(|fleet| fleet.unpin(namespace, pod))
    }

    /// From now on requests come to a variant at another rate.
    ///
    /// # Errors
    /// When there is no such variant, or the rate cannot be simulated.
    pub fn set_requests_per_minute(
        &self,
        namespace: &str,
        variant: &str,
        requests_per_minute: f64,
    ) -> Result<(), FleetError> {
        self.live
            .with(|fleet| fleet.set_requests_per_minute(namespace, variant, requests_per_minute))
    }

    /// Adds a pod to a variant; it answers, and takes its share of the load, at once.
    ///
    /// # Errors
    /// When there is no such variant, no listener can be opened or a targets file not written.
    pub async fn add_pod(&self, namespace: &str, variant: &str) -> Result<Target, ServeError> {
        let pod = self.live.with(|fleet| fleet.add_pod(namespace, variant))?;
        open_files::make_room_for(lock(&self.pods).len() + 1);
        let served = self.serve_new_pod((namespace.to_owned(), pod.clone())).await;
        if served.is_err() {
            // A pod that nobody can reach must not take a share of the load.
            self.live.with(|fleet| fleet.delete_pod(namespace, &pod))?;
        }
        let target = served?;
        self.rewrite_targets()?;
        Ok(target)
    }

    /// A pod dies: its requests are lost, its open connections end and, when this returns, it
    /// refuses new ones. It stays a target until it is deleted, as a crashed pod does.
    ///
    /// # Errors
    /// When there is no such pod.
    pub async fn kill_pod(&self, namespace: &str, pod: &str) -> Result<(), FleetError> {
        self.live.with(|fleet| fleet.kill_pod(namespace, pod))?;
        let key = (namespace.to_owned(), pod.to_owned());
        let listener = lock(&self.pods).get_mut(&key).and_then(|served| served.listener.take());
        if let Some(listener) = listener {
            listener.stop().await;
        }
        Ok(())
    }

    /// A pod's process, alive or dead, is replaced by a new one on the same address, whose
    /// counters begin at zero.
    ///
    /// # Errors
    /// When there is no such pod, or the address of a dead pod has been taken by another program.
    pub async fn restart_pod(&self, namespace: &str, pod: &str) -> Result<(), ServeError> {
        self.live.with(|fleet| fleet.restart_pod(namespace, pod))?;
        let key = (namespace.to_owned(), pod.to_owned());
        let dead = lock(&self.pods)
            .get(&key)
            .filter(|served| served.listener.is_none())
            .map(|served| (Arc::clone(&served.pages), served.address));
        if let Some((pages, address)) = dead {
            let listener = open(&pages, address).await?;
            if let Some(served) = lock(&self.pods).get_mut(&key) {
                served.listener = Some(listener);
            }
        }
        Ok(())
    }

    /// A pod goes for good: as [`kill_pod`](Self::kill_pod), and it is no longer a target.
    ///
    /// # Errors
    /// When there is no such pod, or a targets file cannot be written.
    pub async fn delete_pod(&self, namespace: &str, pod: &str) -> Result<(), ServeError> {
        self.live.with(|fleet| fleet.delete_pod(namespace, pod))?;
        let served = lock(&self.pods).remove(&(namespace.to_owned(), pod.to_owned()));
        if let Some(listener) = served.and_then(|served| served.listener) {
            listener.stop().await;
        }
        self.rewrite_targets()
    }

    /// Ends all listeners and connections, and returns when they have ended.
    pub async fn stop(self) {
        let pods = std::mem::take(&mut *lock(&self.pods));
        for listener in pods.into_values().filter_map(|served| served.listener) {
            listener.stop().await;
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
