//! What can be done to a cache, and how often the machines do it.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use collector_core::{
    AcceleratorName, CacheKey, Cold, KeyKind, ModelRef, Nearest, Outcome, Scope, Stored, Tick,
    Value, VariantName,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

const MODELS: [&str; 2] = ["llama", "llama-8b"];
const NAMESPACES: [&str; 3] = ["prod", "llama", "test"];
const VARIANTS: [&str; 2] = ["quick", "slow"];
/// One of them is named as a variant is: what has no accelerator prints its variant.
const ACCELERATORS: [&str; 3] = ["L4", "H100", "quick"];

const SECOND: Duration = Duration::from_secs(1);
const NANOSECOND: Duration = Duration::from_nanos(1);
const STEPS: usize = if cfg!(miri) { 12 } else { 80 };

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// `key` is a place in [`KEYS`].
    Read {
        key: usize,
        how: Read,
        /// By how many nanoseconds the reader's look at the clock is older than the last.
        late: u64,
    },
    Put {
        key: usize,
        accelerator: Option<&'static str>,
        entry: NewEntry,
    },
    Remove(Scope),
    Sweep,
    Wait(Duration),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Read {
    Get,
    Visit,
    Peek,
    Handle,
    /// What was read lately, or else the cache.
    Recent,
}

#[derive(Clone, Debug)]
pub(super) struct NewEntry {
    /// How long it is of use from now; `None` for ever.
    keep: Option<Duration>,
    keep_unread: Duration,
    tracked: bool,
    /// Names it holds, which make it larger.
    names: usize,
}

impl NewEntry {
    pub(super) fn stored(&self, now: Tick) -> Arc<Stored> {
        let nearest = Nearest { models: vec!["name".into(); self.names], ..Nearest::default() };
        Arc::new(Stored {
            value: Value::None,
            outcome: Outcome::Missing,
            current_until: now,
            refresh_after: now,
            keep_until: self.keep.map_or(Tick::MAX, |keep| now + keep),
            keep_unread: self.keep_unread,
            tracked: self.tracked,
            cold: Arc::new(Cold { nearest: Some(Arc::new(nearest)), ..Cold::default() }),
        })
    }
}

/// Every key there is, without accelerators.
pub(super) static KEYS: LazyLock<Vec<CacheKey>> = LazyLock::new(|| {
    let mut keys = Vec::new();
    for model in MODELS {
        for namespace in NAMESPACES {
            let model = ModelRef::new(model, namespace);
            keys.push(CacheKey::replicas(&model));
            for variant in VARIANTS {
                keys.push(CacheKey::allocation(&model, &variant.into(), None));
            }
        }
    }
    keys
});

/// A key of [`KEYS`]; an allocation's with an accelerator.
pub(super) fn with_accelerator(key: usize, accelerator: Option<&str>) -> CacheKey {
    let key = KEYS[key].clone();
    let parts = key.as_ref();
    if parts.kind() == KeyKind::Replicas {
        return key;
    }
    let model = ModelRef::new(parts.model(), parts.namespace());
    let accelerator = accelerator.map(AcceleratorName::from);
    CacheKey::allocation(&model, &VariantName::from(parts.variant()), accelerator.as_ref())
}

fn a_key() -> impl Strategy<Value = usize> {
    0..KEYS.len()
}

fn an_entry() -> impl Strategy<Value = NewEntry> {
    let keep = prop_oneof![
        Just(None),
        select(vec![Duration::ZERO, NANOSECOND, SECOND / 2, SECOND, SECOND * 7]).prop_map(Some),
    ];
    let unread = select(vec![Duration::ZERO, NANOSECOND, SECOND, SECOND * 3]);
    let names = prop_oneof![6 => 0..20_usize, 1 => 0..400_usize];
    (keep, unread, prop::bool::ANY, names).prop_map(|(keep, keep_unread, tracked, names)| {
        NewEntry { keep, keep_unread, tracked, names }
    })
}

fn a_scope() -> impl Strategy<Value = Scope> {
    let kind = select(vec![None, Some(KeyKind::Replicas), Some(KeyKind::Allocation)]);
    let one_of = |texts: &[&'static str]| proptest::option::weighted(0.4, select(texts.to_vec()));
    let parts =
        (kind, one_of(&MODELS), one_of(&NAMESPACES), one_of(&ACCELERATORS), one_of(&VARIANTS));
    parts.prop_map(|(kind, model, namespace, accelerator, variant)| {
        let mut scope = kind.map_or_else(Scope::all, Scope::of_kind);
        scope = model.into_iter().fold(scope, Scope::model);
        scope = namespace.into_iter().fold(scope, Scope::namespace);
        scope = accelerator.into_iter().fold(scope, Scope::accelerator);
        variant.into_iter().fold(scope, Scope::variant)
    })
}

/// A sequence of steps.
pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let how = select(vec![Read::Get, Read::Visit, Read::Peek, Read::Handle, Read::Recent]);
    let late = prop_oneof![4 => Just(0), 1 => select(vec![1, 2_000_000_000_u64])];
    let accelerator = proptest::option::of(select(ACCELERATORS.to_vec()));
    let times = vec![Duration::ZERO, NANOSECOND, SECOND / 2, SECOND, SECOND * 4, SECOND * 3600];
    vec(
        prop_oneof![
            10 => (a_key(), how, late).prop_map(|(key, how, late)| Step::Read { key, how, late }),
            10 => (a_key(), accelerator, an_entry()).prop_map(|(key, accelerator, entry)| {
                Step::Put { key, accelerator, entry }
            }),
            2 => a_scope().prop_map(Step::Remove),
            2 => Just(Step::Sweep),
            4 => select(times).prop_map(Step::Wait),
        ],
        1..STEPS,
    )
}
