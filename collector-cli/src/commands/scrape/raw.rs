// SPDX-License-Identifier: Apache-2.0
//! `collector scrape --raw`: samples as they stand on the page, of whatever server it is.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use collector_epp::engines::Engines;
use collector_epp::scan::{Ended, Format as PageFormat, Sample, Scanner, Summary, Wanted};
use collector_epp::{Content, CutShort, EppConfig, FetchedExposition};
use serde::{Serialize, Serializer};

use super::document::MalformedLine;
use super::shorten::{SHOWN_BYTES_MAX, shorten};
use super::source::Source;
use super::table::exact;
use super::{malformed_lines, unknown};
use crate::args::{Format, ScrapeArgs};
use crate::exit::{Exit, Failure};
use crate::output::{ErrorDocument, SCHEMA_VERSION, aligned, print, printable, shown};

/// Samples that are shown of one page. More than 16 MiB of real series hold.
const SAMPLES_MAX: usize = 500_000;

/// What the scanner found on a page, in page order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct SamplesDocument<'a> {
    schema_version: u32,
    /// `samples`.
    kind: &'static str,
    /// How the page was read: `text` or `openmetrics`.
    format: &'static str,
    samples: Vec<SampleRow<'a>>,
    /// Malformed lines of wanted samples, and how many there are in all: only the first are listed.
    malformed: Vec<MalformedLine>,
    malformed_count: u64,
    /// The page did not end with a newline.
    last_line_unterminated: bool,
    /// Names and values of labels that are shown shortened, to their first 4096 bytes; absent when there
    /// are none.
    #[serde(skip_serializing_if = "is_none")]
    shortened: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn is_none(count: &u64) -> bool {
    *count == 0
}

/// One sample.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct SampleRow<'a> {
    name: Cow<'a, str>,
    #[cfg_attr(test, schemars(with = "std::collections::BTreeMap<String, String>"))]
    labels: Labels,
    /// What JSON has no number for is the text `NaN`, `+Inf` or `-Inf`.
    #[cfg_attr(test, schemars(with = "NumberOrText"))]
    value: Value,
    /// Since 1970; null when the page has none.
    timestamp_ms: Option<i64>,
}

/// A number, or the text of what JSON has no number for.
#[cfg(test)]
#[derive(schemars::JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it is there for its schema")]
enum NumberOrText {
    Number(f64),
    Text(String),
}

/// The labels of a sample, in page order.
struct Labels(Box<[(Box<str>, Box<str>)]>);

#[derive(Clone, Copy)]
struct Value(f64);

/// The samples of a page, as they are shown.
#[derive(Default)]
struct Samples<'a> {
    kept: Vec<SampleRow<'a>>,
    /// Beyond what can be shown.
    left_out: u64,
    /// Names and values of labels that were shortened.
    shortened: u64,
}

pub(super) fn run(
    config: &EppConfig,
    engines: &Engines,
    source: &Source,
    args: &ScrapeArgs,
    format: Format,
) -> Result<Exit, Failure> {
    let wanted = if args.names.is_empty() {
        Arc::clone(engines.wanted())
    } else {
        Arc::new(Wanted::new(args.names.iter().map(String::as_str)))
    };
    let is_target = source.target(config)?.is_some();
    let mut page = source.read(config, is_target, args.timeout)?;
    if let Some(content_type) = &args.content_type {
        page.content_type = Some(content_type.clone());
    }
    let (mut samples, mut summary) = scan(source, &wanted, config, &page)?;
    let all;
    // A page of no known engine: all that is on it.
    if args.names.is_empty() && summary.samples == 0 && summary.malformed_count == 0 {
        all = Arc::new(Wanted::new(names(&page.bytes)));
        (samples, summary) = scan(source, &all, config, &page)?;
    }
    let page_format = PageFormat::from_content_type(page.content_type.as_deref());
    if samples.left_out > 0 {
        let left_out = samples.left_out;
        let message =
            format!("{source}: {left_out} samples more than the {SAMPLES_MAX} that can be shown");
        return Err(Failure::explained(
            ErrorDocument::new("TooManySamples", message).with_hint("ask for less with --name"),
        ));
    }
    let nothing_shown = samples.kept.is_empty() && summary.malformed_count == 0;
    let document = SamplesDocument {
        schema_version: SCHEMA_VERSION,
        kind: "samples",
        format: match page_format {
            PageFormat::Text => "text",
            PageFormat::OpenMetrics => "openmetrics",
        },
        samples: samples.kept,
        malformed: summary.malformed.iter().map(MalformedLine::from).collect(),
        malformed_count: summary.malformed_count,
        last_line_unterminated: summary.last_line_unterminated,
        shortened: samples.shortened,
    };
    print(&shown(format, &document, || table(&document, &summary)))?;
    if let Some(cut) = CutShort::of(page_format, &summary, page.end_is_known) {
        tracing::warn!(page = %source, "The page may not be whole: {cut}");
    }
    if nothing_shown {
        let is_metrics = Content::of(&page.bytes, page.content_type.as_deref()).is_none();
        let why = if is_metrics && !args.names.is_empty() {
            "none of its samples has such a name".to_owned()
        } else {
            unknown::without_samples(&page)
        };
        tracing::warn!(page = %source, "There are no samples to show: {why}");
    }
    Ok(Exit::Success)
}

