//! Values and timestamps.

use super::Reason;

/// Reads a sample's value, of which `token` is the whole.
///
/// Accepts what Prometheus does, which is what Go's `strconv.ParseFloat` does without hexadecimals and
/// `_`: digits with at most one point and at least one digit, an optional sign and exponent, `NaN`
/// without a sign, `Inf` and `Infinity` with or without one, words in any case. A finite number beyond
/// the greatest double is an error; one below the least is 0.
pub(super) fn value(token: &[u8]) -> Result<f64, Reason> {
    if is_decimal(token) {
        let value = std::str::from_utf8(token).ok().and_then(|text| text.parse().ok());
        return match value {
            Some(value) if f64::is_finite(value) => Ok(value),
            Some(_) => Err(Reason::ValueTooLarge),
            None => Err(Reason::Value),
        };
    }
    word(token).ok_or(Reason::Value)
}

/// Milliseconds since 1970, as the text format has them: an integer, with or without a sign.
pub(super) fn milliseconds(token: &[u8]) -> Option<i64> {
    std::str::from_utf8(token).ok()?.parse().ok()
}

/// Seconds since 1970, as OpenMetrics has them, in milliseconds.
pub(super) fn seconds(token: &[u8]) -> Option<i64> {
    /// 2^63: doubles below it, and not below its negative, fit.
    const END: f64 = 9_223_372_036_854_775_808.0;
    let milliseconds = (value(token).ok()? * 1000.0).round();
    #[expect(clippy::cast_possible_truncation, reason = "it is an integer, and in range")]
    (-END..END).contains(&milliseconds).then_some(milliseconds as i64)
}

fn is_decimal(token: &[u8]) -> bool {
    let token = unsigned(token);
    let (whole, token) = digits(token);
    let (fraction, token) = match token {
        [b'.', rest @ ..] => digits(rest),
        _ => (0, token),
    };
    if whole + fraction == 0 {
        return false;
    }
    match token {
        [] => true,
        [b'e' | b'E', rest @ ..] => matches!(digits(unsigned(rest)), (1.., [])),
        _ => false,
    }
}

fn word(token: &[u8]) -> Option<f64> {
    if token.eq_ignore_ascii_case(b"nan") {
        return Some(f64::NAN);
    }
    let word = unsigned(token);
    let infinity = word.eq_ignore_ascii_case(b"inf") || word.eq_ignore_ascii_case(b"infinity");
    let negative = token.first() == Some(&b'-');
    infinity.then_some(if negative { f64::NEG_INFINITY } else { f64::INFINITY })
}

fn unsigned(token: &[u8]) -> &[u8] {
    match token {
        [b'+' | b'-', rest @ ..] => rest,
        _ => token,
    }
}

/// How many digits a token begins with, and what follows them.
fn digits(token: &[u8]) -> (usize, &[u8]) {
    let count = token.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (count, &token[count..])
}
