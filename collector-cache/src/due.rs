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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_list_is_taken_when_something_in_it_may_be_due_and_no_sooner() {
        let now = Tick::from_nanos(1 << 40);
        let later = now + Duration::from_secs(5);
        let mut due = Due::default();
        due.add(Step::of(later), 7);
        due.add(Step::of(Tick::MAX), 8);
        assert_eq!(due.take(now), None);
        assert_eq!(due.take(later), Some((Step::of(later), vec![7])));
        assert_eq!(due.take(Tick::MAX), None, "what never leaves is in no list");
    }
}
