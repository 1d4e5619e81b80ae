// SPDX-License-Identifier: Apache-2.0
//! What a PromQL expression selects.

use std::collections::BTreeSet;
use std::convert::Infallible;

use promql_parser::label::{METRIC_NAME, MatchOp};
use promql_parser::parser::{AggregateExpr, Expr, LabelModifier, VectorSelector, parse};
use promql_parser::util::{ExprVisitor, walk_expr};

/// The series that an expression names, and the labels that it knows them by.
#[derive(Default, Debug)]
pub(super) struct Selected {
    pub(super) series: BTreeSet<String>,
    pub(super) labels: BTreeSet<String>,
}

/// What an expression selects, in which Grafana's variables may stand.
#[track_caller]
pub(super) fn selected(expression: &str) -> Selected {
    let plain = expression.replace("$__rate_interval", "5m");
    let parsed = parse(&plain).unwrap_or_else(|error| panic!("{expression}: {error}"));
    let mut selected = Selected::default();
    let Ok(complete) = walk_expr(&mut selected, &parsed);
    assert!(complete && !selected.series.is_empty(), "{expression} selects nothing");
    selected
}

impl Selected {
    fn select(&mut self, selector: &VectorSelector) {
        self.series.extend(selector.name.clone());
        for matcher in &selector.matchers.matchers {
            if matcher.name == METRIC_NAME {
                assert!(matches!(matcher.op, MatchOp::Re(_) | MatchOp::Equal), "{selector:?}");
                self.series.extend(matcher.value.split('|').map(str::to_owned));
            } else {
                self.labels.insert(matcher.name.clone());
            }
        }
    }
}

impl ExprVisitor for Selected {
    type Error = Infallible;

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, Infallible> {
        match expression {
            Expr::VectorSelector(selector) => self.select(selector),
            Expr::MatrixSelector(matrix) => self.select(&matrix.vs),
            Expr::Aggregate(AggregateExpr {
                modifier: Some(LabelModifier::Include(by)), ..
            }) => {
                self.labels.extend(by.labels.clone());
            }
            _ => {}
        }
        Ok(true)
    }
}
