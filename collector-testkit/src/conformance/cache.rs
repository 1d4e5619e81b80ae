//! The promises of [`MetricsCache`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use collector_core::{
    AcceleratorName, CacheKey, Clock, Cold, KeyKind, KeyRef, ManualClock, MetricsCache, ModelRef,
    Outcome, Replicas, Scope, Stored, Tick, Value, VariantName,
};

use super::print;

/// Checks every promise of [`MetricsCache`] on caches that `make` makes, a new one for each case.
///
/// They must have room for 1000 entries. A cache that keeps nothing
/// ([`retains`](MetricsCache::retains) is false) is checked for exactly that.
///
/// # Panics
/// When a promise is broken.
pub fn cache<C: MetricsCache>(make: impl Fn() -> C) {
    let keeps = make().retains();
    for (name, case) in CASES_OF_ONE_THAT_KEEPS {
        if keeps {
            print("cache", name, "runs");
            case(&make());
        } else {
            print("cache", name, "skipped, because retains() is false");
        }
    }
    if !keeps {
        print("cache", "keeps_nothing", "runs");
        keeps_nothing(&make());
    }
}

type Case = fn(&dyn MetricsCache);

macro_rules! cases {
    ($($case:ident),* $(,)?) => { &[$((stringify!($case), $case as Case)),*] };
}

const CASES_OF_ONE_THAT_KEEPS: &[(&str, Case)] = cases![
    an_empty_cache_has_nothing,
    what_was_put_is_read_whatever_its_age,
    keys_are_told_apart_by_their_parts,
    a_put_replaces,
    get_and_visit_count_as_reads_and_peek_does_not,
    a_scope_removes_what_it_contains_and_nothing_else,
    an_allocation_is_removed_by_its_newest_accelerator,
    a_sweep_removes_what_is_both_past_its_time_and_unread,
    a_read_keeps_an_entry_from_the_sweep,
    a_put_moves_the_deadlines,
    what_was_removed_can_be_put_again,
    counts_agree,
    threads_at_once_lose_nothing,
    a_model_removed_while_it_is_written_leaves_no_trace,
];

const SECOND: Duration = Duration::from_secs(1);
const NANOSECOND: Duration = Duration::from_nanos(1);
const MINUTE: Duration = Duration::from_secs(60);
/// `keep_until` of the entries here, counted from [`start`].
const KEEP: Duration = Duration::from_secs(300);
/// `keep_unread` of the entries here.
const UNREAD: Duration = Duration::from_secs(600);

fn start() -> Tick {
    ManualClock::new().now()
}

fn model(name: &str) -> ModelRef {
    ModelRef::new(name, "prod")
}

fn key(name: &str) -> CacheKey {
    CacheKey::replicas(&model(name))
}

/// An entry that can be told from others by its number.
fn stored(number: u64) -> Arc<Stored> {
    stored_until(number, start() + KEEP)
}

fn stored_until(number: u64, keep_until: Tick) -> Arc<Stored> {
    let as_of = start() + Duration::from_nanos(number);
    let replicas = Replicas::new(model("numbered"), Vec::new(), "test".into(), as_of);
    Arc::new(Stored {
        value: Value::Replicas(Arc::new(replicas)),
        outcome: Outcome::Found,
        current_until: start() + SECOND,
        refresh_after: start() + SECOND,
        keep_until,
        keep_unread: UNREAD,
        tracked: true,
        cold: Arc::new(Cold::default()),
    })
}

fn number(stored: &Stored) -> u64 {
    match &stored.value {
        Value::Replicas(replicas) => {
            let since_start = start().age(replicas.oldest);
            u64::try_from(since_start.as_nanos()).unwrap_or(u64::MAX)
        }
        other => panic!("the suite puts replicas alone, and the cache gave {other:?}"),
    }
}

fn put(cache: &dyn MetricsCache, name: &str, number: u64) {
    cache.put(key(name), stored(number), start());
}

/// The number under a model's replicas; does not count as a read.
fn peeked(cache: &dyn MetricsCache, name: &str) -> Option<u64> {
    let peeked = cache.peek(KeyRef::replicas(&model(name)))?;
    Some(number(&peeked.stored))
}

fn last_read(cache: &dyn MetricsCache, name: &str) -> Tick {
    cache.peek(KeyRef::replicas(&model(name))).expect("the entry is there").last_read
}

