//! When entries are to be looked at by a sweep, so that it touches no others.

use std::collections::BTreeMap;

use collector_core::Tick;

use crate::by_id::push;

/// Entries that leave within one second of each other share a list.
const STEP: u64 = 1_000_000_000;

/// The list that an entry stands in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Step(u64);

impl Step {
    /// That of an entry that never leaves by itself.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    pub(crate) fn of(tick: Tick) -> Self {
        if tick == Tick::MAX { Self::NEVER } else { Self(tick.to_nanos() / STEP) }
    }
}

/// Lists of entries by when they leave. An entry that leaves later than its list says is moved when the
/// list is looked at; one that leaves sooner is put into another as well, and whoever looks at the first
/// sees by the entry that it is elsewhere.
#[derive(Default)]
pub(crate) struct Due {
    lists: BTreeMap<Step, Vec<u32>>,
}

impl Due {
    pub(crate) fn add(&mut self, step: Step, id: u32) {
        if step != Step::NEVER {
            push(self.lists.entry(step).or_default(), id);
        }
    }

    /// Takes the earliest list, if anything in it may be due at `now`.
    pub(crate) fn take(&mut self, now: Tick) -> Option<(Step, Vec<u32>)> {
        let first = self.lists.first_entry()?;
        (*first.key() <= Step(now.to_nanos() / STEP)).then(|| first.remove_entry())
    }
}
