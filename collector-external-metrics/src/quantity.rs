// SPDX-License-Identifier: Apache-2.0
//! Quantities as Kubernetes writes them: `3`, `1500m`, `12k`. Pure.

/// The suffixes of powers of a thousand, from a thousand-millionth on.
const SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];

/// Digits behind the point.
const DIGITS: usize = 9;

/// Returns the canonical text of a number from 0 to 1e12, to a thousand-millionth: a whole number with the greatest
/// suffix that needs no fraction. `None` for a number outside of that range, and for one that is none.
///
/// A number that is not 0 is never written as 0.
pub(crate) fn quantity(number: f64) -> Option<String> {
    if !(0.0..=1e12).contains(&number) {
        return None;
    }
    // The digits that mean this number and no other: a product would have a rounding error of its own.
    let mut text = number.abs().to_string();
    if text.split_once('.').is_some_and(|(_, fraction)| fraction.len() > DIGITS) {
        text = format!("{number:.DIGITS$}");
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut count: u128 = format!("{whole}{fraction:0<DIGITS$}").parse().ok()?;
    if count == 0 {
        return Some(if number > 0.0 { "1n".to_owned() } else { "0".to_owned() });
    }
    let mut suffix = 0;
    while count.is_multiple_of(1000) && suffix + 1 < SUFFIXES.len() {
        count /= 1000;
        suffix += 1;
    }
    Some(format!("{count}{}", SUFFIXES[suffix]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The thousand-millionths of a quantity: the grammar of Kubernetes, where a suffix or an exponent may follow.
    fn parsed(text: &str) -> Option<u128> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (digits, suffix) = text.split_at(end);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let exponent: i32 = match suffix {
            "n" => 0,
            "u" => 3,
            "m" => 6,
            "" => 9,
            "k" => 12,
            "M" => 15,
            "G" => 18,
            "T" => 21,
            "P" => 24,
            "E" => 27,
            _ => 9 + suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?,
        };
        let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
        let exponent = exponent - i32::try_from(fraction.len()).ok()?;
        let power = 10_u128.pow(exponent.unsigned_abs());
        Some(if exponent < 0 { digits.div_ceil(power) } else { digits * power })
    }

    #[test]
    fn texts_are_those_of_kubernetes() {
        for (number, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (3.0, "3"),
            (0.3, "300m"),
            (0.1 + 0.2, "300m"),
            (1.5, "1500m"),
            (0.000_25, "250u"),
            (1e-9, "1n"),
            (1e-12, "1n"),
            (f64::MIN_POSITIVE, "1n"),
            (999.0, "999"),
            (1000.0, "1k"),
            (1001.0, "1001"),
            (12_000.0, "12k"),
            (12_500.0, "12500"),
            (1e12, "1T"),
            (2.0 / 3.0, "666666667n"),
        ] {
            assert_eq!(quantity(number).as_deref(), Some(text), "{number}");
        }
        for number in [-1e-9, -1.0, 1.1e12, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(quantity(number), None, "{number}");
        }
    }

    #[test]
    fn the_parser_of_the_tests_knows_the_grammar() {
        for (text, billionths) in [
            ("1.5", 1_500_000_000),
            ("1500m", 1_500_000_000),
            ("12e6", 12_000_000_000_000_000),
            ("12k", 12_000_000_000_000),
            (".5", 500_000_000),
            ("5.", 5_000_000_000),
        ] {
            assert_eq!(parsed(text), Some(billionths), "{text}");
        }
        for text in ["", "m", "1x", "1 ", "-1", "1ee", "."] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_number_is_read_back_as_it_was(number in prop_oneof![0.0..=1e12_f64, 0.0..1.0_f64, 0.0..1e-6_f64]) {
            let text = quantity(number).unwrap();
            let billionths = parsed(&text).unwrap();
            let error = (billionths as f64 / 1e9 - number).abs();
            prop_assert!(error <= 1e-9_f64.max(number * f64::EPSILON), "{number}: {text}");
            // What apimachinery prints: digits without a leading zero, a suffix, and no thousand that is left.
            let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
            prop_assert!(digits.bytes().all(|byte| byte.is_ascii_digit()), "{text}");
            prop_assert!(digits == "0" || !digits.starts_with('0'), "{text}");
            prop_assert!(digits == "0" || !digits.ends_with("000"), "{text}");
        }

        #[test]
        fn thousandths_are_exact(count in 0_u64..1_000_000_000_000) {
            let text = quantity(count as f64 / 1000.0).unwrap();
            prop_assert_eq!(parsed(&text), Some(u128::from(count) * 1_000_000), "{}", text);
        }
    }
}
