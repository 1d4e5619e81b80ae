//! Chains through the ids of entries.

use hashbrown::HashTable;

use crate::books::NONE;
use crate::by_id::ById;

/// The links of chains of which each entry is in one.
#[derive(Default)]
pub(super) struct Links(ById<Link>);

/// What stands before and after an entry in its chain.
#[derive(Clone, Copy)]
pub(super) struct Link {
    pub(super) before: u32,
    pub(super) after: u32,
}

impl Default for Link {
    fn default() -> Self {
        Self { before: NONE, after: NONE }
    }
}

impl Links {
    pub(super) fn of(&self, id: u32) -> Link {
        self.0[id]
    }

    /// Puts an entry between two neighbours, or at an end where there is none.
    pub(super) fn put_between(&mut self, before: u32, id: u32, after: u32) {
        if before != NONE {
            self.0[before].after = id;
        }
        if after != NONE {
            self.0[after].before = id;
        }
        self.0.set(id, Link { before, after });
    }

    /// Takes an entry out from between its neighbours, and tells who they are.
    pub(super) fn take_out(&mut self, id: u32) -> Link {
        let link = self.0[id];
        if link.before != NONE {
            self.0[link.before].after = link.after;
        }
        if link.after != NONE {
            self.0[link.after].before = link.before;
        }
        link
    }

    /// An entry and those after it.
    pub(super) fn from(&self, first: Option<u32>) -> impl Iterator<Item = u32> {
        std::iter::successors(first, |id| Some(self.0[*id].after).filter(|next| *next != NONE))
    }
}

/// Another entry heads a chain now, or none does.
pub(super) fn replace_head(heads: &mut HashTable<u32>, hash: u64, id: u32, by: u32) {
    if let Ok(mut head) = heads.find_entry(hash, |head| *head == id) {
        if by == NONE {
            head.remove();
        } else {
            *head.get_mut() = by;
        }
    }
}
