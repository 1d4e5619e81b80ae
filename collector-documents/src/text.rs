// SPDX-License-Identifier: Apache-2.0
//! Names in messages.

use collector_core::text::shortened;

/// Names of a list that a message shows.
const SHOWN: usize = 5;

/// Names in quotes, separated by commas: the first few, and how many more there are.
pub fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names = names.into_iter();
    let mut shown: Vec<String> =
        names.by_ref().take(SHOWN).map(|name| format!("{:?}", shortened(name))).collect();
    let more = names.count();
    if more > 0 {
        shown.push(format!("{more} more"));
    }
    shown.join(", ")
}

/// The names from the nearest to `name` on, each once.
pub fn nearest_first<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    // The distance takes quadratic time, and names may be of any length.
    let plain =
        |name: &str| name.chars().take(128).flat_map(char::to_lowercase).collect::<String>();
    let asked = plain(name);
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_unstable();
    names.dedup();
    names.sort_by_key(|known| strsim::damerau_levenshtein(&asked, &plain(known)));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_names_come_first_and_a_long_list_is_cut() {
        let names = ["staging", "prod-eu", "dev", "prod", "prod", "test", "qa"];
        let nearest = nearest_first("Prdo", names);
        assert_eq!(nearest[..2], ["prod", "dev"]);
        assert_eq!(nearest.len(), 6);
        assert_eq!(quoted(["a", "b\n"]), r#""a", "b\n""#);
        assert!(quoted(nearest).ends_with(", 1 more"));
    }
}
