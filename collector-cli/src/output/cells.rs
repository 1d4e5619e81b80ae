// SPDX-License-Identifier: Apache-2.0
//! Values as people read them in tables and lines.

use std::time::Duration;

use super::printable;

/// What stands where nothing was measured.
pub(crate) const UNKNOWN: &str = "-";

/// A value, or the sign of one that is not known.
pub(crate) fn known<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), text)
}

pub(crate) fn name(name: &(impl AsRef<str> + ?Sized)) -> String {
    printable(name.as_ref()).to_string()
}

pub(crate) fn optional(known_name: Option<&impl AsRef<str>>) -> String {
    known(known_name, name)
}

pub(crate) fn whole(count: Option<u64>) -> String {
    known(count, |count| count.to_string())
}

pub(super) fn tenths(value: Option<f64>) -> String {
    unit(value, "")
}

pub(super) fn unit(value: Option<f64>, unit: &str) -> String {
    known(value, |value| format!("{value:.1}{unit}"))
}

pub(crate) fn percent(share: Option<f64>) -> String {
    unit(share.map(|share| share * 100.0), "%")
}

/// A share where room is scarce.
#[cfg(any(feature = "sim", feature = "tui"))]
pub(crate) fn whole_percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

pub(crate) fn age(age: Duration) -> String {
    format!("{:.1}s", age.as_secs_f64())
}
