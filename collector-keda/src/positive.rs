// SPDX-License-Identifier: Apache-2.0
//! A number that a target or a rate can be.

use std::hash::{Hash, Hasher};

/// The smallest target: KEDA rounds to thousandths, and a target of 0 breaks the HPA.
const LEAST: f64 = 0.001;
/// The greatest value that KEDA is given, as a target too.
pub(crate) const GREATEST: f64 = 1e12;

/// A number from 0.001 to 1e12.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
pub struct Positive(f64);

// It is never NaN.
impl Eq for Positive {}

impl Hash for Positive {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

impl Positive {
    /// The number; `None` if it is not within the range.
    pub const fn new(number: f64) -> Option<Self> {
        if number >= LEAST && number <= GREATEST { Some(Self(number)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> f64 {
        self.0
    }
}

/// A default, which must be within the range: checked when it is compiled.
pub(crate) const fn positive(number: f64) -> Positive {
    match Positive::new(number) {
        Some(positive) => positive,
        None => panic!("out of range"),
    }
}
