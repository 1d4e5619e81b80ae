// SPDX-License-Identifier: Apache-2.0
//! What is wrong with objects of the cluster: in words for users, once each.

use std::fmt;

use collector_core::text::printable;

/// The most characters of a text of the cluster in a condition.
const SHOWN: usize = 200;

/// Something that is wrong with an object, and disturbs no other.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub struct Condition {
    /// The object: its kind, namespace and name.
    pub object: String,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

impl Condition {
    /// A condition of an object. Names and values of the cluster are made printable here.
    pub(crate) fn new(
        kind: &str,
        namespace: &str,
        name: &str,
        problem: impl fmt::Display,
        remedy: impl Into<String>,
    ) -> Self {
        let object = format!("{kind} {namespace}/{name}");
        Self { object: shown(&object), problem: shown(&problem.to_string()), remedy: remedy.into() }
    }

    /// A namespace of the configuration that does not exist.
    pub(crate) fn no_namespace(name: &str) -> Self {
        Self {
            object: shown(&format!("Namespace {name}")),
            problem: "it does not exist, and kubernetes.namespaces has it".to_owned(),
            remedy: "correct kubernetes.namespaces, or is this another cluster than is meant?"
                .to_owned(),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.object, self.problem, self.remedy)
    }
}

fn shown(text: &str) -> String {
    printable(text).at_most(SHOWN).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_one_printable_line() {
        let condition = Condition::new("Pod", "n", "a\u{1b}[2J\n", "x".repeat(999), "do that");
        let text = condition.to_string();
        assert!(text.starts_with("Pod n/a\\u{1b}[2J\\u{a}: xxx"), "{text}");
        assert!(text.ends_with("…; do that") && text.len() < 300, "{text}");
    }
}
