//! What writers know of the entries: their sizes, classes and groups, who leaves first, and when each is
//! to be swept. Readers never look here.

use std::sync::Arc;

use collector_core::{KeyGroup, Stored, Tick};

use crate::by_id::ById;
use crate::due::{Due, Step};
use crate::evict::{Eviction, Order};
use crate::index::Index;
use crate::slot::Slot;

/// No entry, where an id stands.
pub(crate) const NONE: u32 = u32::MAX;

/// What an entry costs besides its value and the text of its key: its cell, its place in the map and
/// in these books. As `cargo xtask bench` measures it.
const OVERHEAD: usize = 144;

pub(crate) struct Books {
    pages: ById<Option<Page>>,
    free: Vec<u32>,
    index: Index,
    order: Order,
    due: Due,
    bytes: usize,
}

/// What is known of one entry, in 16 bytes.
struct Page {
    slot: Arc<Slot>,
    weight: Weight,
    step: Step,
}

/// The bytes of an entry, at most 2 GiB, and in the lowest bit whether it is tracked.
#[derive(Clone, Copy)]
struct Weight(u32);

impl Weight {
    fn of(slot: &Slot, stored: &Stored) -> Self {
        let bytes = Books::bytes_of(slot.key().heap_bytes(), stored);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(u32::MAX >> 1);
        Self(bytes << 1 | u32::from(stored.tracked))
    }

    fn bytes(self) -> usize {
        (self.0 >> 1) as usize
    }

    fn tracked(self) -> bool {
        self.0 & 1 == 1
    }
}

impl Books {
    pub(crate) fn new(eviction: Eviction) -> Self {
        Self {
            pages: ById::default(),
            free: Vec::new(),
            index: Index::default(),
            order: Order::new(eviction),
            due: Due::default(),
            bytes: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.pages.len() - self.free.len()
    }

    /// About what the entries hold, all together.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// About what an entry of this slot would hold.
    pub(crate) fn bytes_of(key_bytes: usize, stored: &Stored) -> usize {
        OVERHEAD + key_bytes + stored.bytes()
    }

    /// Whether the books grow with the next new entry.
    pub(crate) fn is_full(&self) -> bool {
        self.free.is_empty() && self.pages.is_full()
    }

    /// The id of the next new entry.
    pub(crate) fn next_id(&self) -> u32 {
        let next = || u32::try_from(self.pages.len()).unwrap_or(NONE);
        self.free.last().copied().unwrap_or_else(next)
    }

    /// Enters a new entry, whose slot has [`next_id`](Self::next_id).
    pub(crate) fn enter(&mut self, slot: &Arc<Slot>, stored: &Stored) {
        let id = slot.id();
        let (weight, step) = (Weight::of(slot, stored), Step::of(slot.leaves_at(stored)));
        self.free.pop();
        let Self { index, pages, .. } = self;
        pages.set(id, Some(Page { slot: Arc::clone(slot), weight, step }));
        index.add(slot, |id| slot_in(pages, id));
        self.order.insert(slot, stored.tracked);
        self.due.add(step, id);
        self.bytes += weight.bytes();
    }

    /// Another entry stands in the place of one that was entered.
    pub(crate) fn replace(&mut self, slot: &Slot, stored: &Stored) {
        let id = slot.id();
        let Some(page) = &mut self.pages[id] else { return };
        let weight = Weight::of(slot, stored);
        let former = std::mem::replace(&mut page.weight, weight);
        self.bytes = self.bytes - former.bytes() + weight.bytes();
        let step = Step::of(slot.leaves_at(stored));
        if step < page.step {
            page.step = step;
            self.due.add(step, id);
        }
        if former.tracked() != stored.tracked {
            self.order.remove(id, former.tracked());
            self.order.insert(slot, stored.tracked);
        }
    }

    /// Strikes an entry out.
    pub(crate) fn strike(&mut self, slot: &Slot) {
        let id = slot.id();
        // While its page is still there, because groups are found by their members' keys.
        self.index.remove(slot, |id| slot_in(&self.pages, id));
        if let Some(page) = self.pages[id].take() {
            self.order.remove(id, page.weight.tracked());
            self.bytes -= page.weight.bytes();
            self.free.push(id);
        }
    }

    /// Who leaves for an entry that is tracked or not, and is not `spared`: those that are not tracked
    /// first, and tracked ones only for one that is tracked itself.
    pub(crate) fn victim(&mut self, for_tracked: bool, spared: u32) -> Option<Arc<Slot>> {
        let Self { order, pages, .. } = self;
        let mut of_class = |tracked| order.victim(tracked, spared, |id| slot_in(pages, id));
        let id = of_class(false).or_else(|| for_tracked.then(|| of_class(true)).flatten())?;
        Some(Arc::clone(&pages[id].as_ref()?.slot))
    }

    /// The entries of a group.
    pub(crate) fn members(&self, group: KeyGroup<'_>) -> Vec<Arc<Slot>> {
        let slots = |ids: Vec<u32>| {
            let pages = ids.into_iter().filter_map(|id| self.pages[id].as_ref());
            pages.map(|page| Arc::clone(&page.slot)).collect()
        };
        match self.index.members(group, |id| slot_in(&self.pages, id)) {
            Some(ids) => slots(ids),
            None => self.pages.iter().flatten().map(|page| Arc::clone(&page.slot)).collect(),
        }
    }

    /// Takes the ids of entries that may be due at `now`, with the list they stood in; `None` when there
    /// are no more.
    pub(crate) fn take_due(&mut self, now: Tick) -> Option<(Step, Vec<u32>)> {
        self.due.take(now)
    }

    /// The slot of an entry that stood in this list and in no earlier one.
    pub(crate) fn due_slot(&self, id: u32, step: Step) -> Option<Arc<Slot>> {
        let page = self.pages[id].as_ref()?;
        (page.step == step).then(|| Arc::clone(&page.slot))
    }

    /// Puts an entry that was taken, and turned out not to be due, into the list it belongs to.
    pub(crate) fn put_off(&mut self, slot: &Slot, stored: &Stored) {
        let step = Step::of(slot.leaves_at(stored));
        if let Some(page) = &mut self.pages[slot.id()] {
            page.step = step;
            self.due.add(step, slot.id());
        }
    }
}

/// The slot of an entry that is in the books.
fn slot_in(pages: &ById<Option<Page>>, id: u32) -> &Slot {
    match &pages[id] {
        Some(page) => &page.slot,
        // An id leaves every list before its page is free.
        None => unreachable!("the entry {id} is in a list and not in the books"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use collector_core::{CacheKey, ModelRef};
    use std::time::Duration;

    #[test]
    fn an_entry_that_is_replaced_again_and_again_is_listed_once() {
        let now = Tick::from_nanos(1 << 40);
        let stored = Stored { keep_until: now + Duration::from_secs(60), ..samples::entry() };
        let key = CacheKey::replicas(&ModelRef::new("model", "prod"));
        let slot = Arc::new(Slot::new(key, 0, 0, now));
        let mut books = Books::new(Eviction::Sieve);
        books.enter(&slot, &stored);
        for _ in 0..100 {
            books.replace(&slot, &stored);
        }
        let sooner = Stored { keep_until: now + Duration::from_secs(30), ..stored };
        books.replace(&slot, &sooner);
        let listed = |books: &mut Books, seconds| {
            books.take_due(now + Duration::from_secs(seconds)).map(|(_, ids)| ids)
        };
        assert_eq!(listed(&mut books, 30), Some(vec![0]));
        assert_eq!(listed(&mut books, 60), Some(vec![0]));
        assert_eq!(listed(&mut books, 60), None);
    }
}
