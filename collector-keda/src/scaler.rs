// SPDX-License-Identifier: Apache-2.0
//! The values of triggers: from the collector's memory where it has them, within a bounded time in any case.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use collector_core::text::quote;
use collector_core::{
    Clock, CollectError, MetricsCollector as _, ModelRef, Reading, Replicas, Tick,
};
use collector_engine::CachingCollector;
use collector_engines::Engines;
use tokio::time::timeout;

use crate::api::ScaledObjectRef;
use crate::credit::Credit;
use crate::memory::{Named, Values};
use crate::metadata::{OnMissing, Trigger, unknown_keys};
use crate::refusal::{Kind, NoReading, Refusal};
use crate::signal::{Measured, Unknown, View};

/// Unknown keys of one object that are looked at.
const UNKNOWN_KEYS_MAX: usize = 20;

/// Returns why the configuration leaves out a namespace, if it does.
pub type LeftOut = dyn Fn(&str) -> Option<String> + Send + Sync;

/// The settings of a scaler.
#[non_exhaustive]
pub struct Settings {
    /// How long a call waits for a reading that is not in memory. Default 500 ms.
    pub wait: Duration,
    /// The age from which on a value is not used, whatever a trigger allows: the collector's `unavailable_threshold`.
    /// Default 5 min.
    pub unavailable_threshold: Duration,
    /// What model servers export. Default: the built-in engines.
    pub engines: Engines,
    /// Which namespaces are not read. Default: all are.
    pub left_out: Box<LeftOut>,
    /// In which namespaces the cluster is not watched, though it is in others. Default: none.
    pub unwatched: Box<LeftOut>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            wait: Duration::from_millis(500),
            unavailable_threshold: Duration::from_secs(300),
            engines: Engines::builtin(),
            left_out: Box::new(|_| None),
            unwatched: Box::new(|_| None),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("wait", &self.wait).finish_non_exhaustive()
    }
}

impl Trigger {
    /// Returns the value in a reading: what KEDA gets at `now`, except where a last value or `onMissing` stands in for it.
    ///
    /// # Errors
    /// Why there is none, in the words that KEDA gets.
    pub fn measure(
        &self,
        reading: &Reading<Replicas>,
        settings: &Settings,
        now: Tick,
    ) -> Result<Measured, String> {
        self.measured(reading, settings, None, now).map_err(|refusal| refusal.text)
    }

    fn measured(
        &self,
        reading: &Reading<Replicas>,
        settings: &Settings,
        last: Option<Measured>,
        now: Tick,
    ) -> Result<Measured, Refusal> {
        let subject = &self.subject;
        // What the cluster has there is not known, so nothing can be said not to exist.
        let unwatched = || {
            let text = (settings.unwatched)(subject.model.namespace.as_str())?;
            Some(Refusal::unwatched(subject, &text))
        };
        if let Some(variant) = &subject.variant {
            let mut known = reading.model().allocations.iter().map(|it| it.variant.as_str());
            if !known.clone().any(|it| it == variant.as_str()) {
                return Err(unwatched().unwrap_or_else(|| {
                    Refusal::no_variant(&subject.model, variant.as_str(), &mut known)
                }));
            }
        }
        let view = View {
            replicas: reading.value(),
            variant: subject.variant.as_ref(),
            engines: &settings.engines,
        };
        let measured = view.measure(&subject.signal).map_err(|unknown| match unknown {
            Unknown::NoSupply => {
                unwatched().unwrap_or_else(|| Refusal::no_signal(subject, &unknown, None, now))
            }
            unknown => Refusal::no_signal(subject, &unknown, last.map(|last| last.pods), now),
        })?;
        let (limit, key) = self.age_limit(settings);
        let age = measured.sampled_at.age(now);
        if age > limit {
            return Err(Refusal::old(&subject.model, age, limit, key));
        }
        Ok(measured)
    }

    /// The greatest age of a value, and the key that sets it.
    pub(crate) fn age_limit(&self, settings: &Settings) -> (Duration, &'static str) {
        let threshold = settings.unavailable_threshold;
        match self.max_age {
            Some(max_age) if max_age < threshold => (max_age, "maxAge"),
            _ => (threshold, "cache.freshness.unavailable_threshold"),
        }
    }
}

/// Answers KEDA from the readings of a collector.
pub struct Scaler {
    source: RwLock<Arc<Source>>,
    /// That of the collector.
    clock: Arc<dyn Clock>,
    started_at: Tick,
    values: Mutex<Values>,
    named: Mutex<Named>,
}

/// What a reload of the configuration replaces.
struct Source {
    collector: Arc<CachingCollector>,
    settings: Settings,
}

impl fmt::Debug for Scaler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scaler").field("settings", &self.source().settings).finish_non_exhaustive()
    }
}

impl Scaler {
    /// A scaler that reads from a collector, whose clock it is given too.
    pub fn new(
        collector: Arc<CachingCollector>,
        clock: Arc<dyn Clock>,
        settings: Settings,
    ) -> Self {
        Self {
            started_at: clock.now(),
            source: RwLock::new(Arc::new(Source { collector, settings })),
            clock,
            values: Mutex::default(),
            named: Mutex::default(),
        }
    }

    /// Reads from another collector of the same clock, with other settings, from now on. Streams stay open, and the last
    /// values are remembered.
    pub fn replace(&self, collector: Arc<CachingCollector>, settings: Settings) {
        let source = Arc::new(Source { collector, settings });
        *self.source.write().unwrap_or_else(PoisonError::into_inner) = source;
    }

