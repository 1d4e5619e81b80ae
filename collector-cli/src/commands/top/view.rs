// SPDX-License-Identifier: Apache-2.0
//! Draws the screen of `top`.

use std::fmt::Write as _;
use std::time::Duration;

use collector_core::text::counted;
use collector_core::{CollectError, Freshness, Reading, ReplicaMetrics, Replicas, Tick};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{
    Cell, HighlightSpacing, Paragraph, Row as TableRow, Table, TableState, Wrap,
};

use super::fields::{self, FieldRow};
use super::state::{Mode, Row, State};
use crate::commands::totals::{mean_usage, total_queue, total_running};
use crate::output::cells::{UNKNOWN, age, known, name, optional, whole, whole_percent};
use crate::output::{ErrorDocument, Signs, printable, shortened, status_without_reading};

/// The keys, as the help shows them.
const KEYS: [(&str, &str); 9] = [
    ("up, down, j, k", "mark another row"),
    ("Enter", "show the pods of the marked model, the fields of the marked pod"),
    ("Esc", "one step back; end the filter"),
    ("/", "show only names with this text"),
    ("s", "order by another column"),
    ("r", "reverse the order"),
    ("p, space", "pause, and go on"),
    ("?", "this help"),
    ("q, Ctrl-C", "end"),
];

/// Values that are older than this on the screen have their age in its first line: a server is waited for.
const LATE: Duration = Duration::from_secs(3);

