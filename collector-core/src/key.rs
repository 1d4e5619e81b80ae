// SPDX-License-Identifier: Apache-2.0
//! Cache keys: the addresses of values in the records of models, printed in the form people know.

use std::fmt;

use crate::model::{AcceleratorName, ModelRef, VariantName};

/// What stands at an address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum KeyKind {
    /// [`Replicas`](crate::Replicas) of a model.
    Replicas,
    /// The [`Allocation`](crate::Allocation) of a variant.
    Allocation,
}

impl KeyKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Replicas => "replicas",
            Self::Allocation => "allocation",
        }
    }
}

/// The address of one value in the [record](crate::ModelRecord) of a model.
///
/// Structured, so that `:` and `/` inside a model id never confuse two keys.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum CacheKey {
    /// The replicas of a model; prints as `replicas:<model>:<namespace>`.
    Replicas {
        /// The model.
        model: ModelRef,
    },
    /// The allocation of a variant; prints as `allocation:<model>:<namespace>:<accelerator>`, with the variant's
    /// name instead of an accelerator that is not known.
    Allocation {
        /// The model.
        model: ModelRef,
        /// The variant.
        variant: VariantName,
        /// What it runs on, for printing and scopes: the variant decides it.
        accelerator: Option<AcceleratorName>,
    },
}

impl CacheKey {
    /// The key of a model's replicas.
    pub fn replicas(model: &ModelRef) -> Self {
        Self::Replicas { model: model.clone() }
    }

    /// The key of a variant's allocation.
    pub fn allocation(
        model: &ModelRef,
        variant: &VariantName,
        accelerator: Option<&AcceleratorName>,
    ) -> Self {
        let (model, variant) = (model.clone(), variant.clone());
        Self::Allocation { model, variant, accelerator: accelerator.cloned() }
    }

    /// The model.
    pub fn model(&self) -> &ModelRef {
        match self {
            Self::Replicas { model } | Self::Allocation { model, .. } => model,
        }
    }

    /// What stands there.
    pub fn kind(&self) -> KeyKind {
        match self {
            Self::Replicas { .. } => KeyKind::Replicas,
            Self::Allocation { .. } => KeyKind::Allocation,
        }
    }

    /// The variant of an allocation.
    pub fn variant(&self) -> Option<&VariantName> {
        match self {
            Self::Replicas { .. } => None,
            Self::Allocation { variant, .. } => Some(variant),
        }
    }

    /// What is printed for the accelerator.
    fn printed_accelerator(&self) -> Option<&str> {
        match self {
            Self::Replicas { .. } => None,
            Self::Allocation { variant, accelerator, .. } => {
                Some(accelerator.as_ref().map_or(variant.as_str(), AcceleratorName::as_str))
            }
        }
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ModelRef { model, namespace } = self.model();
        write!(f, "{}:{model}:{namespace}", self.kind().as_str())?;
        match self.printed_accelerator() {
            Some(accelerator) => write!(f, ":{accelerator}"),
            None => Ok(()),
        }
    }
}

/// A set of keys, by complete parts: what the API calls a prefix.
///
/// ```
/// # use collector_core::{CacheKey, KeyKind, ModelRef, Scope};
/// let scope = Scope::of_kind(KeyKind::Replicas).model("llama");
/// assert!(scope.contains(&CacheKey::replicas(&ModelRef::new("llama", "prod"))));
/// assert!(!scope.contains(&CacheKey::replicas(&ModelRef::new("llama-8b", "prod"))));
/// ```
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Scope {
    kind: Option<KeyKind>,
    model: Option<Box<str>>,
    namespace: Option<Box<str>>,
    accelerator: Option<Box<str>>,
    variant: Option<Box<str>>,
}

/// A text that is no scope.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{text:?} is not a key prefix: {reason}; write replicas[:model[:namespace]] or \
     allocation[:model[:namespace[:accelerator]]]"
)]
pub struct ScopeError {
    text: String,
    reason: &'static str,
}

impl Scope {
    /// Every key.
    pub fn all() -> Self {
        Self::default()
    }

    /// Every key of one kind.
    pub fn of_kind(kind: KeyKind) -> Self {
        Self { kind: Some(kind), ..Self::default() }
    }

    /// Both kinds of keys of one model in one namespace.
    pub fn of_model(model: &ModelRef) -> Self {
        Self::all().model(model.model.as_str()).namespace(model.namespace.as_str())
    }

    /// Only this model.
    #[must_use]
    pub fn model(mut self, model: &str) -> Self {
        self.model = Some(model.into());
        self
    }

    /// Only this namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Only allocations on this accelerator.
    #[must_use]
    pub fn accelerator(mut self, accelerator: &str) -> Self {
        self.accelerator = Some(accelerator.into());
        self
    }

