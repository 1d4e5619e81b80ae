// SPDX-License-Identifier: Apache-2.0
//! Steps through the bytes of a line.

use super::Reason;

/// A place in the bytes of a line.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// All bytes, from before the first step.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub(super) fn passed(&self) -> &'a [u8] {
        &self.bytes[..self.at]
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// Steps made so far. A line of 4 GiB is over every limit.
    pub(super) fn at(&self) -> u32 {
        u32::try_from(self.at).unwrap_or(u32::MAX)
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Passes one byte, which must be there.
    pub(super) fn advance(&mut self) {
        self.at += 1;
    }

    /// Passes bytes that are there.
    pub(super) fn skip(&mut self, bytes: usize) {
        self.at += bytes;
    }

    pub(super) fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    pub(super) fn expect(&mut self, byte: u8, otherwise: Reason) -> Result<(), Reason> {
        if self.peek() != Some(byte) {
            return Err(self.unless_at_end(otherwise));
        }
        self.at += 1;
        Ok(())
    }

    /// The reason for what stands here, when it is not that nothing does.
    pub(super) fn unless_at_end(&self, otherwise: Reason) -> Reason {
        if self.at < self.bytes.len() { otherwise } else { Reason::LabelsUnclosed }
    }

    /// Passes blanks and what follows them up to the next one; empty at the end.
    pub(super) fn token(&mut self) -> &'a [u8] {
        self.skip_blanks();
        let start = self.at;
        while !matches!(self.peek(), None | Some(b' ' | b'\t')) {
            self.at += 1;
        }
        &self.bytes[start..self.at]
    }
}
