// SPDX-License-Identifier: Apache-2.0
//! Names that mean something to a query language, a path, a pattern or a terminal.

use collector_core::ModelRef;

/// Odd names near one that exists, none of which is it.
pub(super) fn odd_names_near(known: &ModelRef) -> Vec<ModelRef> {
    let (id, namespace) = (known.model.as_str(), known.namespace.as_str());
    let ids = [
        "",
        " ",
        "\"",
        "\\",
        "{",
        "}",
        "`",
        "'",
        "$1",
        "%",
        "..",
        "*",
        ".*",
        ".+",
        "a|b",
        "a:b/c",
        "a\nb",
        "a\0b",
        "a\u{1b}[31mb",
        "модель-模型-🦙",
        "x\"} or {__name__=~\".+",
    ];
    let mut ids: Vec<String> = ids.into_iter().map(str::to_owned).collect();
    ids.extend([
        "x".repeat(1000),
        format!("{id}\"}} or vector(1) #"),
        format!("{id}|x"),
        format!("{id}.*"),
        format!("{id}\\"),
        format!("{id} "),
        format!(" {id}"),
        format!("{id}-conformance"),
        format!("x{id}"),
        format!("{id}:{namespace}"),
        id.replace('/', "%2F") + "%20",
        id.to_uppercase(),
        id.to_lowercase(),
        id.rsplit('/').next().unwrap_or(id).to_owned() + "/",
        id.chars().skip(1).collect(),
    ]);
    let mut models: Vec<ModelRef> =
        ids.into_iter().map(|id| ModelRef::new(id, known.namespace.clone())).collect();
    let upper = namespace.to_uppercase();
    for namespace in ["", ".*", "x\"} or {__name__=~\".+", "conformance-nowhere", &upper] {
        models.push(ModelRef::new(known.model.clone(), namespace));
    }
    models.retain(|model| model != known);
    models
}
