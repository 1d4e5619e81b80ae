// SPDX-License-Identifier: Apache-2.0
//! The result of an expression over selected samples, as a Prometheus server computes it.

use std::collections::HashMap;

use promql_parser::parser::token::{T_EQLC, T_GTE, T_GTR, T_LSS, T_LTE, T_NEQ, TokenId};
use promql_parser::parser::{AggregateExpr, BinaryExpr, Expr, LabelModifier};
use regex::Regex;

use super::{KnownLabels, Labels, NotLocal, Selection, functions, matching, pattern};
use crate::limits::{REGEXES_MAX, check_regex};
use crate::query::arithmetic;
use crate::selector::Selector;

/// The maximum number of samples in all intermediate results together.
const SAMPLES_MAX: usize = 200_000;

/// The result of an expression.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Value {
    Scalar(f64),
    Vector(Vector),
}

/// An instant vector.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Vector {
    pub(crate) samples: Vec<(Labels, f64)>,
    pub(super) known: KnownLabels,
}

/// Evaluates an expression.
///
/// # Errors
/// When a part of the expression is not evaluated here, or when a server would reject the operation on these samples.
pub(crate) fn evaluate(expression: &Expr, selection: &Selection) -> Result<Value, NotLocal> {
    Evaluation { selection, samples: 0, regexes: 0 }.value(expression)
}

pub(super) struct Evaluation<'a> {
    selection: &'a Selection,
    /// The number of samples in results so far.
    samples: usize,
    /// The number of compiled regular expressions.
    regexes: usize,
}

impl Evaluation<'_> {
    pub(super) fn value(&mut self, expression: &Expr) -> Result<Value, NotLocal> {
        let value = match expression {
            Expr::NumberLiteral(number) => Value::Scalar(number.val),
            Expr::Paren(inner) => self.value(&inner.expr)?,
            Expr::VectorSelector(selector) => {
                let selected = self.selection.selected(Selector::new(selector).text())?;
                let samples = selected.samples.iter().map(|it| (it.labels.clone(), it.value));
                let known = selected.labels.clone();
                Value::Vector(Vector { samples: samples.collect(), known })
            }
            Expr::Unary(inner) => match self.value(&inner.expr)? {
                Value::Scalar(value) => Value::Scalar(-value),
                Value::Vector(vector) => Value::Vector(vector.map(|value| -value)),
            },
            Expr::Aggregate(inner) => Value::Vector(self.aggregate(inner)?),
            Expr::Binary(inner) => self.binary(inner)?,
            Expr::Call(call) => functions::call(self, call)?,
            Expr::StringLiteral(_)
            | Expr::MatrixSelector(_)
            | Expr::Subquery(_)
            | Expr::Extension(_) => return Err(not_evaluated("this expression")),
        };
        if let Value::Vector(vector) = &value {
            self.samples += vector.samples.len();
            if self.samples > SAMPLES_MAX {
                return Err(NotLocal::new("it takes too many samples"));
            }
            vector.check_unique()?;
        }
        Ok(value)
    }

    /// Compiles a regular expression that must match a whole text.
    pub(super) fn regex(&mut self, pattern: &str) -> Result<Regex, NotLocal> {
        self.regexes += 1;
        if self.regexes > REGEXES_MAX {
            return Err(NotLocal::new(format!(
                "it has more than {REGEXES_MAX} regular expressions"
            )));
        }
        pattern::check_pattern(pattern)?;
        check_regex(pattern).map_err(NotLocal)?;
        Regex::new(&format!("^(?:{pattern})$"))
            .map_err(|_| not_evaluated(&format!("the regular expression {pattern:?}")))
    }

    pub(super) fn vector(&mut self, expression: &Expr) -> Result<Vector, NotLocal> {
        match self.value(expression)? {
            Value::Vector(vector) => Ok(vector),
            Value::Scalar(_) => Err(NotLocal::new("a number stands where a vector is expected")),
        }
    }

    pub(super) fn scalar(&mut self, expression: &Expr) -> Result<f64, NotLocal> {
        match self.value(expression)? {
            Value::Scalar(value) => Ok(value),
            Value::Vector(_) => Err(NotLocal::new("a vector stands where a number is expected")),
        }
    }

    fn binary(&mut self, binary: &BinaryExpr) -> Result<Value, NotLocal> {
        let BinaryExpr { op, lhs, rhs, modifier } = binary;
        let operator = op.id();
        let modifier = modifier.clone().unwrap_or_default();
        let (fill_left, fill_right) = (modifier.fill_values.lhs, modifier.fill_values.rhs);
        if fill_left.is_some() || fill_right.is_some() {
            return Err(not_evaluated("fill"));
        }
        if !op.is_set_operator() && !is_operator(operator) {
            return Err(not_evaluated(&op.to_string()));
        }
        let by_scalar = |vector: Vector, operands: &dyn Fn(f64) -> (f64, f64)| {
            let drops_name = modifier.return_bool || !op.is_comparison_operator();
            let samples = vector.samples.into_iter().filter_map(|(mut labels, value)| {
                let (left, right) = operands(value);
                // A comparison keeps the value of the vector, on whichever side it is.
                let value = applied(operator, left, right, modifier.return_bool, value)?;
                if drops_name {
                    labels.drop_name();
                }
                Some((labels, value))
            });
            Value::Vector(Vector { samples: samples.collect(), known: vector.known.clone() })
        };
        Ok(match (self.value(lhs)?, self.value(rhs)?) {
            (Value::Scalar(left), Value::Scalar(right)) => {
                let value = applied(operator, left, right, true, left);
                Value::Scalar(value.unwrap_or(f64::NAN))
            }
            (Value::Vector(vector), Value::Scalar(right)) => {
                by_scalar(vector, &|value| (value, right))
            }
            (Value::Scalar(left), Value::Vector(vector)) => {
                by_scalar(vector, &|value| (left, value))
            }
            (Value::Vector(left), Value::Vector(right)) => {
                Value::Vector(matching::combine(*op, left, right, &modifier)?)
            }
        })
    }

    fn aggregate(&mut self, aggregate: &AggregateExpr) -> Result<Vector, NotLocal> {
        let AggregateExpr { op, expr, param, modifier } = aggregate;
        let name = op.to_string();
        let by = match name.as_str() {
            "sum" => Aggregation::Sum,
            "avg" => Aggregation::Mean,
            "min" => Aggregation::Least,
            "max" => Aggregation::Greatest,
            "count" => Aggregation::Count,
            _ => return Err(not_evaluated(&name)),
        };
        if param.is_some() {
            return Err(not_evaluated(&name));
        }
        let vector = self.vector(expr)?;
        let grouping = modifier.as_ref().map_or(&[][..], |modifier| &modifier.labels().labels);
        vector.known.check(grouping)?;
        let is_by = modifier.as_ref().is_none_or(LabelModifier::is_include);
        let known = if is_by { KnownLabels::All } else { vector.known.clone() };
        let mut order: Vec<(Labels, Group)> = Vec::new();
        let mut groups: HashMap<Labels, usize> = HashMap::new();
        for (labels, value) in &vector.samples {
            let labels = if is_by { labels.only(grouping) } else { labels.without(grouping) };
            if let Some(index) = groups.get(&labels) {
                order[*index].1.add(*value);
            } else {
                groups.insert(labels.clone(), order.len());
                order.push((labels, Group::new(*value)));
            }
        }
        let samples = order.into_iter().map(|(labels, group)| (labels, group.result(by)));
        Ok(Vector { samples: samples.collect(), known })
    }
}

