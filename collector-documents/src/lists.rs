//! Lists: everything tracked, and everything known.

use std::time::SystemTime;

use collector_core::{KnownModel, ModelRef, TrackedModel};
use serde::Serialize;

use crate::SCHEMA_VERSION;
use crate::error::ErrorBody;
use crate::readings::{AllocationDocument, ReplicasDocument};

/// A list of anything.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct ListDocument<T> {
    schema_version: u32,
    items: Vec<T>,
}

impl<T> FromIterator<T> for ListDocument<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self { schema_version: SCHEMA_VERSION, items: items.into_iter().collect() }
    }
}

/// One of the readings of a list, or why there is none.
#[derive(Serialize)]
#[serde(untagged)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
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
    /// Live replicas, where the backend tells.
    pub replicas: Option<u32>,
    /// Whether it is refreshed in the background.
    pub tracked: bool,
}

/// The replicas of a tracked model; when it has no reading, why.
pub fn replicas_item(
    tracked: &TrackedModel,
    wall: SystemTime,
) -> ReadingItem<'_, ReplicasDocument<'_>> {
    match &tracked.replicas {
        Ok(reading) => ReadingItem::Reading(ReplicasDocument::new(reading, wall)),
        Err(error) => ReadingItem::Error {
            model: tracked.model.model.as_str(),
            namespace: tracked.model.namespace.as_str(),
            variant: None,
            error: ErrorBody::of(error),
        },
    }
}

/// The allocations of its tracked variants, likewise.
pub fn allocation_items(
    tracked: &TrackedModel,
    wall: SystemTime,
) -> impl Iterator<Item = ReadingItem<'_, AllocationDocument<'_>>> {
    let allocations = tracked.allocations.iter();
    allocations.map(move |(variant, reading)| match reading {
        Ok(reading) => ReadingItem::Reading(AllocationDocument::new(reading, wall)),
        Err(error) => ReadingItem::Error {
            model: tracked.model.model.as_str(),
            namespace: tracked.model.namespace.as_str(),
            variant: Some(variant.as_str()),
            error: ErrorBody::of(error),
        },
    })
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
