// SPDX-License-Identifier: Apache-2.0
//! A parsed query: which selectors need data, and its value if they are known to be empty.

use promql_parser::parser::token::{
    T_ADD, T_DIV, T_LAND, T_LOR, T_LUNLESS, T_MOD, T_MUL, T_POW, T_SUB,
};
use promql_parser::parser::{
    self, AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, ParenExpr, VectorSelector,
};

use crate::limits::Limits;
use crate::raw::without_raw_strings;
use crate::selector::Selector;

/// A parsed query.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Query {
    /// The query as the parser formats it: the same text for all ways to write the query.
    pub(crate) text: String,
    pub(crate) expression: Expr,
    /// Its selectors, each once.
    pub(crate) selectors: Vec<Selector>,
    pub(crate) need: Need,
    /// The value if the result is empty because its selectors are known to be empty: the sum of no requests is 0.
    /// `None`: the result is empty then.
    pub(crate) value_if_empty: Option<f64>,
    /// It has `offset` or `@`: present data says nothing about it.
    pub(crate) of_past: bool,
    pub(crate) forms: Forms,
    pub(crate) kind: Kind,
}

/// Properties that determine what an empty result means.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Forms {
    /// A binary operation has selectors on both sides, so an empty side makes the result empty.
    pub(crate) has_arithmetic: bool,
    /// Such an operation is within a default: `(a + b) or vector(0)` is 0 if one side is empty. Or a side is within
    /// `scalar`, which makes NaN of an empty vector.
    pub(crate) hides_arithmetic: bool,
    /// It has a filter, so its result may be empty although its selectors have data.
    pub(crate) is_filter: bool,
}

/// Which selectors need data.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Need {
    /// None: a constant, or `absent`.
    Nothing,
    /// A selector, by its index.
    Selector {
        index: usize,
        /// The query has a default for it: `… or vector(0)`.
        has_default: bool,
    },
    All(Vec<Need>),
    Any(Vec<Need>),
}

impl Need {
    /// Returns whether the query has a default for a selector that it needs.
    pub(crate) fn has_default(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Selector { has_default, .. } => *has_default,
            Self::All(needs) | Self::Any(needs) => needs.iter().any(Self::has_default),
        }
    }
}

impl Query {
    /// Parses a query. The error is for people.
    pub(crate) fn parse(text: &str, limits: &Limits) -> Result<Self, String> {
        limits.check(text)?;
        let expression = parser::parse(&without_raw_strings(text))?;
        let mut reader = Reader::default();
        let need = reader.need(&expression, false);
        Ok(Self {
            text: expression.to_string(),
            selectors: reader.selectors,
            need,
            value_if_empty: value_if_empty(&expression),
            of_past: reader.of_past,
            forms: reader.forms,
            kind: kind(&expression),
            expression,
        })
    }

    /// Returns the query without its filters, which has a result wherever the filters have something to decide. `None` if
    /// matching series are enough for that, or if it has no such form.
    pub(crate) fn unfiltered(&self) -> Option<Expr> {
        // A rate needs several samples, and an operation on two vectors needs matching labels.
        let may_lack_data = self.forms.has_arithmetic || self.text.contains('[');
        if !self.forms.is_filter || !may_lack_data {
            return None;
        }
        let mut expression = self.expression.clone();
        remove_filters(&mut expression).then_some(expression)
    }
}

/// A description of a query.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Described {
    /// The selectors as PromQL, each with the labels that it restricts: `namespace="prod"`, and not `namespace!=""`.
    pub selectors: Vec<(String, Vec<String>)>,
    /// How its value depends on the number of replicas.
    pub kind: Kind,
    /// Its result has one element for all series, not one for each of them.
    pub is_aggregated: bool,
}

/// How the value of a query depends on the number of replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// It grows with them: a sum or a count.
    Sum,
    /// It does not: a mean, a maximum or a quantile.
    Ratio,
    /// Unknown.
    Unknown,
}

