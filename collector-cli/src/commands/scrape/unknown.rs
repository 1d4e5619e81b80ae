// SPDX-License-Identifier: Apache-2.0
//! Pages on which nothing was found, and what they may be.

use collector_epp::engines::UnknownExposition;
use collector_epp::{Content, ExpositionError, FetchedExposition};
use collector_transport::quote;

use super::cut_short;
use super::source::Source;
use crate::exit::Failure;
use crate::output::ErrorDocument;

/// Most names of series in a message about an unknown page.
const NAMES_MAX: usize = 5;

/// Says why a page cannot be read, and what it is as far as can be seen.
pub(super) fn failure(
    source: &Source,
    error: &ExpositionError,
    page: &FetchedExposition,
) -> Failure {
    let none = "the page is of no engine that is known";
    let (message, hint) = match error {
        ExpositionError::TooLarge(error) => return source.too_large(*error),
        ExpositionError::CutShort(cut) => return cut_short(format!("{source}: {cut}")),
        ExpositionError::NoMetrics(content) => {
            let problem = content.problem(page.content_type.as_deref());
            (format!("{none}: {problem}"), content.remedy().to_owned())
        }
        ExpositionError::Unknown(UnknownExposition { router: Some(router), .. }, _) => (
            format!("the page is that of {router}, which shows the metrics of other servers"),
            "scrape the servers behind it".to_owned(),
        ),
        ExpositionError::Unknown(unknown, _) => {
            let expected = match &unknown.expected {
                Some(engine) => format!("nothing of engine {engine:?} is on the page"),
                None => none.to_owned(),
            };
            let (what, hint) = match &unknown.looks_like {
                Some(engine) => (
                    format!("its series are those of {engine:?}"),
                    "leave --engine out, or name that one".to_owned(),
                ),
                None => of_others(&String::from_utf8_lossy(&page.bytes)),
            };
            (format!("{expected}: {what}"), hint)
        }
    };
    let mut document =
        ErrorDocument::new("UnknownEngine", format!("{source}: {message}")).with_hint(hint);
    if let ExpositionError::Unknown(_, summary) = error
        && summary.malformed_count > 0
    {
        let lines = summary.malformed_count;
        document = document.with_hint(format!("{lines} lines of known series are malformed"));
    }
    Failure::explained(document)
}

/// Why a page has no samples at all, as far as can be seen.
pub(super) fn without_samples(page: &FetchedExposition) -> String {
    let content_type = page.content_type.as_deref();
    match Content::of(&page.bytes, content_type) {
        Some(content) => content.problem(content_type),
        None => "no line of it is a sample".to_owned(),
    }
}

/// A page of series, or of something else in lines.
fn of_others(head: &str) -> (String, String) {
    let mut names: Vec<&str> = Vec::new();
    for line in head.lines() {
        let line = line.trim_start();
        let end = line.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | ':'));
        let name = &line[..end.unwrap_or(line.len())];
        if !name.is_empty() && names.last() != Some(&name) && names.len() < NAMES_MAX {
            names.push(name);
        }
    }
    if names.is_empty() {
        return ("it has no series".to_owned(), "is this a page of metrics?".to_owned());
    }
    let names: Vec<String> = names.into_iter().map(quote).collect();
    (
        format!("it begins with {}", names.join(", ")),
        "--raw shows the series of any page; [[engines]] says what they mean".to_owned(),
    )
}
