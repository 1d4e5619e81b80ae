//! What a cache keeps, and what the engine asks of one.

use std::sync::Arc;
use std::time::Duration;

use crate::answer::ModelSample;
use crate::backend::KnownModel;
use crate::clock::Tick;
use crate::error::BackendError;
use crate::field::Mark;
use crate::key::{CacheKey, KeyRef, Scope};
use crate::metrics::{Allocation, Replicas};
use crate::model::{BackendName, ModelId, ModelRef, Namespace, PodName};

/// What is kept under a key. Immutable: a change is another `Stored`.
///
/// A ttl never removes a value; it only says from when on a read should start a refresh.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The last good value.
    pub value: Value,
    /// How the last look ended.
    pub outcome: Outcome,
    /// Until here the value counts as within its ttl: arrival of the newest of what it is made of + ttl.
    /// Not sample time + ttl, or a server that scrapes each minute would always miss.
    pub current_until: Tick,
    /// From here on a read starts a refresh: some source is past its ttl. With one source the same as
    /// `current_until`.
    pub refresh_after: Tick,
    /// From here on the value is of no use. It is removed once nobody has read it for
    /// [`keep_unread`](Self::keep_unread) as well.
    pub keep_until: Tick,
    /// How long an entry past `keep_until` survives without a read.
    pub keep_unread: Duration,
    /// It is refreshed in the background: where room is short, what is not tracked leaves first.
    pub tracked: bool,
    /// What a hit does not need.
    pub cold: Arc<Cold>,
}

impl Stored {
    /// About how many bytes the entry holds, its value and what is behind it included. Names are shared
    /// text and count as pointers. The cold part, which the entries of a model share, counts with the
    /// replicas.
    pub fn bytes(&self) -> usize {
        let value = match &self.value {
            Value::None => self.cold.bytes(),
            Value::Replicas(replicas) => replicas.bytes() + self.cold.bytes(),
            Value::Allocation(allocation) => {
                size_of::<Allocation>() + size_of_val(allocation.marks.as_slice())
            }
        };
        size_of::<Self>() + value
    }
}

impl Cold {
    fn bytes(&self) -> usize {
        let source = |source: &SourceState| {
            size_of::<SourceState>()
                + source.answer.as_ref().map_or(0, |answer| {
                    answer.sample.bytes()
                        + size_of_val(answer.load_marks.as_slice())
                        + size_of_val(answer.departed.as_slice())
                        + size_of_val(answer.absent.as_slice())
                })
        };
        let nearest = self.nearest.as_ref().map_or(0, |nearest| {
            size_of_val(nearest.models.as_slice())
                + size_of_val(nearest.in_namespace.as_slice())
                + size_of_val(nearest.namespaces.as_slice())
        });
        size_of::<Self>() + self.sources.iter().map(source).sum::<usize>() + nearest
    }
}

/// The last good value of an entry.
#[derive(Clone, Debug)]
pub enum Value {
    /// There never was one.
    None,
    /// Of [`KeyKind::Replicas`](crate::KeyKind::Replicas).
    Replicas(Arc<Replicas>),
    /// Of [`KeyKind::Allocation`](crate::KeyKind::Allocation).
    Allocation(Arc<Allocation>),
}

/// How the last look for an entry ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// With a value.
    Found,
    /// With the news that the model has no series. A value from before is then never called fresh.
    Missing,
    /// With an error. A value from before keeps its own age.
    Failed,
}

/// The part of an entry that only writers and errors need; shared by the entries of one model.
#[derive(Clone, Default, Debug)]
pub struct Cold {
    /// What became of the last look of each source that has been asked, in order of preference.
    pub sources: Vec<SourceState>,
    /// Why there is nothing newer: the error of the most preferred source whose last look failed.
    pub error: Option<Arc<BackendError>>,
    /// What exists in place of a model that is missing.
    pub nearest: Option<Arc<Nearest>>,
}

/// What one source last said of a model.
#[derive(Clone, Debug)]
pub struct SourceState {
    /// The source.
    pub backend: BackendName,
    /// How its last look ended.
    pub outcome: Outcome,
    /// When that was.
    pub ended_at: Tick,
    /// When it last answered, with the model or without it; `None` when it never has.
    pub answered_at: Option<Tick>,
    /// When what it answered then was looked at; orders what it says. `None` when it never has.
    pub as_of: Option<Tick>,
    /// The last answer that had the model.
    pub answer: Option<SourceAnswer>,
    /// Why its last look failed; `None` when it did not.
    pub error: Option<Arc<BackendError>>,
    /// What it has in place of the model, where it was asked.
    pub nearest: Option<Arc<Nearest>>,
}

/// An answer of one source that had the model.
#[derive(Clone, Debug)]
pub struct SourceAnswer {
    /// What it said, completed with what was kept from the answer before it.
    pub sample: Arc<ModelSample>,
    /// When it arrived.
    pub arrived_at: Tick,
    /// The load fields that were kept from a look before it, because their query failed in this one.
    pub load_marks: Vec<Mark>,
    /// The pods that the source has seen leave, each with the first look that lacked it. Another source
    /// may still show them from before.
    pub departed: Vec<(PodName, Tick)>,
    /// The pods that were kept although the last answers lacked them, each with how many answers in a row
    /// did so under the same warning.
    pub absent: Vec<(PodName, u8)>,
}

