// SPDX-License-Identifier: Apache-2.0
//! What exists instead of a model that has no series: "did you mean".

use std::time::Duration;

use crate::backend::KnownModel;
use crate::model::{ModelId, ModelRef, Namespace};
use crate::supply::PodCounts;

/// What exists instead of a model that has no series.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Nearest {
    /// The nearest model ids in the namespace asked, best first.
    pub models: Vec<ModelId>,
    /// Namespaces where the very model exists.
    pub namespaces: Vec<Namespace>,
    /// How many models the backend knows at all, if it can say.
    pub known: Option<usize>,
    /// All models in the namespace asked, where they are few.
    pub in_namespace: Vec<ModelId>,
    /// How long before the answer something of the very model was last there: it has been scaled to zero,
    /// and is not misspelt.
    pub last_seen: Option<Duration>,
    /// The pods of the very model that a cluster lists, if it lists any: no backend has series of them.
    pub pods: Option<PodCounts>,
}

impl Nearest {
    /// What to suggest for `asked`, given what exists: at most `limit` names, nearest first.
    ///
    /// `distance` returns how far two names are apart; names further apart than 2/3 of the longer one's
    /// length are no suggestion.
    pub fn of(
        asked: &ModelRef,
        known: &[KnownModel],
        limit: usize,
        distance: impl Fn(&str, &str) -> usize,
    ) -> Self {
        let text = head(asked.model.as_str());
        let mut near: Vec<(usize, &ModelRef)> = known
            .iter()
            .map(|known| &known.model)
            .filter(|model| model.model != asked.model)
            .filter_map(|model| {
                // Ids are compared where people mistype, and that bounds what comparing costs.
                let other = head(model.model.as_str());
                let far = distance(text, other);
                let longer = text.chars().count().max(other.chars().count());
                (far * 3 <= longer * 2).then_some((far, model))
            })
            .collect();
        // A neighbour in the namespace asked comes before a nearer name elsewhere.
        near.sort_by_key(|(far, model)| (model.namespace != asked.namespace, *far, &model.model));
        let mut models: Vec<ModelId> = Vec::new();
        for (_, model) in near {
            if models.len() < limit && !models.contains(&model.model) {
                models.push(model.model.clone());
            }
        }
        let mut namespaces: Vec<Namespace> = known
            .iter()
            .filter(|known| known.model.model == asked.model)
            .map(|known| known.model.namespace.clone())
            .collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        let in_namespace = known.iter().filter(|it| it.model.namespace == asked.namespace);
        let mut in_namespace: Vec<ModelId> =
            in_namespace.map(|known| known.model.model.clone()).take(FEW_MODELS + 1).collect();
        if in_namespace.len() > FEW_MODELS {
            in_namespace.clear();
        }
        Self { models, namespaces, known: Some(known.len()), in_namespace, ..Self::default() }
    }

    /// What two sources have, in order of preference: at most as many names as the longer list.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let limit = self.models.len().max(other.models.len());
        let mut both = self.clone();
        both.models.extend(other.models.iter().filter(|m| !self.models.contains(m)).cloned());
        both.models.truncate(limit);
        both.namespaces.extend(other.namespaces.iter().cloned());
        both.namespaces.sort_unstable();
        both.namespaces.dedup();
        both.known = self.known.max(other.known);
        both.last_seen = [self.last_seen, other.last_seen].into_iter().flatten().min();
        both.pods = self.pods.or(other.pods);
        let more = other.in_namespace.iter().filter(|model| !self.in_namespace.contains(model));
        both.in_namespace.extend(more.cloned());
        both
    }
}

/// Models of one namespace that are all named.
const FEW_MODELS: usize = 5;

/// The first 200 characters.
fn head(text: &str) -> &str {
    text.char_indices().nth(200).map_or(text, |(end, _)| &text[..end])
}
