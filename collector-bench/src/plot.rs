// SPDX-License-Identifier: Apache-2.0
//! Plots for the documentation, as SVG: lines over an axis, and bars side by side.
//!
//! The same figures make the same file, byte for byte, so that a plot changes in a commit only when what
//! it shows does.

use std::fmt::Display;
use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};
use plotters::chart::{ChartBuilder, SeriesLabelPosition};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::element::{Circle, PathElement, Rectangle, Text};
use plotters::prelude::{DrawingArea, IntoDrawingArea as _, IntoLogRange as _, SVGBackend};
use plotters::series::LineSeries;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{BLACK, Color as _, IntoFont as _, RGBColor, TextStyle, WHITE};

/// Eight colours that people who are colour-blind can tell apart (Okabe and Ito, 2008), the most different
/// first.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
    RGBColor(140, 140, 140),
];
const FONT: &str = "sans-serif";
const WIDTH: u32 = 900;
/// Of a line chart; of bars, it follows from how many there are.
const HEIGHT: u32 = 520;
/// Of one bar with the space around it.
const BAR: u32 = 24;
/// What a bar's name has to the left of the bars.
const NAMES: i32 = 220;

/// One axis.
#[derive(Clone, Copy)]
pub(crate) struct Axis<'a> {
    /// What it counts, and in which unit.
    pub(crate) label: &'a str,
    pub(crate) scale: Scale,
}

/// How an axis is divided.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// From zero.
    Linear,
    /// By powers of ten; what is drawn must be above zero.
    Log,
}

/// One line of a chart.
pub(crate) struct Line<'a> {
    pub(crate) name: &'a str,
    /// In the order in which they are joined.
    pub(crate) points: Vec<(f64, f64)>,
    /// What stands beside a point, as many as there are points or none.
    pub(crate) labels: Vec<String>,
}

/// Draws lines, each with its points, into the file at `path`.
///
/// # Errors
/// When there is no point, when a number is not finite (or not above zero on an axis of powers), or when
/// the file cannot be written.
pub(crate) fn lines(
    path: &Path,
    title: &str,
    x: Axis<'_>,
    y: Axis<'_>,
    lines: &[Line<'_>],
) -> Result<()> {
    let points = || lines.iter().flat_map(|line| line.points.iter());
    let (along, up) = (
        extent(x.scale, points().map(|point| point.0))?,
        extent(y.scale, points().map(|point| point.1))?,
    );
    let chart = Chart { title, x: x.label, y: y.label, lines };
    let svg = match (x.scale, y.scale) {
        (Scale::Linear, Scale::Linear) => chart.draw(along, up),
        (Scale::Linear, Scale::Log) => chart.draw(along, up.log_scale()),
        (Scale::Log, Scale::Linear) => chart.draw(along.log_scale(), up),
        (Scale::Log, Scale::Log) => chart.draw(along.log_scale(), up.log_scale()),
    }?;
    write(path, &svg)
}

/// Bars that are compared with each other, under a heading.
pub(crate) struct Group<'a> {
    pub(crate) heading: &'a str,
    pub(crate) bars: Vec<Bar<'a>>,
}

/// One bar.
pub(crate) struct Bar<'a> {
    /// What was measured; the same name has the same colour in each group.
    pub(crate) name: &'a str,
    pub(crate) value: f64,
}

/// Draws bars that lie, group under group, each with its value, into the file at `path`.
///
/// # Errors
/// As [`lines`].
pub(crate) fn bars(
    path: &Path,
    title: &str,
    unit: &str,
    scale: Scale,
    groups: &[Group<'_>],
) -> Result<()> {
    let values = groups.iter().flat_map(|group| &group.bars).map(|bar| bar.value);
    let along = extent(scale, values)?;
    let svg = match scale {
        Scale::Linear => draw_bars(title, unit, along.start, along, groups),
        Scale::Log => draw_bars(title, unit, along.start, along.log_scale(), groups),
    }?;
    write(path, &svg)
}

struct Chart<'a> {
    title: &'a str,
    x: &'a str,
    y: &'a str,
    lines: &'a [Line<'a>],
}

