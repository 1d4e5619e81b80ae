//! `collector scrape --raw`: samples as they stand on the page, of whatever server it is.

use std::fmt::Write as _;
use std::sync::Arc;

use collector_epp::EppConfig;
use collector_epp::engines::Engines;
use collector_epp::scan::{Format as PageFormat, NameId, Sample, Wanted};
use serde::{Serialize, Serializer, ser::SerializeMap as _};

use super::document::MalformedLine;
use super::intake::{Intake, Read};
use super::source::Source;
use super::table::exact;
use super::{NO_EOF, check_whole, limits, malformed_lines};
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
}

/// One sample.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct SampleRow<'a> {
    name: &'a str,
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
    let wanted = if args.names.is_empty() {
        Arc::clone(engines.wanted())
    } else {
        Arc::new(Wanted::new(args.names.iter().map(String::as_str)))
    };
    let mut samples: Vec<Kept> = Vec::new();
    let mut left_out: u64 = 0;
    let mut intake = Intake::new(Arc::clone(&wanted), limits(config), |sample| {
        if samples.len() < SAMPLES_MAX {
            samples.push(Kept::of(sample));
        } else {
            left_out += 1;
        }
    });
    let transfer = source.read(config, args.content_type.as_deref(), &mut intake)?;
    let read = intake.finish(&transfer).map_err(|error| source.too_large(error))?;
    check_whole(source, &transfer)?;
    if left_out > 0 {
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
    if read.lacks_its_end() {
        tracing::warn!(page = %source, "The page may have been cut short: {NO_EOF}");
    }
    Ok(Exit::Success)
}

fn table(wanted: &Wanted, samples: &[Kept], read: &Read) -> String {
    let mut text = format!("{} samples\n", samples.len());
    if !samples.is_empty() {
        let rows = samples.iter().map(|sample| {
            let mut labels = String::new();
            for (i, (name, value)) in sample.labels.iter().enumerate() {
                let before = if i == 0 { "" } else { "," };
                let value = format!("{value:?}");
                let _ = write!(labels, "{before}{}={}", printable(name), printable(&value));
            }
            vec![
                printable(wanted.name(sample.name)).to_string(),
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
    text
}

impl Kept {
    fn of(sample: &Sample<'_>) -> Self {
        let labels = sample.labels.iter();
        Self {
            name: sample.name,
            labels: labels.map(|(name, value)| (name.into(), value.into())).collect(),
            value: sample.value,
            timestamp_ms: sample.timestamp_ms,
        }
    }
}

impl<'a> SamplesDocument<'a> {
    fn new(wanted: &'a Wanted, samples: &'a [Kept], read: &Read) -> Self {
        let row = |sample: &'a Kept| SampleRow {
            name: wanted.name(sample.name),
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
            samples: samples.iter().map(row).collect(),
            malformed: read.summary.malformed.iter().map(MalformedLine::from).collect(),
            malformed_count: read.summary.malformed_count,
            last_line_unterminated: read.summary.last_line_unterminated,
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
