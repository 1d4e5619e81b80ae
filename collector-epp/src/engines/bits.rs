// SPDX-License-Identifier: Apache-2.0
//! A set of small numbers.

/// A set of the numbers below a limit, one bit each.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Bits(Box<[u64]>);

impl Bits {
    /// No number below `limit`.
    pub(super) fn none(limit: usize) -> Self {
        Self(vec![0; limit.div_ceil(64)].into())
    }

    pub(super) fn insert(&mut self, number: usize) {
        self.0[number / 64] |= 1 << (number % 64);
    }

    pub(super) fn has(&self, number: usize) -> bool {
        self.0[number / 64] & (1 << (number % 64)) != 0
    }

    /// Whether the two have a number in common.
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(one, other)| one & other != 0)
    }

    pub(super) fn clear(&mut self) {
        self.0.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_in_until_it_is_cleared() {
        let mut set = Bits::none(130);
        set.insert(0);
        set.insert(129);
        assert!(set.has(0) && set.has(129) && !set.has(64));
        let mut other = Bits::none(130);
        other.insert(64);
        assert!(!set.meets(&other));
        other.insert(129);
        assert!(set.meets(&other));
        set.clear();
        assert!(!set.has(129) && !set.meets(&other));
    }
}