fn an_empty_cache_has_nothing(cache: &dyn MetricsCache) {
    let absent = model("absent");
    assert!(cache.get(KeyRef::replicas(&absent), start()).is_none());
    assert!(cache.peek(KeyRef::replicas(&absent)).is_none());
    let seen = cache.visit(KeyRef::replicas(&absent), start(), &mut |_| {
        panic!("visit shows an entry that was never put")
    });
    assert!(!seen, "visit says that it showed an entry");
    assert_eq!(cache.remove(&Scope::all()), 0);
    assert_eq!(cache.sweep(Tick::MAX), []);
    assert_eq!((cache.len(), cache.is_empty()), (0, true));
}

fn what_was_put_is_read_whatever_its_age(cache: &dyn MetricsCache) {
    put(cache, "llama", 7);
    let llama = model("llama");
    for now in [start(), start() + MINUTE, start() + KEEP + UNREAD * 10] {
        let got = cache.get(KeyRef::replicas(&llama), now);
        let got = got.expect("a ttl never removes, only a sweep does");
        assert_eq!(number(&got), 7);
        assert_eq!(got.keep_until, start() + KEEP);
        assert_eq!(got.keep_unread, UNREAD);
        assert_eq!(got.refresh_after, start() + SECOND);
        let mut shown = Vec::new();
        let seen = cache.visit(KeyRef::replicas(&llama), now, &mut |entry| {
            shown.push(number(entry));
        });
        assert_eq!((seen, shown), (true, vec![7]), "visit shows it once");
    }
}

fn keys_are_told_apart_by_their_parts(cache: &dyn MetricsCache) {
    let (quick, slow) = (VariantName::from("quick"), VariantName::from("slow"));
    let models = [
        ModelRef::new("a:b", "c"),
        ModelRef::new("a", "b:c"),
        ModelRef::new("ab", "c"),
        ModelRef::new("a", "bc"),
        ModelRef::new("", "abc"),
        ModelRef::new("abc", ""),
        ModelRef::new("ABC", ""),
    ];
    let mut numbers = 0..;
    for model in &models {
        for key in [
            CacheKey::replicas(model),
            CacheKey::allocation(model, &quick, Some(&"L4".into())),
            CacheKey::allocation(model, &slow, Some(&"L4".into())),
        ] {
            cache.put(key, stored(numbers.next().unwrap_or(0)), start());
        }
    }
    assert_eq!(cache.len(), models.len() * 3);
    let mut numbers = 0..;
    for model in &models {
        for key in [
            KeyRef::replicas(model),
            KeyRef::allocation(model, &quick),
            KeyRef::allocation(model, &slow),
        ] {
            let got = cache.get(key, start()).expect("each key has its entry");
            assert_eq!(Some(number(&got)), numbers.next(), "{key:?}");
        }
    }
}

fn a_put_replaces(cache: &dyn MetricsCache) {
    put(cache, "llama", 1);
    let held = cache.get(KeyRef::replicas(&model("llama")), start()).expect("it was put");
    put(cache, "llama", 2);
    assert_eq!(peeked(cache, "llama"), Some(2));
    assert_eq!(cache.len(), 1);
    assert_eq!(number(&held), 1, "what a reader holds never changes");
}

fn get_and_visit_count_as_reads_and_peek_does_not(cache: &dyn MetricsCache) {
    let llama = model("llama");
    put(cache, "llama", 1);
    assert_eq!(last_read(cache, "llama"), start(), "a put of a new entry");

    let later = start() + MINUTE;
    cache.get(KeyRef::replicas(&llama), later);
    assert_eq!(last_read(cache, "llama"), later, "a get");

    let later = later + MINUTE;
    cache.visit(KeyRef::replicas(&llama), later, &mut |_| {});
    assert_eq!(last_read(cache, "llama"), later, "a visit");

    cache.put(key("llama"), stored(2), later + MINUTE);
    assert_eq!(
        last_read(cache, "llama"),
        later,
        "a put over an entry is no read, or a refresh would keep it for ever"
    );
}

fn fill(cache: &dyn MetricsCache) -> Vec<CacheKey> {
    let mut keys = Vec::new();
    for name in ["llama", "llama-8b", "llam", "Llama"] {
        for namespace in ["prod", "production"] {
            let model = ModelRef::new(name, namespace);
            keys.push(CacheKey::replicas(&model));
            for accelerator in ["H100", "H100-80G"] {
                let variant = VariantName::new(format!("{name}-{accelerator}"));
                keys.push(CacheKey::allocation(&model, &variant, Some(&accelerator.into())));
            }
            keys.push(CacheKey::allocation(&model, &"bare".into(), None));
        }
    }
    for (key, at) in keys.iter().zip(0..) {
        cache.put(key.clone(), stored(at), start());
    }
    keys
}

