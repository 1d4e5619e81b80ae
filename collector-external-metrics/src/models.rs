// SPDX-License-Identifier: Apache-2.0
//! Which model a request is about: a label cannot hold most models' names, so it has what stands for one.

use std::collections::BTreeSet;

use collector_core::text::{quote, shortened};
use collector_core::{MetricsCollector as _, ModelRef};
use collector_keda::Scaler;
use http::StatusCode;
use tokio::time::timeout;

use crate::question::{Question, Refused};
use crate::selector::label_of;

/// Names that are listed.
const NAMES_MAX: usize = 5;

/// Returns the name of the model that a request is about; `None` if it names neither a model nor a variant.
///
/// # Errors
/// Several models fit, or the variant does not exist or is not known.
pub(crate) async fn model_of(
    question: &Question,
    scaler: &Scaler,
) -> Result<Option<String>, Refused> {
    let collector = scaler.collector();
    let namespace = question.model_namespace();
    let variants = || {
        let all = collector.variants().into_iter();
        all.filter(|variant| variant.model.namespace.as_str() == namespace)
    };
    let Some(label) = question.model() else {
        let Some(name) = question.variant() else { return Ok(None) };
        let fits = variants().filter(|variant| variant.name.as_str() == name);
        let fits: BTreeSet<_> = fits.map(|variant| variant.model.clone()).collect();
        if fits.is_empty() {
            if let Some(unwatched) = scaler.unwatched(namespace) {
                let message = format!("variant \"{}\" is not known: {unwatched}", quote(name));
                return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, message));
            }
            let others: BTreeSet<_> = variants().map(|it| it.name.to_string()).collect();
            let (name, namespace) = (quote(name), quote(namespace));
            let message = format!(
                "there is no variant \"{name}\" in \"{namespace}\"{}",
                if others.is_empty() {
                    String::new()
                } else {
                    format!("; there are {}", listed(others.iter().map(String::as_str)))
                }
            );
            return Err(Refused::new(StatusCode::NOT_FOUND, message));
        }
        return one_of(&fits, "variant", name).map(Some);
    };
    let is_meant = |model: &ModelRef| {
        model.namespace.as_str() == namespace && label_of(model.model.as_str()) == label
    };
    let mut fits: BTreeSet<ModelRef> =
        variants().map(|variant| variant.model.clone()).filter(|it| is_meant(it)).collect();
    fits.extend(collector.tracked_names().into_iter().filter(|it| is_meant(it)));
    if fits.is_empty()
        && let Ok(Ok(known)) = timeout(scaler.wait(), collector.list_models()).await
    {
        fits.extend(known.into_iter().map(|known| known.model).filter(|it| is_meant(it)));
    }
    if fits.len() > 1
        && let Some(name) = question.variant()
    {
        fits.retain(|model| collector.variants_of(model).iter().any(|it| it.as_str() == name));
    }
    if fits.is_empty() {
        // Nobody knows it yet: a first read of a model with this very name begins to track it.
        return Ok(Some(label.to_owned()));
    }
    one_of(&fits, "model", label).map(Some)
}

fn one_of(fits: &BTreeSet<ModelRef>, label: &str, value: &str) -> Result<String, Refused> {
    match fits.first() {
        Some(only) if fits.len() == 1 => Ok(only.model.to_string()),
        _ => {
            let names = listed(fits.iter().map(|model| model.model.as_str()));
            let other = if label == "model" { "variant" } else { "model" };
            Err(Refused::bad(format!("{label}={value} may be {names}: add {other}")))
        }
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names = names.take(NAMES_MAX).map(|name| format!("\"{}\"", shortened(name)));
    names.collect::<Vec<_>>().join(", ")
}
