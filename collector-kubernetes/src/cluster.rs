// SPDX-License-Identifier: Apache-2.0
//! A cluster: one connection and one set of watches, from which its directory and its backend answer.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use collector_core::{Clock, ModelRef, Namespace};
use kube::Client;
use tokio::sync::{Semaphore, watch};

use crate::client::{ClientError, ClusterConfig, Connection};
use crate::conditions::Condition;
use crate::directory::ClusterDirectory;
use crate::kind::Kind;
use crate::pages::{ClusterPages, PageSource};
use crate::selfmetrics;
use crate::store::Store;
use crate::watch::Watch;
use crate::watches::WatchId;

/// A cluster as its API server tells of it: a [`Backend`](collector_core::Backend) whose samples have a supply and
/// nothing else, and a [directory](Self::directory) of its variants.
///
/// While its [`LiveSource`](collector_core::LiveSource) runs, it watches. Without it, a fetch lists all objects. Clones
/// are the same cluster.
#[derive(Clone)]
pub struct Cluster {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) store: Arc<Store>,
    pub(crate) connection: Arc<Connection>,
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) pages: Option<PageSource>,
    tracked: watch::Sender<Arc<HashSet<ModelRef>>>,
    /// The number of the client that the store's lists are of.
    begun_with: AtomicU64,
    /// Whether the live source runs.
    pub(crate) is_live: AtomicBool,
    /// One list of everything at a time, and when the last one was begun.
    pub(crate) listing: Semaphore,
    pub(crate) listed: Mutex<Option<collector_core::Tick>>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("namespaces", &self.shared.namespaces).finish()
    }
}

impl Cluster {
    /// A cluster that is reached as the configuration says. Nothing is sent before it is asked, or its live source runs.
    ///
    /// # Errors
    /// When a named kubeconfig cannot be used.
    pub fn new(config: ClusterConfig, clock: Arc<dyn Clock>) -> Result<Self, ClientError> {
        config.check()?;
        let (namespaces, pages) = (config.namespaces.clone(), config.pages.clone());
        Ok(Self::with_connection(Connection::new(Some(config)), namespaces, pages, clock))
    }

    /// A cluster whose client is given later, by [`set_client`](Self::set_client). Until then each answer is an error.
    /// `namespaces` are those to watch; empty: all.
    pub fn without_client(namespaces: Vec<Namespace>, clock: Arc<dyn Clock>) -> Self {
        Self::with_connection(Connection::new(None), namespaces, None, clock)
    }

    fn with_connection(
        connection: Connection,
        mut namespaces: Vec<Namespace>,
        pages: Option<PageSource>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        selfmetrics::register();
        // Two watches of one namespace would overwrite each other's objects.
        namespaces.sort_unstable();
        namespaces.dedup();
        let shared = Shared {
            store: Arc::new(Store::new(clock, pages.clone())),
            connection: Arc::new(connection),
            namespaces,
            pages,
            tracked: watch::Sender::default(),
            begun_with: AtomicU64::new(0),
            is_live: AtomicBool::new(false),
            listing: Semaphore::new(1),
            listed: Mutex::new(None),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Uses this client from now on, for all that is asked, also while the watches run: they begin again with it. What the
    /// former one told stays, and ages, until everything is listed again; the new client may be one of another cluster.
    ///
    /// Make it with `default_retry = false` (`kube::Config`): the watches have pauses of their own, and a client that repeats
    /// requests by itself asks an overloaded server more often.
    pub fn set_client(&self, client: Client) {
        self.shared.connection.give(client);
    }

    /// The variants that objects of the cluster describe.
    pub fn directory(&self) -> ClusterDirectory {
        ClusterDirectory { store: Arc::clone(&self.shared.store) }
    }

    /// The metrics pages of its pods, if the configuration says what names them.
    pub fn pages(&self) -> Option<ClusterPages> {
        self.shared.pages.as_ref().map(|_| ClusterPages::new(self.clone()))
    }

    /// What is wrong with objects of the cluster, in the order of the objects.
    pub fn conditions(&self) -> Vec<Condition> {
        self.shared.store.conditions()
    }
}

impl Shared {
    /// The watches: each kind in all namespaces, or in each that is configured.
    pub(crate) fn watches(&self) -> Vec<WatchId> {
        let scopes: Vec<Option<Namespace>> = if self.namespaces.is_empty() {
            vec![None]
        } else {
            self.namespaces.iter().cloned().map(Some).collect()
        };
        let ids = |namespace: &Option<Namespace>| {
            let namespace = namespace.clone();
            let pages = self.pages.as_ref();
            let kinds = Kind::ALL.into_iter().filter(move |kind| kind.is_watched_for(pages));
            kinds.map(move |kind| WatchId { kind, namespace: namespace.clone() })
        };
        scopes.iter().flat_map(ids).collect()
    }

    /// Begins the watches. Those of a client that was given since the last time list again: it may be another cluster.
    pub(crate) fn begin(&self) {
        let given = *self.connection.given().borrow();
        let is_another = self.begun_with.swap(given, Ordering::Relaxed) != given;
        self.store.begin(self.watches(), is_another);
    }

    /// Whether another client was given since the watches began.
    pub(crate) fn has_another_client(&self) -> bool {
        *self.connection.given().borrow() != self.begun_with.load(Ordering::Relaxed)
    }

    pub(crate) fn watch(&self, id: WatchId) -> Watch {
        Watch { id, store: Arc::clone(&self.store), connection: Arc::clone(&self.connection) }
    }

    pub(crate) fn track(&self, models: Arc<HashSet<ModelRef>>) {
        self.tracked.send_replace(models);
    }

    pub(crate) fn tracked(&self) -> watch::Receiver<Arc<HashSet<ModelRef>>> {
        self.tracked.subscribe()
    }

    pub(crate) fn listed(&self) -> Option<collector_core::Tick> {
        *self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_listed(&self, began: collector_core::Tick) {
        *self.listed.lock().unwrap_or_else(PoisonError::into_inner) = Some(began);
    }
}

#[cfg(test)]
impl Cluster {
    /// A cluster with a client of a server on loopback.
    pub(crate) fn of(server: &collector_testkit::kubernetes::Cluster) -> Self {
        let cluster =
            Self::without_client(Vec::new(), Arc::new(collector_testkit::TokioClock::new()));
        let config = kube::Config::new(server.url().parse().unwrap());
        cluster.set_client(Client::try_from(config).unwrap());
        cluster
    }
}