fn a_scope_removes_what_it_contains_and_nothing_else(cache: &dyn MetricsCache) {
    let replicas = || Scope::of_kind(KeyKind::Replicas);
    let allocations = || Scope::of_kind(KeyKind::Allocation);
    let scopes = [
        Scope::of_model(&model("llama")),
        Scope::of_model(&model("absent")),
        replicas(),
        replicas().model("llama"),
        replicas().model("llama").namespace("prod"),
        replicas().accelerator("H100"),
        allocations().model("llama"),
        allocations().model("llama").namespace("prod").accelerator("H100"),
        Scope::all().model("llama"),
        Scope::all().namespace("prod"),
        Scope::all().accelerator("H100"),
        Scope::all(),
    ];
    for scope in scopes {
        let keys = fill(cache);
        assert_eq!(cache.len(), keys.len());
        let expected = keys.iter().filter(|key| scope.contains(key)).count();
        assert_eq!(cache.remove(&scope), expected, "removed by {scope:?}");
        for key in &keys {
            assert_eq!(
                cache.peek(key.as_ref()).is_none(),
                scope.contains(key),
                "{key} after {scope:?}"
            );
        }
        assert_eq!(cache.remove(&scope), 0, "{scope:?} a second time");
    }
}

fn an_allocation_is_removed_by_its_newest_accelerator(cache: &dyn MetricsCache) {
    let allocation = |accelerator: &str| {
        let accelerator = AcceleratorName::from(accelerator);
        CacheKey::allocation(&model("llama"), &"v".into(), Some(&accelerator))
    };
    cache.put(allocation("L4"), stored(1), start());
    cache.put(allocation("H100"), stored(2), start());
    assert_eq!(cache.len(), 1, "the accelerator is no part of the identity");
    let of = |accelerator| Scope::of_kind(KeyKind::Allocation).accelerator(accelerator);
    assert_eq!(cache.remove(&of("L4")), 0);
    assert_eq!(cache.remove(&of("H100")), 1);
}

/// Sweeps, and tells the models whose replicas were swept, in order.
fn swept(cache: &dyn MetricsCache, now: Tick) -> Vec<String> {
    let mut models: Vec<String> =
        cache.sweep(now).iter().map(|key| key.as_ref().model().to_owned()).collect();
    models.sort_unstable();
    models
}

fn a_sweep_removes_what_is_both_past_its_time_and_unread(cache: &dyn MetricsCache) {
    let put_until = |name: &str, until| cache.put(key(name), stored_until(0, until), start());
    put_until("long-dead", start());
    put_until("a-little-dead", start() + UNREAD - NANOSECOND);
    put_until("dying", start() + UNREAD);
    put_until("alive", start() + UNREAD + NANOSECOND);
    put_until("never", Tick::MAX);

    let none: [&str; 0] = [];
    assert_eq!(swept(cache, start()), none, "past its time, but just put");
    assert_eq!(swept(cache, start() + UNREAD - NANOSECOND), none);
    assert_eq!(
        swept(cache, start() + UNREAD),
        ["a-little-dead", "dying", "long-dead"],
        "each deadline belongs to the state it begins"
    );
    assert_eq!(cache.len(), 2);
    assert_eq!(peeked(cache, "dying"), None);
    assert_eq!(swept(cache, start() + UNREAD), none, "a second time");
    assert_eq!(swept(cache, start() + UNREAD + NANOSECOND), ["alive"]);
    assert_eq!(swept(cache, start() + UNREAD * 1_000_000), none);
    assert_eq!(peeked(cache, "never"), Some(0));
}

fn a_read_keeps_an_entry_from_the_sweep(cache: &dyn MetricsCache) {
    for name in ["got", "visited", "peeked"] {
        put(cache, name, 0);
    }
    let read_at = start() + UNREAD - SECOND;
    cache.get(KeyRef::replicas(&model("got")), read_at);
    cache.visit(KeyRef::replicas(&model("visited")), read_at, &mut |_| {});
    cache.peek(KeyRef::replicas(&model("peeked")));

    assert_eq!(swept(cache, start() + UNREAD), ["peeked"]);
    assert_eq!(swept(cache, read_at + UNREAD - NANOSECOND), [""; 0]);
    assert_eq!(swept(cache, read_at + UNREAD), ["got", "visited"]);
}

fn a_put_moves_the_deadlines(cache: &dyn MetricsCache) {
    let dead_at = |name: &str, until| cache.put(key(name), stored_until(0, until), start());
    dead_at("renewed", start());
    dead_at("renewed", start() + UNREAD * 3);
    dead_at("shortened", start() + UNREAD * 3);
    dead_at("shortened", start());
    let mut impatient = Stored::clone(&stored_until(0, start()));
    impatient.keep_unread = SECOND;
    dead_at("impatient", start());
    cache.put(key("impatient"), Arc::new(impatient), start());

    assert_eq!(swept(cache, start() + SECOND), ["impatient"]);
    assert_eq!(swept(cache, start() + UNREAD), ["shortened"]);
    assert_eq!(swept(cache, start() + UNREAD * 3), ["renewed"]);
}

