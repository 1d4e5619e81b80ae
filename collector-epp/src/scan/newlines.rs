//! Where lines end.
//!
//! Asking memchr for each newline costs a call a line, more than the search itself on lines of a
//! hundred bytes. So bytes are compared 64 at a time into a mask, and its bits are walked.

use wide::u8x16;

/// Bytes that one mask stands for.
const BLOCK: usize = u64::BITS as usize;

/// The places of all newlines, in order.
pub(super) struct Newlines<'a> {
    /// From the current block on.
    rest: &'a [u8],
    /// Where `rest` begins.
    at: usize,
    /// Newlines of the current block that have not been told.
    mask: u64,
}

impl<'a> Newlines<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, at: 0, mask: mask_of_first(bytes) }
    }
}

impl Iterator for Newlines<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.mask == 0 {
            self.rest = self.rest.get(BLOCK..)?;
            self.at += BLOCK;
            self.mask = mask_of_first(self.rest);
        }
        let place = self.at + self.mask.trailing_zeros() as usize;
        self.mask &= self.mask - 1;
        Some(place)
    }
}

/// The newlines among the first 64 bytes, or as many as there are: the first one's bit is the lowest.
#[inline]
fn mask_of_first(bytes: &[u8]) -> u64 {
    if let Some(block) = bytes.first_chunk() {
        return mask_of(block);
    }
    let mut block = [0; BLOCK];
    block[..bytes.len()].copy_from_slice(bytes);
    mask_of(&block)
}

#[inline]
fn mask_of(block: &[u8; BLOCK]) -> u64 {
    let newline = u8x16::splat(b'\n');
    let (quarters, _) = block.as_chunks::<16>();
    quarters.iter().rev().fold(0, |mask, quarter| {
        mask << 16 | u64::from(u8x16::new(*quarter).simd_eq(newline).to_bitmask())
    })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_newline_is_found(bytes in vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..300)) {
            let found: Vec<usize> = Newlines::new(&bytes).collect();
            let expected: Vec<usize> = memchr::memchr_iter(b'\n', &bytes).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
