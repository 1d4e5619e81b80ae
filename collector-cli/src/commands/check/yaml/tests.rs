// SPDX-License-Identifier: Apache-2.0
use serde_json::json;

use super::*;

const TEXT: &str =
    "# mine\nspec: # here\n  b: 1\n  list:\n    - type: x\n    - {c: d}\n  q: |\n    0\n";

fn set(path: Vec<Step>, value: Value) -> Change {
    Change { path, to: To::Value(value) }
}

#[track_caller]
fn check(text: &str, change: &Change, expected: &str) {
    let node = parse(text).unwrap().remove(0);
    let new = apply(text, vec![edit(text, &node, change).unwrap()]);
    assert_eq!(new, expected);
    let mut value = node.value.value();
    change_value(&mut value, change);
    assert_eq!(parse(&new).unwrap()[0].value.value(), value);
}

#[test]
fn only_the_changed_value_differs() {
    check(TEXT, &set(steps!["spec", "b"], json!("2")), &TEXT.replace("b: 1", "b: \"2\""));
    let inserted = TEXT.replace("  b: 1", "  extra: word\n  b: 1");
    check(TEXT, &set(steps!["spec", "extra"], json!("word")), &inserted);
    let inserted = TEXT.replace("- type: x", "- number: 1\n      type: x");
    check(TEXT, &set(steps!["spec", "list", 0, "number"], json!(1)), &inserted);
    let inserted = TEXT.replace("{c: d}", "{extra: {size: 1, word: \"b c\"}, c: d}");
    let value = json!({"word": "b c", "size": 1});
    check(TEXT, &set(steps!["spec", "list", 1, "extra"], value), &inserted);
    let renamed = Change { path: steps!["spec", "q"], to: To::Renamed("query".to_owned()) };
    check(TEXT, &renamed, &TEXT.replace("q: |", "query: |"));
    let json = r#"{"b": {"c":"word"}, "a": {}}"#;
    check(r#"{"a": {}}"#, &set(steps!["b"], json!({"c": "word"})), json);
    check("a: {}\n", &set(steps!["a", "b"], json!(1)), "a: {b: 1}\n");
    check("a:\nb: 1\n", &set(steps!["a"], json!(1)), "a: 1\nb: 1\n");
}

#[test]
fn a_quoted_value_has_the_same_letters() {
    for (text, expected) in [("a: n\n", "a: \"n\"\n"), ("a: 1.50\n", "a: \"1.50\"\n")] {
        let node = parse(text).unwrap().remove(0);
        let change = Change { path: vec!["a".into()], to: To::Quoted };
        check(text, &resolved(text, &node, change), expected);
    }
}

#[test]
fn a_comment_stands_above_its_object() {
    let text = "items:\n  - kind: A\n  - kind: B\n";
    let node = parse(text).unwrap().remove(0);
    let item = find(&node, &["items".into(), 1.into()]).unwrap();
    let edit = comment(text, item, &["why".to_owned()]).unwrap();
    let new = apply(text, vec![edit]);
    assert_eq!(new, "items:\n  - kind: A\n  # why\n  - kind: B\n");
    assert_eq!(parse(&new).unwrap()[0].value.value(), node.value.value());
}

#[test]
fn an_alias_is_not_changed() {
    let text = "a: &x {b: 1}\nc: *x\n";
    let node = parse(text).unwrap().remove(0);
    let error = edit(text, &node, &set(steps!["c", "b"], json!(2))).unwrap_err();
    assert!(error.contains("alias"), "{error}");
}
