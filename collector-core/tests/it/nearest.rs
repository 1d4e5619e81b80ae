// SPDX-License-Identifier: Apache-2.0
//! What is suggested instead of a model that is missing.

use collector_core::{KnownModel, ModelId, ModelRef, Nearest};

/// How many letters differ, letter by letter: near enough to what people mistype.
fn distance(one: &str, other: &str) -> usize {
    let longer = one.len().max(other.len());
    longer - one.bytes().zip(other.bytes()).filter(|(a, b)| a == b).count()
}

fn known(models: &[(&str, &str)]) -> Vec<KnownModel> {
    let known =
        |(id, namespace): &(&str, &str)| KnownModel::new(ModelRef::new(*id, *namespace), None);
    models.iter().map(known).collect()
}

#[track_caller]
fn check(models: &[(&str, &str)], limit: usize, expected: &[&str]) {
    let nearest = Nearest::of(&ModelRef::new("llama", "prod"), &known(models), limit, distance);
    let found: Vec<&str> = nearest.models.iter().map(ModelId::as_str).collect();
    assert_eq!(found, expected);
    assert_eq!(nearest.known, Some(models.len()));
}

#[test]
fn the_nearest_names_come_first_each_once_and_no_more_than_wanted() {
    check(&[("lluna", "prod"), ("llana", "prod")], 5, &["llana", "lluna"]);
    check(&[("llana", "prod"), ("llana", "test"), ("lluna", "prod")], 5, &["llana", "lluna"]);
    check(&[("llana", "prod"), ("lluna", "prod"), ("llame", "prod")], 2, &["llame", "llana"]);
    check(&[("llana", "prod")], 0, &[]);
    check(&[], 5, &[]);
}

#[test]
fn a_neighbour_in_the_namespace_comes_before_a_nearer_name_elsewhere() {
    check(&[("llame", "test"), ("llxxe", "prod")], 5, &["llxxe", "llame"]);
}

#[test]
fn what_is_further_apart_than_two_thirds_of_its_length_is_no_suggestion() {
    // Six letters, of which two are the same: just near enough.
    let asked = ModelRef::new("abcdef", "prod");
    let of = |other| Nearest::of(&asked, &known(&[(other, "prod")]), 5, distance).models;
    assert_eq!(of("abxxxx").len(), 1);
    assert_eq!(of("axxxxx").len(), 0);
    assert_eq!(of("abcdefxxxxxxxxxxxxx").len(), 0);
}

#[test]
fn the_very_model_elsewhere_is_named_by_its_namespaces_and_is_no_suggestion() {
    let models =
        known(&[("llama", "test"), ("llama", "edge"), ("llama", "test"), ("other", "prod")]);
    let nearest = Nearest::of(&ModelRef::new("llama", "prod"), &models, 5, distance);
    assert_eq!(nearest.namespaces, ["edge".into(), "test".into()]);
    assert!(!nearest.models.contains(&"llama".into()));
}

#[test]
fn the_models_of_a_namespace_are_all_named_where_they_are_few() {
    let ids = ["a", "b", "c", "d", "e", "f"];
    let in_namespace = |count: usize| {
        let mut models: Vec<_> = ids[..count].iter().map(|id| (*id, "prod")).collect();
        models.push(("elsewhere", "test"));
        Nearest::of(&ModelRef::new("llama", "prod"), &known(&models), 5, distance).in_namespace
    };
    assert_eq!(in_namespace(2), ["a".into(), "b".into()]);
    assert_eq!(in_namespace(5).len(), 5);
    assert!(in_namespace(6).is_empty());
}

#[test]
fn long_names_are_compared_by_their_first_two_hundred_characters() {
    let long = |end: &str| format!("{}{end}", "é".repeat(200));
    let asked = ModelRef::new(long("-one"), "prod");
    let compared = std::cell::RefCell::new(Vec::new());
    let models = [KnownModel::new(ModelRef::new(long("-two"), "prod"), None)];
    Nearest::of(&asked, &models, 5, |one, other| {
        compared.borrow_mut().push((one.to_owned(), other.to_owned()));
        0
    });
    assert_eq!(compared.into_inner(), [("é".repeat(200), "é".repeat(200))]);
}

#[test]
fn two_sources_are_suggested_from_in_order_and_no_longer_than_the_longer_list() {
    let nearest = |models: &[&str], namespaces: &[&str], known| Nearest {
        models: models.iter().map(|id| ModelId::from(*id)).collect(),
        namespaces: namespaces.iter().map(|name| (*name).into()).collect(),
        known,
        ..Nearest::default()
    };
    let both =
        nearest(&["a", "b"], &["y"], Some(2)).and(&nearest(&["b", "c"], &["x", "y"], Some(7)));
    assert_eq!(both, nearest(&["a", "b"], &["x", "y"], Some(7)));
    let both = nearest(&["a"], &[], None).and(&nearest(&["a", "c"], &[], None));
    assert_eq!(both, nearest(&["a", "c"], &[], None));
    let few = |ids: &[&str]| Nearest {
        in_namespace: ids.iter().map(|id| ModelId::from(*id)).collect(),
        ..Nearest::default()
    };
    assert_eq!(few(&["a", "b"]).and(&few(&["b", "c"])), few(&["a", "b", "c"]));
}
