// SPDX-License-Identifier: Apache-2.0
//! Functions that need nothing but the newest samples.

use std::borrow::Cow;

use promql_parser::label::MatchOp;
use promql_parser::parser::{Call, Expr};
use regex::Regex;

use super::evaluate::{Evaluation, Value, Vector, not_evaluated};
use super::labels::NAME;
use super::{KnownLabels, Labels, NotLocal, pattern};

/// Evaluates a call.
pub(super) fn call(evaluation: &mut Evaluation<'_>, call: &Call) -> Result<Value, NotLocal> {
    let name = call.func.name;
    let arguments: Vec<&Expr> = call.args.args.iter().map(|argument| unwrapped(argument)).collect();
    let vector = match (name, arguments.as_slice()) {
        ("scalar", [of]) => {
            let samples = evaluation.vector(of)?.samples;
            return Ok(Value::Scalar(match samples.as_slice() {
                [(_, value)] => *value,
                _ => f64::NAN,
            }));
        }
        ("vector", [of]) => {
            let samples = vec![(Labels::default(), evaluation.scalar(of)?)];
            Vector { samples, known: KnownLabels::All }
        }
        ("abs", [of]) => evaluation.vector(of)?.map(f64::abs),
        ("ceil", [of]) => evaluation.vector(of)?.map(f64::ceil),
        ("floor", [of]) => evaluation.vector(of)?.map(f64::floor),
        ("clamp", [of, least, most]) => {
            let vector = evaluation.vector(of)?;
            let (least, most) = (evaluation.scalar(least)?, evaluation.scalar(most)?);
            if most < least {
                Vector { samples: Vec::new(), ..vector }
            } else {
                vector.map(|value| greatest(least, smallest(most, value)))
            }
        }
        ("clamp_min", [of, least]) => {
            let vector = evaluation.vector(of)?;
            let least = evaluation.scalar(least)?;
            vector.map(|value| greatest(least, value))
        }
        ("clamp_max", [of, most]) => {
            let vector = evaluation.vector(of)?;
            let most = evaluation.scalar(most)?;
            vector.map(|value| smallest(most, value))
        }
        ("absent", [of]) => absent(&evaluation.vector(of)?, of),
        ("label_replace", [of, target, replacement, source, pattern]) => {
            let vector = evaluation.vector(of)?;
            let texts = [target, replacement, source, pattern].map(|it| text(it));
            let [Some(target), Some(replacement), Some(source), Some(pattern)] = texts else {
                return Err(not_evaluated(name));
            };
            let pattern = evaluation.regex(pattern)?;
            label_replace(vector, target, replacement, source, &pattern)?
        }
        _ => return Err(not_evaluated(name)),
    };
    Ok(Value::Vector(vector))
}

/// `max` of Go: infinity exceeds NaN, and NaN exceeds everything else.
fn greatest(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.max(b)
    }
}

fn smallest(a: f64, b: f64) -> f64 {
    -greatest(-a, -b)
}

/// The labels of the result are those that the selector demands with one `=` each.
fn absent(vector: &Vector, of: &Expr) -> Vector {
    let mut labels = Labels::default();
    if let Expr::VectorSelector(selector) = of {
        let matchers = &selector.matchers.matchers;
        for (index, matcher) in matchers.iter().enumerate().filter(|(_, it)| it.name != NAME) {
            let is_first = !matchers[..index]
                .iter()
                .any(|it| it.name == matcher.name && it.op == MatchOp::Equal);
            let is_kept = is_first && matcher.op == MatchOp::Equal;
            let value = if is_kept { matcher.value.clone() } else { String::new() };
            labels.set(Cow::Owned(matcher.name.clone()), value);
        }
    }
    let samples = if vector.samples.is_empty() { vec![(labels, 1.0)] } else { Vec::new() };
    Vector { samples, known: KnownLabels::All }
}

/// The most that a label_replace may write, in bytes.
const REPLACED_BYTES_MAX: usize = 8 << 20;

fn label_replace(
    mut vector: Vector,
    target: &str,
    replacement: &str,
    source: &str,
    regex: &Regex,
) -> Result<Vector, NotLocal> {
    let is_label = |name: &str| {
        name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && name.chars().all(|it| it.is_ascii_alphanumeric() || it == '_')
    };
    if !is_label(target) || target == NAME || !is_simple(replacement) {
        return Err(not_evaluated("this label_replace"));
    }
    // An absent source, as in label_replace(x, "a", "b", "", ""), is the empty label of every series.
    if !source.is_empty() {
        vector.known.check(&[source.to_owned()])?;
    }
    let mut changes_all = true;
    let mut bytes = 0;
    for (labels, _) in &mut vector.samples {
        let value = labels.get(source).to_owned();
        pattern::check_value(source, &value)?;
        let Some(captures) = regex.captures(&value) else {
            changes_all = false;
            continue;
        };
        // A value may hold each group as often as the replacement names it, and be replaced again.
        bytes += replacement.len() + value.len() * replacement.matches('$').count();
        if bytes > REPLACED_BYTES_MAX {
            return Err(NotLocal::new("label_replace makes too long labels"));
        }
        let mut replaced = String::new();
        captures.expand(replacement, &mut replaced);
        labels.set(Cow::Owned(target.to_owned()), replaced);
    }
    if !changes_all {
        // A series that is not changed keeps the label that a scrape configuration may have given it.
        vector.known.check_of(std::iter::once(target), "what it selects")?;
    }
    if let KnownLabels::Only(known) = &mut vector.known
        && !known.iter().any(|it| it == target)
    {
        known.push(target.to_owned());
    }
    Ok(vector)
}

/// Returns whether Go and Rust expand a replacement in the same way: it refers to groups as `$1` or `${1}`.
fn is_simple(replacement: &str) -> bool {
    let mut rest = replacement;
    while let Some((_, reference)) = rest.split_once('$') {
        let (digits, after) = if let Some(braced) = reference.strip_prefix('{') {
            let Some(parts) = braced.split_once('}') else { return false };
            parts
        } else {
            let is_part = |it: char| it.is_alphanumeric() || it == '_';
            reference.split_at(reference.find(|it| !is_part(it)).unwrap_or(reference.len()))
        };
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return false;
        }
        rest = after;
    }
    true
}

fn unwrapped(expression: &Expr) -> &Expr {
    match expression {
        Expr::Paren(inner) => unwrapped(&inner.expr),
        other => other,
    }
}

fn text(expression: &Expr) -> Option<&str> {
    match expression {
        Expr::StringLiteral(literal) => Some(&literal.val),
        _ => None,
    }
}
