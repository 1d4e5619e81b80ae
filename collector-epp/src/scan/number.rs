//! Values and timestamps.

use super::Reason;

/// Reads a sample's value; `token` is all of it.
///
/// Accepts what Prometheus does, which is what Go's `strconv.ParseFloat` does without hexadecimals and
/// `_`: digits with at most one point and at least one digit, an optional sign and exponent, `NaN`
/// without a sign, `Inf` and `Infinity` with or without one, words in any case. A finite number beyond
/// the greatest double is an error; one below the least is 0.
#[inline]
pub(super) fn value(token: &[u8]) -> Result<f64, Reason> {
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
}
