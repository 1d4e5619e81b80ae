// SPDX-License-Identifier: Apache-2.0
//! Keeps the store up to date with one kind: a list, then watches that go on from it.

use std::sync::Arc;
use std::time::Duration;

use collector_core::{ErrorKind, Permits, Unlimited};
use kube::Client;
use tokio::time::{Instant, sleep};

use crate::client::Connection;
use crate::failure::Failure;
use crate::kind::Kind;
use crate::objects::{Event, Object, Status, version_of};
use crate::requests::{self, Lines};
use crate::selfmetrics;
use crate::store::Store;
use crate::watches::{Lost, Position, WatchId};

/// The pauses after failures: doubled with each, and shortened by chance, so that watches of one server and collectors
/// of one cluster do not come back all at once.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often a kind that is not served is looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(180);

/// One watch, as long as its future is polled.
pub(crate) struct Watch {
    pub(crate) id: WatchId,
    pub(crate) store: Arc<Store>,
    pub(crate) connection: Arc<Connection>,
}

impl Watch {
    /// Works until it is dropped.
    pub(crate) async fn run(self) {
        let mut pause = Pause::default();
        loop {
            // From where a former run ended, if there was one: a reload lists nothing again.
            if let Some(position) = self.store.position(&self.id) {
                let failure = self.follow(position, &mut pause).await;
                self.store.set_position(&self.id, None);
                // The list that follows is spread as well.
                sleep(pause.after(&failure)).await;
            }
            match self.list(&Unlimited).await {
                // A watch that ends as it should resets the pause: of a list alone, a server may say at once that it is
                // too old.
                Ok(Listed::Served) => {}
                Ok(Listed::NotServed) => sleep(jittered(LOOK_AGAIN)).await,
                Err(failure) => {
                    self.lost(&failure);
                    self.renew_after(&failure).await;
                    sleep(pause.after(&failure)).await;
                }
            }
        }
    }

    /// Lists all objects into the store.
    pub(crate) async fn list(&self, permits: &dyn Permits) -> Result<Listed, Failure> {
        let client = self.connection.client().await?;
        let mut missing = None;
        for base in self.id.kind.paths() {
            let began = self.store.now();
            match requests::list(&client, base, &self.id, permits).await {
                Ok(list) => {
                    if list.objects.is_empty() {
                        self.look_for_namespace(&client).await;
                    }
                    if self.store.replace(&self.id, list.objects, began) {
                        let position = Position { base, version: list.version };
                        self.store.set_position(&self.id, Some(position));
                    }
                    return Ok(Listed::Served);
                }
                Err(failure) if self.is_not_served(&client, base, &failure).await => {
                    missing = Some(failure);
                }
                Err(failure) => return Err(failure),
            }
        }
        let is_gone = !self.id.kind.is_built_in() && self.store.not_served(&self.id);
        match missing {
            Some(failure) if !is_gone => Err(failure),
            _ => Ok(Listed::NotServed),
        }
    }

    /// Asks whether the namespace exists, once for all kinds: of one that does not, every list is empty.
    async fn look_for_namespace(&self, client: &Client) {
        if let (Kind::Pod, Some(namespace)) = (self.id.kind, &self.id.namespace)
            && let Some(exists) = requests::has_namespace(client, namespace).await
        {
            self.store.set_exists(namespace, exists);
        }
    }

    /// A kind that does not exist is forbidden to those who have no role for it, so what the group serves decides.
    async fn is_not_served(&self, client: &Client, base: &str, failure: &Failure) -> bool {
        match failure.kind {
            ErrorKind::NotFound => true,
            ErrorKind::Forbidden if !self.id.kind.is_built_in() => {
                !requests::is_served(client, base).await
            }
            _ => false,
        }
    }

