//! Lists: everything tracked, and everything known.

use std::collections::HashSet;
use std::time::SystemTime;

use collector_core::{KnownModel, ModelRef, TrackedModel};

use super::documents::{AllocationDocument, ModelItem, ReadingItem, ReplicasDocument};
use super::error::ErrorBody;

/// The replicas of a tracked model; when it has no reading, why.
pub(crate) fn replicas_item(
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
pub(crate) fn allocation_items(
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

/// The models known, in order, with whether each is tracked.
pub(crate) fn model_items(
    mut known: Vec<KnownModel>,
    tracked: &HashSet<ModelRef>,
) -> impl Iterator<Item = ModelItem> {
    known.sort_unstable();
    known.into_iter().map(|known| ModelItem {
        tracked: tracked.contains(&known.model),
        model: known.model.model.to_string(),
        namespace: known.model.namespace.to_string(),
        replicas: known.replicas,
    })
}