/// What exists in place of a model that has no series.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Nearest {
    /// The nearest model ids in the namespace asked, best first.
    pub models: Vec<ModelId>,
    /// Namespaces where the very model exists.
    pub namespaces: Vec<Namespace>,
    /// How many models the backend knows at all, where it can tell.
    pub known: Option<usize>,
    /// All models in the namespace asked, where they are few.
    pub in_namespace: Vec<ModelId>,
    /// How long before the answer something of the very model was last there: it has been scaled to zero,
    /// and is not misspelt.
    pub last_seen: Option<Duration>,
}

/// What [`MetricsCache::peek`] sees.
#[derive(Clone, Debug)]
pub struct Peeked {
    /// The entry.
    pub stored: Arc<Stored>,
    /// When it was last read, or put where it was never read.
    pub last_read: Tick,
}

/// Counters of a cache since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CacheStats {
    /// Entries now.
    pub entries: usize,
    /// About how many bytes they hold, their values included; 0 where the cache does not count them.
    pub bytes: usize,
    /// Entries removed to stay within the capacity.
    pub evictions: u64,
}

/// Keeps entries under structured keys: synchronous and local.
///
/// The cache knows two deadlines of an entry and when it was last read, nothing else. Implementations
/// may be called from many threads; a read takes no lock that a writer holds.
///
/// Show that an implementation keeps this contract with `collector_testkit::conformance::cache`.
pub trait MetricsCache: Send + Sync + 'static {
    /// Whether what is put can be got. A cache that keeps nothing says `false`, and the engine then
    /// neither tracks nor refreshes, and asks the backend at every read.
    fn retains(&self) -> bool;

    /// The entry, whatever its age; counts as a read at `now`.
    fn get(&self, key: KeyRef<'_>, now: Tick) -> Option<Arc<Stored>>;

    /// Shows the entry to `f` without sharing it; counts as a read at `now`. False when there is none.
    fn visit(&self, key: KeyRef<'_>, now: Tick, f: &mut dyn FnMut(&Stored)) -> bool;

    /// The entry and when it was last read; does not count as a read.
    fn peek(&self, key: KeyRef<'_>) -> Option<Peeked>;

    /// Puts an entry in place of the one under its key. `now` counts as its last read when it is new.
    ///
    /// A cache of limited size makes room by removing others, tracked ones last. What is not tracked
    /// finds no room among entries that all are.
    fn put(&self, key: CacheKey, stored: Arc<Stored>, now: Tick);

    /// Removes the entries of a scope and tells how many there were.
    fn remove(&self, scope: &Scope) -> usize;

    /// Removes the entries that are past `keep_until` and unread for `keep_unread`, and returns their
    /// keys.
    fn sweep(&self, now: Tick) -> Vec<CacheKey>;

    /// How many entries there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool;

    /// Counters.
    fn stats(&self) -> CacheStats;
}

impl Nearest {
    /// What to suggest for `asked`, given what exists: at most `limit` names, nearest first.
    ///
    /// `distance` tells how far two names are apart; names further apart than 2/3 of the longer one's
    /// length are no suggestion.
    pub fn of(
        asked: &ModelRef,
        known: &[KnownModel],
        limit: usize,
        distance: impl Fn(&str, &str) -> usize,
    ) -> Self {
        let text = head(asked.model.as_str());
        let mut near: Vec<(usize, &ModelRef)> = known
            .iter()
            .map(|known| &known.model)
            .filter(|model| model.model != asked.model)
            .filter_map(|model| {
                // Ids are compared where people mistype, and that bounds what comparing costs.
                let other = head(model.model.as_str());
                let far = distance(text, other);
                let longer = text.chars().count().max(other.chars().count());
                (far * 3 <= longer * 2).then_some((far, model))
            })
            .collect();
        // A neighbour in the namespace asked comes before a nearer name elsewhere.
        near.sort_by_key(|(far, model)| (model.namespace != asked.namespace, *far, &model.model));
        let mut models: Vec<ModelId> = Vec::new();
        for (_, model) in near {
            if models.len() < limit && !models.contains(&model.model) {
                models.push(model.model.clone());
            }
        }
        let mut namespaces: Vec<Namespace> = known
            .iter()
            .filter(|known| known.model.model == asked.model)
            .map(|known| known.model.namespace.clone())
            .collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        let in_namespace = known.iter().filter(|it| it.model.namespace == asked.namespace);
        let mut in_namespace: Vec<ModelId> =
            in_namespace.map(|known| known.model.model.clone()).take(FEW_MODELS + 1).collect();
        if in_namespace.len() > FEW_MODELS {
            in_namespace.clear();
        }
        Self { models, namespaces, known: Some(known.len()), in_namespace, last_seen: None }
    }

    /// What two sources have, in order of preference: at most as many names as the longer list.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let limit = self.models.len().max(other.models.len());
        let mut both = self.clone();
        both.models.extend(other.models.iter().filter(|m| !self.models.contains(m)).cloned());
        both.models.truncate(limit);
        both.namespaces.extend(other.namespaces.iter().cloned());
        both.namespaces.sort_unstable();
        both.namespaces.dedup();
        both.known = self.known.max(other.known);
        both.last_seen = [self.last_seen, other.last_seen].into_iter().flatten().min();
        let more = other.in_namespace.iter().filter(|model| !self.in_namespace.contains(model));
        both.in_namespace.extend(more.cloned());
        both
    }
}

/// Models of one namespace that are all named.
const FEW_MODELS: usize = 5;

/// The first 200 characters.
fn head(text: &str) -> &str {
    text.char_indices().nth(200).map_or(text, |(end, _)| &text[..end])
}
