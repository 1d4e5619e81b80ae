// SPDX-License-Identifier: Apache-2.0
//! Which models a backend knows, remembered for a moment: for discovery and for "did you mean".

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use collector_core::{
    BackendError, Clock, ErrorKind, KnownModel, ListAsk, ListingState, ModelRef, Nearest, Tick,
};
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokio::sync::Mutex;

use crate::engine::Engine;
use crate::fetch::Source;
use crate::fetch::budget::Priority;

/// How many names are suggested.
const SUGGESTIONS: usize = 3;

/// How long a failure to list is remembered, so that callers who waited for it do not each repeat it.
const FAILURE_TTL: Duration = Duration::from_secs(1);

pub(crate) type Listing = Result<Arc<[KnownModel]>, Arc<BackendError>>;

#[derive(Default)]
pub(crate) struct Known {
    // Held over the request, so that those who want the list at the same time share it.
    last: Mutex<Option<(Tick, Listing)>>,
    /// The same, and the last list before a failure, without a wait for a request.
    seen: std::sync::Mutex<LastListing>,
}

/// What a source said when it was last asked for its models.
#[derive(Clone, Default)]
pub(crate) struct LastListing {
    /// Its last list, and when it was asked for that.
    pub(crate) listed: Option<(Tick, Arc<[KnownModel]>)>,
    /// Why it could not be listed since.
    pub(crate) error: Option<Arc<BackendError>>,
}

impl LastListing {
    /// Whether it is known which models the source has, or that it cannot say.
    pub(crate) fn is_settled(&self) -> bool {
        let is_unsupported = |error: &Arc<BackendError>| error.kind() == ErrorKind::Unsupported;
        self.listed.is_some() || self.error.as_ref().is_some_and(is_unsupported)
    }
}

impl Known {
    /// The models, not older than `max_age`. Waits for `limit` at most, twice that where another
    /// caller is asking.
    pub(crate) async fn models(
        &self,
        source: &Source,
        clock: &dyn Clock,
        max_age: Duration,
        limit: Duration,
    ) -> Listing {
        let timed_out = || Arc::new(source.listing_error(ErrorKind::Timeout));
        let Ok(mut last) = tokio::time::timeout(limit, self.last.lock()).await else {
            return Err(timed_out());
        };
        if let Some((listed_at, listing)) = &*last {
            let max_age = if listing.is_ok() { max_age } else { FAILURE_TTL };
            if listed_at.age(clock.now()) < max_age {
                return listing.clone();
            }
        }
        let listing = tokio::time::timeout(limit, list(source, clock, limit))
            .await
            .unwrap_or_else(|_| Err(timed_out()));
        let now = clock.now();
        *last = Some((now, listing.clone()));
        self.note(&listing, now);
        listing
    }

    /// What the source said when it was last asked.
    pub(crate) fn last(&self) -> LastListing {
        self.lock().clone()
    }

    /// Goes on from what another collector was told by the same backend.
    pub(crate) fn take_over(&self, former: &Self) {
        let seen = former.last();
        *self.lock() = seen;
    }

    pub(crate) fn state(&self, now: Tick) -> ListingState {
        let LastListing { listed, error } = self.last();
        let mut state = ListingState::default();
        state.models = listed.as_ref().map(|(_, models)| models.len());
        state.age = listed.map(|(at, _)| at.age(now));
        state.error = error;
        state
    }

