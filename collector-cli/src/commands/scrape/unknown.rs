//! Pages on which nothing was found, and what they may be.

use collector_epp::Content;
use collector_epp::engines::UnknownPage;
use collector_transport::quote;

use super::intake::Read;
use super::source::Source;
use crate::exit::Failure;
use crate::output::ErrorDocument;

/// Names that are told of what is on the page.
const NAMES_MAX: usize = 5;

/// Says that a page is of no engine, and what it is as far as can be seen.
pub(super) fn failure(source: &Source, unknown: &UnknownPage, read: &Read) -> Failure {
    let expected = match &unknown.expected {
        Some(engine) => format!("nothing of engine {engine:?} is on the page"),
        None => "the page is of no engine that is known".to_owned(),
    };
    if let Some(router) = unknown.router {
        let message = format!(
            "{source}: the page is that of {router}, which shows the metrics of other servers"
        );
        return Failure::explained(
            ErrorDocument::new("UnknownEngine", message).with_hint("scrape the servers behind it"),
        );
    }
    let (what, hint) = what(unknown, read);
    let mut document = ErrorDocument::new("UnknownEngine", format!("{source}: {expected}: {what}"))
        .with_hint(hint);
    if read.summary.malformed_count > 0 {
        let lines = read.summary.malformed_count;
        document = document.with_hint(format!("{lines} lines of known series are malformed"));
    }
    Failure::explained(document)
}

/// Why a page has no samples at all, as far as can be seen.
pub(super) fn without_samples(read: &Read) -> String {
    match no_metrics(read) {
        Some((what, _)) => what,
        None => "no line of it is a sample".to_owned(),
    }
}

/// What a page is that is none of metrics, and what to do about it.
pub(super) fn no_metrics(read: &Read) -> Option<(String, String)> {
    if read.head.trim_ascii().is_empty() {
        return Some(("it is empty".to_owned(), "is the server still starting?".to_owned()));
    }
    let content = Content::of(&read.head, read.content_type.as_deref())?;
    let came_as = read.content_type.as_deref().map_or_else(String::new, |content_type| {
        format!(" (Content-Type {:?})", quote(content_type))
    });
    Some((format!("{}{came_as}", content.problem()), content.remedy().to_owned()))
}

fn what(unknown: &UnknownPage, read: &Read) -> (String, String) {
    if let Some(engine) = &unknown.looks_like {
        return (
            format!("its series are those of {engine:?}"),
            "leave --engine out, or name that one".to_owned(),
        );
    }
    no_metrics(read).unwrap_or_else(|| of_others(&String::from_utf8_lossy(&read.head)))
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
