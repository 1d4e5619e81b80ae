// SPDX-License-Identifier: Apache-2.0
//! Random sequences of everything that can be done to a cache, against a reference that is too simple to be wrong.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use collector_cache::{MemoryCache, NoOpCache};
use collector_core::{MetricsCache, ModelRecord, ModelRef, Tick};
use collector_testkit::SampleRecord;
use proptest::prelude::*;

/// Cases of each test. Miri takes some thousand times as long for a step.
const CASES: u32 = if cfg!(miri) { 2 } else { 256 };

const MODELS: usize = 12;

#[derive(Clone, Debug)]
enum Step {
    Put {
        model: usize,
        allocations: usize,
        tracked: bool,
    },
    Read(usize),
    Remove(usize),
    /// Keeps the models whose bit is set.
    Retain(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let put = (0..MODELS, 0..4_usize, any::<bool>())
        .prop_map(|(model, allocations, tracked)| Step::Put { model, allocations, tracked });
    let step = prop_oneof![
        8 => put,
        8 => (0..MODELS).prop_map(Step::Read),
        1 => (0..MODELS).prop_map(Step::Remove),
        1 => any::<u16>().prop_map(Step::Retain),
    ];
    prop::collection::vec(step, 1..if cfg!(miri) { 20 } else { 200 })
}

/// The records by model, and what must be evicted, by a scan.
struct Reference {
    stores: bool,
    max_entries: usize,
    records: BTreeMap<ModelRef, Arc<ModelRecord>>,
    evictions: u64,
}

impl Reference {
    fn entries(&self) -> usize {
        self.records.values().map(|record| record.entries()).sum()
    }

    fn put(&mut self, record: &Arc<ModelRecord>) {
        if !self.stores {
            return;
        }
        self.records.insert(record.model.clone(), Arc::clone(record));
        if self.entries() <= self.max_entries {
            return;
        }
        // A sixteenth is kept free, so that not each put evicts.
        let most = self.max_entries - self.max_entries / 16;
        while self.entries() > most {
            let others = self.records.values().filter(|it| it.model != record.model);
            let may_go = others.filter(|it| record.tracked || !it.tracked);
            let first = may_go.min_by_key(|it| (it.tracked, it.last_read()));
            let Some(first) = first.map(|it| it.model.clone()) else { break };
            self.evict(&first);
        }
        if self.entries() > self.max_entries && self.records.len() > 1 {
            self.evict(&record.model);
        }
    }

    fn evict(&mut self, model: &ModelRef) {
        self.records.remove(model);
        self.evictions += 1;
    }
}

fn model(number: usize) -> ModelRef {
    ModelRef::new(format!("model-{number}"), "prod")
}

fn is_kept(keep: u16, of: &ModelRef) -> bool {
    (0..MODELS).any(|number| keep & (1 << number) != 0 && model(number) == *of)
}

fn same(found: Option<&Arc<ModelRecord>>, expected: Option<&Arc<ModelRecord>>) -> bool {
    match (found, expected) {
        (Some(found), Some(expected)) => Arc::ptr_eq(found, expected),
        (None, None) => true,
        _ => false,
    }
}

fn run(cache: &dyn MetricsCache, max_entries: usize, steps: Vec<Step>) {
    let records = BTreeMap::new();
    let mut reference = Reference { stores: cache.retains(), max_entries, records, evictions: 0 };
    let mut now = Tick::from_nanos(1 << 40);
    for (number, step) in steps.into_iter().enumerate() {
        // No two records were read at the same time, so that there is one that was read least recently.
        now = now + Duration::from_secs(1);
        match &step {
            Step::Put { model: of, allocations, tracked } => {
                let mut record = SampleRecord::new(&model(*of));
                record.allocations =
                    (0..*allocations).map(|number| (format!("v-{number}").into(), None)).collect();
                record.tracked = *tracked;
                record.last_read = now;
                let record = record.build();
                cache.put(Arc::clone(&record));
                reference.put(&record);
            }
            Step::Read(of) => {
                let found = cache.get(&model(*of));
                let expected = reference.records.get(&model(*of));
                assert!(same(found.as_ref(), expected), "step {number}, {step:?}: another record");
                found.inspect(|record| record.touch(now));
            }
            Step::Remove(of) => {
                let (found, expected) =
                    (cache.remove(&model(*of)), reference.records.remove(&model(*of)));
                assert!(same(found.as_ref(), expected.as_ref()), "step {number}, {step:?}");
            }
            Step::Retain(keep) => {
                cache.retain(&mut |record| is_kept(*keep, &record.model));
                reference.records.retain(|of, _| is_kept(*keep, of));
            }
        }
        compare(cache, &reference, &format!("after step {number}, {step:?}"));
    }
}

fn compare(cache: &dyn MetricsCache, reference: &Reference, when: &str) {
    let mut seen = BTreeMap::new();
    cache.retain(&mut |record| {
        assert!(seen.insert(record.model.clone(), Arc::clone(record)).is_none(), "{when}: twice");
        true
    });
    let names = |records: &BTreeMap<ModelRef, _>| records.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&seen), names(&reference.records), "{when}");
    for of in (0..MODELS).map(model) {
        assert!(same(cache.get(&of).as_ref(), reference.records.get(&of)), "{when}: {of}");
    }
    let stats = cache.stats();
    let counts = (stats.models, stats.entries, stats.evictions);
    let expected = (reference.records.len(), reference.entries(), reference.evictions);
    assert_eq!(counts, expected, "models, entries and evictions {when}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(CASES) })]

    #[test]
    fn memory_cache_is_its_reference(steps in steps(), max_entries in 1..40_usize) {
        run(&MemoryCache::new(max_entries, usize::MAX), max_entries, steps);
    }

    #[test]
    fn no_op_cache_is_its_reference(steps in steps()) {
        run(&NoOpCache, usize::MAX, steps);
    }
}

#[test]
fn bytes_are_limited_like_entries() {
    let one = SampleRecord::new(&model(0)).build().bytes();
    let cache = MemoryCache::new(usize::MAX, 10 * (one + 100));
    for number in 0..MODELS * 10 {
        cache.put(SampleRecord::new(&model(number)).build());
        assert!(cache.stats().bytes <= 10 * (one + 100));
    }
    assert!(cache.stats().models >= 8, "{:?}", cache.stats());
}

#[test]
fn the_only_record_is_kept_however_large_it_is() {
    let cache = MemoryCache::new(1, 1);
    let large = |number| {
        let mut record = SampleRecord::new(&model(number));
        record.allocations = vec![("v".into(), None)];
        record.build()
    };
    cache.put(large(0));
    cache.put(large(1));
    assert!(cache.get(&model(0)).is_none());
    assert!(cache.get(&model(1)).is_some());
}
