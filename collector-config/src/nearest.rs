// SPDX-License-Identifier: Apache-2.0
//! "Did you mean": the known name nearest to one that is not known.

/// The candidate that someone who wrote `name` most likely meant, if any comes near.
///
/// Case and the separators of words do not count (`cleanupInterval`), and a key named without its
/// section (`ttl`) is as good as the key.
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let name = plain(name);
    let allowed = (name.len() / 3).max(2);
    let distance = |candidate: &str| {
        let leaf = candidate.rsplit('.').next().unwrap_or(candidate);
        let whole = strsim::damerau_levenshtein(&name, &plain(candidate));
        // A whole match is better than one of the last part alone.
        whole.min(strsim::damerau_levenshtein(&name, &plain(leaf)) + 1)
    };
    candidates
        .into_iter()
        .map(|candidate| (distance(candidate), candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= allowed)
        .map(|(_, candidate)| candidate)
}

fn plain(name: &str) -> String {
    // Names may be of any length; the distance takes quadratic time.
    name.chars()
        .filter(|c| !matches!(c, '_' | '-'))
        .flat_map(char::to_lowercase)
        .take(128)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expected: Option<&str>) {
        let known =
            ["cache.ttl", "cache.cleanup_interval", "server.listen", "log.level", "backend"];
        assert_eq!(nearest(name, known), expected, "{name}");
    }

    #[test]
    fn misspelt_misplaced_and_camel_case_names_find_theirs() {
        check("cache.tll", Some("cache.ttl"));
        check("ttl", Some("cache.ttl"));
        check("tl", Some("cache.ttl"));
        check("cache.cleanupInterval", Some("cache.cleanup_interval"));
        check("Backends", Some("backend"));
        check("server.adress", None);
        check("completely_else", None);
        check(&"x".repeat(100_000), None);
    }
}
