// SPDX-License-Identifier: Apache-2.0
//! The table of keys against the types that the values end up in, and against the reference.

use std::path::Path;

use collector_config::{Key, Kind, Loader};
use proptest::prelude::*;

use crate::{ConfigFile, entry, variables};

/// A value that is not the default, as the environment and as TOML have it.
fn sample(key: &Key) -> (&'static str, &'static str) {
    match (key.path, key.kind) {
        // An absolute path, because a relative one is moved.
        (_, Kind::Path) => ("/some/path", "\"/some/path\""),
        ("backend", _) => ("scrape", "\"scrape\""),
        (_, Kind::Text | Kind::Secret) => ("some-text", "\"some-text\""),
        (_, Kind::OneOf(words)) => {
            let other = words.iter().find(|word| Some(**word) != key.default).unwrap();
            (other, Box::leak(format!("{other:?}").into_boxed_str()))
        }
        (_, Kind::Url) => ("https://somewhere", "\"https://somewhere\""),
        (_, Kind::Address) => ("127.0.0.2:1", "\"127.0.0.2:1\""),
        (_, Kind::Bool) if key.default == Some("true") => ("false", "false"),
        (_, Kind::Bool) => ("true", "true"),
        (_, Kind::Count | Kind::Positive | Kind::Number) => ("77777", "77777"),
        ("promql.answer_within", _) => ("1300ms", "\"1300ms\""),
        (_, Kind::Duration) => ("17s", "\"17s\""),
        ("scrape.targets", _) => (
            r#"[{"url": "http://h/metrics", "namespace": "n"}]"#,
            r#"[{ url = "http://h/metrics", namespace = "n" }]"#,
        ),
        ("scrape.dns", _) => (
            r#"[{"name": "h", "namespace": "n", "port": 8000}]"#,
            r#"[{ name = "h", namespace = "n", port = 8000 }]"#,
        ),
        ("prometheus.models", _) => (
            r#"[{"selector": "a=\"b\"", "model": "m"}]"#,
            r#"[{ selector = 'a="b"', model = "m" }]"#,
        ),
        ("promql.anchors", _) => {
            (r#"[{"name": "a", "anchor": "b"}]"#, r#"[{ name = "a", anchor = "b" }]"#)
        }
        (_, Kind::Tables) => (
            r#"[{"name": "acme", "metrics": {"waiting": "w"}}]"#,
            r#"[{ name = "acme", metrics.waiting = "w" }]"#,
        ),
        (_, Kind::NamedTexts | Kind::NamedSecrets | Kind::NamedPaths) => {
            (r#"{"a": "/some/path"}"#, r#"{ a = "/some/path" }"#)
        }
        (_, Kind::Texts) => ("one,two", "[\"one\", \"two\"]"),
    }
}

fn toml(key: &str, value: &str) -> String {
    match key.rsplit_once('.') {
        Some((section, name)) => format!("[{section}]\n{name} = {value}\n"),
        None => format!("\n{key} = {value}\n"),
    }
}

#[test]
fn each_key_can_be_set_by_file_variable_alias_and_flag_and_shows_its_origin() {
    let unset = format!("{:?}", Loader::new().read().unwrap().config);
    for key in Loader::new().keys() {
        let (text, in_toml) = sample(key);
        let shown = match key.kind {
            Kind::Secret => "***",
            Kind::Tables => "1 table",
            Kind::NamedSecrets => "a=***",
            Kind::NamedTexts | Kind::NamedPaths => "a=/some/path",
            _ => text,
        };
        let check = |loader: Loader, origin: &str| {
            let loaded = loader.read().unwrap_or_else(|errors| panic!("{errors}"));
            let entry = entry(&loaded, key.path);
            assert_eq!(
                (entry.value.as_str(), entry.origin.as_str()),
                (shown, origin),
                "{}",
                key.path
            );
            assert_ne!(format!("{:?}", loaded.config), unset, "{} changes nothing", key.path);
        };
        let file = ConfigFile::toml(&toml(key.path, in_toml));
        check(file.loader(), &format!("{}:2", file.path().display()));
        for variable in key.aliases.iter().map(ToString::to_string).chain([key.variable()]) {
            let loader = Loader::new().env(variables(&[(&variable, text)]));
            check(loader, &format!("environment variable {variable}"));
        }
        check(Loader::new().flag(key.path, text, "--flag"), "--flag");
    }
}

#[test]
fn each_default_of_the_table_is_that_of_the_type() {
    let unset = format!("{:?}", Loader::new().read().unwrap().config);
    for key in Loader::new().keys() {
        if let Some(default) = key.default {
            let loaded = Loader::new().flag(key.path, default, "--flag").read().unwrap();
            assert_eq!(format!("{:?}", loaded.config), unset, "{}", key.path);
        }
    }
}

#[test]
fn no_two_keys_share_a_path_or_a_variable() {
    let mut names: Vec<String> = Loader::new()
        .keys()
        .flat_map(|key| {
            let aliases = key.aliases.iter().map(ToString::to_string);
            aliases.chain([key.path.to_owned(), key.variable()])
        })
        .collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}

proptest! {
    #[test]
    fn any_text_is_kept_or_reported(text in "\\PC{0,40}") {
        for key in Loader::new().keys() {
            let variable = key.variable();
            let loader = Loader::new().env(variables(&[(&variable, &text)]));
            match loader.read() {
                Ok(loaded) if matches!(key.kind, Kind::Text | Kind::Path) => {
                    // An empty variable is not set.
                    let expected = if text.is_empty() { key.default.unwrap_or("") } else { &text };
                    prop_assert_eq!(entry(&loaded, key.path).value, expected);
                }
                Ok(_) => {}
                Err(errors) => {
                    let message = errors.to_string();
                    prop_assert!(key.kind != Kind::Secret, "{}", message);
                    prop_assert!(message.contains(&variable) && message.contains(key.path), "{}", message);
                }
            }
        }
    }
}

/// Set to write the reference instead of comparing it.
const UPDATE: &str = "UPDATE_REFERENCE";

#[test]
fn the_reference_is_up_to_date() {
    // A build without one of the backends has other keys.
    if Loader::new().backends().count() < 2 {
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let expected = Loader::new().reference();
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "docs/configuration.md is not what the keys say: write it anew with\n\
         {UPDATE}=1 cargo test -p collector-config"
    );
}