/// Parses a query within limits, as a guard does, and describes it.
///
/// # Errors
/// When the query is invalid or exceeds a limit.
pub fn describe(query: &str, limits: &Limits) -> Result<Described, String> {
    let query = Query::parse(query, limits)?;
    let selectors = query.selectors.iter().map(|selector| {
        let labels = selector.restricted_labels().into_iter().map(str::to_owned).collect();
        (selector.text().to_owned(), labels)
    });
    let is_aggregated = is_aggregated(&query.expression);
    Ok(Described { selectors: selectors.collect(), kind: query.kind, is_aggregated })
}

/// Collects the selectors and properties of an expression.
#[derive(Default)]
struct Reader {
    selectors: Vec<Selector>,
    of_past: bool,
    forms: Forms,
}

impl Reader {
    fn need(&mut self, expression: &Expr, has_default: bool) -> Need {
        match expression {
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => Need::Nothing,
            Expr::VectorSelector(selector) => self.selector(selector, has_default),
            Expr::MatrixSelector(range) => self.selector(&range.vs, has_default),
            Expr::Paren(inner) => self.need(&inner.expr, has_default),
            Expr::Unary(inner) => self.need(&inner.expr, has_default),
            Expr::Subquery(inner) => {
                self.of_past |= inner.offset.is_some() || inner.at.is_some();
                self.need(&inner.expr, has_default)
            }
            Expr::Call(call) => {
                let known = self.selectors.len();
                let needs = call.args.args.iter().map(|argument| self.need(argument, has_default));
                let needs = all(needs.collect());
                self.forms.hides_arithmetic |= call.func.name == "scalar" && needs != Need::Nothing;
                if call.func.name.starts_with("absent") {
                    self.forms.is_filter = true;
                    self.selectors.truncate(known);
                    return Need::Nothing;
                }
                needs
            }
            Expr::Aggregate(AggregateExpr { expr, param, .. }) => {
                let parts = param.iter().chain([expr]);
                all(parts.map(|part| self.need(part, has_default)).collect())
            }
            Expr::Binary(BinaryExpr { op, lhs, rhs, modifier }) => match op.id() {
                T_LOR => {
                    let (left_default, right_default) = (is_constant(rhs), is_constant(lhs));
                    let left = self.need(lhs, has_default || left_default);
                    let right = self.need(rhs, has_default || right_default);
                    let sides: Vec<Need> =
                        [left, right].into_iter().filter(|side| *side != Need::Nothing).collect();
                    one_or(sides, Need::Any)
                }
                T_LUNLESS => {
                    self.forms.is_filter = true;
                    let left = self.need(lhs, has_default);
                    let known = self.selectors.len();
                    self.need(rhs, has_default);
                    self.selectors.truncate(known);
                    left
                }
                operator => {
                    let is_arithmetic = !is_constant(lhs) && !is_constant(rhs);
                    self.forms.has_arithmetic |= is_arithmetic;
                    self.forms.hides_arithmetic |= is_arithmetic && has_default;
                    let filters = modifier.as_ref().is_none_or(|modifier| !modifier.return_bool);
                    self.forms.is_filter |=
                        operator == T_LAND || (op.is_comparison_operator() && filters);
                    all(vec![self.need(lhs, has_default), self.need(rhs, has_default)])
                }
            },
        }
    }

    fn selector(&mut self, selector: &VectorSelector, has_default: bool) -> Need {
        self.of_past |= selector.offset.is_some() || selector.at.is_some();
        let selector = Selector::new(selector);
        let known = self.selectors.iter().position(|known| *known == selector);
        let index = known.unwrap_or_else(|| {
            self.selectors.push(selector);
            self.selectors.len() - 1
        });
        Need::Selector { index, has_default }
    }
}

