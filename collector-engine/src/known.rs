//! Which models the backend knows, remembered for a moment: for discovery and for "did you mean".

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use collector_core::{BackendError, Clock, ErrorKind, KnownModel, ModelRef, Nearest, Tick};
use futures_util::FutureExt as _;
use tokio::sync::Mutex;

use crate::source::Source;

/// How many names are suggested.
const SUGGESTIONS: usize = 3;

/// How long a failure to list is remembered, so that callers who waited for it do not each repeat it.
const FAILURE_TTL: Duration = Duration::from_secs(1);

type Listing = Result<Arc<[KnownModel]>, Arc<BackendError>>;

#[derive(Default)]
pub(crate) struct Known {
    // Held over the request, so that those who want the list at the same time share it.
    last: Mutex<Option<(Tick, Listing)>>,
}

impl Known {
    /// The models, not older than `max_age`.
    pub(crate) async fn models(
        &self,
        source: &Source,
        clock: &dyn Clock,
        max_age: Duration,
        limit: Duration,
    ) -> Listing {
        let list = async {
            let mut last = self.last.lock().await;
            if let Some((listed_at, listing)) = &*last {
                let max_age = if listing.is_ok() { max_age } else { FAILURE_TTL };
                if listed_at.age(clock.now()) < max_age {
                    return listing.clone();
                }
            }
            let listing = list(source, clock).await;
            *last = Some((clock.now(), listing.clone()));
            listing
        };
        match tokio::time::timeout(limit, list).await {
            Ok(listing) => listing,
            Err(_) => Err(Arc::new(source.error(ErrorKind::Timeout, "the list of models"))),
        }
    }

    /// What exists instead of a model that is missing; nothing when the backend cannot tell.
    pub(crate) async fn nearest(
        &self,
        model: &ModelRef,
        source: &Source,
        clock: &dyn Clock,
        max_age: Duration,
        limit: Duration,
    ) -> Arc<Nearest> {
        if !source.backend.supports().list_models {
            return Arc::default();
        }
        match self.models(source, clock, max_age, limit).await {
            Ok(known) => Arc::new(Nearest::of(model, &known, SUGGESTIONS, strsim::levenshtein)),
            Err(error) => {
                tracing::debug!(%error, "Cannot list models for suggestions");
                Arc::default()
            }
        }
    }
}

async fn list(source: &Source, clock: &dyn Clock) -> Listing {
    let admission = source.breaker.admit(clock.now())?;
    let listing = AssertUnwindSafe(source.backend.list_models()).catch_unwind().await;
    let listing =
        listing.unwrap_or_else(|_| Err(source.error(ErrorKind::Panicked, "the list of models")));
    match listing {
        Ok(mut models) => {
            admission.answered(clock.now());
            models.sort_unstable();
            Ok(models.into())
        }
        Err(error) => {
            let error = Arc::new(error);
            admission.failed(&error, clock.now());
            Err(error)
        }
    }
}
