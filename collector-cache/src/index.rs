//! Which keys belong to a model, so that dropping a model costs its own entries and not a walk over
//! all. Only writers see it.

use std::collections::HashMap;

use collector_core::CacheKey;

#[derive(Default)]
pub(crate) struct Index {
    // Namespace first: there are few of them, and both maps are then looked up with borrowed text.
    by_namespace: HashMap<Box<str>, HashMap<Box<str>, Vec<CacheKey>>>,
}

impl Index {
    pub(crate) fn add(&mut self, key: &CacheKey) {
        let parts = key.as_ref();
        self.by_namespace
            .entry(parts.namespace().into())
            .or_default()
            .entry(parts.model().into())
            .or_default()
            .push(key.clone());
    }

    pub(crate) fn remove(&mut self, key: &CacheKey) {
        let parts = key.as_ref();
        let Some(models) = self.by_namespace.get_mut(parts.namespace()) else {
            return;
        };
        let Some(keys) = models.get_mut(parts.model()) else {
            return;
        };
        keys.retain(|other| other != key);
        if keys.is_empty() {
            models.remove(parts.model());
        }
        if models.is_empty() {
            self.by_namespace.remove(parts.namespace());
        }
    }

    pub(crate) fn of_model(&self, model: &str, namespace: &str) -> Vec<CacheKey> {
        self.by_namespace
            .get(namespace)
            .and_then(|models| models.get(model))
            .cloned()
            .unwrap_or_default()
    }
}
