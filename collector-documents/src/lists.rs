// SPDX-License-Identifier: Apache-2.0
//! Lists of tracked readings and of known models.

use std::time::SystemTime;

use collector_core::{
    Allocation, CollectError, KnownModel, ModelRef, Reading, TrackedModel, VariantName,
};
use serde::Serialize;

use crate::SCHEMA_VERSION;
use crate::error::ErrorBody;
use crate::readings::{AllocationDocument, ReplicasDocument};

/// A list of anything.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema), schemars(rename = "{T}List"))]
pub struct ListDocument<T> {
    schema_version: u32,
    items: Vec<T>,
    /// There are more items than `limit`: the parameter `after` of the request for the next ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<String>,
}

impl<T> FromIterator<T> for ListDocument<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self { schema_version: SCHEMA_VERSION, items: items.into_iter().collect(), after: None }
    }
}

/// One of the readings of a list, or why there is none.
#[derive(Serialize)]
#[serde(untagged)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema), schemars(rename = "{D}Item"))]
#[expect(missing_docs, reason = "the fields of an error say what they are")]
pub enum ReadingItem<'a, D> {
    /// The reading.
    Reading(D),
    /// What is tracked without a reading, and why.
    Error {
        model: &'a str,
        namespace: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        variant: Option<&'a str>,
        error: ErrorBody,
    },
}

/// One model that is known.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[expect(missing_docs, reason = "the names of a model say what they are")]
pub struct ModelItem {
    pub model: String,
    pub namespace: String,
    /// Live replicas, if the backend reports them.
    pub replicas: Option<u32>,
    /// Whether it is refreshed in the background.
    pub tracked: bool,
}

/// The replicas of a tracked model; when it has no reading, why.
pub fn replicas_item(
    tracked: &TrackedModel,
    wall: SystemTime,
) -> ReadingItem<'_, ReplicasDocument<'_>> {
    let document = tracked.replicas.as_ref().map(|reading| ReplicasDocument::new(reading, wall));
    item(&tracked.model, None, document)
}

/// The allocations of its tracked variants, likewise.
pub fn allocation_items(
    tracked: &TrackedModel,
    wall: SystemTime,
) -> impl Iterator<Item = ReadingItem<'_, AllocationDocument<'_>>> {
    let allocations = tracked.allocations.iter();
    allocations
        .map(move |(variant, reading)| allocation_item(&tracked.model, variant, reading, wall))
}

/// The allocation of a variant; when it has no reading, why.
pub fn allocation_item<'a>(
    model: &'a ModelRef,
    variant: &'a VariantName,
    reading: &'a Result<Reading<Allocation>, CollectError>,
    wall: SystemTime,
) -> ReadingItem<'a, AllocationDocument<'a>> {
    let document = reading.as_ref().map(|reading| AllocationDocument::new(reading, wall));
    item(model, Some(variant.as_str()), document)
}

fn item<'a, D>(
    model: &'a ModelRef,
    variant: Option<&'a str>,
    document: Result<D, &CollectError>,
) -> ReadingItem<'a, D> {
    let (model, namespace) = (model.model.as_str(), model.namespace.as_str());
    document.map_or_else(
        |error| ReadingItem::Error { model, namespace, variant, error: ErrorBody::of(error) },
        ReadingItem::Reading,
    )
}

/// The models known, in order; `is_tracked` says which are refreshed in the background.
pub fn model_items(
    mut known: Vec<KnownModel>,
    is_tracked: impl Fn(&ModelRef) -> bool,
) -> impl Iterator<Item = ModelItem> {
    known.sort_unstable();
    known.into_iter().map(move |known| ModelItem {
        tracked: is_tracked(&known.model),
        model: known.model.model.to_string(),
        namespace: known.model.namespace.to_string(),
        replicas: known.replicas,
    })
}
