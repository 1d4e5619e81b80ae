// SPDX-License-Identifier: Apache-2.0
//! Reasons why a field is unknown although the page was read.

use collector_core::{Field, FieldReasons, LoadRates, ReplicaMetrics, ReplicaState};

use super::fields::quantities_of;
use super::parts::Part;
use crate::engines::{Quantity, ServerExposition};

/// The reason for an unknown rate if several processes answer in turns.
pub(crate) const IN_TURNS: &str = "several processes answer at this address in turns \
     (process_start_time_seconds goes back and forth), so that no rate can be taken: scrape the pods \
     one by one";

/// Returns why fields of the load that are made of these rates are unknown.
pub(crate) fn load(rates: &LoadRates, page: &ServerExposition, in_turns: bool) -> FieldReasons {
    let mut reasons = FieldReasons::NONE;
    for &field in Field::OF_LOAD {
        let halves = match field {
            Field::AvgInputTokens => [rates.requests, rates.prompt_tokens],
            Field::AvgOutputTokens => [rates.requests, rates.generation_tokens],
            Field::TtftAverage => [rates.ttft_seconds, rates.ttft_count],
            Field::ItlAverage => [rates.itl_seconds, rates.itl_count],
            _ => [rates.requests; 2],
        };
        if halves.iter().all(Option::is_some) {
            continue;
        }
        if in_turns {
            reasons.insert(field, IN_TURNS);
        } else {
            reasons.insert(field, unknown(page, field));
        }
    }
    reasons
}

/// Adds the reasons of unknown fields of a row that have none yet.
pub(crate) fn explain_unknown(
    replica: &mut ReplicaMetrics,
    page: &ServerExposition,
    parts: &[Part],
) {
    if replica.state == ReplicaState::Sleeping {
        replica.reasons.insert(Field::CacheConfig, "it sleeps");
    }
    for &field in Field::ALL.iter().filter(|field| !Field::OF_LOAD.contains(field)) {
        if replica.is_known(field) || replica.reasons.contains(field) {
            continue;
        }
        let has_lookups = |part: &Part| part.prefix.iter().all(Option::is_some);
        if field == Field::PrefixCacheHitRate && parts.iter().any(has_lookups) {
            let nothing = "nothing was looked up in the window, and requests run";
            replica.reasons.insert(field, nothing);
        } else {
            replica.reasons.insert(field, unknown(page, field));
        }
    }
}

/// Returns why a field is unknown.
fn unknown(page: &ServerExposition, field: Field) -> String {
    let quantities = quantities_of(field);
    let is_matched = |it: &&Quantity| page.matched.iter().any(|known| known.quantity == **it);
    let matched = quantities.iter().find(is_matched);
    match matched {
        Some(counter) if counter.is_counter() => {
            "no rate yet: it takes two pages within the window that have it".to_owned()
        }
        Some(_) => "the page has no usable number of it".to_owned(),
        None if quantities.iter().any(|it| page.reports.contains(it)) => {
            "the page has no series of it".to_owned()
        }
        None => format!("{} does not report it", page.engine),
    }
}
