// SPDX-License-Identifier: Apache-2.0
//! Keys and sets of them.

use collector_core::{CacheKey, KeyKind, ModelRef, Scope, VariantName};

#[test]
fn a_key_knows_its_parts() {
    let model = ModelRef::new("llama", "prod");
    let key = CacheKey::allocation(&model, &"quick".into(), None);
    assert_eq!((key.model(), key.kind()), (&model, KeyKind::Allocation));
    assert_eq!(key.variant(), Some(&"quick".into()));
    assert_eq!(CacheKey::replicas(&model).variant(), None);
}

#[test]
fn keys_that_differ_in_any_part_are_different() {
    let mut keys = Vec::new();
    for (model, namespace) in [("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc"), ("abd", "")] {
        let model = ModelRef::new(model, namespace);
        keys.push(CacheKey::replicas(&model));
        for variant in ["", "v", "w"] {
            keys.push(CacheKey::allocation(&model, &VariantName::from(variant), None));
        }
    }
    for (index, one) in keys.iter().enumerate() {
        assert_eq!(one, &one.clone());
        for other in &keys[index + 1..] {
            assert_ne!(one, other);
        }
    }
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
fn a_scope_knows_the_one_model_that_it_is_limited_to() {
    let scope = Scope::all().accelerator("L4").namespace("prod").variant("v");
    assert_eq!(scope.single_model(), None);
    assert_eq!(scope.model("llama").single_model(), Some(ModelRef::new("llama", "prod")));
    assert_eq!(Scope::all().model("llama").single_model(), None);
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
