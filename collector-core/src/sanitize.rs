// SPDX-License-Identifier: Apache-2.0
//! From what a server wrote to what a field may hold. A value that cannot be true becomes absent,
//! and the caller counts it.

/// Why a value was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Rejected {
    /// NaN or an infinity: what a server sends when it does not know.
    #[error("not a number")]
    NotFinite,
    /// A finite value that the quantity cannot have, such as a KV-cache usage of 1.7.
    #[error("out of range")]
    OutOfRange,
}

/// Noise of floating-point sums that is clamped to the nearest possible value.
const NOISE: f64 = 1e-6;

/// A ratio from 0.0 to 1.0.
///
/// # Errors
/// Not finite, or outside the range by more than 1e-6.
pub fn ratio(value: f64) -> Result<f64, Rejected> {
    if !value.is_finite() {
        Err(Rejected::NotFinite)
    } else if (-NOISE..=1.0 + NOISE).contains(&value) {
        Ok(value.clamp(0.0, 1.0))
    } else {
        Err(Rejected::OutOfRange)
    }
}

/// A count of things, rounded to the nearest whole one.
///
/// # Errors
/// Not finite, negative by more than 1e-6, or above 2^53, where an f64 no longer counts by ones.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range was checked: 0 to 2^53 is exact"
)]
pub fn count(value: f64) -> Result<u64, Rejected> {
    const MAX: f64 = 9_007_199_254_740_992.0;
    if !value.is_finite() {
        Err(Rejected::NotFinite)
    } else if (-NOISE..=MAX).contains(&value) {
        Ok(value.max(0.0).round() as u64)
    } else {
        Err(Rejected::OutOfRange)
    }
}

/// A rate or a sum that cannot be negative.
///
/// # Errors
/// Not finite, negative by more than 1e-6, or above 1e15: no fleet gets there, and beyond it sums
/// and products stop being exact.
pub fn rate(value: f64) -> Result<f64, Rejected> {
    if !value.is_finite() {
        Err(Rejected::NotFinite)
    } else if (-NOISE..=1e15).contains(&value) {
        Ok(value.max(0.0))
    } else {
        Err(Rejected::OutOfRange)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_values_are_rejected_and_noise_is_clamped() {
        assert_eq!(ratio(0.42), Ok(0.42));
        assert_eq!(ratio(1.000_000_5), Ok(1.0));
        assert_eq!(ratio(-1e-7), Ok(0.0));
        assert_eq!(ratio(1.7), Err(Rejected::OutOfRange));
        assert_eq!(ratio(f64::NAN), Err(Rejected::NotFinite));
        assert_eq!(count(3.0), Ok(3));
        assert_eq!(count(-0.000_000_1), Ok(0));
        assert_eq!(count(-1.0), Err(Rejected::OutOfRange));
        assert_eq!(count(1e308), Err(Rejected::OutOfRange));
        assert_eq!(count(f64::INFINITY), Err(Rejected::NotFinite));
        assert_eq!(rate(1e308), Err(Rejected::OutOfRange));
        assert_eq!(rate(0.0), Ok(0.0));
    }
}
