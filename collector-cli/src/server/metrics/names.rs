// SPDX-License-Identifier: Apache-2.0
//! The names of families that the upstream autoscaler names too: ours, and its own for those who have dashboards and
//! rules with them.

/// A family's name here, and its name upstream (`wva_*`).
pub(crate) const UPSTREAM_NAMES: [(&str, &str); 5] = [
    ("collector_query_duration_seconds", "wva_metrics_collection_duration_seconds"),
    ("collector_query_errors_total", "wva_metrics_collection_errors_total"),
    ("collector_readings", "wva_metrics_freshness_status"),
    ("collector_discovered_pods", "wva_metrics_pods_discovered"),
    ("collector_pod_mapping_misses_total", "wva_pod_mapping_miss_total"),
];

/// Adds families to a page, each of [`UPSTREAM_NAMES`] under its name here and, with `upstream`, under the other one too.
/// The crates below count under the upstream names, because a program that embeds them has its own recorder.
pub(super) fn add_families(page: &mut String, families: &str, upstream: bool) {
    let mut rest = families;
    while !rest.is_empty() {
        // A family begins with its HELP line, or with its TYPE line where it has no help.
        let header = rest.find("# TYPE ").unwrap_or(0);
        let end = rest[header + 1..].find("\n# ").map_or(rest.len(), |end| header + end + 2);
        let (family, after) = rest.split_at(end);
        rest = after;
        let name = family[header..].split(' ').nth(2).unwrap_or_default();
        match UPSTREAM_NAMES.iter().find(|(ours, theirs)| [ours, theirs].contains(&&name)) {
            None => page.push_str(family),
            Some((ours, theirs)) => {
                add_renamed(page, family, name, ours);
                if upstream {
                    add_renamed(page, family, name, theirs);
                }
            }
        }
    }
}

/// Replaces the name where a line has it, and nowhere else: labels are hostile.
fn add_renamed(page: &mut String, family: &str, from: &str, to: &str) {
    for line in family.split_inclusive('\n') {
        let start = ["# HELP ", "# TYPE "].into_iter().find(|start| line.starts_with(start));
        let start = start.unwrap_or_default();
        match line[start.len()..].strip_prefix(from) {
            Some(rest) => page.extend([start, to, rest]),
            None => page.push_str(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP a A.\n# TYPE a gauge\na 1\n\n\
        # TYPE wva_metrics_pods_discovered gauge\n\
        wva_metrics_pods_discovered{namespace=\"wva_metrics_pods_discovered\"} 2\n\
        # HELP b # TYPE c\n# TYPE b counter\nb 3\n";

    #[test]
    fn a_family_of_the_upstream_has_both_names_and_its_labels_stay() {
        let mut both = String::new();
        add_families(&mut both, PAGE, true);
        let ours = "# TYPE collector_discovered_pods gauge\n\
            collector_discovered_pods{namespace=\"wva_metrics_pods_discovered\"} 2\n";
        let (before, after) = PAGE.split_once("# TYPE wva").unwrap();
        assert_eq!(both, format!("{before}{ours}# TYPE wva{after}"));

        let mut one = String::new();
        add_families(&mut one, PAGE, false);
        let (_, after) = PAGE.split_once("# HELP b").unwrap();
        assert_eq!(one, format!("{before}{ours}# HELP b{after}"));
    }
}
