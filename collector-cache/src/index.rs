//! Which entries have a part of their keys in common, so that dropping a model, a namespace or an
//! accelerator costs its own entries and not a walk over all. Only writers see it.
//!
//! A group is a chain through the ids of its members: 8 bytes a member, and no text. Its name is found
//! in the key of any of them.

mod chain;
mod models;

use std::hash::BuildHasher;

use collector_core::{KeyGroup, KeyKind, KeyRef};
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::books::NONE;
use crate::slot::Slot;
use chain::Links;
use models::Models;

/// The groups that entries are in.
#[derive(Default)]
pub(crate) struct Index {
    hasher: RandomState,
    models: Models,
    namespaces: Groups,
    accelerators: Groups,
}

impl Index {
    pub(crate) fn add<'a>(&mut self, slot: &Slot, slot_of: impl Fn(u32) -> &'a Slot) {
        let Self { hasher, models, namespaces, accelerators } = self;
        let key = slot.key().as_ref();
        models.add(hasher, (slot.id(), key), &slot_of);
        namespaces.add(hasher, slot.id(), key.namespace(), |id| namespace(slot_of(id)));
        if has_accelerator(key) {
            accelerators.add(hasher, slot.id(), accelerator(slot), |id| accelerator(slot_of(id)));
        }
    }

    pub(crate) fn remove<'a>(&mut self, slot: &Slot, slot_of: impl Fn(u32) -> &'a Slot) {
        let Self { hasher, models, namespaces, accelerators } = self;
        let key = slot.key().as_ref();
        models.remove(hasher, (slot.id(), key), slot_of);
        namespaces.remove(hasher, slot.id(), key.namespace());
        if has_accelerator(key) {
            accelerators.remove(hasher, slot.id(), accelerator(slot));
        }
    }

    /// The members of a group; `None` for the group of all, which is not kept.
    pub(crate) fn members<'a>(
        &self,
        group: KeyGroup<'_>,
        slot_of: impl Fn(u32) -> &'a Slot,
    ) -> Option<Vec<u32>> {
        let Self { hasher, models, namespaces, accelerators } = self;
        Some(match group {
            KeyGroup::Model { model, namespace } => {
                models.members_in(hasher, (model, namespace), slot_of)
            }
            KeyGroup::ModelAnywhere(model) => models.members(hasher, model, slot_of),
            KeyGroup::Namespace(name) => {
                namespaces.members(hasher, name, |id| namespace(slot_of(id)))
            }
            KeyGroup::Accelerator(name) => {
                accelerators.members(hasher, name, |id| accelerator(slot_of(id)))
            }
            KeyGroup::All => return None,
        })
    }
}

fn namespace(slot: &Slot) -> &str {
    slot.key().as_ref().namespace()
}

fn accelerator(slot: &Slot) -> &str {
    slot.key().printed_accelerator()
}

/// Replicas have none.
fn has_accelerator(key: KeyRef<'_>) -> bool {
    key.kind() == KeyKind::Allocation
}

/// Groups by one part of the key.
#[derive(Default)]
struct Groups {
    /// The first member of each.
    heads: HashTable<u32>,
    links: Links,
}

impl Groups {
    fn add<'a>(
        &mut self,
        hasher: &RandomState,
        id: u32,
        name: &str,
        name_of: impl Fn(u32) -> &'a str,
    ) {
        let hash = hasher.hash_one(name);
        let mut after = NONE;
        if let Some(head) = self.heads.find_mut(hash, |head| name_of(*head) == name) {
            after = std::mem::replace(head, id);
        } else {
            self.heads.insert_unique(hash, id, |head| hasher.hash_one(name_of(*head)));
        }
        self.links.put_between(NONE, id, after);
    }

    fn remove(&mut self, hasher: &RandomState, id: u32, name: &str) {
        let link = self.links.take_out(id);
        if link.before == NONE {
            chain::replace_head(&mut self.heads, hasher.hash_one(name), id, link.after);
        }
    }

    fn members<'a>(
        &self,
        hasher: &RandomState,
        name: &str,
        name_of: impl Fn(u32) -> &'a str,
    ) -> Vec<u32> {
        let head = self.heads.find(hasher.hash_one(name), |head| name_of(*head) == name);
        self.links.from(head.copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use collector_core::{CacheKey, ModelRef, Tick};

    #[test]
    fn every_group_but_that_of_all_is_found_without_a_walk() {
        let models = [("a", "prod"), ("a", "test"), ("b", "prod")];
        let slots: Vec<Slot> = models
            .into_iter()
            .zip(0..)
            .map(|((model, namespace), id)| {
                let model = ModelRef::new(model, namespace);
                let key = CacheKey::allocation(&model, &"v".into(), Some(&"H100".into()));
                Slot::new(key, 0, id, Tick::MIN)
            })
            .collect();
        let slot_of = |id: u32| &slots[id as usize];
        let mut index = Index::default();
        for slot in &slots {
            index.add(slot, slot_of);
        }
        let members = |group| {
            let mut members = index.members(group, slot_of)?;
            members.sort_unstable();
            Some(members)
        };
        let model = KeyGroup::Model { model: "a", namespace: "test" };
        assert_eq!(members(model), Some(vec![1]));
        assert_eq!(members(KeyGroup::ModelAnywhere("a")), Some(vec![0, 1]));
        assert_eq!(members(KeyGroup::Namespace("prod")), Some(vec![0, 2]));
        assert_eq!(members(KeyGroup::Accelerator("H100")), Some(vec![0, 1, 2]));
        assert_eq!(members(KeyGroup::Accelerator("L4")), Some(vec![]));
        assert_eq!(members(KeyGroup::All), None);
    }
}