/// A column: its title, its width, and the least width of the screen that it is shown at.
struct Column(&'static str, u16, u16);

/// The width of the column that takes what the others leave.
const REST: u16 = 0;

/// The mark of a row.
const MARK: &str = "> ";

const OF_MODELS: [Column; 8] = [
    Column("MODEL", REST, 0),
    Column("NAMESPACE", 14, 100),
    Column("STATUS", 11, 40),
    Column("AGE", 7, 50),
    Column("PODS", 5, 60),
    Column("QUEUE", 6, 0),
    Column("KV", 6, 30),
    Column("RUNNING", 7, 60),
];

/// The column of [`OF_MODELS`] that is in colours too.
const STATUS: usize = 2;

const OF_PODS: [Column; 7] = [
    Column("POD", REST, 0),
    Column("VARIANT", 18, 80),
    Column("STATE", 8, 60),
    Column("AGE", 7, 40),
    Column("QUEUE", 6, 0),
    Column("KV", 6, 30),
    Column("RUNNING", 7, 40),
];

const OF_FIELDS: [Column; 5] = [
    Column("FIELD", 21, 0),
    Column("VALUE", 9, 0),
    Column("FROM", 10, 45),
    Column("AGE", 7, 55),
    Column("SERIES", REST, 70),
];

/// Draws the state. It marks a row that exists.
pub(super) fn draw(
    frame: &mut Frame<'_>,
    state: &mut State,
    now: Tick,
    signs: &Signs,
    has_colours: bool,
) {
    state.mark();
    let height = frame.area().height;
    let detail = match height {
        ..=8 => 0,
        // Queries are long.
        _ if state.pod.is_some() => height / 3,
        _ => 2,
    };
    let [head, body, detail, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(detail),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let wide = usize::from(frame.area().width);
    let line = |text: String, style| {
        Paragraph::new(Line::styled(shortened(&text, wide, signs.ellipsis), style))
    };
    let bold = Style::new().add_modifier(Modifier::BOLD);
    frame.render_widget(line(title(state, now), bold), head);
    frame.render_widget(line(footer(state), Style::new().add_modifier(Modifier::DIM)), foot);
    if state.mode == Mode::Help {
        let keys = KEYS.iter().map(|(key, what)| Line::raw(format!("{key:<15} {what}")));
        frame.render_widget(Paragraph::new(keys.collect::<Vec<_>>()), body);
        return;
    }
    let plain = |cells: &[String]| {
        cells.iter().map(|cell| (cell.clone(), Style::new())).collect::<Vec<_>>()
    };
    let (columns, rows, about) = match (state.opened(), &state.pod) {
        (Some(row), Some(_)) => {
            let fields = opened_fields(state, row);
            let about = fields.get(state.selected).map(|field| field.about.clone());
            let about = about.unwrap_or_else(|| "the last reading has no such pod".to_owned());
            let rows = fields.iter().map(|field| plain(&field.cells)).collect();
            (&OF_FIELDS[..], rows, about)
        }
        (Some(row), None) => {
            let pods = state.pods(row);
            let rows = pods.iter().map(|pod| plain(&pod_cells(row.reading.as_ref().ok(), pod)));
            (&OF_PODS[..], rows.collect(), about_model(row))
        }
        (None, _) => {
            let models = state.models();
            let cells = |row: &&Row| {
                let mut cells = plain(&model_cells(row));
                if has_colours {
                    cells[STATUS].1 = Style::new().fg(color_of(&row.reading));
                }
                cells
            };
            let about = models.get(state.selected).map_or_else(String::new, |row| about_model(row));
            (&OF_MODELS[..], models.iter().map(cells).collect(), about)
        }
    };
    table(frame, body, columns, rows, state.selected, signs);
    let about = state.read.problem.as_ref().map_or(about, |problem| printable(problem).to_string());
    frame.render_widget(Paragraph::new(about).wrap(Wrap { trim: true }), detail);
}

/// The fields of the pod that is shown, if it is still there.
fn opened_fields(state: &State, row: &Row) -> Vec<FieldRow> {
    let pod = state.pod.as_ref().and_then(|name| row.pod(name));
    let (Some(pod), Ok(reading)) = (pod, &row.reading) else { return Vec::new() };
    let traced = state.traced.as_ref().filter(|traced| traced.model == row.model);
    fields::fields(reading, pod, traced.map(|traced| &traced.fetches))
}

/// A table of the columns that fit, with a mark on a row.
fn table(
    frame: &mut Frame<'_>,
    area: Rect,
    columns: &[Column],
    rows: Vec<Vec<(String, Style)>>,
    selected: usize,
    signs: &Signs,
) {
    let is_shown = |Column(_, _, least): &Column| area.width >= *least;
    let shown: Vec<usize> = (0..columns.len()).filter(|at| is_shown(&columns[*at])).collect();
    let taken: usize = shown.iter().map(|at| usize::from(columns[*at].1) + 1).sum();
    let rest = (usize::from(area.width) + 1).saturating_sub(taken + MARK.len());
    let width = |at: usize| match columns[at].1 {
        REST => rest,
        width => usize::from(width),
    };
    let rows = rows.into_iter().map(|cells| {
        TableRow::new(shown.iter().map(|at| {
            let (text, style) = &cells[*at];
            Cell::from(shortened(text, width(*at), signs.ellipsis)).style(*style)
        }))
    });
    let header = TableRow::new(shown.iter().map(|at| columns[*at].0));
    let widths = shown.iter().map(|at| match columns[*at].1 {
        REST => Constraint::Fill(1),
        width => Constraint::Length(width),
    });
    let table = Table::new(rows, widths)
        .header(header.style(Style::new().add_modifier(Modifier::DIM)))
        .highlight_symbol(MARK)
        .highlight_spacing(HighlightSpacing::Always)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut marked = TableState::new().with_selected(Some(selected));
    frame.render_stateful_widget(table, area, &mut marked);
}

fn title(state: &State, now: Tick) -> String {
    let age = state.read.at.map(|at| at.age(now));
    let paused = if state.paused { " PAUSED" } else { "" };
    let late = age.filter(|age| state.paused || *age >= LATE);
    let late = late.map_or_else(String::new, |age| format!(", values of {}s ago", age.as_secs()));
    let what = match &state.model {
        Some(model) => printable(&model.to_string()).to_string(),
        None if state.read.at.is_none() => "reading".to_owned(),
        None => {
            let (shown, all) = (state.models().len(), state.read.rows.len());
            let shown = if shown < all { format!(", {shown} shown") } else { String::new() };
            counted(all, "model", "models") + &shown
        }
    };
    let order = match &state.pod {
        Some(pod) => format!("pod {}", printable(pod.as_str())),
        None if state.reversed => format!("by {} reversed", state.order.title()),
        None => format!("by {}", state.order.title()),
    };
    format!("collector top{paused}{late}: {what}, {order}")
}

fn footer(state: &State) -> String {
    let filter = printable(state.filter());
    match state.mode {
        Mode::Filter => format!("/{filter}_"),
        _ if !state.filter().is_empty() => format!("/{filter}  (Esc shows all)"),
        _ => "q end  ? keys  Enter open  Esc back  / filter  s order  p pause".to_owned(),
    }
}

/// Why a model has no reading, or what is to be known about its reading.
fn about_model(row: &Row) -> String {
    match &row.reading {
        Err(error) => printable(ErrorDocument::of(error).message()).to_string(),
        Ok(reading) => {
            let value = reading.value();
            let mut text = format!(
                "{}: {}, {} old, from {} ({})",
                printable(&value.model.to_string()),
                reading.freshness(),
                age(reading.age()),
                printable(value.backend.as_str()),
                reading.source()
            );
            if value.partial {
                text.push_str(", partial: some pods may be absent");
            }
            if let Some(supplied) = value.supplied(None) {
                let _ = write!(text, "; the cluster has {supplied}");
            }
            let warnings = value.warnings.iter();
            text.extend(warnings.map(|warning| format!("; {}", printable(warning))));
            text
        }
    }
}

fn model_cells(row: &Row) -> [String; 8] {
    let replicas = row.replicas();
    // A sum of some pods is marked wherever it is shown: a narrow terminal has no column of pods.
    let is_partial = row.reading.as_ref().is_ok_and(|reading| reading.value().partial);
    let more = if is_partial { "+" } else { "" };
    let sum = |count: Option<u64>| known(count, |count| format!("{count}{more}"));
    let (status, known_age, pods) = match &row.reading {
        Ok(reading) => {
            let pods = format!("{}{more}", replicas.len());
            (reading.freshness().as_str(), age(reading.age()), pods)
        }
        Err(error) => (status_without_reading(error), UNKNOWN.to_owned(), UNKNOWN.to_owned()),
    };
    [
        name(&row.model.model),
        name(&row.model.namespace),
        status.to_owned(),
        known_age,
        pods,
        sum(total_queue(replicas)),
        known(mean_usage(replicas), whole_percent),
        sum(total_running(replicas)),
    ]
}

fn pod_cells(reading: Option<&Reading<Replicas>>, pod: &ReplicaMetrics) -> [String; 7] {
    [
        name(&pod.pod_name),
        optional(pod.variant_name.as_ref()),
        pod.state.as_str().to_owned(),
        known(reading, |reading| age(reading.age_of(pod.sampled_at))),
        whole(pod.queue_length),
        known(pod.kv_cache_usage, whole_percent),
        whole(pod.running_requests),
    ]
}

fn color_of(reading: &Result<Reading<Replicas>, CollectError>) -> Color {
    match reading.as_ref().map(Reading::freshness) {
        Ok(Freshness::Fresh) => Color::Green,
        Ok(Freshness::Stale) => Color::Yellow,
        Ok(Freshness::Unavailable) | Err(_) => Color::Red,
    }
}

#[cfg(test)]
mod tests;
