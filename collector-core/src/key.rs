//! Cache keys: structured values that print in a form for people.
//!
//! A key is its kind and its parts, with their lengths: `:` and `/` inside a model id never confuse
//! two keys, and a look-up borrows its parts instead of building a text.

mod head;

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::model::{AcceleratorName, ModelRef, VariantName};
use head::Head;

/// What an entry holds.
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

/// A key that borrows its parts: nothing to allocate for a look-up.
#[derive(Clone, Copy, Debug)]
pub struct KeyRef<'a> {
    kind: KeyKind,
    model: &'a str,
    namespace: &'a str,
    variant: &'a str,
}

impl<'a> KeyRef<'a> {
    /// Key of a model's replicas.
    pub fn replicas(model: &'a ModelRef) -> Self {
        Self {
            kind: KeyKind::Replicas,
            model: model.model.as_str(),
            namespace: model.namespace.as_str(),
            variant: "",
        }
    }

    /// Key of a variant's allocation.
    pub fn allocation(model: &'a ModelRef, variant: &'a VariantName) -> Self {
        Self {
            kind: KeyKind::Allocation,
            model: model.model.as_str(),
            namespace: model.namespace.as_str(),
            variant: variant.as_str(),
        }
    }

    /// What the entry holds.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The model's id.
    pub fn model(&self) -> &'a str {
        self.model
    }

    /// The namespace.
    pub fn namespace(&self) -> &'a str {
        self.namespace
    }

    /// The variant; empty for replicas.
    pub fn variant(&self) -> &'a str {
        self.variant
    }

    #[inline]
    fn lengths(&self) -> [usize; 3] {
        [self.model.len(), self.namespace.len(), self.variant.len()]
    }
}

impl PartialEq for KeyRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
            && same(self.model, other.model)
            && same(self.namespace, other.namespace)
            && same(self.variant, other.variant)
    }
}

impl Eq for KeyRef<'_> {}

/// Comparing two empty texts costs some 80 ns on machines whose memcmp faults on their dangling
/// pointers, and the variant of every key of replicas is empty.
fn same(one: &str, other: &str) -> bool {
    one.len() == other.len() && (one.is_empty() || one == other)
}

/// Whether two texts of one length are the same, without a call to `memcmp` for the two or three short
/// ones of a key: half of what comparing them costs.
#[inline]
fn same_bytes(one: &[u8], other: &[u8]) -> bool {
    const LONG: usize = 16;
    const SHORT: usize = 4;
    // Whole chunks from the front, and one from the back that overlaps the last of them.
    if let (Some(one_end), Some(other_end)) = (one.last_chunk::<LONG>(), other.last_chunk::<LONG>())
    {
        let (one, _) = one.as_chunks::<LONG>();
        let (other, _) = other.as_chunks::<LONG>();
        return one_end == other_end && one.iter().zip(other).all(|(one, other)| one == other);
    }
    if let (Some(one_end), Some(other_end)) =
        (one.last_chunk::<SHORT>(), other.last_chunk::<SHORT>())
    {
        let (one, _) = one.as_chunks::<SHORT>();
        let (other, _) = other.as_chunks::<SHORT>();
        return one_end == other_end && one.iter().zip(other).all(|(one, other)| one == other);
    }
    one.iter().zip(other).all(|(one, other)| one == other)
}

impl Hash for KeyRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // One write of kind and lengths, then the bytes: `str`'s own hash would add a byte to each
        // part and tell nothing that the lengths do not.
        let lengths = (self.model.len() as u64) << 32 ^ (self.namespace.len() as u64) << 1;
        state.write_u64(lengths | self.kind as u64);
        state.write(self.model.as_bytes());
        state.write(self.namespace.as_bytes());
        if !self.variant.is_empty() {
            state.write(self.variant.as_bytes());
        }
    }
}

/// A key that owns its parts, in one allocation.
#[derive(Clone)]
pub struct CacheKey {
    /// The head, model, namespace and variant; behind a separator the accelerator, where it is known. That
    /// is for printing and scopes alone: the variant says it already, so it is no part of the identity.
    text: Box<str>,
}

/// What stands before an accelerator, which may be empty.
const SEPARATOR: char = ':';

impl CacheKey {
    /// Key of a model's replicas; prints as `replicas:<model>:<namespace>`.
    pub fn replicas(model: &ModelRef) -> Self {
        Self::owned(KeyRef::replicas(model), None)
    }