impl Chart<'_> {
    fn draw<X, Y>(&self, x: X, y: Y) -> Result<String>
    where
        X: AsRangedCoord<Value = f64, CoordDescType: ValueFormatter<f64>>,
        Y: AsRangedCoord<Value = f64, CoordDescType: ValueFormatter<f64>>,
    {
        let mut svg = String::new();
        {
            let area = sheet(&mut svg, HEIGHT)?;
            let mut chart = ChartBuilder::on(&area)
                .caption(self.title, (FONT, 20))
                .margin(16)
                .x_label_area_size(48)
                .y_label_area_size(72)
                .build_cartesian_2d(x, y)
                .map_err(drawing)?;
            chart
                .configure_mesh()
                .light_line_style(WHITE)
                .x_desc(self.x)
                .y_desc(self.y)
                .label_style((FONT, 14))
                .x_label_formatter(&|value| number(*value))
                .y_label_formatter(&|value| number(*value))
                .draw()
                .map_err(drawing)?;
            for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
                let series = LineSeries::new(line.points.iter().copied(), colour.stroke_width(2));
                chart.draw_series(series).map_err(drawing)?.label(line.name).legend(
                    move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)),
                );
                let dots = line.points.iter().map(|point| Circle::new(*point, 4, colour.filled()));
                chart.draw_series(dots).map_err(drawing)?;
                let style = text(13, HPos::Left, VPos::Bottom);
                for (point, label) in line.points.iter().zip(&line.labels) {
                    let (x, y) = chart.backend_coord(point);
                    area.draw(&Text::new(label.as_str(), (x + 6, y - 4), style.clone()))
                        .map_err(drawing)?;
                }
            }
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperRight)
                .background_style(WHITE.mix(0.8))
                .border_style(BLACK.mix(0.2))
                .label_font((FONT, 14))
                .draw()
                .map_err(drawing)?;
            area.present().map_err(drawing)?;
        }
        Ok(svg)
    }
}

fn draw_bars<X>(title: &str, unit: &str, from: f64, x: X, groups: &[Group<'_>]) -> Result<String>
where
    X: AsRangedCoord<Value = f64, CoordDescType: ValueFormatter<f64>>,
{
    let rows: usize = groups.iter().map(|group| group.bars.len() + 1).sum();
    let rows = u32::try_from(rows).context("too many bars")?;
    let mut svg = String::new();
    {
        let area = sheet(&mut svg, 110 + BAR * rows)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, (FONT, 20))
            .margin(16)
            .margin_right(110)
            .x_label_area_size(48)
            .margin_left(NAMES)
            // Downwards.
            .build_cartesian_2d(x, f64::from(rows)..0.0)
            .map_err(drawing)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .light_line_style(WHITE)
            .x_desc(unit)
            .label_style((FONT, 14))
            .x_label_formatter(&|value| number(*value))
            .draw()
            .map_err(drawing)?;
        let mut names: Vec<&str> = Vec::new();
        let mut top = 0.0;
        for group in groups {
            let (x, y) = chart.backend_coord(&(from, top + 0.55));
            let heading =
                TextStyle::from((FONT, 15).into_font()).pos(Pos::new(HPos::Right, VPos::Center));
            area.draw(&Text::new(group.heading, (x - 8, y), heading)).map_err(drawing)?;
            top += 1.0;
            for bar in &group.bars {
                let place = names.iter().position(|name| *name == bar.name).unwrap_or_else(|| {
                    names.push(bar.name);
                    names.len() - 1
                });
                let colour = COLOURS[place % COLOURS.len()];
                let shape =
                    Rectangle::new([(from, top + 0.12), (bar.value, top + 0.88)], colour.filled());
                chart.draw_series([shape]).map_err(drawing)?;
                let (x, y) = chart.backend_coord(&(from, top + 0.5));
                area.draw(&Text::new(bar.name, (x - 8, y), text(13, HPos::Right, VPos::Center)))
                    .map_err(drawing)?;
                let (x, y) = chart.backend_coord(&(bar.value, top + 0.5));
                let value = format!("{} {unit}", number(bar.value));
                area.draw(&Text::new(value, (x + 6, y), text(13, HPos::Left, VPos::Center)))
                    .map_err(drawing)?;
                top += 1.0;
            }
        }
        area.present().map_err(drawing)?;
    }
    Ok(svg)
}

fn sheet(svg: &mut String, height: u32) -> Result<DrawingArea<SVGBackend<'_>, Shift>> {
    let area = SVGBackend::with_string(svg, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE).map_err(drawing)?;
    Ok(area)
}

