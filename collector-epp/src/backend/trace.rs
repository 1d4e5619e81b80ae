// SPDX-License-Identifier: Apache-2.0
//! Traces how each value of a replica was made, for `explain`.

use collector_core::{Field, TraceRow};

use super::pod::Good;
use crate::engines::{EngineRow, Engines, Exposition, Matched, Quantity, ServerExposition};
use crate::rates::quantities_of;

/// Returns a row for each number of the model on the page, and a row for each field without a number.
pub(super) fn rows(good: &Good, index: usize, engines: &Engines) -> Vec<TraceRow> {
    let Exposition::Server(page) = &good.page else { return Vec::new() };
    let served = &good.models[index];
    let is_of_row = |row: &&EngineRow| {
        row.model.as_ref().is_none_or(|model| *model == served.model)
            && row.replica.as_deref().is_none_or(|name| name == served.replica.pod_name.as_str())
    };
    let row = |field, asked: String, matched: Option<&Matched>, raw: Option<f64>| TraceRow {
        pod: Some(served.replica.pod_name.clone()),
        field,
        asked: asked.into(),
        matched: matched.map(|matched| matched.spec.to_string().into()),
        raw,
        sampled_at: raw.map(|_| good.asked_at),
        asked_at: good.asked_at,
        answered_at: good.arrived_at,
    };
    let mut rows = Vec::new();
    for &field in Field::ALL {
        let before = rows.len();
        let quantities = quantities_of(field);
        for quantity in quantities {
            let rows_of_model = page.rows.iter().filter(is_of_row);
            let numbers = rows_of_model.filter_map(|row| row.numbers[*quantity]);
            let asked = || looked_for(engines, page, &[*quantity]);
            let matched = page.matched.iter().find(|matched| matched.quantity == *quantity);
            rows.extend(numbers.map(|raw| row(field, asked(), matched, Some(raw))));
        }
        if rows.len() == before {
            let asked = looked_for(engines, page, quantities);
            rows.push(row(field, asked, None, None));
        }
    }
    rows
}

/// Returns the series that are looked for, in order of preference.
fn looked_for(engines: &Engines, page: &ServerExposition, quantities: &[Quantity]) -> String {
    let specs = quantities.iter().flat_map(|quantity| engines.looked_for(&page.engine, *quantity));
    let specs: Vec<String> = specs.map(|spec| spec.to_string()).collect();
    if specs.is_empty() {
        format!("nothing: {} does not tell it", page.engine)
    } else {
        specs.join(" or ")
    }
}
