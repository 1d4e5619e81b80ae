// SPDX-License-Identifier: Apache-2.0
//! The fetches that are sent with the next batch of a source. It knows no runtime, so that loom explores it.

use std::sync::{Arc, PoisonError};

use crate::sync::{Mutex, MutexGuard};

pub(crate) struct NextBatch<F>(Mutex<Vec<Arc<F>>>);

impl<F> Default for NextBatch<F> {
    fn default() -> Self {
        Self(Mutex::new(Vec::new()))
    }
}

impl<F> NextBatch<F> {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<F>>> {
        // Nothing under this lock can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds fetches. True when they are the first: the caller must see to it that the batch is sent.
    pub(crate) fn add(&self, fetches: &mut Vec<Arc<F>>) -> bool {
        let mut waiting = self.lock();
        let is_first = waiting.is_empty() && !fetches.is_empty();
        waiting.append(fetches);
        is_first
    }

    /// Closes the batch and returns it.
    pub(crate) fn take(&self) -> Vec<Arc<F>> {
        std::mem::take(&mut *self.lock())
    }
}
