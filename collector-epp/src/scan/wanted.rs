//! Which names are wanted, and whether a line begins with one of them.
//!
//! Nearly all lines of a page are of other names, so they must be told by as little as possible. The
//! first 16 bytes of a line are looked up in a table of those of the wanted names. Where they are
//! there, as `vllm:time_to_fir` is for the many buckets of a histogram whose sum is wanted, the byte
//! after where the name would end is tested next. Only then are bytes compared.

use std::collections::HashMap;

/// Bytes of a line that are looked up.
const HEAD: usize = 16;

/// Sample names wanted, compiled for look-up; scanners share one.
///
/// A name is that of a sample, not of a family: `x_sum` and `x_count` are two.
#[derive(Debug)]
pub struct Wanted {
    names: Box<[Box<str>]>,
    ids: HashMap<Box<str>, NameId>,
    /// Open addressing: a power of two of slots, at most a quarter of them taken.
    slots: Box<[Slot]>,
    /// The lengths of names shorter than a head: for each of them a line's head is cut and looked up.
    short: Box<[usize]>,
}

/// Which of the [`Wanted`] names: its place in the list that they were made of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NameId(usize);

impl NameId {
    /// The place in the list that [`Wanted::new`] was given, from 0.
    pub fn index(self) -> usize {
        self.0
    }
}

/// Wanted names that begin alike. Those shorter than a head are alone, and filled up with zeros, which
/// no name has.
#[derive(Clone, Default, Debug)]
struct Slot {
    head: u128,
    /// Empty in a free slot.
    names: Vec<Candidate>,
}

#[derive(Clone, Debug)]
struct Candidate {
    len: usize,
    id: NameId,
}

impl Wanted {
    /// Compiles names. The first of equal ones lends all of them its id.
    pub fn new(names: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        let names: Box<[Box<str>]> = names.into_iter().map(Into::into).collect();
        let mut ids = HashMap::new();
        for (index, name) in names.iter().enumerate() {
            ids.entry(name.clone()).or_insert(NameId(index));
        }
        let slots = vec![Slot::default(); (4 * ids.len()).next_power_of_two()];
        let mut wanted = Self { names, ids, slots: slots.into(), short: Box::default() };
        wanted.fill();
        wanted
    }

    fn fill(&mut self) {
        let mut short = Vec::new();
        for (name, id) in &self.ids {
            let len = name.len();
            // Other names stand in quotes only.
            if len == 0 || !name.bytes().all(is_name_byte) {
                continue;
            }
            let head = head_of(name.as_bytes());
            if len < HEAD {
                short.push(len);
            }
            let mut place = first_place(head, self.slots.len());
            while !self.slots[place].names.is_empty() && self.slots[place].head != head {
                place = (place + 1) % self.slots.len();
            }
            let slot = &mut self.slots[place];
            slot.head = head;
            slot.names.push(Candidate { len, id: *id });
        }
        short.sort_unstable();
        short.dedup();
        self.short = short.into();
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
        self.names.is_empty()
    }

    /// The wanted name that a line begins with, bare and whole. `head` is [`head_of`] the line, and may
    /// hold what follows the line too.
    #[inline]
    pub(super) fn find(&self, head: u128, line: &[u8]) -> Option<NameId> {
        if let Some(id) = self.find_in_slot(head, line) {
            return Some(id);
        }
        let cut = |len: &usize| head & !(u128::MAX << (8 * len));
        self.short.iter().find_map(|len| self.find_in_slot(cut(len), line))
    }

    #[inline]
    fn find_in_slot(&self, head: u128, line: &[u8]) -> Option<NameId> {
        let mut place = first_place(head, self.slots.len());
        loop {
            let slot = &self.slots[place];
            if slot.head == head {
                let mut names = slot.names.iter();
                return names.find(|name| self.is(name, line)).map(|name| name.id);
            }
            if slot.names.is_empty() {
                return None;
            }
            place = (place + 1) % self.slots.len();
        }
    }

    #[inline]
    fn is(&self, name: &Candidate, line: &[u8]) -> bool {
        let ends = matches!(line.get(name.len), None | Some(b' ' | b'\t' | b'{'));
        ends && line.get(..name.len) == Some(self.names[name.id.0].as_bytes())
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':')
}

/// The first bytes, filled up with zeros.
#[inline]
pub(super) fn head_of(bytes: &[u8]) -> u128 {
    if let Some(head) = bytes.first_chunk() {
        return u128::from_le_bytes(*head);
    }
    let mut head = [0; HEAD];
    head[..bytes.len()].copy_from_slice(bytes);
    u128::from_le_bytes(head)
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "both halves are wanted, and then fewer bits")]
fn first_place(head: u128, slots: usize) -> usize {
    // Two odd multipliers without a pattern: the digits of the golden ratio and of pi. The high bits of
    // a product depend on all bits of its factors.
    let low = (head as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let high = ((head >> 64) as u64).wrapping_mul(0x243f_6a88_85a3_08d3);
    ((low ^ high) >> 32) as usize & (slots - 1)
}
