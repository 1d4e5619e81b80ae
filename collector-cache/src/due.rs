//! When entries are to be looked at by a sweep, so that it touches no others.

use std::collections::BTreeMap;

use collector_core::Tick;

use crate::by_id::push;

/// The list that an entry stands in: the upper half of the nanoseconds, so that entries share one that
/// leave within 4.3 seconds of each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Step(u32);

impl Step {
    /// That of an entry that never leaves by itself.
    pub(crate) const NEVER: Self = Self(u32::MAX);

    pub(crate) fn of(tick: Tick) -> Self {
        Self((tick.to_nanos() >> 32) as u32)
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
        (*first.key() <= Step::of(now)).then(|| first.remove_entry())
    }
}
