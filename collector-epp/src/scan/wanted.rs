// SPDX-License-Identifier: Apache-2.0
//! The sample names that a scanner looks for.

use std::collections::HashMap;

use super::names::{Finder, NameId, Names};

/// Sample names wanted, compiled for look-up; scanners share one.
///
/// A name is that of a sample, not of a family: `x_sum` and `x_count` are two.
#[derive(Debug)]
pub struct Wanted {
    names: Box<[Box<str>]>,
    ids: HashMap<Box<str>, NameId>,
    /// Those that may stand bare; the others stand in quotes only.
    bare: Names,
}

impl Wanted {
    /// Compiles names. The first of equal ones lends all of them its id.
    pub fn new(names: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        let names: Box<[Box<str>]> = names.into_iter().map(Into::into).collect();
        let mut ids = HashMap::new();
        for (index, name) in names.iter().enumerate() {
            ids.entry(name.clone()).or_insert(NameId(index));
        }
        Self::of(names, ids)
    }

    /// Those that `is_wanted`, with the same ids: a reader need not know which of the two a scanner was given.
    #[must_use]
    pub fn only(&self, is_wanted: impl Fn(&str) -> bool) -> Self {
        let ids = self.ids.iter().filter(|(name, _)| is_wanted(name));
        Self::of(self.names.clone(), ids.map(|(name, id)| (name.clone(), *id)).collect())
    }

    fn of(names: Box<[Box<str>]>, ids: HashMap<Box<str>, NameId>) -> Self {
        let bare = ids.iter().filter(|(name, _)| is_bare(name));
        let bare = Names::new(bare.map(|(name, id)| (name.clone(), *id)));
        Self { names, ids, bare }
    }

    /// The name of an id.
    ///
    /// # Panics
    /// When the id is another, longer list's.
    pub fn name(&self, id: NameId) -> &str {
        &self.names[id.0]
    }

    /// The id of a whole name; `None` when it is not wanted.
    pub fn id_of(&self, name: &str) -> Option<NameId> {
        self.ids.get(name).copied()
    }

    /// How many names [`Wanted::new`] was given: each [`NameId::index`] is below it.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Looks for wanted names that stand bare.
    pub(super) fn finder(&self) -> Finder<'_> {
        Finder::new(&self.bare)
    }
}

fn is_bare(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':');
    !name.is_empty() && name.bytes().all(fits)
}