    /// Watches from a position on, until only a new list helps. A watch that cannot be opened is lost; one that breaks
    /// is opened again first.
    async fn follow(&self, mut position: Position, pause: &mut Pause) -> Failure {
        let mut lasts = requests::FIRST_WATCH;
        loop {
            let began = Instant::now();
            let opened = match self.connection.client().await {
                Ok(client) => {
                    let version = &position.version;
                    let opened = requests::watch(&client, position.base, &self.id, version, lasts);
                    opened.await.map(|lines| (client, lines))
                }
                Err(failure) => Err(failure),
            };
            let failure = match opened {
                Ok((client, lines)) => {
                    self.store.opened(&self.id);
                    match self.take(lines, &mut position).await {
                        Ok(()) => {
                            self.store.heard(&self.id);
                            if self.is_of_no_namespace() {
                                self.look_for_namespace(&client).await;
                            }
                            if began.elapsed() < PAUSE_MIN {
                                // A server that ends watches at once is not asked all the time.
                                sleep(pause.next()).await;
                            } else {
                                *pause = Pause::default();
                                lasts = requests::WATCH;
                            }
                            continue;
                        }
                        Err(failure) => failure,
                    }
                }
                Err(failure) if needs_list(&failure) => failure,
                Err(failure) => {
                    self.lost(&failure);
                    failure
                }
            };
            lasts = requests::FIRST_WATCH;
            selfmetrics::restarted(self.id.kind);
            if needs_list(&failure) {
                return failure;
            }
            tracing::debug!(watch = %self.id, "A watch ended early: {failure}");
            self.renew_after(&failure).await;
            sleep(pause.after(&failure)).await;
        }
    }

    /// Whether its namespace did not exist when that was last asked.
    fn is_of_no_namespace(&self) -> bool {
        self.id.namespace.as_ref().is_some_and(|namespace| self.store.is_absent(namespace))
    }

    /// Takes the events of a watch until it ends.
    async fn take(&self, mut lines: Lines, position: &mut Position) -> Result<(), Failure> {
        while let Some(line) = lines.next().await? {
            if let Some(version) = self.take_event(&line)? {
                position.version = version;
                self.store.set_position(&self.id, Some(position.clone()));
            }
        }
        Ok(())
    }

    /// Takes an event; returns the version up to which all is known then.
    fn take_event(&self, line: &[u8]) -> Result<Option<String>, Failure> {
        let bad = |error: serde_json::Error| {
            let why = format!("an event of {} cannot be read: {error}", self.id);
            Failure::new(ErrorKind::BadAnswer, why)
        };
        let event: Event<'_> = serde_json::from_slice(line).map_err(bad)?;
        let object = event.object.get();
        match &*event.what {
            "ADDED" | "MODIFIED" => {
                self.store.put(&self.id, Object::read(self.id.kind, object).map_err(bad)?);
            }
            "DELETED" => {
                let object = Object::read(self.id.kind, object).map_err(bad)?;
                self.store.remove(&self.id, &object.namespace, &object.name);
            }
            "ERROR" => {
                let status: Status = serde_json::from_str(object).map_err(bad)?;
                return Err(Failure::of_object(&status));
            }
            // A bookmark, or an event that is newer than this.
            _ => self.store.heard(&self.id),
        }
        Ok(version_of(event.object))
    }

    async fn renew_after(&self, failure: &Failure) {
        if let Err(failure) = self.connection.renew_after(failure).await {
            self.lost(&failure);
        }
    }

    pub(crate) fn lost(&self, failure: &Failure) {
        selfmetrics::restarted(self.id.kind);
        let why = failure.to_string();
        let since = self.store.now();
        if self.store.lost(&self.id, Lost { since, kind: failure.kind, why }) {
            tracing::warn!(watch = %self.id, "The API server does not tell what changes: {failure}");
        }
    }
}

/// What came of a list.
pub(crate) enum Listed {
    Served,
    NotServed,
}

/// Whether a watch cannot go on from where it was.
fn needs_list(failure: &Failure) -> bool {
    // The kind may be gone; an event that cannot be read would come again.
    failure.is_gone
        || matches!(failure.kind, ErrorKind::NotFound | ErrorKind::BadAnswer | ErrorKind::TooLarge)
}

/// The pauses after failures.
#[derive(Default)]
struct Pause(u32);

impl Pause {
    fn next(&mut self) -> Duration {
        let pause = PAUSE_MIN.saturating_mul(1 << self.0.min(16)).min(PAUSE_MAX);
        self.0 += 1;
        jittered(pause)
    }

    fn after(&mut self, failure: &Failure) -> Duration {
        let pause = self.next();
        failure.retry_after.map_or(pause, |asked| asked.max(pause))
    }
}

/// Between half of a duration and all of it.
fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_doubled_up_to_a_limit() {
        let mut pause = Pause::default();
        for expected in [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
            let next = pause.next();
            let expected = Duration::from_millis(expected);
            assert!(next >= expected / 2 && next <= expected, "{next:?}");
        }
        let failure = Failure::of_status(429, b"", Some("45"));
        assert_eq!(Pause::default().after(&failure), Duration::from_secs(45));
    }
}
