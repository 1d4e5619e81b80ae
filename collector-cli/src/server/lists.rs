// SPDX-License-Identifier: Apache-2.0
//! Lists of what is tracked: the items that a request selects, a page at a time.

use std::sync::Arc;
use std::time::SystemTime;

use axum::http::HeaderMap;
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use collector_core::{Allocation, CollectError, Reading, Replicas, TrackedModel, VariantName};

use super::app::App;
use super::etag::{self, PartState, Tag};
use super::fields::Fields;
use super::query::Query;
use super::respond::{Answered, Refusal, list};
use crate::output::{allocation_item, replicas_item, to_json};

/// The parameters of lists.
pub(super) const PARAMETERS: [&str; 5] = ["accelerator", "after", "limit", "namespace", "variant"];

/// Items of one page at most.
const MAX_LIMIT: u64 = 10_000;

/// The items that a request selects.
pub(super) struct Selection {
    namespace: Option<String>,
    accelerator: Option<String>,
    variant: Option<String>,
    limit: usize,
    /// The last item of the page before.
    after: Option<[String; 3]>,
}

/// The reading of a tracked model.
struct Item {
    tracked: Arc<TrackedModel>,
    /// The index of its variant; `None` for its replicas.
    variant: Option<usize>,
}

impl Selection {
    /// Reads the parameters.
    pub(super) fn take(query: &mut Query) -> Result<Self, Refusal> {
        let limit = match query.number("limit")? {
            None => usize::MAX,
            Some(limit @ 1..=MAX_LIMIT) => usize::try_from(limit).unwrap_or(usize::MAX),
            Some(_) => {
                let message = format!("parameter \"limit\" is not from 1 to {MAX_LIMIT}");
                return Err(Refusal::bad_request(message));
            }
        };
        let after = query.text("after").map(|token| place_of(&token)).transpose()?;
        let (namespace, accelerator) = (query.text("namespace"), query.text("accelerator"));
        let variant = query.text("variant");
        Ok(Self { namespace, accelerator, variant, limit, after })
    }

    /// The tracked models that may have items. Each is read when it is reached: a page needs few of them.
    fn tracked<'a>(&self, app: &'a App) -> impl Iterator<Item = Arc<TrackedModel>> + use<'a> {
        let (namespace, after) = (self.namespace.clone(), self.after.clone());
        let names = app.collector.tracked_names().into_iter().filter(move |model| {
            let (of_model, name) = (model.namespace.as_str(), model.model.as_str());
            let after = after.as_ref().map(|[namespace, model, _]| (&**namespace, &**model));
            namespace.as_ref().is_none_or(|wanted| wanted == of_model)
                && after.is_none_or(|after| (of_model, name) >= after)
        });
        names.filter_map(|model| app.collector.tracked_model(&model)).map(Arc::new)
    }

    /// The page of these items.
    fn page(
        self,
        items: impl Iterator<Item = Item>,
        fields: Option<Fields>,
        headers: &HeaderMap,
        wall: SystemTime,
    ) -> Response {
        let after = self.after.as_ref().map(|after| after.each_ref().map(|part| &**part));
        let (accelerator, variant) = (self.accelerator.as_deref(), self.variant.as_deref());
        let mut items: Vec<Item> = items
            .filter(|item| after.is_none_or(|after| item.place() > after))
            .filter(|item| accelerator.is_none_or(|wanted| item.may_be_on(wanted)))
            .filter(|item| variant.is_none_or(|wanted| item.may_be_of(wanted)))
            .take(self.limit.saturating_add(1))
            .collect();
        let has_more = items.len() > self.limit;
        items.truncate(self.limit);
        let next = items.last().filter(|_| has_more).map(|last| token_of(last.place()));
        let tag = Tag::of_all(items.iter().map(|item| (item.place(), item.state())), has_more);
        etag::unless_known(Some(tag), headers, || {
            let parts = items.into_iter().map(move |item| item.json(fields.as_ref(), wall));
            list(parts, next, headers)
        })
    }
}

