//! Keys and sets of them.

use std::hash::{BuildHasher, Hash as _, Hasher};

use collector_core::{CacheKey, KeyGroup, KeyRef, ModelRef, Scope, VariantName};

fn hash(key: KeyRef<'_>) -> u64 {
    foldhash::fast::FixedState::with_seed(7).hash_one(key)
}

#[test]
fn a_key_knows_its_parts() {
    let key = CacheKey::allocation(&ModelRef::new("llama", "prod"), &"quick".into(), None);
    let parts = key.as_ref();
    assert_eq!((parts.model(), parts.namespace(), parts.variant()), ("llama", "prod", "quick"));
    let model = ModelRef::new("llama", "prod");
    assert_eq!(KeyRef::replicas(&model).variant(), "");
}

#[test]
fn keys_that_differ_in_any_part_are_different_and_hash_differently() {
    let mut keys = Vec::new();
    for (model, namespace) in [("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc"), ("abd", "")] {
        let model = ModelRef::new(model, namespace);
        keys.push(CacheKey::replicas(&model));
        for variant in ["", "v", "w"] {
            keys.push(CacheKey::allocation(&model, &VariantName::from(variant), None));
        }
    }
    for (place, one) in keys.iter().enumerate() {
        assert_eq!(one, &one.clone());
        assert_eq!(one.as_ref(), one.clone().as_ref());
        for other in &keys[place + 1..] {
            assert_ne!(one, other);
            assert_ne!(one.as_ref(), other.as_ref());
            assert_ne!(hash(one.as_ref()), hash(other.as_ref()), "{one} and {other}");
        }
    }
}

/// Keeps what is written: a hasher pays for each write.
#[derive(Default)]
struct Writes(Vec<Vec<u8>>);

impl Hasher for Writes {
    fn finish(&self) -> u64 {
        0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0.push(bytes.to_vec());
    }
}

fn writes(key: KeyRef<'_>) -> Vec<Vec<u8>> {
    let mut hasher = Writes::default();
    key.hash(&mut hasher);
    hasher.0
}

#[test]
fn the_first_write_of_a_hash_tells_the_kind_and_both_lengths() {
    let first = |model: &str, namespace: &str| {
        writes(KeyRef::replicas(&ModelRef::new(model, namespace))).swap_remove(0)
    };
    let one = first("llama", "prod");
    assert_eq!(one, first("other", "test"));
    assert_ne!(one, first("llam", "prod"), "the length of the model");
    assert_ne!(one, first("llama", "pro"), "the length of the namespace");
    assert_ne!(one, first("llam", "aprod"));
    let model = ModelRef::new("llama", "prod");
    assert_ne!(one, writes(KeyRef::allocation(&model, &"v".into()))[0], "the kind");
}

#[test]
fn a_key_of_replicas_costs_no_write_for_the_variant_it_lacks() {
    let (model, variant) = (ModelRef::new("llama", "prod"), "quick".into());
    let replicas = writes(KeyRef::replicas(&model)).len();
    assert_eq!(writes(KeyRef::allocation(&model, &variant)).len(), replicas + 1);
}

#[test]
fn a_scope_touches_the_models_that_it_may_hold_keys_of() {
    let touches = |scope: &Scope, model: &str, namespace: &str| {
        scope.touches(&ModelRef::new(model, namespace))
    };
    let one = Scope::of_model(&ModelRef::new("llama", "prod"));
    assert!(touches(&one, "llama", "prod"));
    assert!(!touches(&one, "llama-8b", "prod"));
    assert!(!touches(&one, "llama", "test"));
    let anywhere = Scope::all().model("llama");
    assert!(touches(&anywhere, "llama", "test") && !touches(&anywhere, "other", "test"));
    let namespace = Scope::all().namespace("prod");
    assert!(touches(&namespace, "other", "prod") && !touches(&namespace, "other", "test"));
    assert!(touches(&Scope::all().accelerator("L4"), "any", "where"));
}

#[test]
fn a_scope_knows_the_narrowest_group_that_holds_it() {
    let scope = Scope::all().accelerator("L4");
    assert_eq!(scope.group(), KeyGroup::Accelerator("L4"));
    let scope = scope.namespace("prod").variant("v");
    assert_eq!(scope.group(), KeyGroup::Namespace("prod"));
    assert_eq!(scope.single_model(), None);
    let scope = scope.model("llama");
    assert_eq!(scope.group(), KeyGroup::Model { model: "llama", namespace: "prod" });
    assert_eq!(scope.single_model(), Some(("llama", "prod")));
    assert_eq!(Scope::all().model("llama").group(), KeyGroup::ModelAnywhere("llama"));
    assert_eq!(Scope::all().variant("v").group(), KeyGroup::All);
}

#[test]
fn a_scope_of_a_variant_holds_its_allocation_alone() {
    let model = ModelRef::new("llama", "prod");
    let key = |variant: &str| CacheKey::allocation(&model, &variant.into(), None);
    let scope = Scope::all().variant("quick");
    assert!(scope.contains(&key("quick")));
    assert!(!scope.contains(&key("slow")));
    assert!(!scope.contains(&CacheKey::replicas(&model)));
}