/// Makes 1 or 0 of comparisons, and keeps the left side of `and` and `unless`. Returns false if `absent` is left.
fn remove_filters(expression: &mut Expr) -> bool {
    match expression {
        Expr::Paren(inner) => remove_filters(&mut inner.expr),
        Expr::Unary(inner) => remove_filters(&mut inner.expr),
        Expr::Subquery(inner) => remove_filters(&mut inner.expr),
        Expr::Aggregate(aggregate) => remove_filters(&mut aggregate.expr),
        Expr::Call(call) => {
            !call.func.name.starts_with("absent")
                && call.args.args.iter_mut().all(|argument| remove_filters(argument))
        }
        Expr::Binary(binary) if matches!(binary.op.id(), T_LAND | T_LUNLESS) => {
            let is_removed = remove_filters(&mut binary.lhs);
            let left = Box::clone(&binary.lhs);
            *expression = Expr::Paren(ParenExpr { expr: left });
            is_removed
        }
        Expr::Binary(binary) => {
            if binary.op.is_comparison_operator() {
                binary.modifier.get_or_insert_default().return_bool = true;
            }
            remove_filters(&mut binary.lhs) && remove_filters(&mut binary.rhs)
        }
        _ => true,
    }
}

fn all(needs: Vec<Need>) -> Need {
    let needs = needs.into_iter().filter(|need| *need != Need::Nothing).collect();
    one_or(needs, Need::All)
}

fn one_or(mut needs: Vec<Need>, several: fn(Vec<Need>) -> Need) -> Need {
    if needs.len() > 1 { several(needs) } else { needs.pop().unwrap_or(Need::Nothing) }
}

/// Returns whether an expression has no selectors: numbers, and `vector` of numbers.
fn is_constant(expression: &Expr) -> bool {
    match expression {
        Expr::NumberLiteral(_) => true,
        Expr::Paren(inner) => is_constant(&inner.expr),
        Expr::Unary(inner) => is_constant(&inner.expr),
        Expr::Binary(BinaryExpr { lhs, rhs, .. }) => is_constant(lhs) && is_constant(rhs),
        Expr::Call(call) => {
            call.func.name == "vector"
                && call.args.args.iter().all(|argument| is_constant(argument))
        }
        _ => false,
    }
}

/// Returns the value of an expression of numbers.
fn constant(expression: &Expr) -> Option<f64> {
    match expression {
        Expr::NumberLiteral(number) => Some(number.val),
        Expr::Paren(inner) => constant(&inner.expr),
        Expr::Unary(inner) => constant(&inner.expr).map(|value| -value),
        Expr::Binary(BinaryExpr { op, lhs, rhs, .. }) => {
            arithmetic(op.id(), constant(lhs)?, constant(rhs)?)
        }
        _ => None,
    }
}

