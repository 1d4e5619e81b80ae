// SPDX-License-Identifier: Apache-2.0
//! Operations on two vectors: which samples belong together.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use promql_parser::parser::token::{T_LAND, T_LOR, TokenType};
use promql_parser::parser::{BinModifier, LabelModifier, VectorMatchCardinality};

use super::evaluate::{Vector, applied};
use super::{KnownLabels, Labels, NotLocal};

/// Applies a binary operator to two vectors.
pub(super) fn combine(
    operator: TokenType,
    left: Vector,
    right: Vector,
    modifier: &BinModifier,
) -> Result<Vector, NotLocal> {
    let (on, names): (bool, &[String]) = match &modifier.matching {
        Some(LabelModifier::Include(names)) => (true, &names.labels),
        Some(LabelModifier::Exclude(names)) => (false, &names.labels),
        None => (false, &[]),
    };
    left.known.check(names)?;
    right.known.check(names)?;
    let signature = |labels: &Labels| if on { labels.only(names) } else { labels.without(names) };
    if operator.is_set_operator() {
        return Ok(set(operator, left, right, signature));
    }
    let (many, one, included, is_swapped) = match &modifier.card {
        VectorMatchCardinality::OneToOne => (left, right, None, false),
        VectorMatchCardinality::ManyToOne(included) => (left, right, Some(included), false),
        VectorMatchCardinality::OneToMany(included) => (right, left, Some(included), true),
        VectorMatchCardinality::ManyToMany => {
            return Err(NotLocal::new("many-to-many matching is for and, or and unless"));
        }
    };
    let included = included.map(|included| included.labels.as_slice());
    one.known.check(included.unwrap_or_default())?;
    // A server accepts any vectors if one of them is empty.
    if many.samples.is_empty() || one.samples.is_empty() {
        return Ok(Vector { samples: Vec::new(), known: many.known });
    }
    let mut by_signature: HashMap<Labels, (&Labels, f64)> = HashMap::new();
    for (labels, value) in &one.samples {
        if by_signature.insert(signature(labels), (labels, *value)).is_some() {
            return Err(NotLocal::new("several samples of one side have the same matching labels"));
        }
    }
    let is_one_to_one = included.is_none();
    let mut matched: HashSet<Labels> = HashSet::new();
    let mut samples = Vec::new();
    for (labels, value) in many.samples {
        let signature = signature(&labels);
        let Some((others, other)) = by_signature.get(&signature) else { continue };
        let (left, right) = if is_swapped { (*other, value) } else { (value, *other) };
        // A comparison keeps the left value, also if the sides are swapped.
        let value = applied(operator.id(), left, right, modifier.return_bool, left);
        let Some(value) = value else { continue };
        if is_one_to_one && !matched.insert(signature) {
            return Err(NotLocal::new(
                "several samples of both sides have the same matching labels",
            ));
        }
        let mut labels = labels;
        if !operator.is_comparison_operator() || modifier.return_bool {
            labels.drop_name();
        }
        if is_one_to_one {
            labels = if on { labels.only(names) } else { without_only(&labels, names) };
        }
        for name in included.unwrap_or_default() {
            labels.set(Cow::Owned(name.clone()), others.get(name).to_owned());
        }
        samples.push((labels, value));
    }
    let mut known = if is_one_to_one && on { KnownLabels::All } else { many.known };
    if let KnownLabels::Only(known) = &mut known {
        known.extend(included.unwrap_or_default().iter().cloned());
    }
    Ok(Vector { samples, known })
}

/// Returns labels without these; the name of the metric stays.
fn without_only(labels: &Labels, names: &[String]) -> Labels {
    let mut rest = labels.clone();
    for name in names {
        rest.set(Cow::Owned(name.clone()), String::new());
    }
    rest
}

/// Applies `and`, `or` or `unless`.
fn set(
    operator: TokenType,
    left: Vector,
    right: Vector,
    signature: impl Fn(&Labels) -> Labels,
) -> Vector {
    let Vector { mut samples, known } = left;
    if operator.id() == T_LOR {
        let of_left: HashSet<Labels> = samples.iter().map(|(it, _)| signature(it)).collect();
        let others = right.samples.into_iter();
        samples.extend(others.filter(|(labels, _)| !of_left.contains(&signature(labels))));
        return Vector { samples, known: known.and(right.known) };
    }
    let of_right: HashSet<Labels> = right.samples.iter().map(|(it, _)| signature(it)).collect();
    let is_kept = operator.id() == T_LAND;
    samples.retain(|(labels, _)| of_right.contains(&signature(labels)) == is_kept);
    Vector { samples, known }
}
