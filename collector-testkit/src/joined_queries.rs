// SPDX-License-Identifier: Apache-2.0
//! Queries that a PromQL client joins into one, as servers of scripts take them apart.

/// The queries that were joined into one by `or`, each with its number, the value of the label `what`
/// that its rows are to have; none of a query of its own.
///
/// # Panics
/// If a query begins as a joined one and goes on otherwise.
pub fn joined_queries(query: &str) -> Vec<(&str, &str)> {
    let mut parts = Vec::new();
    let mut rest = query;
    while let Some(part) = rest.strip_prefix("label_replace(") {
        let (inner, behind) =
            part.split_once(",\"what\",\"").expect("a joined query has the label");
        let (number, behind) =
            behind.split_once("\",\"namespace\",\".*\")").expect("a joined query has a number");
        parts.push((inner, number));
        rest = behind.trim_start_matches(" or ");
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_query_comes_with_its_number_and_one_of_its_own_is_none() {
        let part = |inner: &str, number: u8| {
            format!(r#"label_replace({inner},"what","{number}","namespace",".*")"#)
        };
        let joined = [part("max by (pod) (a{b=\"c\"})", 0), part("sum(d)", 12)].join(" or ");
        assert_eq!(joined_queries(&joined), [("max by (pod) (a{b=\"c\"})", "0"), ("sum(d)", "12")]);
        assert_eq!(joined_queries("count(a) or count(b)"), []);
    }
}
