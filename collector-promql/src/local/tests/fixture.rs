// SPDX-License-Identifier: Apache-2.0
//! Series that a test holds.

use std::time::Duration;

use super::super::{
    Held, HeldSample, HeldSeries, KnownLabels, Labels, NotLocal, Selection, Value, Wanted, evaluate,
};
use crate::limits::Limits;
use crate::query::Query;

/// The labels of all series of the tests.
pub(super) const LABELS: [&str; 4] = ["namespace", "model_name", "pod", "engine"];

/// Series of metrics that begin with `m:`.
#[derive(Default)]
pub(super) struct Fleet {
    pub(super) metrics: Vec<(String, Held)>,
}

impl Fleet {
    pub(super) fn metric(&mut self, name: &str) -> &mut Held {
        let known = self.metrics.iter().position(|(known, _)| known == name);
        let index = known.unwrap_or_else(|| {
            self.metrics.push((name.to_owned(), Held::default()));
            self.metrics.len() - 1
        });
        &mut self.metrics[index].1
    }

    pub(super) fn add(
        &mut self,
        name: &str,
        labels: &[(&'static str, &str)],
        value: f64,
        age: f64,
    ) {
        let labels = Labels::new(labels.iter().copied());
        let age = Duration::from_secs_f64(age);
        self.metric(name).samples.push(HeldSample { labels, value, age });
    }
}

impl HeldSeries for Fleet {
    fn labels(&self, wanted: &Wanted<'_>) -> Option<KnownLabels> {
        wanted
            .metric
            .starts_with("m:")
            .then(|| KnownLabels::Only(LABELS.map(str::to_owned).to_vec()))
    }

    fn select(&self, wanted: &[Wanted<'_>]) -> Vec<Held> {
        let of = |wanted: &Wanted<'_>| {
            let is_it = |(name, _): &&(String, Held)| name == wanted.metric;
            self.metrics.iter().find(is_it).map(|(_, held)| held.clone()).unwrap_or_default()
        };
        wanted.iter().map(of).collect()
    }
}

/// Evaluates a query over a fleet.
pub(super) fn local(query: &str, fleet: &Fleet) -> Result<Value, NotLocal> {
    let query = Query::parse(query, &Limits::default()).unwrap();
    let selection = Selection::of(&query.expression, fleet)?;
    evaluate(&query.expression, &selection)
}
