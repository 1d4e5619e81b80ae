// SPDX-License-Identifier: Apache-2.0
//! Queries that are answered from series that the program holds itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::evaluate::{COMPLETE, given, without_result};
use super::{Empty, InstantQuery, OWN, Reply, Shared};
use crate::answer::{self, Content};
use crate::local::{NotLocal, Selection, Value, evaluate, judge};
use crate::probe::Matched;
use crate::query::Query;
use crate::refusal::{Reason, Refusal};
use crate::verdict::Terms;

/// Returns a result as an answer of a server.
pub(super) fn written(value: &Value, at: f64) -> Result<(Bytes, Content), NotLocal> {
    let (body, content) = match value {
        Value::Scalar(value) => (answer::of_scalar(at, *value), Content::Samples),
        Value::Vector(vector) if vector.samples.is_empty() => {
            (answer::of_vector(at, &vector.samples), Content::NoSamples)
        }
        Value::Vector(vector) => (answer::of_vector(at, &vector.samples), Content::Samples),
    };
    Ok((body.map_err(NotLocal)?.into(), content))
}

/// Returns whether the result is empty for another reason than its filters.
fn lacks_data(query: &Query, selection: &Selection) -> bool {
    let value = query.unfiltered().and_then(|unfiltered| evaluate(&unfiltered, selection).ok());
    matches!(value, Some(Value::Vector(vector)) if vector.samples.is_empty())
}

impl Shared {
    /// Answers a query from held series.
    ///
    /// # Errors
    /// Why only a server can answer it.
    pub(super) async fn local(
        self: &Arc<Self>,
        query: &Query,
        question: &InstantQuery,
    ) -> Result<Reply, NotLocal> {
        let Some(held) = &self.held else {
            return Err(NotLocal::new("the collector holds no series itself"));
        };
        if question.empty == Empty::Pass {
            return Err(NotLocal::new("it asks for the server's own answer (empty=pass)"));
        }
        // They restrict or change what a server selects: namespace=, extra_label=, X-Scope-OrgID.
        let is_known =
            |name: &str| OWN.contains(&name) || COMPLETE.iter().any(|(known, _)| *known == name);
        if let Some((name, _)) = question.parameters.iter().find(|(name, _)| !is_known(name)) {
            return Err(NotLocal::new(format!("the parameter {name:?} is for a server")));
        }
        if let Some((name, _)) = question.headers.first() {
            return Err(NotLocal::new(format!("the header {name} is for a server")));
        }
        let selection = Selection::of(&query.expression, &**held)?;
        if selection.is_empty() {
            return Err(NotLocal::new("it selects no series"));
        }
        let value = evaluate(&query.expression, &selection)?;
        let at = (self.wall() * 1000.0).round() / 1000.0;
        let (body, content) = written(&value, at)?;
        let limit = self.settings.max_answer_bytes;
        if body.len() > limit {
            let bytes = body.len();
            let text = format!(
                "the answer has {bytes} bytes; the limit is {limit} (promql.max_answer_bytes)"
            );
            return Ok(Reply::refused(&Refusal::new(Reason::TooLarge, text)));
        }
        let answered = self.judged(query, question, &selection, &body, content, at).await;
        let age = selection.oldest().filter(|age| *age >= Duration::from_secs(1));
        let reply = match answered {
            Ok(body) => Reply::given(body, age),
            Err(refusal) => Reply::refused(&refusal),
        };
        Ok(Reply { is_local: true, ..reply })
    }

    /// Returns the body that clients get.
    async fn judged(
        self: &Arc<Self>,
        query: &Query,
        question: &InstantQuery,
        selection: &Selection,
        body: &Bytes,
        content: Content,
        at: f64,
    ) -> Result<Bytes, Refusal> {
        // A selector that reaches a part of the fleet has no misspelt model, whatever is known of that part.
        let matched = query.selectors.iter().map(|selector| {
            let series = u64::from(selection.is_known(selector.text()));
            (selector.text().to_owned(), Matched { series, ..Matched::default() })
        });
        let matched: HashMap<String, Matched> = matched.collect();
        let unknown = self.unknown_model(query, &matched, question);
        // If it takes longer, the missing selector is reported.
        if let Ok(Some(refusal)) = timeout(self.settings.answer_within, unknown).await {
            return Err(refusal);
        }
        let max_age = question.max_age.unwrap_or(self.settings.max_age);
        let verdict = judge(query, selection, Terms { max_age, empty: question.empty })?;
        let has_all = verdict.has_data && !verdict.is_known_empty;
        if content == Content::NoSamples && has_all && lacks_data(query, selection) {
            return Err(without_result());
        }
        given(query, &verdict, body, content, at)
    }

    /// Refuses a query that only a server could answer, where there is none.
    pub(super) fn without_server(why: &str) -> Reply {
        let text = format!(
            "only a PromQL server could answer this query ({why}), and none is configured: set prometheus.url or promql.upstream"
        );
        Reply::refused(&Refusal::new(Reason::NoServer, text))
    }
}
