// SPDX-License-Identifier: Apache-2.0
//! A Kubernetes API server for tests: real HTTP on loopback, no cluster.
//!
//! [`Cluster`] holds the objects that a test applies and answers what the collector asks of an API server: lists in
//! pages, watches with bookmarks, single objects, discovery, `/version` and access reviews. A test reads what was
//! asked from [`Counters`], and breaks the server with a [`Fault`], an [`Interruption`] or a stop while it runs.
//!
//! The answers have the form of Kubernetes 1.33. Some of it surprises clients, so it is kept:
//!
//! - items of lists of built-in kinds have no `apiVersion` and `kind`, those of custom resources do;
//! - paths that no API serves, and requests beyond the server's limit, are answered in plain text;
//! - a watch from an expired version is answered with 200 and an `ERROR` event, or with 410 after
//!   [`Cluster::refuse_expired_watches`];
//! - a watch from a version that is still to come is silent until it is reached; a list at such a version is a 504.
//!
//! Objects are not validated, and clients cannot write: tests apply objects through the handle. The history of one
//! kind is independent of other kinds, and two versions of a group do not share objects.
//!
//! The server runs in the runtime of the test, so paused time works. It ends with its handle.

mod access;
mod counters;
mod discovery;
mod faults;
pub mod fixtures;
pub mod kinds;
mod listener;
mod objects;
mod selector;
mod server;
mod status;
mod store;
mod watch;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

pub use access::Access;
pub use counters::{Counters, Verb};
pub use faults::{Fault, Interruption, Scope};
pub use kinds::Kind;

use faults::Faults;
use listener::Port;
use server::{Shared, State};
use store::Store;
use watch::Command;

/// A running API server. Dropping it ends the server and all its connections.
#[derive(Debug)]
pub struct Cluster {
    shared: Arc<Shared>,
    port: Port,
}

impl Cluster {
    /// Starts a server that serves every kind of [`kinds::ALL`] and has one object: the config map
    /// `kube-system/extension-apiserver-authentication`, which every cluster has.
    ///
    /// # Errors
    /// If the system gives no port.
    #[expect(clippy::unused_async, reason = "the server runs in the runtime that awaits this")]
    pub async fn start() -> io::Result<Self> {
        let state = State {
            store: Store::new(&kinds::ALL),
            faults: Faults::default(),
            tokens: None,
            allows: Arc::new(|_| true),
            reviews: Vec::new(),
            expired_by_status: false,
            bookmark_interval: None,
            holds: std::collections::HashMap::new(),
        };
        let mut cluster = Self { shared: Arc::new(Shared::new(state)), port: Port::bind()? };
        cluster.apply(fixtures::extension_apiserver_authentication());
        cluster.resume()?;
        Ok(cluster)
    }

    /// The address for the client's configuration, as `http://127.0.0.1:41234`.
    pub fn url(&self) -> String {
        format!("http://{}", self.port.address)
    }

    // Objects.

    /// Creates or replaces an object, and returns it as stored. `uid`, `creationTimestamp` and `generation` are set
    /// if they are absent, `resourceVersion` always.
    ///
    /// # Panics
    /// If the object's `apiVersion` and `kind` are not served, or it has no name.
    pub fn apply(&self, object: impl Into<Value>) -> Value {
        let stored = Value::clone(&apply(&mut self.shared.lock().store, object.into()));
        self.shared.changed.send_replace(());
        stored
    }

    /// Applies many objects. Open watches see them together.
    ///
    /// # Panics
    /// As [`apply`](Self::apply).
    pub fn apply_all<T: Into<Value>>(&self, objects: impl IntoIterator<Item = T>) {
        self.change(|state| {
            for object in objects {
                apply(&mut state.store, object.into());
            }
        });
    }

    /// Deletes an object; the namespace is empty for kinds without namespaces. Returns whether there was one.
    pub fn delete(&self, kind: Kind, namespace: &str, name: &str) -> bool {
        let deleted = self.shared.lock().store.delete(kind, namespace, name);
        self.shared.changed.send_replace(());
        deleted
    }

    /// The stored object.
    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Value> {
        self.shared.lock().store.get(kind, namespace, name).map(|object| Value::clone(&object))
    }

    /// The version of the newest change.
    pub fn resource_version(&self) -> u64 {
        self.shared.lock().store.version()
    }

    // Kinds and history.

    /// Serves a kind from now on, as after its custom resource definition was installed.
    pub fn serve(&self, kind: Kind) {
        self.change(|state| state.store.serve(kind));
    }

    /// Serves a kind no longer: its objects are gone, its watches end, and its paths are answered with 404.
    pub fn stop_serving(&self, kind: Kind) {
        self.change(|state| state.store.stop_serving(kind));
    }

    /// Keeps this many changes of each kind (10 000 at the start). A watch from an older version is expired.
    pub fn set_history(&self, changes: usize) {
        self.change(|state| state.store.set_history(changes));
    }

    /// Forgets all changes: only watches from the current version can go on.
    pub fn forget_history(&self) {
        self.change(|state| state.store.forget_history());
    }

    /// Counts resource versions from 1 again, as a cluster that was restored from a backup. Every object gets a new
    /// version. Open watches are not told; [`stop`](Self::stop) the server before.
    pub fn renumber(&self) {
        self.change(|state| state.store.renumber());
    }