/// Returns the value of an expression whose selectors are known to be empty: `sum`, `count` and `max` over everything
/// are 0, and arithmetic applies to that. The result of any other expression is empty.
fn value_if_empty(expression: &Expr) -> Option<f64> {
    match expression {
        Expr::Paren(inner) => value_if_empty(&inner.expr),
        Expr::Unary(inner) => value_if_empty(&inner.expr).map(|value| -value),
        Expr::Aggregate(AggregateExpr { op, modifier, .. }) => {
            let over_all = match modifier {
                None => true,
                Some(LabelModifier::Include(labels)) => labels.is_empty(),
                Some(LabelModifier::Exclude(_)) => false,
            };
            let is_zero = matches!(op.to_string().as_str(), "sum" | "count" | "max");
            (over_all && is_zero).then_some(0.0)
        }
        Expr::Binary(BinaryExpr { op, lhs, rhs, .. }) if op.id() == T_LOR => {
            value_if_empty(lhs).filter(|_| is_constant(rhs) || value_if_empty(rhs).is_some())
        }
        Expr::Binary(BinaryExpr { op, lhs, rhs, .. }) => match (constant(lhs), constant(rhs)) {
            (None, Some(right)) => arithmetic(op.id(), value_if_empty(lhs)?, right),
            (Some(left), None) => arithmetic(op.id(), left, value_if_empty(rhs)?),
            // What is known to be empty on one side and has data on the other is refused before.
            (None, None) => arithmetic(op.id(), value_if_empty(lhs)?, value_if_empty(rhs)?)
                .filter(|value| value.is_finite()),
            (Some(_), Some(_)) => None,
        },
        Expr::Call(Call { func, args }) => {
            let [first, bounds @ ..] = args.args.as_slice() else { return None };
            let value = value_if_empty(first)?;
            match (func.name, bounds) {
                ("clamp_min", [least]) => Some(value.max(constant(least)?)),
                ("clamp_max", [most]) => Some(value.min(constant(most)?)),
                ("clamp", [least, most]) => Some(value.max(constant(least)?).min(constant(most)?)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Returns the kind of an expression, by its outermost aggregation.
fn kind(expression: &Expr) -> Kind {
    match expression {
        Expr::Paren(inner) => kind(&inner.expr),
        Expr::Unary(inner) => kind(&inner.expr),
        Expr::Aggregate(AggregateExpr { op, .. }) => match op.to_string().as_str() {
            "sum" | "count" => Kind::Sum,
            "avg" | "max" | "min" | "quantile" => Kind::Ratio,
            _ => Kind::Unknown,
        },
        Expr::Binary(BinaryExpr { op, lhs, rhs, .. }) => match (is_constant(lhs), is_constant(rhs))
        {
            (false, true) => kind(lhs),
            (true, false) => kind(rhs),
            // A sum divided by a sum is a mean.
            _ if op.id() == T_DIV => Kind::Ratio,
            _ if kind(lhs) == kind(rhs) => kind(lhs),
            _ => Kind::Unknown,
        },
        Expr::Call(Call { func, .. }) if func.name == "histogram_quantile" => Kind::Ratio,
        Expr::Call(Call { args, .. }) => {
            args.args.first().map_or(Kind::Unknown, |first| kind(first))
        }
        _ => Kind::Unknown,
    }
}

/// Returns whether the result of an expression has one element for all series. `by` without a label of pods counts as that: a
/// selector may name the value of the label.
fn is_aggregated(expression: &Expr) -> bool {
    const OF_PODS: [&str; 4] = ["pod", "instance", "exported_pod", "kubernetes_pod_name"];
    match expression {
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => true,
        Expr::VectorSelector(_) | Expr::MatrixSelector(_) | Expr::Extension(_) => false,
        Expr::Paren(inner) => is_aggregated(&inner.expr),
        Expr::Unary(inner) => is_aggregated(&inner.expr),
        Expr::Subquery(inner) => is_aggregated(&inner.expr),
        Expr::Aggregate(AggregateExpr { op, modifier, param, .. }) => {
            let is_by_pod = matches!(modifier, Some(LabelModifier::Include(by))
                if by.labels.iter().any(|label| OF_PODS.contains(&label.as_str())));
            // Without a modifier, `topk(1, …)` is one element.
            let is_one = modifier.is_none()
                && matches!(param.as_deref(), Some(Expr::NumberLiteral(number)) if (1.0..2.0).contains(&number.val));
            match op.to_string().as_str() {
                "topk" | "bottomk" | "limitk" => is_one,
                "limit_ratio" | "count_values" => false,
                _ => !is_by_pod,
            }
        }
        Expr::Call(Call { func, args }) => {
            ["scalar", "absent", "absent_over_time"].contains(&func.name)
                || args.args.iter().all(|argument| is_aggregated(argument))
        }
        Expr::Binary(BinaryExpr { op, lhs, rhs, .. }) => match op.id() {
            T_LOR => is_aggregated(lhs) && is_aggregated(rhs),
            T_LAND | T_LUNLESS => is_aggregated(lhs),
            // Vectors match one by one, so that one element on a side leaves at most one.
            _ => match (is_constant(lhs), is_constant(rhs)) {
                (true, _) => is_aggregated(rhs),
                (_, true) => is_aggregated(lhs),
                _ => is_aggregated(lhs) || is_aggregated(rhs),
            },
        },
    }
}

/// Returns the result of arithmetic; `None` for other operators.
pub(crate) fn arithmetic(operator: parser::token::TokenId, left: f64, right: f64) -> Option<f64> {
    match operator {
        T_ADD => Some(left + right),
        T_SUB => Some(left - right),
        T_MUL => Some(left * right),
        T_DIV => Some(left / right),
        T_MOD => Some(left % right),
        T_POW => Some(left.powf(right)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
