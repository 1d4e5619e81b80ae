// SPDX-License-Identifier: Apache-2.0
//! The cache suite on a plain cache, correct and with one flaw at a time.

use std::collections::HashMap;
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use collector_core::{CacheStats, MetricsCache, ModelRecord, ModelRef};
use collector_testkit::{SampleRecord, conformance};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flaw {
    None,
    SaysThatItStoresNothing,
    StoresNothing,
    LosesPutsOfNewModels,
    KeepsTheOldRecord,
    ReturnsCopies,
    HidesWhatHasExpired,
    MergesNamespaces,
    ComparesTheJoinedNames,
    IgnoresCase,
    RemovesAModelEverywhere,
    RemovesNothing,
    RemovesInSilence,
    RetainRemovesNothing,
    RetainRemovesWhatIsKept,
    RetainShowsHalf,
    RetainShowsTwice,
    CountsModelsForEntries,
    ForgetsToCountRemovals,
    CountsRemovalsAsEvictions,
    LeavesAGapInPut,
    SometimesGoesBack,
    LosesPutsDuringRetain,
    Hangs,
    GrowsBeyondItsLimit,
    EvictsTrackedFirst,
    EvictsTrackedForUntracked,
    EvictsInSilence,
}

const FLAWS: [Flaw; 27] = [
    Flaw::SaysThatItStoresNothing,
    Flaw::StoresNothing,
    Flaw::LosesPutsOfNewModels,
    Flaw::KeepsTheOldRecord,
    Flaw::ReturnsCopies,
    Flaw::HidesWhatHasExpired,
    Flaw::MergesNamespaces,
    Flaw::ComparesTheJoinedNames,
    Flaw::IgnoresCase,
    Flaw::RemovesAModelEverywhere,
    Flaw::RemovesNothing,
    Flaw::RemovesInSilence,
    Flaw::RetainRemovesNothing,
    Flaw::RetainRemovesWhatIsKept,
    Flaw::RetainShowsHalf,
    Flaw::RetainShowsTwice,
    Flaw::CountsModelsForEntries,
    Flaw::ForgetsToCountRemovals,
    Flaw::CountsRemovalsAsEvictions,
    Flaw::LeavesAGapInPut,
    Flaw::SometimesGoesBack,
    Flaw::LosesPutsDuringRetain,
    Flaw::Hangs,
    Flaw::GrowsBeyondItsLimit,
    Flaw::EvictsTrackedFirst,
    Flaw::EvictsTrackedForUntracked,
    Flaw::EvictsInSilence,
];

#[derive(Default)]
struct State {
    records: HashMap<String, Arc<ModelRecord>>,
    removed: usize,
    evictions: u64,
    puts: u64,
}

struct PlainCache {
    flaw: Flaw,
    limit: usize,
    state: Mutex<State>,
    retaining: std::sync::atomic::AtomicBool,
    gets: std::sync::atomic::AtomicUsize,
}

