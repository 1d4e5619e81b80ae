//! Which entries have a part of their keys in common, so that dropping a model, a namespace or an
//! accelerator costs its own entries and not a walk over all. Only writers see it.

use std::hash::BuildHasher;

use collector_core::{KeyGroup, KeyKind, KeyRef};
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::books::NONE;
use crate::by_id::ById;
use crate::slot::Slot;

/// The groups that entries are in, by what they have in common.
#[derive(Default)]
pub(crate) struct Index {
    hasher: RandomState,
    /// By [`Dimension`].
    chains: [Chains; 4],
}

impl Index {
    pub(crate) fn add<'a>(&mut self, slot: &Slot, slot_of: impl Fn(u32) -> &'a Slot) {
        let Self { hasher, chains } = self;
        for (dimension, part) in groups_of(slot) {
            let hash = |part: &KeyGroup<'_>| hash(hasher, part);
            let of = |id: u32| part_of(dimension, slot_of(id));
            chains[dimension as usize].add(
                slot.id(),
                hash(&part),
                |id| of(id) == part,
                |id| hash(&of(id)),
            );
        }
    }

    pub(crate) fn remove(&mut self, slot: &Slot) {
        for (dimension, part) in groups_of(slot) {
            let hash = hash(&self.hasher, &part);
            self.chains[dimension as usize].remove(slot.id(), hash);
        }
    }

    /// The members of a group; `None` for the group of all, which is not kept.
    pub(crate) fn members<'a>(
        &self,
        group: KeyGroup<'_>,
        slot_of: impl Fn(u32) -> &'a Slot,
    ) -> Option<Vec<u32>> {
        let dimension = match group {
            KeyGroup::Model { .. } => Dimension::Model,
            KeyGroup::ModelAnywhere(_) => Dimension::ModelAnywhere,
            KeyGroup::Namespace(_) => Dimension::Namespace,
            KeyGroup::Accelerator(_) => Dimension::Accelerator,
            KeyGroup::All => return None,
        };
        let is_it = |id: u32| part_of(dimension, slot_of(id)) == group;
        let chains = &self.chains[dimension as usize];
        Some(chains.members(hash(&self.hasher, &group), is_it))
    }
}

/// What a group has in common.
#[derive(Clone, Copy)]
enum Dimension {
    Model,
    ModelAnywhere,
    Namespace,
    Accelerator,
}

fn part_of(dimension: Dimension, slot: &Slot) -> KeyGroup<'_> {
    let key: KeyRef<'_> = slot.key().as_ref();
    match dimension {
        Dimension::Model => KeyGroup::Model { model: key.model(), namespace: key.namespace() },
        Dimension::ModelAnywhere => KeyGroup::ModelAnywhere(key.model()),
        Dimension::Namespace => KeyGroup::Namespace(key.namespace()),
        Dimension::Accelerator => KeyGroup::Accelerator(slot.key().printed_accelerator()),
    }
}

/// The groups that an entry is in. Replicas have no accelerator.
fn groups_of(slot: &Slot) -> impl Iterator<Item = (Dimension, KeyGroup<'_>)> {
    let everywhere = [Dimension::Model, Dimension::ModelAnywhere, Dimension::Namespace];
    let accelerator =
        (slot.key().as_ref().kind() == KeyKind::Allocation).then_some(Dimension::Accelerator);
    let dimensions = everywhere.into_iter().chain(accelerator);
    dimensions.map(move |dimension| (dimension, part_of(dimension, slot)))
}

fn hash(hasher: &RandomState, group: &KeyGroup<'_>) -> u64 {
    match group {
        KeyGroup::Model { model, namespace } => hasher.hash_one((model, namespace)),
        KeyGroup::ModelAnywhere(part) | KeyGroup::Namespace(part) | KeyGroup::Accelerator(part) => {
            hasher.hash_one(part)
        }
        KeyGroup::All => 0,
    }
}

/// Groups as chains through the ids of their members: 8 bytes a member, and no text.
#[derive(Default)]
struct Chains {
    /// The first member of each group.
    heads: HashTable<u32>,
    links: ById<Link>,
}

#[derive(Clone, Copy)]
struct Link {
    before: u32,
    after: u32,
}

impl Default for Link {
    fn default() -> Self {
        Self { before: NONE, after: NONE }
    }
}

impl Chains {
    /// Puts `id` in front of the group that `is_it` finds by one of its members.
    fn add(
        &mut self,
        id: u32,
        hash: u64,
        is_it: impl Fn(u32) -> bool,
        rehash: impl Fn(u32) -> u64,
    ) {
        let mut after = NONE;
        if let Some(head) = self.heads.find_mut(hash, |head| is_it(*head)) {
            after = std::mem::replace(head, id);
            self.links[after].before = id;
        } else {
            self.heads.insert_unique(hash, id, |head| rehash(*head));
        }
        self.links.set(id, Link { before: NONE, after });
    }

    fn remove(&mut self, id: u32, hash: u64) {
        let Link { before, after } = self.links[id];
        if after != NONE {
            self.links[after].before = before;
        }
        if before != NONE {
            self.links[before].after = after;
        } else if let Ok(mut head) = self.heads.find_entry(hash, |head| *head == id) {
            if after == NONE {
                head.remove();
            } else {
                *head.get_mut() = after;
            }
        }
    }

    fn members(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut members = Vec::new();
        let mut next = self.heads.find(hash, |head| is_it(*head)).copied().unwrap_or(NONE);
        while next != NONE {
            members.push(next);
            next = self.links[next].after;
        }
        members
    }
}