impl Vector {
    /// Returns the vector with other values, and without names of metrics.
    pub(super) fn map(mut self, value_of: impl Fn(f64) -> f64) -> Self {
        for (labels, value) in &mut self.samples {
            labels.drop_name();
            *value = value_of(*value);
        }
        self
    }

    /// Checks that no two samples have the same labels: a server rejects such a vector.
    fn check_unique(&self) -> Result<(), NotLocal> {
        let mut labels: Vec<&Labels> = self.samples.iter().map(|(labels, _)| labels).collect();
        labels.sort_unstable();
        if labels.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(NotLocal::new("a vector would have several samples with the same labels"));
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Aggregation {
    Sum,
    Mean,
    Least,
    Greatest,
    Count,
}

/// The values of a group, aggregated in each way.
struct Group {
    count: f64,
    sum: f64,
    mean: f64,
    least: f64,
    greatest: f64,
}

impl Group {
    fn new(value: f64) -> Self {
        Self { count: 1.0, sum: value, mean: value, least: value, greatest: value }
    }

    fn add(&mut self, value: f64) {
        self.count += 1.0;
        self.sum += value;
        if self.least > value || self.least.is_nan() {
            self.least = value;
        }
        if self.greatest < value || self.greatest.is_nan() {
            self.greatest = value;
        }
        // An infinite mean stays, except for NaN and for the other infinity.
        let stays = self.mean.is_infinite()
            && !value.is_nan()
            && (value.is_finite() || value.is_sign_positive() == self.mean.is_sign_positive());
        if !stays {
            self.mean += value / self.count - self.mean / self.count;
        }
    }

    fn result(&self, by: Aggregation) -> f64 {
        match by {
            Aggregation::Sum => self.sum,
            Aggregation::Mean => self.mean,
            Aggregation::Least => self.least,
            Aggregation::Greatest => self.greatest,
            Aggregation::Count => self.count,
        }
    }
}

/// Returns the result of an operator, which is `kept` for a comparison that holds, or 1 or 0 with `bool`. `None`: the
/// comparison filters the sample out.
pub(super) fn applied(
    operator: TokenId,
    left: f64,
    right: f64,
    return_bool: bool,
    kept: f64,
) -> Option<f64> {
    match compare(operator, left, right) {
        None => Some(arithmetic(operator, left, right).unwrap_or(f64::NAN)),
        Some(is_true) if return_bool => Some(f64::from(u8::from(is_true))),
        Some(is_true) => is_true.then_some(kept),
    }
}

/// Returns the result of a comparison. `None` for other operators.
#[expect(clippy::float_cmp, reason = "PromQL compares exactly")]
fn compare(operator: TokenId, left: f64, right: f64) -> Option<bool> {
    match operator {
        T_EQLC => Some(left == right),
        T_NEQ => Some(left != right),
        T_GTR => Some(left > right),
        T_LSS => Some(left < right),
        T_GTE => Some(left >= right),
        T_LTE => Some(left <= right),
        _ => None,
    }
}

fn is_operator(operator: TokenId) -> bool {
    arithmetic(operator, 0.0, 0.0).is_some() || compare(operator, 0.0, 0.0).is_some()
}

pub(super) fn not_evaluated(what: &str) -> NotLocal {
    NotLocal::new(format!("{what} is not evaluated here"))
}