    /// Makes all continue tokens that were given out invalid: 410.
    pub fn expire_continue_tokens(&self) {
        self.change(|state| state.store.expire_continue_tokens());
    }

    // Access.

    /// Accepts these bearer tokens alone from now on. Any other token, and none, is a 401. Open watches go on, as on
    /// a real server.
    pub fn accept_tokens<T: Into<String>>(&self, tokens: impl IntoIterator<Item = T>) {
        let tokens = tokens.into_iter().map(Into::into).collect();
        self.change(|state| state.tokens = Some(tokens));
    }

    /// Decides by this rule what is permitted: requests for kinds (403 otherwise), and what access reviews answer.
    /// At the start everything is.
    pub fn allow(&self, rule: impl Fn(&Access) -> bool + Send + Sync + 'static) {
        self.change(|state| state.allows = Arc::new(rule));
    }

    /// What access reviews asked, in order.
    pub fn access_reviews(&self) -> Vec<Access> {
        self.shared.lock().reviews.clone()
    }

    // Faults.

    /// Lets requests fail from now on. A narrower scope goes before a wider one.
    pub fn set_fault(&self, scope: impl Into<Scope>, fault: Fault) {
        self.change(|state| state.faults.set(scope.into(), fault));
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.change(|state| state.faults.clear());
    }

    /// Answers a watch from an expired version with status 410 (true), or with an `ERROR` event (false, as at the
    /// start).
    pub fn refuse_expired_watches(&self, by_status: bool) {
        self.change(|state| state.expired_by_status = by_status);
    }

    /// Has every open watch of a kind end or break, after the events of all changes so far.
    pub fn interrupt_watches(&self, kind: Kind, interruption: Interruption) {
        self.command(kind, Command::Interrupt(interruption));
    }

    /// Sends a bookmark to every open watch that allows them.
    pub fn bookmark(&self) {
        let kinds: Vec<Kind> = self.shared.lock().store.kinds().collect();
        for kind in kinds {
            self.command(kind, Command::Bookmark);
        }
    }

    /// Sends bookmarks at this interval to watches that are opened from now on; `None` sends them on demand alone,
    /// as at the start.
    pub fn set_bookmark_interval(&self, interval: Option<Duration>) {
        self.change(|state| state.bookmark_interval = interval);
    }

    /// Holds every page of a kind's lists until the test releases it, or drops the returned value.
    pub fn hold_pages(&self, kind: Kind) -> HeldPages {
        let pages = Arc::new(Semaphore::new(0));
        self.change(|state| state.holds.insert(kind, Arc::clone(&pages)));
        HeldPages { shared: Arc::clone(&self.shared), kind, pages }
    }

    /// Breaks all connections and refuses new ones.
    ///
    /// # Errors
    /// If another process took the port; [`resume`](Self::resume) tries to get it back.
    pub async fn stop(&mut self) -> io::Result<()> {
        self.port.refuse().await
    }

    /// Listens on the same port again.
    ///
    /// # Errors
    /// If another process took the port.
    pub fn resume(&mut self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let answer = move |request: Request| server::handle(Arc::clone(&shared), request);
        self.port.serve(Router::new().fallback(answer))
    }

    // What happened.

    /// What the server has done since its start.
    pub fn counters(&self) -> Counters {
        self.shared.counters.borrow().clone()
    }

    /// Waits until the counters are as the test expects.
    pub async fn wait_for(&self, expected: impl FnMut(&Counters) -> bool) {
        // The sender is in this handle, so it cannot be gone.
        let _ = self.shared.counters.subscribe().wait_for(expected).await;
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) {
        change(&mut self.shared.lock());
        self.shared.changed.send_replace(());
    }

    fn command(&self, kind: Kind, command: Command) {
        // An error says that no watch is open.
        let _ = self.shared.commands.send((kind, command));
    }
}

/// A kubeconfig for the server at an address, with the credentials of this user: `{"token": "t"}`.
pub fn kubeconfig(url: &str, user: &Value) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": user}],
    })
    .to_string()
}

/// Checks and stores an object.
fn apply(store: &mut Store, object: Value) -> Arc<Value> {
    let Some(kind) = store.kind_of(&object) else {
        panic!(
            "no served kind has apiVersion {} and kind {}",
            object["apiVersion"], object["kind"]
        );
    };
    let (name, namespace) = (&object["metadata"]["name"], &object["metadata"]["namespace"]);
    assert!(name.is_string(), "the object has no name: {object}");
    assert_eq!(
        namespace.is_string(),
        kind.namespaced,
        "the namespace does not fit the kind: {object}"
    );
    store.apply(kind, object)
}

/// The pages of a kind's lists that wait for the test. Dropping it releases them all.
#[derive(Debug)]
pub struct HeldPages {
    shared: Arc<Shared>,
    kind: Kind,
    pages: Arc<Semaphore>,
}

impl HeldPages {
    /// Releases this many pages, those that are still to be asked for included.
    pub fn release(&self, pages: usize) {
        self.pages.add_permits(pages);
    }
}

impl Drop for HeldPages {
    fn drop(&mut self) {
        self.shared.lock().holds.remove(&self.kind);
        self.pages.close();
    }
}