    /// Key of a variant's allocation; prints as `allocation:<model>:<namespace>:<accelerator>`, with
    /// the variant's name in place of an accelerator that is not known.
    pub fn allocation(
        model: &ModelRef,
        variant: &VariantName,
        accelerator: Option<&AcceleratorName>,
    ) -> Self {
        Self::owned(KeyRef::allocation(model, variant), accelerator)
    }

    fn owned(key: KeyRef<'_>, accelerator: Option<&AcceleratorName>) -> Self {
        let parts = key.lengths().iter().sum::<usize>();
        let behind = accelerator.map_or(0, |name| SEPARATOR.len_utf8() + name.as_str().len());
        let mut text = String::with_capacity(Head::size(key) + parts + behind);
        Head::write(&mut text, key);
        text.push_str(key.model);
        text.push_str(key.namespace);
        text.push_str(key.variant);
        if let Some(name) = accelerator {
            text.push(SEPARATOR);
            text.push_str(name.as_str());
        }
        Self { text: text.into() }
    }

    /// The same key with borrowed parts.
    #[inline]
    pub fn as_ref(&self) -> KeyRef<'_> {
        let Head { kind, lengths: [model, namespace, variant], end } = Head::read(&self.text);
        let (model, rest) = self.text[end..].split_at(model);
        let (namespace, rest) = rest.split_at(namespace);
        let (variant, _) = rest.split_at(variant);
        KeyRef { kind, model, namespace, variant }
    }

    /// Whether this is that key: `as_ref() == key`, without finding out where characters begin.
    #[inline]
    pub fn is(&self, key: KeyRef<'_>) -> bool {
        let Some(head) = head::short(key) else { return self.as_ref() == key };
        let Some((own, text)) = self.text.as_bytes().split_first_chunk() else { return false };
        if *own != head {
            return false;
        }
        let (model, rest) = text.split_at(key.model.len());
        let (namespace, rest) = rest.split_at(key.namespace.len());
        same_bytes(model, key.model.as_bytes())
            && same_bytes(namespace, key.namespace.as_bytes())
            && same_bytes(&rest[..key.variant.len()], key.variant.as_bytes())
    }

    /// The accelerator of an allocation's variant, where it is known.
    pub fn accelerator(&self) -> Option<&str> {
        let Head { lengths, end, .. } = Head::read(&self.text);
        self.text[end + lengths.iter().sum::<usize>()..].strip_prefix(SEPARATOR)
    }

    /// What stands in the accelerator's place when an allocation's key is printed: the accelerator, or
    /// the variant's name where none is known.
    pub fn printed_accelerator(&self) -> &str {
        self.accelerator().unwrap_or_else(|| self.as_ref().variant)
    }

    /// Bytes that the key takes besides itself.
    pub fn heap_bytes(&self) -> usize {
        self.text.len()
    }
}

impl PartialEq for CacheKey {
    fn eq(&self, other: &Self) -> bool {
        self.as_ref() == other.as_ref()
    }
}

impl Eq for CacheKey {}

impl Hash for CacheKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_ref().hash(state);
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KeyRef { kind, model, namespace, .. } = self.as_ref();
        write!(f, "{}:{model}:{namespace}", kind.as_str())?;
        match kind {
            KeyKind::Replicas => Ok(()),
            KeyKind::Allocation => write!(f, ":{}", self.printed_accelerator()),
        }
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheKey({self})")
    }
}