/// The replicas of tracked models.
pub(super) fn replicas(
    app: &App,
    mut query: Query,
    fields: Option<Fields>,
    headers: &HeaderMap,
) -> Answered {
    let selection = Selection::take(&mut query)?;
    let items = selection.tracked(app).map(|tracked| Item { tracked, variant: None });
    Ok(selection.page(items, fields, headers, app.clock.wall()))
}

/// The allocations of tracked variants.
pub(super) fn allocations(
    app: &App,
    mut query: Query,
    fields: Option<Fields>,
    headers: &HeaderMap,
) -> Answered {
    let selection = Selection::take(&mut query)?;
    let items = selection.tracked(app).flat_map(variants_of);
    Ok(selection.page(items, fields, headers, app.clock.wall()))
}

/// The allocations of one model.
pub(super) fn variants(
    app: &App,
    model: TrackedModel,
    fields: Option<Fields>,
    headers: &HeaderMap,
) -> Response {
    let all = Selection {
        namespace: None,
        accelerator: None,
        variant: None,
        limit: usize::MAX,
        after: None,
    };
    all.page(variants_of(Arc::new(model)), fields, headers, app.clock.wall())
}

/// The items of a model's variants, by their names.
fn variants_of(tracked: Arc<TrackedModel>) -> impl Iterator<Item = Item> {
    let mut indexes: Vec<usize> = (0..tracked.allocations.len()).collect();
    indexes.sort_by_key(|index| tracked.allocations.get(*index).map(|(name, _)| name.clone()));
    indexes
        .into_iter()
        .map(move |index| Item { tracked: Arc::clone(&tracked), variant: Some(index) })
}

impl Item {
    fn replicas(&self) -> &Result<Reading<Replicas>, CollectError> {
        &self.tracked.replicas
    }

    fn allocation(&self) -> Option<&(VariantName, Result<Reading<Allocation>, CollectError>)> {
        self.tracked.allocations.get(self.variant?)
    }

    /// Namespace, model and variant, by which lists are ordered.
    fn place(&self) -> [&str; 3] {
        let model = &self.tracked.model;
        let variant = self.allocation().map_or("", |(variant, _)| variant.as_str());
        [model.namespace.as_str(), model.model.as_str(), variant]
    }

    fn state(&self) -> PartState {
        self.allocation()
            .map_or_else(|| self.replicas().into(), |(_, allocation)| allocation.into())
    }

    /// Whether it is on an accelerator, or nobody knows: what has no reading is not left out.
    fn may_be_on(&self, accelerator: &str) -> bool {
        match self.allocation() {
            Some((_, Ok(reading))) => {
                reading.value().accelerator.as_ref().map(AsRef::as_ref) == Some(accelerator)
            }
            None => self.replicas().as_ref().map_or(true, |reading| {
                let mut on = reading.value().replicas.iter();
                on.any(|row| row.accelerator_name.as_ref().map(AsRef::as_ref) == Some(accelerator))
            }),
            Some((_, Err(_))) => true,
        }
    }

    /// Whether it is of a variant, or a model that has it, with replicas or without. What has no reading is not left out.
    fn may_be_of(&self, variant: &str) -> bool {
        if let Some((name, _)) = self.allocation() {
            return name.as_str() == variant;
        }
        let Ok(reading) = self.replicas() else { return true };
        let mut of = reading.value().replicas.iter().filter_map(|row| row.variant_name.as_ref());
        let mut tracked = self.tracked.allocations.iter();
        of.any(|name| name.as_str() == variant) || tracked.any(|(name, _)| name.as_str() == variant)
    }

    fn json(&self, fields: Option<&Fields>, wall: SystemTime) -> String {
        if let Some((variant, allocation)) = self.allocation() {
            let item = allocation_item(&self.tracked.model, variant, allocation, wall);
            fields.map_or_else(|| to_json(&item), |fields| fields.json(&item))
        } else {
            let item = replicas_item(&self.tracked, wall);
            fields.map_or_else(|| to_json(&item), |fields| fields.json(&item))
        }
    }
}

/// What a client gives back to get the page after this item.
fn token_of(place: [&str; 3]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(to_json(&place))
}

fn place_of(token: &str) -> Result<[String; 3], Refusal> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok();
    let parts = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    parts
        .ok_or_else(|| Refusal::bad_request("parameter \"after\" is not what the page before gave"))
}
