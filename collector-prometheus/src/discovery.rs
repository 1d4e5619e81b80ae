// SPDX-License-Identifier: Apache-2.0
//! What must be known about a server before it is asked for metrics: its clock, and the shape of what it
//! holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use collector_core::{Clock, Tick};
use tokio::sync::{Mutex, MutexGuard};

use crate::client::{Answered, Client, Query, RequestBudget};
use crate::failure::Failure;
use crate::plan::QueryKind;
use crate::promql::EvalTime;
use crate::server_clock::{ROUND_TRIP_GOOD, ServerClock};
use crate::shape::{self, DiscoverySettings, Shape};

/// Clocks drift apart by some ten milliseconds in this time.
const CLOCK_LASTS: Duration = Duration::from_secs(5 * 60);
/// Names and labels change when a fleet is upgraded.
const SHAPE_LASTS: Duration = Duration::from_secs(60 * 60);
/// Shortest time between two probes of the shape while something looks wrong.
const SUSPICION_WAITS: Duration = Duration::from_secs(60);
/// Seconds by which a server evaluates earlier than asked: below, it counts as rounding; above, as something
/// other than a time.
const EARLIER_MIN: f64 = 1.5;
const EARLIER_MAX: f64 = 24.0 * 3600.0;
/// Clock difference in seconds that is logged.
const SKEW_LOGGED: f64 = 5.0;

/// What is known about a server.
#[derive(Clone, Debug)]
pub(crate) struct ServerInfo {
    pub(crate) clock: ServerClock,
    pub(crate) shape: Arc<Shape>,
    /// Whether the `Date` header and `time()` agreed so far, so that a difference is a jump of the clock.
    pub(crate) date_trusted: bool,
    /// Whether the fetch was already started again once.
    pub(crate) last_try: bool,
    clock_at: Tick,
    shape_at: Tick,
}

/// Discovers what a server holds, and remembers it.
#[derive(Debug)]
pub(crate) struct Discovery {
    terms: DiscoverySettings,
    info: Mutex<Option<ServerInfo>>,
    suspicious: AtomicBool,
    clock_wrong: AtomicBool,
    skew_logged: AtomicBool,
}

impl Discovery {
    pub(crate) fn new(terms: DiscoverySettings) -> Self {
        Self {
            terms,
            info: Mutex::default(),
            suspicious: AtomicBool::new(false),
            clock_wrong: AtomicBool::new(false),
            skew_logged: AtomicBool::new(false),
        }
    }

    /// Returns the settings that the shape depends on.
    pub(crate) fn terms(&self) -> &DiscoverySettings {
        &self.terms
    }

    /// Returns what is known, and asks for what is not or has expired. Concurrent fetches share one
    /// discovery.
    ///
    /// `first` is the only model of a first fetch that a caller waits for. Then only its shape is discovered,
    /// and not remembered: on a server with 800 pods everything takes 46 ms, one model 1 ms.
    ///
    /// # Cancel safety
    /// The result is stored in one step at the end, and a suspicion lasts until it is looked into.
    pub(crate) async fn discover(
        &self,
        client: &Client,
        budget: RequestBudget<'_>,
        first: Option<(&str, &str)>,
    ) -> Result<ServerInfo, Failure> {
        let mut info = self.lock(budget).await?;
        let now = budget.clock.now();
        let before = info.clone();
        let jumped = self.clock_wrong.load(Ordering::Relaxed);
        let (clock, clock_at) = match &before {
            Some(known) if !jumped && known.clock_at.age(now) < CLOCK_LASTS => {
                (known.clock, known.clock_at)
            }
            _ => {
                let asked = ask_clock_once(client, budget).await;
                if let Ok(clock) = asked {
                    self.clock_wrong.store(false, Ordering::Relaxed);
                    self.log_skew(clock, budget.clock);
                }
                match (asked, &before) {
                    // The first request also resolves, connects and shakes hands. If it took long, the next
                    // fetch reads the clock again; this one has waited enough.
                    (Ok(clock), None) if clock.round_trip > ROUND_TRIP_GOOD => (clock, Tick::MIN),
                    (Ok(clock), _) => (clock, now),
                    // An old reading of a clock that did not jump is better than no metrics.
                    (Err(failure), Some(known)) if !jumped && !failure.is_of_the_server() => {
                        (known.clock, known.clock_at)
                    }
                    (Err(failure), _) => return Err(failure),
                }
            }
        };
        let narrow = first.filter(|_| before.is_none());
        let (shape, shape_at) = match &before {
            Some(known) if !self.shape_due(known, now) => {
                (Arc::clone(&known.shape), known.shape_at)
            }
            _ => match shape::ask(client, budget, &self.terms, narrow).await {
                Ok(shape) => {
                    self.suspicious.store(false, Ordering::Relaxed);
                    (Arc::new(shape), now)
                }
                Err(failure) if failure.is_of_the_server() => return Err(failure),
                Err(_) => {
                    self.suspect_shape();
                    let known = before.as_ref().map(|known| Arc::clone(&known.shape));
                    (known.unwrap_or_else(|| Arc::new(Shape::unknown(&self.terms))), now)
                }
            },
        };
        let date_trusted =
            before.is_none_or(|known| known.date_trusted || known.clock_at != clock_at);
        let known = ServerInfo { clock, shape, date_trusted, last_try: false, clock_at, shape_at };
        *info = Some(if known.shape.narrow {
            // Nothing is known about other models yet, so the next fetch asks.
            let shape = Arc::new(Shape::unknown(&self.terms));
            ServerInfo { shape, shape_at: Tick::MIN, ..known.clone() }
        } else {
            known.clone()
        });
        Ok(known)
    }

