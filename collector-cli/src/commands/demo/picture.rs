// SPDX-License-Identifier: Apache-2.0
//! The picture of the README: a frame of the demo as an SVG, from the demo's own fleet in simulated time.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use collector_core::{
    Allocation, FreshnessThresholds, ModelRef, Reading, ReplicaMetrics, Replicas, Source, Tick,
};
use collector_sim::{Fleet, FleetSpec, VariantSpec};
use unicode_width::UnicodeWidthStr as _;

use super::history::{History, SAMPLES};
use super::layout::{Frame, Size};
use super::line::{Line, Style};
use super::shown::Shown;
use super::{FRAME, Way, title};
use crate::output::UNICODE;

/// Set, it writes the picture instead of comparing it.
const UPDATE: &str = "UPDATE_DOCS";

/// How long the fleet runs before the first sample: until all models are busy, and one has a queue.
const BEFORE: Duration = Duration::from_secs(105);

/// A character's box and the margin, in pixels.
const WIDE: usize = 9;
const HIGH: usize = 19;
const MARGIN: usize = 12;

/// The lines of the demo's fleet at 80x24.
fn frame() -> Vec<Line> {
    let spec = FleetSpec::demo();
    let mut fleet = Fleet::new(spec.clone(), SystemTime::UNIX_EPOCH).unwrap();
    let start = fleet.now() + BEFORE;
    let mut history = History::default();
    let mut models = Vec::new();
    for sample in 0..SAMPLES {
        let now = start + FRAME * u32::try_from(sample).unwrap();
        fleet.advance_to(now);
        models = spec.variants.iter().map(|variant| shown(&mut fleet, variant)).collect();
        for Shown { model, replicas, .. } in &models {
            history.add(model, &replicas.as_ref().unwrap().value().replicas);
        }
    }
    let title = title(&spec, Way::Direct);
    let (ending, signs) = ("q or Ctrl-C ends the demo", &UNICODE);
    Frame { title: &title, ending, models: &models, history: &history, signs }
        .lines(Size { rows: 24, columns: 80 })
}

/// What a scrape of each pod just before would have said.
fn shown(fleet: &mut Fleet, variant: &VariantSpec) -> Shown {
    let model = ModelRef::new(variant.model.as_str(), variant.namespace.as_str());
    let (namespace, backend) = (variant.namespace.as_str(), "epp");
    let read_at = Tick::from_nanos(10_000_000_000);
    let pods = (0..variant.pods).map(|pod| {
        let name = format!("{}-{pod}", variant.name);
        let truth = fleet.truth(namespace, &name).unwrap();
        // Each pod is scraped at an instant of its own.
        let age = Duration::from_millis(40 * u64::from(pod) + 90);
        let mut row = ReplicaMetrics::new(name, read_at - age);
        row.queue_length = Some(u64::from(truth.waiting()));
        row.running_requests = Some(u64::from(truth.running()));
        row.kv_cache_usage = Some(truth.kv_cache_usage());
        row
    });
    let mut replicas = Replicas::new(model.clone(), pods.collect(), backend.into(), read_at);
    replicas.window = Some(Duration::from_secs(30));
    let truth = fleet.model_truth(namespace, &variant.model).unwrap();
    let mut allocation = Allocation::new(
        model.clone(),
        variant.name.as_str().into(),
        variant.pods,
        backend.into(),
        replicas.oldest,
    );
    allocation.load.arrival_rate = Some(truth.requests_per_minute);
    let thresholds = FreshnessThresholds::default();
    let allocation = Reading::new(allocation, read_at, &thresholds, Source::Cache);
    let replicas = Reading::new(replicas, read_at, &thresholds, Source::Cache);
    Shown { model, replicas: Ok(replicas), allocation: Some(allocation) }
}

/// The lines as a terminal shows them: each piece of text as wide as its columns, whatever the font.
fn svg(lines: &[Line]) -> String {
    let columns = lines.iter().map(Line::width).max().unwrap_or(0).max(80);
    let (width, height) = (columns * WIDE + 2 * MARGIN, lines.len() * HIGH + 2 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\">\n<title>collector demo in a terminal of 80 columns and 24 \
         rows</title>\n<style>\n\
         text {{ font: 15px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; fill: #d5d8de }}\n\
         .strong {{ font-weight: bold; fill: #ffffff }}\n.faint {{ fill: #9096a0 }}\n\
         .good {{ fill: #6bc46d }}\n.warning {{ fill: #d9b44a }}\n.bad {{ fill: #ea6a5e }}\n</style>\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"#16181d\"/>\n"
    );
    for (row, line) in lines.iter().enumerate() {
        let (mut column, y) = (0, MARGIN + row * HIGH + 14);
        for (text, style) in &line.0 {
            let wide = text.width();
            let shown = text.trim();
            if !shown.is_empty() {
                let class = class(*style);
                let before = wide - text.trim_start().width();
                let (x, length) = (MARGIN + (column + before) * WIDE, shown.width() * WIDE);
                let shown = shown.replace('&', "&amp;").replace('<', "&lt;");
                let _ = writeln!(
                    svg,
                    "<text x=\"{x}\" y=\"{y}\" textLength=\"{length}\"{class}>{shown}</text>"
                );
            }
            column += wide;
        }
    }
    svg + "</svg>\n"
}

fn class(style: Style) -> &'static str {
    match style {
        Style::Plain => "",
        Style::Strong => " class=\"strong\"",
        Style::Faint => " class=\"faint\"",
        Style::Good => " class=\"good\"",
        Style::Warning => " class=\"warning\"",
        Style::Bad => " class=\"bad\"",
    }
}

#[test]
fn the_picture_shows_the_demo_as_it_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/demo.svg");
    let svg = svg(&frame());
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, svg).unwrap();
        return;
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(svg == written, "docs/demo.svg is out of date: run `cargo xtask picture`");
}
