//! `collector scrape --raw`: samples as they stand on the page, of whatever server it is.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use collector_epp::engines::Engines;
use collector_epp::scan::{Format as PageFormat, NameId, PageTooLarge, Sample, Wanted};
use collector_epp::{EppConfig, PageSink as _};
use serde::{Serialize, Serializer, ser::SerializeMap as _};

use super::document::MalformedLine;
use super::intake::{Intake, Read, Transfer};
use super::shorten::{SHOWN_BYTES_MAX, shorten};
use super::source::Source;
use super::table::exact;
use super::{check_whole, malformed_lines, unknown};
use crate::args::{Format, ScrapeArgs};
use crate::exit::{Exit, Failure};
use crate::output::{ErrorDocument, SCHEMA_VERSION, aligned, print, printable, to_json, to_yaml};

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
    labels: Labels<'a>,
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
struct Labels<'a>(&'a [(Box<str>, Box<str>)]);

#[derive(Clone, Copy)]
struct Value(f64);

/// The samples of a page, as they are shown.
#[derive(Default)]
struct Samples {
    kept: Vec<Kept>,
    /// Beyond what can be shown.
    left_out: u64,
    /// Names and values of labels that were shortened.
    shortened: u64,
}

/// A sample that was kept.
struct Kept {
    name: NameId,
    labels: Box<[(Box<str>, Box<str>)]>,
    value: f64,
    timestamp_ms: Option<i64>,
}

pub(super) fn run(
    config: &EppConfig,
    engines: &Engines,
    source: &Source,
    args: &ScrapeArgs,
    format: Format,
) -> Result<Exit, Failure> {
    let mut wanted = if args.names.is_empty() {
        Arc::clone(engines.wanted())
    } else {
        Arc::new(Wanted::new(args.names.iter().map(String::as_str)))
    };
    let is_target = source.target(config)?.is_some();
    let content_type = args.content_type.as_deref();
    let mut samples = Samples::default();
    let mut intake = Intake::new(Arc::clone(&wanted), config.limits(), content_type, |sample| {
        samples.take(sample);
    })
    .with_copy();
    let transfer = source.read(config, is_target, args.timeout, &mut intake)?;
    let mut read = intake.finish(&transfer).map_err(|error| source.too_large(error))?;
    check_whole(source, &transfer)?;
    // A page of no known engine: all that is on it.
    if args.names.is_empty() && read.summary.samples == 0 && read.summary.malformed_count == 0 {
        wanted = Arc::new(Wanted::new(names(&read.copy)));
        samples = Samples::default();
        read = again(&wanted, config, &read, &transfer, &mut samples)
            .map_err(|error| source.too_large(error))?;
    }
    if samples.left_out > 0 {
        let left_out = samples.left_out;
        let message =
            format!("{source}: {left_out} samples more than the {SAMPLES_MAX} that can be shown");
        return Err(Failure::explained(
            ErrorDocument::new("TooManySamples", message).with_hint("ask for less with --name"),
        ));
    }
    let text = match format {
        Format::Json => to_json(&SamplesDocument::new(&wanted, &samples, &read)) + "\n",
        Format::Yaml => to_yaml(&SamplesDocument::new(&wanted, &samples, &read)),
        _ => table(&wanted, &samples, &read),
    };
    print(&text)?;
    if let Some(cut) = read.cut {
        tracing::warn!(page = %source, "The page may not be whole: {cut}");
    }
    if samples.kept.is_empty() && read.summary.malformed_count == 0 {
        let why = match unknown::no_metrics(&read) {
            None if !args.names.is_empty() => "none of its samples has such a name".to_owned(),
            _ => unknown::without_samples(&read),
        };
        tracing::warn!(page = %source, "There are no samples to show: {why}");
    }
    Ok(Exit::Success)
}

/// Reads a page once more, for other names.
fn again(
    wanted: &Arc<Wanted>,
    config: &EppConfig,
    read: &Read,
    transfer: &Transfer,
    samples: &mut Samples,
) -> Result<Read, PageTooLarge> {
    let content_type = read.content_type.as_deref();
    let mut intake = Intake::new(Arc::clone(wanted), config.limits(), content_type, |sample| {
        samples.take(sample);
    });
    intake.begin(None);
    intake.feed(&read.copy)?;
    intake.finish(transfer)
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

fn table(wanted: &Wanted, samples: &Samples, read: &Read) -> String {
    let mut text = format!("{} samples\n", samples.kept.len());
    if !samples.kept.is_empty() {
        let rows = samples.kept.iter().map(|sample| {
            let mut labels = String::new();
            for (i, (name, value)) in sample.labels.iter().enumerate() {
                let before = if i == 0 { "" } else { "," };
                let value = format!("{value:?}");
                let _ = write!(labels, "{before}{}={}", printable(name), printable(&value));
            }
            vec![
                printable(&shorten(wanted.name(sample.name))).to_string(),
                labels,
                exact(sample.value),
                sample.timestamp_ms.map_or_else(String::new, |at| at.to_string()),
            ]
        });
        text.push_str(&aligned(["NAME", "LABELS", "VALUE", "TIMESTAMP"], rows));
    }
    text.push_str(&malformed_lines(&read.summary));
    if read.summary.last_line_unterminated {
        text.push_str("the last line has no newline\n");
    }
    if samples.shortened > 0 {
        let _ = writeln!(
            text,
            "label names or values shortened to {SHOWN_BYTES_MAX} bytes: {}",
            samples.shortened
        );
    }
    text
}

impl Samples {
    fn take(&mut self, sample: &Sample<'_>) {
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
        self.kept.push(Kept {
            name: sample.name,
            labels,
            value: sample.value,
            timestamp_ms: sample.timestamp_ms,
        });
    }
}

impl<'a> SamplesDocument<'a> {
    fn new(wanted: &'a Wanted, samples: &'a Samples, read: &Read) -> Self {
        let row = |sample: &'a Kept| SampleRow {
            name: shorten(wanted.name(sample.name)),
            labels: Labels(&sample.labels),
            value: Value(sample.value),
            timestamp_ms: sample.timestamp_ms,
        };
        Self {
            schema_version: SCHEMA_VERSION,
            kind: "samples",
            format: match read.format {
                PageFormat::Text => "text",
                PageFormat::OpenMetrics => "openmetrics",
            },
            samples: samples.kept.iter().map(row).collect(),
            malformed: read.summary.malformed.iter().map(MalformedLine::from).collect(),
            malformed_count: read.summary.malformed_count,
            last_line_unterminated: read.summary.last_line_unterminated,
            shortened: samples.shortened,
        }
    }
}

impl Serialize for Labels<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
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
