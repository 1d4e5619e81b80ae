//! Draws the screen of `top`.

use collector_core::{CollectError, Freshness, Reading, ReplicaMetrics, Replicas};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row as TableRow, Table, TableState, Wrap};

use super::state::{Row, State};
use crate::commands::totals::{mean_usage, total_queue, total_running};
use crate::output::{ErrorDocument, Signs, UNKNOWN, printable, shortened};

/// The keys, as the help shows them.
const KEYS: [(&str, &str); 9] = [
    ("up, down, j, k", "mark another row"),
    ("Enter", "show the pods of the marked model"),
    ("Esc", "back to the models; end the filter"),
    ("/", "show only names with this text"),
    ("s", "order by another column"),
    ("r", "reverse the order"),
    ("p, space", "pause, and go on"),
    ("?", "this help"),
    ("q, Ctrl-C", "end"),
];

/// A column: its title, its width, and the least width of the screen that it is shown at.
type Column = (&'static str, u16, u16);

/// Columns behind the name of a model.
const OF_MODEL: [Column; 7] = [
    ("NAMESPACE", 14, 100),
    ("STATUS", 11, 40),
    ("AGE", 7, 50),
    ("PODS", 5, 60),
    ("QUEUE", 6, 0),
    ("KV", 6, 30),
    ("RUNNING", 7, 60),
];

/// Columns behind the name of a pod.
const OF_POD: [Column; 6] = [
    ("VARIANT", 18, 80),
    ("STATE", 8, 60),
    ("AGE", 7, 40),
    ("QUEUE", 6, 0),
    ("KV", 6, 30),
    ("RUNNING", 7, 40),
];

/// Draws the state. It marks a row that exists.
pub(super) fn draw(frame: &mut Frame<'_>, state: &mut State, signs: &Signs, has_colours: bool) {
    state.mark();
    let style = |color| if has_colours { Style::new().fg(color) } else { Style::new() };
    let [head, body, detail, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(if frame.area().height > 8 { 2 } else { 0 }),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let wide = usize::from(frame.area().width);
    let line = |text: String, style| {
        Paragraph::new(Line::styled(shortened(&text, wide, signs.ellipsis), style))
    };
    let bold = Style::new().add_modifier(Modifier::BOLD);
    frame.render_widget(line(title(state), bold), head);
    frame.render_widget(line(footer(state), Style::new().add_modifier(Modifier::DIM)), foot);
    if state.help {
        let keys = KEYS.iter().map(|(key, what)| Line::raw(format!("{key:<15} {what}")));
        frame.render_widget(Paragraph::new(keys.collect::<Vec<_>>()), body);
        return;
    }
    let about = match state.opened() {
        Some(row) => {
            let pods = state.pods(row);
            let about = about_model(row);
            let cells = |pod: &&ReplicaMetrics| {
                let reading = row.reading.as_ref().ok();
                let cells = pod_cells(reading, pod).map(Cell::from);
                (printable(pod.pod_name.as_str()).to_string(), cells.to_vec())
            };
            let rows = pods.iter().map(cells).collect();
            table(frame, body, "POD", &OF_POD, rows, state.selected, signs);
            about
        }
        None => {
            let models = state.models();
            let cells = |row: &&Row| {
                let [namespace, status, rest @ ..] = model_cells(row);
                let color = color_of(&row.reading);
                let mut cells = vec![Cell::from(namespace), Cell::from(status).style(style(color))];
                cells.extend(rest.map(Cell::from));
                (printable(row.model.model.as_str()).to_string(), cells)
            };
            let rows = models.iter().map(cells).collect();
            table(frame, body, "MODEL", &OF_MODEL, rows, state.selected, signs);
            models.get(state.selected).map_or_else(String::new, |row| about_model(row))
        }
    };
    let about = state.read.problem.as_ref().map_or(about, |problem| printable(problem).to_string());
    frame.render_widget(Paragraph::new(about).wrap(Wrap { trim: true }), detail);
}

/// A table of the columns that fit, with a mark on a row.
fn table(
    frame: &mut Frame<'_>,
    area: Rect,
    title: &'static str,
    columns: &[Column],
    rows: Vec<(String, Vec<Cell<'_>>)>,
    selected: usize,
    signs: &Signs,
) {
    let is_shown: Vec<bool> = columns.iter().map(|(_, _, least)| area.width >= *least).collect();
    let shown = || columns.iter().zip(&is_shown).filter(|(_, shown)| **shown).map(|(it, _)| it);
    let taken: u16 = shown().map(|(_, width, _)| width + 1).sum();
    let room = area.width.saturating_sub(taken);
    let header = [title].into_iter().chain(shown().map(|(title, _, _)| *title));
    let widths = [Constraint::Length(room)].into_iter();
    let widths = widths.chain(shown().map(|(_, width, _)| Constraint::Length(*width)));
    let rows = rows.into_iter().map(|(name, cells)| {
        let name = shortened(&name, usize::from(room), signs.ellipsis);
        let cells = cells.into_iter().zip(&is_shown).filter(|(_, shown)| **shown);
        TableRow::new([Cell::from(name)].into_iter().chain(cells.map(|(cell, _)| cell)))
    });
    let faint = Style::new().add_modifier(Modifier::DIM);
    let table = Table::new(rows, widths)
        .header(TableRow::new(header).style(faint))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut marked = TableState::new().with_selected(Some(selected));
    frame.render_stateful_widget(table, area, &mut marked);
}

fn title(state: &State) -> String {
    let mut title = String::from("collector top: ");
    match &state.open {
        Some(model) => title.push_str(&printable(&model.to_string()).to_string()),
        None if !state.read.any => title.push_str("reading"),
        None => {
            let (shown, all) = (state.models().len(), state.read.rows.len());
            title.push_str(&collector_core::text::counted(all, "model", "models"));
            if shown < all {
                title.push_str(&format!(", {shown} shown"));
            }
        }
    }
    title.push_str(&format!(", by {}", state.order.title()));
    if state.reversed {
        title.push_str(" reversed");
    }
    if state.paused {
        title.push_str(", PAUSED");
    }
    title
}

fn footer(state: &State) -> String {
    if state.typing || !state.filter.is_empty() {
        let cursor = if state.typing { "_" } else { "  (Esc shows all)" };
        return format!("/{}{cursor}", printable(&state.filter));
    }
    "q end  ? keys  Enter pods  Esc back  / filter  s order  p pause".to_owned()
}

/// Why a model has no reading, or what is to be known about its reading.
fn about_model(row: &Row) -> String {
    match &row.reading {
        Err(error) => printable(ErrorDocument::of(error).message()).to_string(),
        Ok(reading) => {
            let value = reading.value();
            let mut text = format!(
                "{}: {}, {:.1}s old, from {} ({})",
                printable(&value.model.to_string()),
                reading.freshness(),
                reading.age().as_secs_f64(),
                printable(value.backend.as_str()),
                reading.source()
            );
            if value.partial {
                text.push_str(", partial: some pods may be absent");
            }
            for warning in &value.warnings {
                text.push_str(&format!("; {}", printable(warning.as_ref())));
            }
            text
        }
    }
}

fn model_cells(row: &Row) -> [String; 7] {
    let replicas = row.replicas();
    let is_read = row.reading.is_ok();
    let (status, age, pods) = match &row.reading {
        Ok(reading) => {
            let more = if reading.value().partial { "+" } else { "" };
            let age = format!("{:.1}s", reading.age().as_secs_f64());
            (reading.freshness().as_str(), age, format!("{}{more}", replicas.len()))
        }
        Err(error) => (word(error), UNKNOWN.to_owned(), UNKNOWN.to_owned()),
    };
    let known = |count: Option<u64>| whole(count.filter(|_| is_read));
    [
        printable(row.model.namespace.as_str()).to_string(),
        status.to_owned(),
        age,
        pods,
        known(total_queue(replicas)),
        percent(mean_usage(replicas)),
        known(total_running(replicas)),
    ]
}

fn pod_cells(reading: Option<&Reading<Replicas>>, pod: &ReplicaMetrics) -> [String; 6] {
    let age = reading.map(|reading| reading.age_of(pod.sampled_at).as_secs_f64());
    let variant = pod.variant_name.as_ref();
    [
        variant.map_or_else(|| UNKNOWN.to_owned(), |name| printable(name.as_str()).to_string()),
        pod.state.as_str().to_owned(),
        age.map_or_else(|| UNKNOWN.to_owned(), |age| format!("{age:.1}s")),
        whole(pod.queue_length),
        percent(pod.kv_cache_usage),
        whole(pod.running_requests),
    ]
}

/// Missing, too old and failed are different.
fn word(error: &CollectError) -> &'static str {
    match error {
        CollectError::Missing { .. } => "missing",
        CollectError::Unavailable { .. } => "unavailable",
        CollectError::Pending { .. } => "pending",
        _ => "error",
    }
}

fn color_of(reading: &Result<Reading<Replicas>, CollectError>) -> Color {
    match reading.as_ref().map(Reading::freshness) {
        Ok(Freshness::Fresh) => Color::Green,
        Ok(Freshness::Stale) => Color::Yellow,
        Ok(Freshness::Unavailable) | Err(_) => Color::Red,
    }
}

fn whole(count: Option<u64>) -> String {
    count.map_or_else(|| UNKNOWN.to_owned(), |count| count.to_string())
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| UNKNOWN.to_owned(), |share| format!("{:.0}%", share * 100.0))
}

#[cfg(test)]
mod tests;