    fn shape_due(&self, known: &ServerInfo, now: Tick) -> bool {
        let age = known.shape_at.age(now);
        let unsure = !known.shape.probed || known.shape.incomplete;
        let suspicious = self.suspicious.load(Ordering::Relaxed) || unsure;
        // A server without a fleet may have one next time.
        age >= SHAPE_LASTS
            || (suspicious && age >= SUSPICION_WAITS)
            || (known.shape.probed && !known.shape.has_engines())
    }

    /// Live pods lack a value that they should have: names or labels may have changed.
    pub(crate) fn suspect_shape(&self) {
        self.suspicious.store(true, Ordering::Relaxed);
    }

    /// Makes the next [`discover`](Self::discover) ask again what the server holds.
    pub(crate) async fn forget_shape(&self) {
        if let Some(known) = &mut *self.info.lock().await {
            known.shape_at = Tick::MIN;
        }
    }

    /// Makes the next [`discover`](Self::discover) read the server's clock, which has jumped.
    pub(crate) fn suspect_clock(&self) {
        self.clock_wrong.store(true, Ordering::Relaxed);
    }

    /// Ignores the `Date` header until the clock is read again, because it contradicts what `time()` just
    /// returned.
    pub(crate) async fn distrust_date(&self) {
        if let Some(known) = &mut *self.info.lock().await {
            known.date_trusted = false;
        }
    }

    async fn lock(
        &self,
        budget: RequestBudget<'_>,
    ) -> Result<MutexGuard<'_, Option<ServerInfo>>, Failure> {
        tokio::time::timeout_at(budget.deadline, self.info.lock())
            .await
            .map_err(|_| Failure::timeout("another fetch is still waiting for the server"))
    }

    fn log_skew(&self, clock: ServerClock, ours: &dyn Clock) {
        let ahead = clock.ahead_of(ours.wall(), ours.now());
        let skewed = ahead.abs() > SKEW_LOGGED;
        let was_logged = self.skew_logged.swap(skewed, Ordering::Relaxed);
        if skewed && !was_logged {
            tracing::warn!(
                seconds = ahead.round(),
                "The server's clock is ahead of ours (behind, where negative); ages are counted on \
                 the server's"
            );
        }
    }
}

/// Reads the server's clock once.
///
/// A server may evaluate earlier than asked, and return that time. Asking for a moment of ours shows by how
/// much.
pub(crate) async fn ask_clock_once(
    client: &Client,
    budget: RequestBudget<'_>,
) -> Result<ServerClock, Failure> {
    let (own, answered) = ask_time(client, budget, None).await?;
    let Answered { date, sent_at, arrived_at, .. } = answered;
    if let Some(clock) = ServerClock::new(own, sent_at, arrived_at) {
        let late = evaluates_earlier(client, budget).await?;
        return Ok(clock.ahead_by(late));
    }
    tracing::debug!("The server does not answer time(); its Date header is used");
    date.and_then(|date| ServerClock::from_date(date, arrived_at)).ok_or_else(|| {
        Failure::bad_answer("the server returns no time, neither for time() nor in a Date header")
            .with_remedy("is prometheus.url the address of a PromQL server?")
    })
}

async fn ask_time(
    client: &Client,
    budget: RequestBudget<'_>,
    time: Option<EvalTime>,
) -> Result<(f64, Answered), Failure> {
    let mut seconds = f64::NAN;
    let query = Query { kind: QueryKind::ServerTime, text: "vector(time())", time };
    let answered = client
        .query(query, budget, &mut |row| {
            seconds = row.value;
        })
        .await?;
    Ok((seconds, answered))
}

/// Returns by how much the server evaluates earlier than asked. The query names our own time, because a
/// server that hides its newest samples may not do so for a time that it returned itself.
async fn evaluates_earlier(
    client: &Client,
    budget: RequestBudget<'_>,
) -> Result<Duration, Failure> {
    let wall = budget.clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    let asked = EvalTime(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX));
    match ask_time(client, budget, Some(asked)).await {
        Ok((returned, _)) => {
            let late = asked.seconds() - returned;
            // A server that rounds to its resolution is not late.
            let is_late = (EARLIER_MIN..EARLIER_MAX).contains(&late);
            Ok(if is_late { Duration::from_secs_f64(late) } else { Duration::ZERO })
        }
        Err(failure) if failure.is_of_the_server() => Err(failure),
        Err(_) => Ok(Duration::ZERO),
    }
}