/// The samples of these names on a page.
fn scan<'a>(
    source: &Source,
    wanted: &'a Arc<Wanted>,
    config: &EppConfig,
    page: &FetchedExposition,
) -> Result<(Samples<'a>, Summary), Failure> {
    let mut samples = Samples::default();
    let mut scanner = Scanner::new(Arc::clone(wanted), config.limits());
    scanner.begin(PageFormat::from_content_type(page.content_type.as_deref()));
    let mut take = |sample: &Sample<'_>| samples.take(wanted.name(sample.name), sample);
    let ended = if page.end_is_known { Ended::Complete } else { Ended::CutShort };
    let result = scanner.feed(&page.bytes, &mut take).and_then(|()| scanner.finish(ended, take));
    let summary = result.map_err(|error| source.too_large(error))?;
    Ok((samples, summary))
}

/// Names that lines of a page may be of: what each begins with, or all that is in quotes where that is a
/// brace.
fn names(page: &[u8]) -> BTreeSet<&str> {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':');
    let mut names = BTreeSet::new();
    for line in page.split(|byte| *byte == b'\n') {
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii_start();
        if let [b'{', rest @ ..] = line {
            let quoted = rest.split(|byte| *byte == b'"').skip(1).step_by(2);
            names.extend(quoted.filter_map(|name| str::from_utf8(name).ok()));
        } else {
            let name = line.split(|byte| !is_part(byte)).next().unwrap_or_default();
            names.extend(str::from_utf8(name).ok().filter(|name| !name.is_empty()));
        }
    }
    names
}

fn table(document: &SamplesDocument<'_>, summary: &Summary) -> String {
    let mut text = format!("{} samples\n", document.samples.len());
    if !document.samples.is_empty() {
        let rows = document.samples.iter().map(|sample| {
            let mut labels = String::new();
            for (i, (name, value)) in sample.labels.0.iter().enumerate() {
                let before = if i == 0 { "" } else { "," };
                let value = format!("{value:?}");
                let _ = write!(labels, "{before}{}={}", printable(name), printable(&value));
            }
            vec![
                printable(&sample.name).to_string(),
                labels,
                exact(sample.value.0),
                sample.timestamp_ms.map_or_else(String::new, |at| at.to_string()),
            ]
        });
        text.push_str(&aligned(["NAME", "LABELS", "VALUE", "TIMESTAMP"], rows));
    }
    text.push_str(&malformed_lines(summary));
    if document.last_line_unterminated {
        text.push_str("the last line has no newline\n");
    }
    if document.shortened > 0 {
        let shortened = document.shortened;
        let _ = writeln!(
            text,
            "label names or values shortened to {SHOWN_BYTES_MAX} bytes: {shortened}"
        );
    }
    text
}

impl<'a> Samples<'a> {
    fn take(&mut self, name: &'a str, sample: &Sample<'_>) {
        if self.kept.len() == SAMPLES_MAX {
            self.left_out += 1;
            return;
        }
        let mut short = |text: Cow<'_, str>| {
            self.shortened += u64::from(text.len() > SHOWN_BYTES_MAX);
            Box::from(shorten(&text))
        };
        let labels = sample.labels.iter();
        let labels = labels.map(|(name, value)| (short(name), short(value))).collect();
        self.kept.push(SampleRow {
            name: shorten(name),
            labels: Labels(labels),
            value: Value(sample.value),
            timestamp_ms: sample.timestamp_ms,
        });
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_finite() {
            serializer.serialize_f64(self.0)
        } else {
            serializer.serialize_str(&exact(self.0))
        }
    }
}
