// SPDX-License-Identifier: Apache-2.0
//! Values and timestamps.

use super::Reason;

/// Reads a sample's value; `token` is all of it.
///
/// Accepts what Prometheus does, which is what Go's `strconv.ParseFloat` does without hexadecimals and
/// `_`: digits with at most one point and at least one digit, an optional sign and exponent, `NaN`
/// without a sign, `Inf` and `Infinity` with or without one, words in any case. A finite number beyond
/// the greatest double is an error; one below the least is 0.
#[inline]
pub(crate) fn value(token: &[u8]) -> Result<f64, Reason> {
    match short_decimal(token) {
        Some(value) => Ok(value),
        None => any_value(token),
    }
}

/// A decimal whose digits and power of ten are doubles themselves: then one multiplication or division
/// rounds as if it were done with all digits (W. D. Clinger, "How to read floating point numbers
/// accurately", 1990). That is most values; `None` says nothing about the others.
#[inline]
fn short_decimal(token: &[u8]) -> Option<f64> {
    /// No sum of this many digits overflows.
    const MAX_DIGITS: usize = 19;
    const MAX_EXACT: u64 = 1 << f64::MANTISSA_DIGITS;

    let (negative, token) = match token {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, token),
    };
    if token.len() > MAX_DIGITS {
        return None;
    }
    let (whole, mut rest) = leading_digits(0, token);
    let mut digits = token.len() - rest.len();
    let mut mantissa = whole;
    let mut exponent = 0;
    if let [b'.', fraction @ ..] = rest {
        (mantissa, rest) = leading_digits(whole, fraction);
        exponent = fraction.len() - rest.len();
        digits += exponent;
    }
    if digits == 0 || !rest.is_empty() || mantissa > MAX_EXACT {
        return None;
    }
    let value = mantissa as f64 / POWERS_OF_TEN.get(exponent)?;
    Some(if negative { -value } else { value })
}

/// Those that a double has exactly.
const POWERS_OF_TEN: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// Appends leading digits to a number that has room for them, and returns what follows them.
#[inline]
fn leading_digits(mut number: u64, mut token: &[u8]) -> (u64, &[u8]) {
    while let [digit @ b'0'..=b'9', rest @ ..] = token {
        number = number * 10 + u64::from(digit - b'0');
        token = rest;
    }
    (number, token)
}

fn any_value(token: &[u8]) -> Result<f64, Reason> {
    let text = str::from_utf8(token).map_err(|_| Reason::Value)?;
    let value: f64 = text.parse().map_err(|_| Reason::Value)?;
    if value.is_nan() && matches!(token, [b'+' | b'-', ..]) {
        return Err(Reason::Value);
    }
    if value.is_infinite() && token.iter().any(u8::is_ascii_digit) {
        return Err(Reason::ValueTooLarge);
    }
    Ok(value)
}

/// Milliseconds since 1970, as the text format has them: an integer, with or without a sign.
pub(super) fn milliseconds(token: &[u8]) -> Option<i64> {
    std::str::from_utf8(token).ok()?.parse().ok()
}

/// Seconds since 1970, as OpenMetrics has them, in milliseconds. A time that 64 bits of milliseconds
/// cannot hold is `None`: it is a time, but not one that can be used.
pub(super) fn seconds(token: &[u8]) -> Result<Option<i64>, Reason> {
    /// 2^63: doubles below it, and not below its negative, fit.
    const END: f64 = 9_223_372_036_854_775_808.0;
    let seconds = match value(token) {
        Ok(seconds) if seconds.is_finite() => seconds,
        Err(Reason::ValueTooLarge) => return Ok(None),
        Ok(_) | Err(_) => return Err(Reason::Timestamp),
    };
    let milliseconds = (seconds * 1000.0).round();
    #[expect(clippy::cast_possible_truncation, reason = "it is an integer, and in range")]
    Ok((-END..END).contains(&milliseconds).then_some(milliseconds as i64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scan::tests::reference;

    fn check(token: &str) {
        let value = value(token.as_bytes()).ok().map(f64::to_bits);
        assert_eq!(value, reference::number(token).map(f64::to_bits), "{token:?}");
    }

    proptest! {
        #[test]
        fn values_are_those_of_the_standard_library(
            token in prop_oneof![
                "[+-]?[0-9]{1,20}\\.[0-9]{0,22}",
                "[+-]?[0-9]{0,3}(\\.[0-9]{0,25})?([eE][+-]?[0-9]{0,4})?",
                "[-+.0-9eEnaifINFty_x]{0,12}",
            ],
        ) {
            check(&token);
        }

        #[test]
        fn every_double_is_read_as_itself(value in any::<f64>()) {
            check(&format!("{value}"));
            check(&format!("{value:e}"));
            check(&format!("{value:.3}"));
        }
    }

    #[test]
    fn numbers_at_the_edge_of_the_short_way_are_exact() {
        for token in [
            "9007199254740992",
            "9007199254740993",
            "90071992547409.93",
            "9999999999999999999",
            "0.000000000000000001",
            "123456789012345678.",
            ".1234567890123456789",
            "-0.0",
            "-",
            ".",
        ] {
            check(token);
        }
    }
}