    fn note(&self, listing: &Listing, now: Tick) {
        let mut seen = self.lock();
        match listing {
            Ok(models) => {
                *seen = LastListing { listed: Some((now, Arc::clone(models))), error: None }
            }
            Err(error) => seen.error = Some(Arc::clone(error)),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LastListing> {
        // Each change is complete at once.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// The models that any source knows. Errors are ignored if another source returned
    /// models; an empty list is returned only if every source succeeded.
    pub(crate) async fn list_models(&self) -> Result<Vec<KnownModel>, Arc<BackendError>> {
        let max_age = if self.cache.retains() { self.config.missing_ttl } else { Duration::ZERO };
        let listings =
            join_all(self.sources.iter().map(|source| {
                source.known.models(source, &*self.clock, max_age, source.call_limit)
            }));
        let mut models = BTreeMap::new();
        let mut failed = None;
        for listing in listings.await {
            match listing {
                Ok(listing) => {
                    for known in listing.iter() {
                        let replicas: &mut Option<u32> =
                            models.entry(known.model.clone()).or_default();
                        *replicas = replicas.or(known.replicas);
                    }
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match failed {
            Some(error) if models.is_empty() => Err(error),
            _ => {
                let known = models.into_iter();
                Ok(known.map(|(model, replicas)| KnownModel::new(model, replicas)).collect())
            }
        }
    }
}

/// What exists instead of a model that is missing.
/// `None` where nothing is known. A model that was there before needs no other names.
pub(crate) fn nearest(
    model: &ModelRef,
    known: Option<&[KnownModel]>,
    last_seen: Option<Duration>,
) -> Option<Arc<Nearest>> {
    let nearest = match (known, last_seen) {
        (None, None) => return None,
        (_, Some(_)) => Nearest { last_seen, ..Nearest::default() },
        (Some(known), None) => Nearest::of(model, known, SUGGESTIONS, strsim::levenshtein),
    };
    Some(Arc::new(nearest))
}

/// Asks the backend. The breaker is obeyed and learns nothing: that models cannot be listed says nothing
/// about whether they can be fetched.
async fn list(source: &Source, clock: &dyn Clock, limit: Duration) -> Listing {
    if let Some(error) = source.breaker.refusal(clock.now()) {
        return Err(error);
    }
    let permits = source.permits(&|| Priority::Probe);
    let mut ask = ListAsk::new(clock);
    ask.time_left = limit;
    ask.permits = &permits;
    let listing = AssertUnwindSafe(source.backend.list_models(ask)).catch_unwind().await;
    let listing = listing.unwrap_or_else(|_| {
        source.panicked();
        Err(source.listing_error(ErrorKind::Panicked))
    });
    match listing {
        Ok(mut models) => {
            models.sort_unstable();
            Ok(models.into())
        }
        Err(error) => Err(Arc::new(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(model: &str, namespace: &str) -> KnownModel {
        KnownModel::new(ModelRef::new(model, namespace), None)
    }

    #[test]
    fn near_names_are_suggested_and_far_ones_are_not() {
        let known =
            [known("org/llama-8b", "prod"), known("org/llama-70b", "dev"), known("x", "prod")];
        let near = nearest(&ModelRef::new("org/lama-8b", "prod"), Some(&known), None).unwrap();
        assert_eq!(near.models, ["org/llama-8b".into(), "org/llama-70b".into()]);
        assert_eq!(near.known, Some(3));
        let elsewhere =
            nearest(&ModelRef::new("org/llama-70b", "prod"), Some(&known), None).unwrap();
        assert_eq!(elsewhere.namespaces, ["dev".into()]);
    }

    #[test]
    fn a_model_that_was_there_needs_no_other_names_and_a_small_namespace_is_named_whole() {
        let known = [known("org/llama-8b", "prod"), known("qwen", "prod"), known("x", "dev")];
        let ago = Duration::from_secs(1200);
        let seen = nearest(&ModelRef::new("org/llama-80b", "prod"), Some(&known), Some(ago));
        let seen = seen.unwrap();
        assert_eq!((seen.last_seen, seen.models.len()), (Some(ago), 0));
        let far = nearest(&ModelRef::new("gpt-4o", "prod"), Some(&known), None).unwrap();
        assert_eq!(far.models, []);
        assert_eq!(far.in_namespace, ["org/llama-8b".into(), "qwen".into()]);
        assert_eq!(nearest(&ModelRef::new("x", "prod"), None, None), None);
    }

    #[test]
    fn a_name_of_a_thousand_characters_is_near_to_none() {
        let known = [known("llama", "prod")];
        let near = nearest(&ModelRef::new("x".repeat(1000), "prod"), Some(&known), None).unwrap();
        assert!(near.models.is_empty(), "{:?}", near.models);
    }
}