fn what_was_removed_can_be_put_again(cache: &dyn MetricsCache) {
    put(cache, "llama", 1);
    assert_eq!(cache.remove(&Scope::of_model(&model("llama"))), 1);
    put(cache, "llama", 2);
    assert_eq!(peeked(cache, "llama"), Some(2));
    assert_eq!(swept(cache, start() + UNREAD), ["llama"]);
    cache.put(key("llama"), stored(3), start() + UNREAD);
    assert_eq!(peeked(cache, "llama"), Some(3));
    assert_eq!(last_read(cache, "llama"), start() + UNREAD, "it is new");
    assert_eq!(cache.remove(&Scope::of_model(&model("llama"))), 1);
}

fn counts_agree(cache: &dyn MetricsCache) {
    for count in 1..=100_usize {
        put(cache, &format!("model-{count}"), 0);
        assert_eq!(cache.len(), count);
        assert_eq!(cache.stats().entries, count);
        assert!(!cache.is_empty());
    }
    assert_eq!(cache.stats().evictions, 0, "there is room for 1000 entries");
    cache.remove(&Scope::of_model(&model("model-1")));
    assert_eq!((cache.len(), cache.stats().entries), (99, 99));
    assert_eq!(cache.sweep(Tick::MAX).len(), 99);
    assert_eq!((cache.len(), cache.stats().entries), (0, 0));
    assert_eq!(cache.stats().evictions, 0, "a sweep is no eviction");
}

/// Rounds of each thread: enough for a lost update to show within some runs, few enough to take
/// milliseconds.
const ROUNDS: u64 = if cfg!(miri) { 10 } else { 2000 };

fn threads_at_once_lose_nothing(cache: &dyn MetricsCache) {
    let (one, two) = ("written-1", "written-2");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers = [one, two].map(|name| {
            scope.spawn(move || {
                for number in 1..=ROUNDS {
                    put(cache, name, number);
                }
            })
        });
        for name in [one, two] {
            let done = &done;
            scope.spawn(move || {
                let mut before = 0;
                while !done.load(Ordering::Relaxed) {
                    let got = cache.get(KeyRef::replicas(&model(name)), start());
                    let now = got.map_or(before, |entry| number(&entry));
                    assert!(now >= before, "{name} went back from {before} to {now}");
                    before = now;
                }
            });
        }
        let done_too = &done;
        scope.spawn(move || {
            while !done_too.load(Ordering::Relaxed) {
                put(cache, "written", 0);
                cache.remove(&Scope::of_model(&model("written")));
                let none_is_due = cache.sweep(start() + KEEP);
                assert_eq!(none_is_due, [], "nobody was unread for long enough");
            }
        });
        for writer in writers {
            writer.join().expect("a writer does not panic");
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(peeked(cache, one), Some(ROUNDS), "the last put stands");
    assert_eq!(peeked(cache, two), Some(ROUNDS), "the last put stands");
    assert_eq!(cache.len(), 2);
}

fn a_model_removed_while_it_is_written_leaves_no_trace(cache: &dyn MetricsCache) {
    let llama = model("llama");
    let variant = VariantName::from("v");
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..=ROUNDS {
                put(cache, "llama", number);
                let key = CacheKey::allocation(&llama, &variant, Some(&"L4".into()));
                cache.put(key, stored(number), start());
            }
        });
        scope.spawn(|| {
            for _ in 1..=ROUNDS {
                cache.remove(&Scope::of_model(&llama));
            }
        });
        scope.spawn(|| {
            for _ in 1..=ROUNDS {
                cache.sweep(start() + UNREAD);
            }
        });
    });
    put(cache, "llama", 0);
    let there = [KeyRef::replicas(&llama), KeyRef::allocation(&llama, &variant)]
        .into_iter()
        .filter(|key| cache.peek(*key).is_some())
        .count();
    assert_eq!(cache.len(), there, "the count and the entries agree");
    assert_eq!(
        cache.remove(&Scope::of_model(&llama)),
        there,
        "what is there can be removed: no index has lost it"
    );
    assert!(cache.is_empty());
}

fn keeps_nothing(cache: &dyn MetricsCache) {
    put(cache, "llama", 1);
    an_empty_cache_has_nothing(cache);
    assert_eq!(peeked(cache, "llama"), None);
    assert!(cache.get(KeyRef::replicas(&model("llama")), start()).is_none());
    assert_eq!(cache.stats().entries, 0);
}
