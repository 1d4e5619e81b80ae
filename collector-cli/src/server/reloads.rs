// SPDX-License-Identifier: Apache-2.0
//! How the configuration was last read again, for `/readyz` and `/metrics`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use collector_core::{Clock, Tick};
use serde::Serialize;

use crate::output::{Exposition, Kind};

/// How the configuration was last read again. The start counts as the first time.
pub(crate) struct Reloads {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    loaded_at: Tick,
    loaded_wall: SystemTime,
    /// Why it could not be used when it was last read.
    error: Option<String>,
    restart_for: Vec<&'static str>,
    succeeded: u64,
    failed: u64,
}

/// The configuration in use.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct ConfigurationDocument {
    /// How long ago it was read.
    age_seconds: f64,
    /// Why a newer one is not in use; null when there is none.
    error: Option<String>,
    /// Keys that have changed and take effect only after a restart.
    restart_for: Vec<&'static str>,
}

impl Reloads {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let state = State {
            loaded_at: clock.now(),
            loaded_wall: clock.wall(),
            error: None,
            restart_for: Vec::new(),
            succeeded: 0,
            failed: 0,
        };
        Self { clock, state: Mutex::new(state) }
    }

    /// Another configuration is in use, of which these keys take effect only after a restart.
    pub(crate) fn succeeded(&self, restart_for: &[&'static str]) {
        let mut state = self.lock();
        state.loaded_at = self.clock.now();
        state.loaded_wall = self.clock.wall();
        state.error = None;
        state.restart_for = restart_for.to_vec();
        state.succeeded += 1;
    }

    /// Whether the configuration could not be used when it was last read.
    pub(crate) fn is_failed(&self) -> bool {
        self.lock().error.is_some()
    }

    /// The configuration cannot be used: the one before stays.
    pub(crate) fn failed(&self, error: String) {
        let mut state = self.lock();
        state.error = Some(error);
        state.failed += 1;
    }

    pub(super) fn document(&self) -> ConfigurationDocument {
        let now = self.clock.now();
        let state = self.lock();
        ConfigurationDocument {
            age_seconds: state.loaded_at.age(now).as_secs_f64(),
            error: state.error.clone(),
            restart_for: state.restart_for.clone(),
        }
    }

    pub(super) fn describe(&self, page: &mut Exposition) {
        let now = self.clock.now();
        let state = self.lock();
        page.family(
            "collector_config_age_seconds",
            Kind::Gauge,
            "Time since the configuration in use was read.",
        )
        .sample(&[], state.loaded_at.age(now).as_secs_f64());
        page.family(
            "collector_config_last_reload_successful",
            Kind::Gauge,
            "Whether the configuration could be used when it was last read: 1, or 0 while an older one is in use.",
        )
        .sample(&[], if state.error.is_none() { 1.0 } else { 0.0 });
        let since = state.loaded_wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        page.family(
            "collector_config_last_reload_success_timestamp_seconds",
            Kind::Gauge,
            "When the configuration in use was read.",
        )
        .sample(&[], since.as_secs_f64());
        let mut family = page.family(
            "collector_config_reloads_total",
            Kind::Counter,
            "How often the configuration was read again, by result.",
        );
        family.sample(&[("result", "success")], state.succeeded as f64);
        family.sample(&[("result", "failed")], state.failed as f64);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
