// SPDX-License-Identifier: Apache-2.0
//! Finds the ends of lines.
//!
//! Calling memchr for each newline costs a call and an unpredictable branch, more than the search itself on lines of a
//! hundred bytes. So 64 bytes at a time are compared into a mask, and the positions of its bits are stored before the
//! lines are read.

use wide::u8x16;

/// Bytes that are searched at once.
pub(super) const STRETCH: usize = 2048;

/// Bytes that one mask stands for.
const BLOCK: usize = u64::BITS as usize;

/// Room for the newlines of a stretch.
pub(super) struct Newlines {
    places: [u16; STRETCH],
}

impl Newlines {
    pub(super) fn new() -> Self {
        Self { places: [0; STRETCH] }
    }

    /// The places of the newlines among the first [`STRETCH`] bytes.
    pub(super) fn find(&mut self, bytes: &[u8]) -> &[u16] {
        let (blocks, rest) = bytes[..bytes.len().min(STRETCH)].as_chunks();
        let mut starts = (0..).step_by(BLOCK);
        let mut found = 0;
        for (block, start) in blocks.iter().zip(&mut starts) {
            found = self.write(found, start, mask_of(block));
        }
        if let Some(start) = starts.next()
            && !rest.is_empty()
        {
            let mut block = [0; BLOCK];
            block[..rest.len()].copy_from_slice(rest);
            found = self.write(found, start, mask_of(&block));
        }
        &self.places[..found]
    }

    /// Stores the positions of a block after those found so far, and returns how many there are now.
    #[inline]
    fn write(&mut self, mut found: usize, start: u16, mut mask: u64) -> usize {
        while mask != 0 {
            #[expect(clippy::cast_possible_truncation, reason = "it is below 64")]
            let lowest = mask.trailing_zeros() as u16;
            self.places[found] = start + lowest;
            found += 1;
            mask &= mask - 1;
        }
        found
    }
}

/// The newlines of a block: the first byte's bit is the lowest.
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
        fn every_newline_of_the_stretch_is_found(
            bytes in vec(0_u8..30, 0..200), times in 1..15_usize,
        ) {
            let bytes = bytes.repeat(times);
            let mut newlines = Newlines::new();
            let found: Vec<usize> =
                newlines.find(&bytes).iter().map(|place| usize::from(*place)).collect();
            let stretch = &bytes[..bytes.len().min(STRETCH)];
            let expected: Vec<usize> = memchr::memchr_iter(b'\n', stretch).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_stretch_may_be_all_newlines() {
        let found = Newlines::new().find(&[b'\n'; 2 * STRETCH]).to_vec();
        assert_eq!(found, (0..2048).collect::<Vec<u16>>());
    }
}
