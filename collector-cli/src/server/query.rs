// SPDX-License-Identifier: Apache-2.0
//! Query parameters, read strictly: a misspelt or doubled one must not turn into another question.

use std::borrow::Cow;
use std::fmt::Display;

use axum::http::Uri;
use collector_core::ModelRef;
use percent_encoding::percent_decode_str;

use super::lists;
use super::respond::Refusal;

/// The longest name that is asked for: four times the longest that fleets are known to use, in
/// characters of up to four bytes.
const MAX_NAME_BYTES: usize = 4096;

/// The parameters of a request: each of a known name, once, with a value.
#[derive(Debug)]
pub(super) struct Query(Vec<(&'static str, String)>);

impl Query {
    /// Reads a query whose parameters are among `known`.
    pub(super) fn parse(uri: &Uri, known: &[&'static str]) -> Result<Self, Refusal> {
        read(uri.query().unwrap_or_default(), known).map(Self).map_err(Refusal::bad_request)
    }

    /// The model that `model` and `namespace` name together; `None` when both are absent.
    pub(super) fn model(&mut self) -> Result<Option<ModelRef>, Refusal> {
        match (self.text("model"), self.text("namespace")) {
            (Some(model), Some(namespace)) => Ok(Some(ModelRef::new(model, namespace))),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(missing("model", "namespace")),
            (Some(_), None) => Err(missing("namespace", "model")),
        }
    }

    /// The one model that is asked for; `None` for a list, which may be of one namespace. Parameters of lists do not go with
    /// a model, except those in `of_one`.
    pub(super) fn one(&mut self, of_one: &[&str]) -> Result<Option<ModelRef>, Refusal> {
        if !self.has("model") {
            return Ok(None);
        }
        let model = self.model()?;
        let mut of_lists = lists::PARAMETERS.into_iter().filter(|name| !of_one.contains(name));
        if let Some(name) = of_lists.find(|name| self.has(name)) {
            let message = format!("parameter {name:?} is for lists: it does not go with \"model\"");
            return Err(Refusal::bad_request(message));
        }
        Ok(model)
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| *known == name)
    }

    /// The whole number of a parameter; `None` when it is absent.
    pub(super) fn number(&mut self, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = text.parse().map_err(|_| {
            Refusal::bad_request(format!("parameter {name:?} is not a whole number"))
        })?;
        Ok(Some(number))
    }

    /// The value of a parameter; `None` when it is absent.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        let index = self.0.iter().position(|(known, _)| *known == name)?;
        Some(self.0.swap_remove(index).1)
    }
}

fn missing(absent: &str, present: &str) -> Refusal {
    Refusal::bad_request(format!(
        "parameter {absent:?} is missing: it goes together with {present:?}"
    ))
}

fn read(query: &str, known: &[&'static str]) -> Result<Vec<(&'static str, String)>, String> {
    let mut parameters: Vec<(&'static str, String)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(name) = known.iter().find(|known| **known == name) else {
            let name: String = name.chars().take(50).collect();
            return Err(match known {
                [] => format!("unknown parameter {name:?}: this path takes no parameters"),
                [one] => format!("unknown parameter {name:?}: the only parameter is {one}"),
                _ => format!("unknown parameter {name:?}: the parameters are {}", known.join(", ")),
            });
        };
        if parameters.iter().any(|(taken, _)| taken == name) {
            return Err(format!("parameter {name:?} is there twice"));
        }
        parameters.push((name, decode(name, value)?));
    }
    Ok(parameters)
}

fn decode(name: &str, value: &str) -> Result<String, String> {
    // A plus is a space in the query of a form, and every client escapes it where it is meant.
    let spaced = if value.contains('+') {
        Cow::Owned(value.replace('+', " "))
    } else {
        Cow::Borrowed(value)
    };
    let text = percent_decode_str(&spaced)
        .decode_utf8()
        .map_err(|_| format!("parameter {name:?} is not UTF-8"))?;
    // The place in a list holds three names; the head of a request limits it.
    if name != "after" {
        check_name(format_args!("parameter {name:?}"), &text)?;
    }
    Ok(text.into_owned())
}

/// Refuses what is no name; `what` says where it is from.
pub(super) fn check_name(what: impl Display, text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err(format!("{what} is empty"));
    }
    if text.len() > MAX_NAME_BYTES {
        return Err(format!("{what} is longer than {MAX_NAME_BYTES} bytes"));
    }
    // In UTF-8 control characters are these bytes, or begin with one, which few names have.
    let may_be_control = |byte: u8| matches!(byte, 0..0x20 | 0x7f | 0xc2);
    if text.bytes().any(may_be_control) && text.contains(char::is_control) {
        return Err(format!("{what} has control characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, expected: Result<&[(&'static str, &str)], &str>) {
        let known = ["model", "namespace"];
        match (read(query, &known), expected) {
            (Ok(parameters), Ok(expected)) => {
                let parameters: Vec<(&str, &str)> =
                    parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
                assert_eq!(parameters, expected);
            }
            (Err(message), Err(part)) => {
                assert!(message.contains(part), "{message:?} lacks {part:?}");
            }
            (got, _) => panic!("{query:?} gave {got:?}"),
        }
    }

    #[test]
    fn names_are_decoded_exactly() {
        check("", Ok(&[]));
        check(
            "model=org%2Fm%3A1%2B+x&namespace=%E6%A8%A1",
            Ok(&[("model", "org/m:1+ x"), ("namespace", "模")]),
        );
        check("model=a%7B%22%5C%7D%3D.*", Ok(&[("model", "a{\"\\}=.*")]));
    }

    #[test]
    fn what_is_wrong_names_its_parameter() {
        check("model=", Err("\"model\" is empty"));
        check("model", Err("\"model\" is empty"));
        check("model=a&model=a", Err("\"model\" is there twice"));
        check("model=%ff", Err("\"model\" is not UTF-8"));
        check("namespace=a%00", Err("\"namespace\" has control"));
        check("model=a%0d%0aX: y", Err("\"model\" has control"));
        check("modell=a", Err("unknown parameter \"modell\": the parameters are model, namespace"));
        let none = read("namespace=prod", &[]).unwrap_err();
        assert_eq!(none, "unknown parameter \"namespace\": this path takes no parameters");
        check(&format!("model={}", "x".repeat(5000)), Err("\"model\" is longer"));
    }
}
