//! The entries of each model, in all namespaces and in one.
//!
//! Both are one chain, because those of one namespace stand together in it. Of each model in a namespace
//! the first entry is known: where it is the first of the model as well, by that.

use std::hash::BuildHasher;

use collector_core::KeyRef;
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::chain::{Links, replace_head};
use crate::books::NONE;
use crate::slot::Slot;

#[derive(Default)]
pub(super) struct Models {
    /// The first entry of each model.
    first: HashTable<u32>,
    /// The first entry of each model in a namespace that has those of another before it.
    further: HashTable<u32>,
    links: Links,
}

/// A model and a namespace.
type Place<'a> = (&'a str, &'a str);

fn place(slot: &Slot) -> Place<'_> {
    let key = slot.key().as_ref();
    (key.model(), key.namespace())
}

impl Models {
    pub(super) fn add<'a>(
        &mut self,
        hasher: &RandomState,
        (id, key): (u32, KeyRef<'_>),
        slot_of: impl Fn(u32) -> &'a Slot,
    ) {
        let (model, namespace) = (key.model(), key.namespace());
        let place_of = |id: u32| place(slot_of(id));
        let hash = hasher.hash_one(model);
        let Some(first) = self.first.find_mut(hash, |head| place_of(*head).0 == model) else {
            self.first.insert_unique(hash, id, |head| hasher.hash_one(place_of(*head).0));
            self.links.put_between(NONE, id, NONE);
            return;
        };
        let head = if place_of(*first).1 == namespace {
            Some(*first)
        } else {
            find(&self.further, hasher, (model, namespace), place_of)
        };
        if let Some(head) = head {
            let after = self.links.of(head).after;
            self.links.put_between(head, id, after);
        } else {
            let former = std::mem::replace(first, id);
            let hash = hasher.hash_one(place_of(former));
            self.further.insert_unique(hash, former, |head| hasher.hash_one(place_of(*head)));
            self.links.put_between(NONE, id, former);
        }
    }

    pub(super) fn remove<'a>(
        &mut self,
        hasher: &RandomState,
        (id, key): (u32, KeyRef<'_>),
        slot_of: impl Fn(u32) -> &'a Slot,
    ) {
        let (model, namespace) = (key.model(), key.namespace());
        let place_of = |id: u32| place(slot_of(id));
        let is_beside = |other: u32| other != NONE && place_of(other).1 == namespace;
        let link = self.links.take_out(id);
        if link.before == NONE {
            replace_head(&mut self.first, hasher.hash_one(model), id, link.after);
            if link.after != NONE && !is_beside(link.after) {
                let hash = hasher.hash_one(place_of(link.after));
                replace_head(&mut self.further, hash, link.after, NONE);
            }
        } else if !is_beside(link.before) {
            let next = if is_beside(link.after) { link.after } else { NONE };
            replace_head(&mut self.further, hasher.hash_one((model, namespace)), id, next);
        }
    }

    /// The entries of a model.
    pub(super) fn members<'a>(
        &self,
        hasher: &RandomState,
        model: &str,
        slot_of: impl Fn(u32) -> &'a Slot,
    ) -> Vec<u32> {
        let is_it = |head: &u32| place(slot_of(*head)).0 == model;
        let first = self.first.find(hasher.hash_one(model), is_it);
        self.links.from(first.copied()).collect()
    }

    /// The entries of a model in a namespace.
    pub(super) fn members_in<'a>(
        &self,
        hasher: &RandomState,
        wanted: Place<'_>,
        slot_of: impl Fn(u32) -> &'a Slot,
    ) -> Vec<u32> {
        let place_of = |id: u32| place(slot_of(id));
        let is_model = |head: &u32| place_of(*head).0 == wanted.0;
        let first = self.first.find(hasher.hash_one(wanted.0), is_model).copied();
        let head = first
            .filter(|first| place_of(*first) == wanted)
            .or_else(|| find(&self.further, hasher, wanted, place_of));
        self.links.from(head).take_while(|id| place_of(*id).1 == wanted.1).collect()
    }
}

fn find<'a>(
    further: &HashTable<u32>,
    hasher: &RandomState,
    wanted: Place<'_>,
    place_of: impl Fn(u32) -> Place<'a>,
) -> Option<u32> {
    further.find(hasher.hash_one(wanted), |head| place_of(*head) == wanted).copied()
}
