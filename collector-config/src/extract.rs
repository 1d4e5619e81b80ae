// SPDX-License-Identifier: Apache-2.0
//! Reads a type out of the merged layers, and finds every value that the type refuses.

use std::collections::HashSet;

use figment::Figment;
use figment::error::{Actual, Kind as Refusal};
use figment::value::{Dict, Value};

use crate::error::ConfigError;
use crate::key::Kind;
use crate::keys::ENGINES;
use crate::layer::Setting;
use crate::nearest::nearest;
use crate::text::printable;

/// What was read out of the layers. figment's error is too big to be handed around.
pub(crate) type Extracted<T> = Result<T, Box<figment::Error>>;

/// Merges the settings that `read` is about and reads its type out of them. A value that the type
/// refuses is an error, and the rest is read without it, so that every wrong value is found.
pub(crate) fn extract<T>(
    mut settings: Vec<Setting>,
    errors: &mut Vec<ConfigError>,
    read: impl Fn(&Figment) -> Extracted<T>,
) -> Option<T> {
    let mut patched = HashSet::new();
    loop {
        // Of each key the last setting counts, and as a whole: tables of two layers are not joined.
        let counts = |(place, setting): &(usize, &Setting)| {
            settings[place + 1..].iter().all(|later| later.key.path != setting.key.path)
        };
        let counting = settings.iter().enumerate().filter(counts).map(|(_, setting)| setting);
        let figment = counting.fold(Figment::new(), Figment::merge);
        let error = match read(&figment) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let path = error.path.join(".");
        let culprit = settings.iter().rposition(|setting| {
            path.strip_prefix(setting.key.path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        let Some(index) = culprit else {
            errors.push(ConfigError::new(in_words(&error.kind)).key(path));
            return None;
        };
        let setting = &mut settings[index];
        let inside =
            path.strip_prefix(setting.key.path).unwrap_or_default().trim_start_matches('.');
        // figment's words hold the value.
        let message = if setting.key.kind == Kind::Secret {
            "its value cannot be used".to_owned()
        } else if inside.is_empty() {
            in_words(&error.kind)
        } else {
            format!("{}: {}", inside_of_list(inside), in_words(&error.kind))
        };
        let refused = ConfigError::new(message).key(setting.key.path).at(setting.origin_of(inside));
        let field = format!("{} {}", setting.key.path, field(inside, &error.kind));
        match patch(setting, inside, &error.kind) {
            // Each field is patched once: a second error of it says that the patch did not help.
            Some(Patch::Removed) if patched.insert(field.clone()) => errors.push(refused.inside()),
            // A field that is wrong was taken out, and is missing now.
            Some(Patch::Filled)
                if patched.contains(&field) && patched.insert(field.clone() + "=") => {}
            Some(Patch::Filled) if patched.insert(field) => errors.push(refused.inside()),
            _ => {
                errors.push(refused);
                settings.remove(index);
            }
        }
    }
}

/// How an entry of a list was changed so that the rest of it can be read.
enum Patch {
    /// A field was taken out.
    Removed,
    /// A field that is missing was filled.
    Filled,
}

/// Changes the entry of a list that `path` is in, so that what else is wrong with the list is found.
/// `None` where nothing can be changed.
fn patch(setting: &mut Setting, path: &str, refusal: &Refusal) -> Option<Patch> {
    let Value::Array(_, entries) = &mut setting.value else { return None };
    let mut keys = path.split('.');
    let place: usize = keys.next()?.parse().ok()?;
    let Value::Dict(_, entry) = entries.get_mut(place)? else { return None };
    let mut table: &mut Dict = entry;
    let mut keys: Vec<&str> = keys.collect();
    if let Refusal::MissingField(field) = refusal {
        for key in keys {
            let Value::Dict(_, inner) = table.get_mut(key)? else { return None };
            table = inner;
        }
        // Fit for a name, and unique, so that the checks of the whole find nothing wrong with it.
        let filler = format!("entry-{}", place + 1);
        let filler = if field == "url" { format!("http://{filler}/") } else { filler };
        table.insert(field.to_string(), filler.into());
        return Some(Patch::Filled);
    }
    if let Refusal::UnknownField(field, _) = refusal
        && keys.last() != Some(&field.as_str())
    {
        keys.push(field);
    }
    let last = keys.pop()?;
    for key in keys {
        let Value::Dict(_, inner) = table.get_mut(key)? else { return None };
        table = inner;
    }
    table.remove(last)?;
    if setting.key.path == ENGINES {
        // The removed field may be the engine's only metric, or its base: an error that it reads nothing would
        // be about something that nobody wrote.
        entry.entry("base".to_owned()).or_insert_with(|| "vllm".into());
    }
    Some(Patch::Removed)
}

/// The path of the field that is refused.
fn field(path: &str, refusal: &Refusal) -> String {
    match refusal {
        Refusal::MissingField(field) => format!("{path}.{field}"),
        _ => path.to_owned(),
    }
}

/// A place in a list of tables, `0.url` for example, as people count.
fn inside_of_list(path: &str) -> String {
    let (entry, key) = path.split_once('.').unwrap_or((path, ""));
    match entry.parse::<usize>() {
        Ok(entry) if key.is_empty() => format!("entry {}", entry + 1),
        Ok(entry) => format!("entry {}, {}", entry + 1, printable(key)),
        Err(_) => printable(path),
    }
}

/// Why a value was refused, in the words of the other messages.
pub(crate) fn in_words(refusal: &Refusal) -> String {
    match refusal {
        Refusal::MissingField(field) => format!("`{field}` is not set, and is required"),
        Refusal::UnknownField(field, known) => match nearest(field, known.iter().copied()) {
            Some(near) => format!("unknown key; did you mean {near}?"),
            None => format!("unknown key; the keys are {}", known.join(", ")),
        },
        Refusal::UnknownVariant(word, known) => {
            format!("\"{}\" is not known: write one of {}", printable(word), known.join(", "))
        }
        Refusal::InvalidType(found, expected) => {
            format!("expected {}, found {}", kind_in_words(expected), describe(found))
        }
        Refusal::InvalidValue(Actual::Unsigned(number), _) => format!("{number} is out of range"),
        Refusal::InvalidValue(Actual::Signed(number), _) => format!("{number} is out of range"),
        other => other.to_string(),
    }
}

/// What a type of ours expects, whose words are serde's.
fn kind_in_words(expected: &str) -> &str {
    match expected {
        "a string" | "string" => "text",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "f64" | "f32" => "a number",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        _ if expected.starts_with("struct ") => "a table of keys",
        _ => expected,
    }
}

/// The kind of a value; the value itself may be a secret.
fn describe(found: &Actual) -> &'static str {
    match found {
        Actual::Bool(_) => "a boolean",
        Actual::Unsigned(_) | Actual::Signed(_) | Actual::Float(_) => "a number",
        Actual::Char(_) | Actual::Str(_) => "text",
        Actual::Seq => "a list",
        Actual::Map => "a table",
        Actual::Unit | Actual::Option => "nothing",
        _ => "another kind of value",
    }
}