fn text<'a>(size: u32, across: HPos, up: VPos) -> TextStyle<'a> {
    TextStyle::from((FONT, size).into_font()).pos(Pos::new(across, up))
}

/// What an axis must reach: all values, and zero or the whole powers of ten around them.
fn extent(scale: Scale, values: impl Iterator<Item = f64>) -> Result<Range<f64>> {
    let (mut least, mut greatest) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values {
        ensure!(value.is_finite(), "a plot cannot show {value}");
        least = least.min(value);
        greatest = greatest.max(value);
    }
    ensure!(least <= greatest, "a plot without a value");
    match scale {
        Scale::Linear => {
            let (from, to) = (least.min(0.0), greatest.max(0.0));
            // Values that are all zero still need an axis.
            let room = if to > from { (to - from) * 0.08 } else { 1.0 };
            Ok(from..to + room)
        }
        Scale::Log => {
            ensure!(least > 0.0, "an axis of powers cannot show {least}");
            let from = 10_f64.powf(least.log10().floor());
            let to = 10_f64.powf(greatest.log10().ceil());
            Ok(from..if to > from { to } else { from * 10.0 })
        }
    }
}

/// Short, and never `1e3` or `0.30000000000000004`.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 | 100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    let shown = format!("{value:.decimals$}");
    if shown.contains('.') {
        shown.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        shown
    }
}

fn write(path: &Path, svg: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))
}

/// The errors of the drawing library borrow what they were drawn on.
fn drawing(error: impl Display) -> anyhow::Error {
    anyhow!("cannot draw: {error}")
}

#[cfg(test)]
mod tests {
    use tempfile::tempdir;

    use super::*;

    fn axis(scale: Scale) -> Axis<'static> {
        Axis { label: "seconds", scale }
    }

    fn line(points: &[(f64, f64)]) -> Line<'static> {
        Line { name: "fixed ttl", points: points.to_vec(), labels: vec!["15s".to_owned()] }
    }

    #[test]
    fn a_chart_names_its_axes_its_lines_and_its_points() {
        let folder = tempdir().unwrap();
        for scale in [Scale::Linear, Scale::Log] {
            let path = folder.path().join("plots/chart.svg");
            lines(&path, "Error", axis(scale), axis(scale), &[line(&[(1.0, 2.0), (30.0, 0.5)])])
                .unwrap();

            let svg = fs::read_to_string(&path).unwrap();
            for shown in ["Error", "seconds", "fixed ttl", "15s"] {
                assert!(svg.contains(shown), "{shown}: {svg}");
            }
        }
    }

    #[test]
    fn bars_say_what_they_measure_and_how_much() {
        let folder = tempdir().unwrap();
        for scale in [Scale::Linear, Scale::Log] {
            let path = folder.path().join("bars.svg");
            let bars = vec![Bar { name: "moka", value: 244.0 }, Bar { name: "ours", value: 26.5 }];
            super::bars(&path, "A hit", "ns", scale, &[Group { heading: "hot", bars }]).unwrap();

            let svg = fs::read_to_string(&path).unwrap();
            for shown in ["A hit", "hot", "moka", "244 ns", "ours", "26.5 ns"] {
                assert!(svg.contains(shown), "{shown}: {svg}");
            }
        }
    }

    #[test]
    fn what_cannot_be_drawn_is_refused() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("chart.svg");
        let draw = |scale, points: &[(f64, f64)]| {
            lines(&path, "Error", axis(scale), axis(Scale::Linear), &[line(points)])
        };
        assert!(draw(Scale::Linear, &[]).is_err());
        assert!(draw(Scale::Linear, &[(f64::NAN, 1.0)]).is_err());
        assert!(draw(Scale::Log, &[(0.0, 1.0)]).is_err());
        assert!(!path.exists());
    }

    #[test]
    fn numbers_are_short() {
        for (value, shown) in
            [(0.0, "0"), (1000.0, "1000"), (0.1 + 0.2, "0.3"), (26.54, "26.5"), (-2.5, "-2.5")]
        {
            assert_eq!(number(value), shown);
        }
    }
}
