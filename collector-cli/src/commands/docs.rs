// SPDX-License-Identifier: Apache-2.0
//! `collector docs`: pages of the documentation, for those who have the program alone.

use super::settings::one_form;
use crate::args::{DocsArgs, GlobalArgs};
use crate::exit::{Exit, Failure};
use crate::output::{aligned, nearest_first, print, quoted};

/// A page: its name, what it is about, and its text.
type Page = (&'static str, &'static str, &'static str);

macro_rules! pages {
    ($($name:literal: $about:literal;)*) => {
        [$(($name, $about, include_str!(concat!("../../docs/", $name, ".md")))),*]
    };
}

const PAGES: &[Page] = &pages! {
    "install": "packages, the container image, systemd, Helm and kustomize";
    "getting-started": "from the demo to a daemon with a configuration";
    "terminal": "every command: read, watch, find what is wrong";
    "concepts": "missing, zero and error; age; windows; a glossary";
    "fields": "every field of a reading, and its unit";
    "configuration": "every key, its default and its variable";
    "prometheus": "a configuration for each kind of PromQL server";
    "kubernetes": "variants and pods from a cluster, and the rights that this needs";
    "keda": "setup for KEDA, and what happens in an outage";
    "external-metrics": "metrics for HPAs, where KEDA does not serve them";
    "promql-api": "the PromQL API for KEDA and other autoscalers";
    "grafana": "dashboards through the collector";
    "migration": "to KEDA, from other autoscalers and adapters";
    "checks": "what `collector check` checks";
    "http-api": "readings, events and errors, for controllers and pages";
    "daemon": "reload, access, systemd and the log of `collector serve`";
    "high-availability": "several replicas: what readers see, what it costs, updates";
    "page": "the live page of `collector serve`";
    "troubleshooting": "what each error means, and what to do";
    "faq": "why 503 and not 0, and other questions";
    "engines": "which series are read, and how";
    "metrics": "what is on /metrics";
    "adaptive-ttl": "models that move are refreshed sooner";
    "record-and-replay": "an incident in a file, and every command on it";
    "simulator": "a fleet of model servers without a GPU";
    "sizing": "what it costs, and how large it may get";
    "security": "the threat model, and what to set";
    "upgrade": "what a new version may change";
    "embedding": "as a library, in a program of your own";
    "backends": "how to write a backend";
    "testing": "how to test a controller";
};

pub(super) fn run(global: &GlobalArgs, args: &DocsArgs) -> Result<Exit, Failure> {
    one_form(global)?;
    let Some(name) = &args.page else {
        let rows =
            PAGES.iter().map(|(name, about, _)| vec![(*name).to_owned(), (*about).to_owned()]);
        print(&aligned([], rows))?;
        return Ok(Exit::Success);
    };
    let names = PAGES.iter().map(|(name, _, _)| *name);
    let Some((_, _, page)) = PAGES.iter().find(|(known, _, _)| known == name) else {
        let known = nearest_first(name, names);
        let nearest = known.first().copied().unwrap_or_default();
        return Err(Failure::usage(format!(
            "there is no page {name:?}; did you mean {nearest:?}? `collector docs` lists the pages"
        )));
    };
    let text = match &args.section {
        None => (*page).to_owned(),
        Some(wanted) => section(page, wanted).ok_or_else(|| {
            let headings = headings(page).map(|heading| heading.text);
            Failure::usage(format!(
                "the page {name:?} has no section {wanted:?}; it has {}",
                quoted(nearest_first(wanted, headings))
            ))
        })?,
    };
    print(&text)?;
    Ok(Exit::Success)
}

/// A heading below the title of its page.
struct Heading<'a> {
    line: usize,
    level: usize,
    text: &'a str,
}

fn headings(page: &str) -> impl Iterator<Item = Heading<'_>> {
    page.lines().enumerate().filter_map(|(line, text)| {
        let level = text.bytes().take_while(|byte| *byte == b'#').count();
        let text = text[level..].strip_prefix(' ')?.trim();
        (level >= 2).then_some(Heading { line, level, text })
    })
}

/// A section, from its heading to the next one that is not below it. It is found by its heading, or as links name it.
fn section(page: &str, wanted: &str) -> Option<String> {
    let wanted = anchor(wanted);
    let begin = headings(page).find(|heading| anchor(heading.text) == wanted)?;
    let end = headings(page).find(|next| next.line > begin.line && next.level <= begin.level);
    let count = end.map_or(usize::MAX, |end| end.line - begin.line);
    let lines = page.lines().skip(begin.line).take(count);
    Some(lines.collect::<Vec<_>>().join("\n").trim_end().to_owned() + "\n")
}

/// A heading as links name it: `the-external-scaler`.
fn anchor(heading: &str) -> String {
    let words = heading.split_whitespace().map(|word| {
        let kept = word.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_'));
        kept.flat_map(char::to_lowercase).collect::<String>()
    });
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_ends_where_the_next_one_begins() {
        let page = "# Page\nabout\n## One\na\n### Deeper\nb\n## Two\nc\n";
        assert_eq!(section(page, "one").unwrap(), "## One\na\n### Deeper\nb\n");
        assert_eq!(section(page, "Two").unwrap(), "## Two\nc\n");
        assert_eq!(section(page, "Deeper").unwrap(), "### Deeper\nb\n");
        assert_eq!(section(page, "Three"), None);
    }

    #[test]
    fn a_section_is_found_as_links_name_it() {
        let page = "# Page\n## The external scaler\na\n## `[cache]`\nb\n";
        assert_eq!(section(page, "the-external-scaler").unwrap(), "## The external scaler\na\n");
        assert_eq!(section(page, "cache").unwrap(), "## `[cache]`\nb\n");
    }

    #[test]
    fn every_group_of_checks_has_its_section() {
        let (_, _, page) = PAGES.iter().find(|(name, _, _)| *name == "checks").unwrap();
        for group in
            ["configuration", "connection", "metrics", "model", "timings", "scaled-object", "hpa"]
        {
            assert!(section(page, group).is_some(), "{group}");
        }
    }
}