    /// The collector that it reads from at present.
    pub fn collector(&self) -> Arc<CachingCollector> {
        Arc::clone(&self.source().collector)
    }

    /// Returns why nothing is known of what the cluster has in a namespace, if it is not watched there.
    pub fn unwatched(&self, namespace: &str) -> Option<String> {
        (self.source().settings.unwatched)(namespace)
    }

    /// How long a call waits at present for a reading that is not in memory.
    pub fn wait(&self) -> Duration {
        self.source().settings.wait
    }

    fn source(&self) -> Arc<Source> {
        Arc::clone(&self.source.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Names the unknown keys of a trigger's metadata in the log, each once. They are no error: KEDA may have new ones.
    pub(crate) fn name_unknown_keys(&self, object: &ScaledObjectRef) {
        for key in unknown_keys(object).take(UNKNOWN_KEYS_MAX) {
            let name = format!("{}/{}", quote(&object.namespace), quote(&object.name));
            let key = quote(key);
            if lock(&self.named).is_new(&name, &key) {
                tracing::warn!(
                    scaledObject = name,
                    key,
                    "The metadata of a trigger have a key that is not known, which is ignored"
                );
            }
        }
    }

    /// Returns the value of a trigger, or what its metadata put in the place of a value that there is not, less the credit
    /// for pods that start.
    ///
    /// It waits at most as long as configured.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn value(&self, trigger: &Trigger) -> Result<Measured, Refusal> {
        let (measured, credit) = self.known(trigger).await?;
        let value = measured.value;
        let value = credit.map_or(value, |credit| trigger.credited(value, credit));
        Ok(Measured { value, ..measured })
    }

    async fn known(&self, trigger: &Trigger) -> Result<(Measured, Option<Credit>), Refusal> {
        let subject = &trigger.subject;
        let source = self.source();
        let settings = &source.settings;
        if let Some(text) = (settings.left_out)(subject.model.namespace.as_str()) {
            return Err(Refusal::left_out(text));
        }
        let reading = self.read(&source, &subject.model).await;
        let now = self.clock.now();
        let last = lock(&self.values).get(subject);
        let credit = reading.as_ref().ok().and_then(|it| self.credit(trigger, it, settings, now));
        let measured = reading
            .map_err(|no_reading| Refusal::no_reading(&subject.model, &no_reading))
            .and_then(|reading| trigger.measured(&reading, settings, last, now));
        let (limit, _) = trigger.age_limit(settings);
        let refusal = match measured {
            Ok(measured) => {
                lock(&self.values).put(subject, measured);
                return Ok((measured, credit));
            }
            Err(refusal) => refusal,
        };
        // What was complete a moment ago is better than nothing.
        if let Some(last) = last
            && refusal.kind == Kind::Partial
            && last.sampled_at.age(now) <= limit
        {
            return Ok((last, credit));
        }
        match (trigger.on_missing, last) {
            (OnMissing::Zero, _) if refusal.kind == Kind::Missing => {
                Ok((Measured { value: 0.0, sampled_at: now, pods: 0 }, None))
            }
            (OnMissing::Hold(limit), Some(last))
                if refusal.kind != Kind::Wrong && last.sampled_at.age(now) <= limit =>
            {
                Ok((last, credit))
            }
            _ => Err(refusal),
        }
    }

    /// The pods that start, if the trigger asks for them and they are known. That they are not is logged once.
    fn credit(
        &self,
        trigger: &Trigger,
        reading: &Reading<Replicas>,
        settings: &Settings,
        now: Tick,
    ) -> Option<Credit> {
        let unknown = match trigger.credit(reading, settings, now)? {
            Ok(credit) => return Some(credit),
            Err(unknown) => unknown,
        };
        let model = &trigger.subject.model;
        if lock(&self.named).is_new(&model.to_string(), "pendingCredit") {
            tracing::warn!(
                model = ?model.model,
                namespace = ?model.namespace,
                reason = unknown,
                "Pods that start are not known, so pendingCredit has no effect"
            );
        }
        None
    }

    /// Whether a trigger is active. A credit is for replicas that exist, and makes none inactive.
    pub(crate) async fn is_active(&self, trigger: &Trigger) -> Result<bool, Refusal> {
        Ok(self.known(trigger).await?.0.value > trigger.activation)
    }

    /// The reading in memory, else the one that arrives in time.
    async fn read(
        &self,
        source: &Source,
        model: &ModelRef,
    ) -> Result<Reading<Replicas>, NoReading> {
        let collector = &source.collector;
        if let Some(reading) = collector.cached_replicas(model) {
            return Ok(reading);
        }
        let asked = collector.collect_replica_metrics(model);
        let read = match timeout(source.settings.wait, asked).await {
            Ok(read) => read,
            // The fetch goes on. What is known by now says what is waited for.
            Err(_) => collector.peek_replicas(model),
        };
        read.map_err(|error| NoReading { silent_for: self.silent_for(collector, &error), error })
    }

    /// The time since the start, if no backend has answered since. Only errors that it explains are looked into.
    fn silent_for(&self, collector: &CachingCollector, error: &CollectError) -> Option<Duration> {
        if !matches!(error, CollectError::Pending { .. } | CollectError::Backend(_)) {
            return None;
        }
        let silent = collector.state().backends.iter().all(|it| it.last_success.is_none());
        silent.then(|| self.started_at.age(self.clock.now()))
    }
}

/// A panic elsewhere must not end every later call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