    /// Only the allocation of this variant.
    #[must_use]
    pub fn variant(mut self, variant: &str) -> Self {
        self.variant = Some(variant.into());
        self
    }

    /// Reads the printed form of a key, cut after any complete part. `replicas:llama` is the model
    /// `llama` and never `llama-8b`.
    ///
    /// # Errors
    /// When a part is empty or there are more than the kind has: a model id that holds `:` cannot
    /// be distinguished from two parts, so build its scope with [`model`](Self::model) instead.
    pub fn parse(text: &str) -> Result<Self, ScopeError> {
        let fail = |reason| ScopeError { text: text.chars().take(200).collect(), reason };
        // A trailing separator, as in `replicas:`, says that the part before it is complete: it is.
        let mut parts = text.strip_suffix(':').unwrap_or(text).split(':');
        let (scope, limit) = match parts.next() {
            Some("replicas") => (Self::of_kind(KeyKind::Replicas), 2),
            Some("allocation") => (Self::of_kind(KeyKind::Allocation), 3),
            _ => return Err(fail("it begins with neither kind")),
        };
        let parts: Vec<&str> = parts.collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(fail("a part is empty"));
        }
        if parts.len() > limit {
            return Err(fail("it has more parts than its kind"));
        }
        let part = |index: usize| parts.get(index).map(|part| Box::from(*part));
        Ok(Self { model: part(0), namespace: part(1), accelerator: part(2), ..scope })
    }

    /// Whether the key is in the set.
    pub fn contains(&self, key: &CacheKey) -> bool {
        let fits = |wanted: &Option<Box<str>>, part: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| Some(wanted) == part)
        };
        self.kind.is_none_or(|kind| kind == key.kind())
            && self.touches(key.model())
            && fits(&self.variant, key.variant().map(VariantName::as_str))
            && fits(&self.accelerator, key.printed_accelerator())
    }

    /// Whether any key of the model may be in the set.
    pub fn touches(&self, model: &ModelRef) -> bool {
        self.model.as_deref().is_none_or(|wanted| wanted == model.model.as_str())
            && self.namespace.as_deref().is_none_or(|wanted| wanted == model.namespace.as_str())
    }

    /// The one model in one namespace that the scope is limited to, if it is.
    pub fn single_model(&self) -> Option<ModelRef> {
        Some(ModelRef::new(self.model.as_deref()?, self.namespace.as_deref()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replicas(model: &str, namespace: &str) -> CacheKey {
        CacheKey::replicas(&ModelRef::new(model, namespace))
    }

    #[test]
    fn keys_print_in_the_form_people_know() {
        assert_eq!(replicas("llama", "prod").to_string(), "replicas:llama:prod");
        let model = ModelRef::new("llama", "prod");
        let key = CacheKey::allocation(&model, &"llama-h100".into(), Some(&"H100".into()));
        assert_eq!(key.to_string(), "allocation:llama:prod:H100");
        let key = CacheKey::allocation(&model, &"llama-h100".into(), None);
        assert_eq!(key.to_string(), "allocation:llama:prod:llama-h100");
    }

    #[test]
    fn a_colon_in_a_model_id_makes_no_other_key() {
        assert_ne!(replicas("a:b", "c"), replicas("a", "b:c"));
        assert_ne!(replicas("ab", "c"), replicas("a", "bc"));
    }

    #[track_caller]
    fn check_scope(text: &str, key: &CacheKey, expected: bool) {
        assert_eq!(Scope::parse(text).unwrap().contains(key), expected, "{text} {key}");
    }

    #[test]
    fn a_prefix_ends_at_a_whole_part() {
        check_scope("replicas:llama", &replicas("llama", "prod"), true);
        check_scope("replicas:llama:", &replicas("llama", "prod"), true);
        check_scope("replicas:llama", &replicas("llama-8b", "prod"), false);
        check_scope("replicas:llama:prod", &replicas("llama", "production"), false);
        check_scope("allocation:llama", &replicas("llama", "prod"), false);
        let model = ModelRef::new("llama", "prod");
        let h100 = CacheKey::allocation(&model, &"v".into(), Some(&"H100".into()));
        check_scope("allocation:llama:prod:H100", &h100, true);
        check_scope("allocation:llama:prod:L4", &h100, false);
        assert!(Scope::of_model(&model).contains(&h100));
        let unknown = CacheKey::allocation(&model, &"v".into(), None);
        check_scope(&unknown.to_string(), &unknown, true);
    }

    #[test]
    fn an_unclear_prefix_is_refused() {
        for text in ["", "llama", "replica:llama", "replicas::prod", "replicas:a:b:c"] {
            assert!(Scope::parse(text).is_err(), "{text}");
        }
    }
}