/// A set of keys, by whole parts: what the architecture calls a prefix.
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

    /// Reads the printed form of a key, cut after any whole part. `replicas:llama` is the model
    /// `llama` and never `llama-8b`.
    ///
    /// # Errors
    /// When a part is empty or there are more than the kind has: a model id that holds `:` cannot
    /// be told from two parts, so build its scope with [`model`](Self::model) instead.
    pub fn parse(text: &str) -> Result<Self, ScopeError> {
        let fail = |reason| ScopeError { text: text.chars().take(200).collect(), reason };
        // A trailing separator, as in `replicas:`, says that the part before it is whole: it is.
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
        let KeyRef { kind, model, namespace, variant } = key.as_ref();
        let fits = |wanted: &Option<Box<str>>, part: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == part)
        };
        self.kind.is_none_or(|wanted| wanted == kind)
            && fits(&self.model, model)
            && fits(&self.namespace, namespace)
            && fits(&self.variant, variant)
            && fits(&self.accelerator, key.printed_accelerator())
    }

    /// Whether any key of the model may be in the set.
    pub fn touches(&self, model: &ModelRef) -> bool {
        self.model.as_deref().is_none_or(|wanted| wanted == model.model.as_str())
            && self.namespace.as_deref().is_none_or(|wanted| wanted == model.namespace.as_str())
    }

    /// The one model in one namespace that the scope is limited to, if it is.
    pub fn single_model(&self) -> Option<(&str, &str)> {
        Some((self.model.as_deref()?, self.namespace.as_deref()?))
    }

    /// The narrowest group of keys that holds the scope: an index finds its entries without a walk
    /// over all.
    pub fn group(&self) -> KeyGroup<'_> {
        let parts = (self.model.as_deref(), self.namespace.as_deref(), self.accelerator.as_deref());
        match parts {
            (Some(model), Some(namespace), _) => KeyGroup::Model { model, namespace },
            (Some(model), None, _) => KeyGroup::ModelAnywhere(model),
            (None, Some(namespace), _) => KeyGroup::Namespace(namespace),
            (None, None, Some(accelerator)) => KeyGroup::Accelerator(accelerator),
            (None, None, None) => KeyGroup::All,
        }
    }
}

/// Keys that have one part in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyGroup<'a> {
    /// Those of a model in one namespace.
    Model {
        /// The model's id.
        model: &'a str,
        /// The namespace.
        namespace: &'a str,
    },
    /// Those of a model id in any namespace.
    ModelAnywhere(&'a str),
    /// Those of a namespace.
    Namespace(&'a str),
    /// Those that print this in the accelerator's place.
    Accelerator(&'a str),
    /// Every key.
    All,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::hash::BuildHasher;

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

    #[test]
    fn a_key_is_itself_and_none_that_differs_in_a_part() {
        let (a, b) = (ModelRef::new("ab", "c"), ModelRef::new("a", "bc"));
        let (v, w) = (VariantName::new("v"), VariantName::new("w"));
        let keys = [
            CacheKey::replicas(&a),
            CacheKey::replicas(&b),
            CacheKey::replicas(&ModelRef::new("ab", "d")),
            CacheKey::replicas(&ModelRef::new("xb", "c")),
            CacheKey::allocation(&a, &v, None),
            CacheKey::allocation(&a, &w, None),
            CacheKey::allocation(&a, &VariantName::new(""), None),
        ];
        for (place, key) in keys.iter().enumerate() {
            for (other_place, other) in keys.iter().enumerate() {
                assert_eq!(key.is(other.as_ref()), place == other_place, "{key} {other}");
            }
        }
    }

    #[test]
    fn a_key_with_long_names_is_told_from_its_neighbours() {
        let lengths = [0, 1, 63, 64, 65, 4095, 4096, 4097, 300_000];
        let keys = lengths.map(|length| {
            let model = ModelRef::new("m".repeat(length), "n".repeat(length / 2));
            let variant = VariantName::from("v".repeat(length / 64));
            (CacheKey::allocation(&model, &variant, Some(&"".into())), model, variant)
        });
        for (key, ..) in &keys {
            for (other, model, variant) in &keys {
                let other_ref = KeyRef::allocation(model, variant);
                let same = key.heap_bytes() == other.heap_bytes();
                assert_eq!(key.is(other_ref), same);
                assert_eq!(key.as_ref() == other_ref, same);
            }
            assert_eq!(key.accelerator(), Some(""));
        }
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

    proptest! {
        #[test]
        fn owned_and_borrowed_keys_hash_and_compare_alike(
            model in ".{0,12}", namespace in ".{0,12}", variant in ".{0,12}",
        ) {
            let hasher = foldhash::fast::FixedState::with_seed(7);
            let model = ModelRef::new(model, namespace);
            let variant = VariantName::new(variant);
            let owned = CacheKey::allocation(&model, &variant, Some(&"L4".into()));
            let borrowed = KeyRef::allocation(&model, &variant);
            prop_assert_eq!(owned.as_ref(), borrowed);
            prop_assert!(owned.is(borrowed));
            prop_assert!(!owned.is(KeyRef::replicas(&model)));
            prop_assert_eq!(hasher.hash_one(&owned), hasher.hash_one(borrowed));
        }
    }
}
