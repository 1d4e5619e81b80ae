// SPDX-License-Identifier: Apache-2.0
//! Finds out whether a line begins with a wanted name, reading as few bytes as possible.
//!
//! Nearly all lines of a page have other names, and most begin like the line before: the buckets of a histogram. So
//! the names that match a line's first 32 bytes are kept for the next line. Of these names the byte after their end is
//! tested first, which excludes the buckets of a histogram whose sum is wanted. Only then are bytes compared.

use std::collections::HashMap;

use foldhash::fast::RandomState;

/// The index of one of the [`Wanted`](super::Wanted) names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NameId(pub(super) usize);

impl NameId {
    /// Its index in the list that [`Wanted::new`](super::Wanted::new) was given.
    pub fn index(self) -> usize {
        self.0
    }
}

/// The beginning of a line, filled up with zeros, which no name has.
type Head = [u8; HEAD];
const HEAD: usize = 32;
const HALF: usize = HEAD / 2;

/// Names of letters, digits, `_` and `:`, by how they begin.
#[derive(Debug)]
pub(super) struct Names {
    /// Those that fill a head.
    long: HashMap<(u128, u128), Box<[Name]>, RandomState>,
    /// Those that fill half of one.
    medium: HashMap<u128, Box<[Name]>, RandomState>,
    short: Box<[Name]>,
}

#[derive(Clone, Debug)]
struct Name {
    text: Box<str>,
    id: NameId,
}

impl Names {
    pub(super) fn new(names: impl IntoIterator<Item = (Box<str>, NameId)>) -> Self {
        let mut long: HashMap<_, Vec<Name>> = HashMap::new();
        let mut medium: HashMap<_, Vec<Name>> = HashMap::new();
        let mut short = Vec::new();
        for (text, id) in names {
            let (first, second) = halves(&head_of(text.as_bytes()));
            let group = match text.len() {
                HEAD.. => long.entry((first, second)).or_default(),
                HALF.. => medium.entry(first).or_default(),
                _ => &mut short,
            };
            group.push(Name { text, id });
        }
        Self {
            long: long.into_iter().map(|(head, names)| (head, names.into())).collect(),
            medium: medium.into_iter().map(|(half, names)| (half, names.into())).collect(),
            short: short.into(),
        }
    }

    /// All names that a line may begin with whose first bytes are these.
    fn left_by(&self, head: &Head) -> &[Name] {
        let (first, second) = halves(head);
        // Where a name goes on, no shorter one ends: at most one of the three has any.
        let long = self.long.get(&(first, second));
        long.or_else(|| self.medium.get(&first)).unwrap_or(&self.short)
    }
}

/// What is hashed and compared fastest.
fn halves(head: &Head) -> (u128, u128) {
    let (halves, _) = head.as_chunks::<HALF>();
    (u128::from_ne_bytes(halves[0]), u128::from_ne_bytes(halves[1]))
}

fn head_of(bytes: &[u8]) -> Head {
    let len = bytes.len().min(HEAD);
    let mut head = Head::default();
    head[..len].copy_from_slice(&bytes[..len]);
    head
}

/// Looks for names at the beginning of one line after the other.
pub(super) struct Finder<'a> {
    names: &'a Names,
    /// The last line's.
    head: Head,
    left: &'a [Name],
}

impl<'a> Finder<'a> {
    pub(super) fn new(names: &'a Names) -> Self {
        let head = Head::default();
        Self { names, head, left: names.left_by(&head) }
    }

    /// The name that a line begins with, as a whole. More may follow the line.
    #[inline]
    pub(super) fn find(&mut self, line: &[u8]) -> Option<NameId> {
        if line.first_chunk() != Some(&self.head) {
            self.look_up(line);
        }
        let mut left = self.left.iter().filter(|name| ends(line, name.text.len()));
        left.find(|name| line.starts_with(name.text.as_bytes())).map(|name| name.id)
    }

    #[inline(never)]
    fn look_up(&mut self, line: &[u8]) {
        self.head = head_of(line);
        self.left = self.names.left_by(&self.head);
    }
}

/// Whether a name of this length would end here.
#[inline]
fn ends(line: &[u8], len: usize) -> bool {
    match line.get(len) {
        None | Some(b' ' | b'\t' | b'{' | b'\n') => true,
        // A carriage return belongs to the end of the line, and nowhere else.
        Some(b'\r') => matches!(line.get(len + 1), None | Some(b'\n')),
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use crate::scan::Wanted;

    /// Names of few letters and all lengths, so that many begin alike or are the beginning of others.
    fn name() -> impl Strategy<Value = String> {
        prop_oneof!["[ab]{1,3}", "a{14,18}b?", "(a{16}|b{16}){1,2}[ab]{0,3}"]
    }

    proptest! {
        #[test]
        fn names_are_found_whole_and_no_others(
            names in vec(name(), 0..12),
            lines in vec((name(), prop::sample::select(vec!["", " 1", "{", "\t", "_", "\n1", "\0", "\r", "\r\n1", "\r1"])), 1..12),
        ) {
            let wanted = Wanted::new(names.iter().map(String::as_str));
            let mut finder = wanted.finder();
            for (name, behind) in lines {
                let found = finder.find(format!("{name}{behind}").as_bytes());
                let ends = behind.is_empty()
                    || behind == "\r"
                    || behind.starts_with("\r\n")
                    || behind.starts_with([' ', '{', '\t', '\n']);
                prop_assert_eq!(found, wanted.id_of(&name).filter(|_| ends));
            }
        }
    }
}