impl PlainCache {
    fn new(flaw: Flaw, limit: usize) -> Self {
        Self { flaw, limit, state: Mutex::default(), retaining: false.into(), gets: 0.into() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn id(&self, model: &ModelRef) -> String {
        match self.flaw {
            Flaw::MergesNamespaces => model.model.to_string(),
            Flaw::ComparesTheJoinedNames => format!("{}{}", model.model, model.namespace),
            Flaw::IgnoresCase => format!("{model:?}").to_lowercase(),
            _ => format!("{model:?}"),
        }
    }

    fn evict(&self, state: &mut State, newest: &ModelRecord) {
        let entries = |state: &State| state.records.values().map(|it| it.entries()).sum::<usize>();
        while self.flaw != Flaw::GrowsBeyondItsLimit && entries(state) > self.limit {
            let first = |record: &ModelRecord| match self.flaw {
                Flaw::EvictsTrackedFirst => !record.tracked,
                Flaw::EvictsTrackedForUntracked => false,
                _ => record.tracked,
            };
            let others = state.records.values().filter(|it| it.model != newest.model);
            let victim = others.min_by_key(|record| first(record)).map(|it| it.model.clone());
            let spares = self.flaw != Flaw::EvictsTrackedForUntracked
                && self.flaw != Flaw::EvictsTrackedFirst;
            let victim = victim
                .filter(|victim| {
                    let tracked = state.records[&self.id(victim)].tracked;
                    !(spares && tracked && !newest.tracked)
                })
                .unwrap_or_else(|| newest.model.clone());
            state.records.remove(&self.id(&victim));
            if self.flaw != Flaw::EvictsInSilence {
                state.evictions += 1;
            }
        }
    }
}

impl PlainCache {
    /// Gives readers time to see a state that should not be seen; there may be none.
    fn wait_for_a_get(&self) {
        let gets = || self.gets.load(std::sync::atomic::Ordering::SeqCst);
        let before = gets();
        for _ in 0..20 {
            if gets() != before {
                return;
            }
            std::thread::yield_now();
        }
    }
}

impl MetricsCache for PlainCache {
    fn retains(&self) -> bool {
        self.flaw != Flaw::SaysThatItStoresNothing
    }

    fn get(&self, model: &ModelRef) -> Option<Arc<ModelRecord>> {
        let record = self.state().records.get(&self.id(model)).cloned();
        self.gets.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let record = record?;
        match self.flaw {
            Flaw::ReturnsCopies => Some(
                SampleRecord {
                    number: SampleRecord::number_of(&record),
                    ..SampleRecord::new(&record.model)
                }
                .build(),
            ),
            Flaw::HidesWhatHasExpired if record.deadlines.keep_unread.is_zero() => None,
            _ => Some(record),
        }
    }

    fn put(&self, record: Arc<ModelRecord>) {
        let id = self.id(&record.model);
        let mut state = self.state();
        state.puts += 1;
        let known = state.records.contains_key(&id);
        let lost = match self.flaw {
            Flaw::StoresNothing => true,
            Flaw::LosesPutsOfNewModels => !known && state.records.len() > 5,
            Flaw::KeepsTheOldRecord => known,
            Flaw::LosesPutsDuringRetain => {
                self.retaining.load(std::sync::atomic::Ordering::Relaxed)
            }
            _ => false,
        };
        if lost {
            return;
        }
        if self.flaw == Flaw::Hangs && state.puts > 50 {
            drop(state);
            std::thread::park();
            return;
        }
        if self.flaw == Flaw::LeavesAGapInPut {
            state.records.remove(&id);
            drop(state);
            self.wait_for_a_get();
            state = self.state();
        }
        let former = state.records.insert(id.clone(), Arc::clone(&record));
        if let Some(former) = former.filter(|_| self.flaw == Flaw::SometimesGoesBack) {
            for again in [former, Arc::clone(&record)] {
                drop(state);
                self.wait_for_a_get();
                state = self.state();
                state.records.insert(id.clone(), again);
            }
        }
        self.evict(&mut state, &record);
    }

    fn remove(&self, model: &ModelRef) -> Option<Arc<ModelRecord>> {
        let mut state = self.state();
        if self.flaw == Flaw::RemovesNothing {
            return state.records.get(&self.id(model)).cloned();
        }
        let removed = state.records.remove(&self.id(model))?;
        if self.flaw == Flaw::RemovesAModelEverywhere {
            state.records.retain(|_, record| record.model.model != model.model);
        }
        state.removed += 1;
        (self.flaw != Flaw::RemovesInSilence).then_some(removed)
    }

    fn retain(&self, keep: &mut dyn FnMut(&Arc<ModelRecord>) -> bool) {
        if self.flaw == Flaw::LosesPutsDuringRetain {
            self.retaining.store(true, std::sync::atomic::Ordering::Relaxed);
            self.wait_for_a_get();
        }
        let mut state = self.state();
        let mut turn = 0;
        let before = state.records.len();
        state.records.retain(|_, record| {
            turn += 1;
            match self.flaw {
                Flaw::RetainShowsHalf if turn % 2 == 0 => true,
                Flaw::RetainShowsTwice => keep(record) & keep(record),
                Flaw::RetainRemovesNothing => {
                    keep(record);
                    true
                }
                Flaw::RetainRemovesWhatIsKept => !keep(record),
                _ => keep(record),
            }
        });
        state.removed += before - state.records.len();
        drop(state);
        self.retaining.store(false, std::sync::atomic::Ordering::Relaxed);
    }

    fn stats(&self) -> CacheStats {
        let state = self.state();
        let models = state.records.len();
        let entries = state.records.values().map(|record| record.entries()).sum();
        let entries = if self.flaw == Flaw::CountsModelsForEntries { models } else { entries };
        let removed = if self.flaw == Flaw::ForgetsToCountRemovals { state.removed } else { 0 };
        let as_evictions =
            if self.flaw == Flaw::CountsRemovalsAsEvictions { state.removed } else { 0 };
        let evictions = state.evictions + as_evictions as u64;
        CacheStats::new(models + removed, entries + removed, 0, evictions)
    }
}

#[test]
fn a_correct_cache_passes() {
    conformance::bounded_cache(|limit| PlainCache::new(Flaw::None, limit));
}

#[test]
fn each_flaw_is_caught_by_a_named_case() {
    for flaw in FLAWS {
        let outcome = catch_unwind(|| {
            conformance::bounded_cache(|limit| PlainCache::new(flaw, limit));
        });
        let panic = outcome.expect_err(&format!("a cache that {flaw:?} passed"));
        let message = panic.downcast_ref::<String>().expect("a message with the case");
        assert!(message.contains(": "), "{flaw:?}: {message}");
    }
}
