// SPDX-License-Identifier: Apache-2.0
//! The demo's table: a row a model and a row a pod, in as many columns as fit.

use std::cmp::Ordering;
use std::time::Duration;

use collector_core::{
    Allocation, Freshness, Reading, ReplicaMetrics, ReplicaState, Replicas, duration,
};
use unicode_width::UnicodeWidthStr as _;

use super::history::{History, SAMPLES, Trends};
use super::line::{Line, Style};
use super::shown::Shown;
use crate::commands::totals::{mean_usage, total_queue, total_running};
use crate::output::cells::{self, age, known, name, whole_percent};
use crate::output::{ErrorDocument, Signs, printable, shortened};

/// Columns of a name that the most important figures leave it, and more than which it never gets while
/// a figure could be shown.
const SHORT_NAME: usize = 12;
const LONG_NAME: usize = 36;
/// Columns of a trend that is worth showing.
const SHORT_TREND: usize = 8;

/// A column after the name.
struct Column {
    title: &'static str,
    /// Its importance, 0 the greatest.
    rank: usize,
    kind: Kind,
    /// What the title stands for; `{peak}` becomes the window.
    explanation: &'static str,
}

enum Kind {
    /// A figure of a model's row, and of a pod's.
    Figure(fn(&ModelCells<'_>) -> Cell, fn(&PodCells<'_>) -> Cell),
    /// The last values of the queue.
    QueueTrend,
    /// The last values of the KV cache.
    KvTrend,
}

/// A table of columns: what each title stands for, the title, its rank and its kind.
macro_rules! columns {
    ($($(#[doc = $explanation:literal])? $title:literal, $rank:literal: $kind:expr;)*) => {
        [$(Column {
            title: $title,
            rank: $rank,
            kind: $kind,
            explanation: concat!($($explanation)?).trim_ascii(),
        }),*]
    };
}

/// A cell's text and style.
type Cell = (String, Style);

struct ModelCells<'a> {
    shown: &'a Shown,
    reading: &'a Reading<Replicas>,
}

struct PodCells<'a> {
    reading: &'a Reading<Replicas>,
    replica: &'a ReplicaMetrics,
}

/// All columns, in the order in which they stand.
static COLUMNS: [Column; 14] = columns! {
    "NAMESPACE", 11: Kind::Figure(
        |model| plain(name(&model.shown.model.namespace)),
        |_| blank(),
    );
    /// STATUS: whether a reading is recent enough to decide from.
    "STATUS", 2: Kind::Figure(|model| status(model.reading.freshness()), |pod| state(pod.replica));
    /// AGE: time since its oldest value was sampled.
    "AGE", 3: Kind::Figure(
        |model| plain(age(model.reading.age())),
        |pod| plain(age(pod.reading.age_of(pod.replica.sampled_at))),
    );
    /// PODS: live replicas.
    "PODS", 5: Kind::Figure(
        |model| {
            let more = if model.reading.value().partial { "+" } else { "" };
            plain(format!("{}{more}", model.replicas().len()))
        },
        |_| blank(),
    );
    /// QUEUE: waiting requests, {peak}.
    "QUEUE", 0: Kind::Figure(
        |model| whole(total_queue(model.replicas())),
        |pod| whole(pod.replica.queue_length),
    );
    /// TREND: QUEUE over time.
    "TREND", 6: Kind::QueueTrend;
    /// KV: share of the KV cache in use, likewise; of a model the mean.
    "KV", 1: Kind::Figure(
        |model| percent(mean_usage(model.replicas())),
        |pod| percent(pod.replica.kv_cache_usage),
    );
    /// KV TREND: KV over time.
    "KV TREND", 10: Kind::KvTrend;
    /// RUNNING: requests being answered.
    "RUNNING", 7: Kind::Figure(
        |model| whole(total_running(model.replicas())),
        |pod| whole(pod.replica.running_requests),
    );
    /// REQ/MIN: requests that arrive in a minute.
    "REQ/MIN", 4: Kind::Figure(|model| rate(model, |of| of.load.arrival_rate), |_| blank());
    /// TTFT: mean ms to the first token.
    "TTFT", 8: Kind::Figure(|model| rate(model, |of| of.ttft_average), |_| blank());
    /// ITL: mean ms between tokens.
    "ITL", 9: Kind::Figure(|model| rate(model, |of| of.itl_average), |_| blank());
    /// IN: mean tokens of a prompt.
    "IN", 12: Kind::Figure(|model| rate(model, |of| of.load.avg_input_tokens), |_| blank());
    /// OUT: mean tokens of an answer.
    "OUT", 13: Kind::Figure(|model| rate(model, |of| of.load.avg_output_tokens), |_| blank());
};

/// Names are shortened to make room for this many columns, the most important ones.
const MOST_IMPORTANT: usize = 5;

/// A column that is shown.
struct Chosen {
    column: &'static Column,
    width: usize,
}

/// The rows of a fleet.
pub(super) struct Table<'a> {
    models: Vec<Group<'a>>,
    history: &'a History,
    signs: &'a Signs,
    columns: Vec<Chosen>,
    name: usize,
    gap: usize,
    /// The width of the terminal.
    available: usize,
}

/// A model and its pods, the worst first.
struct Group<'a> {
    shown: &'a Shown,
    worst_first: Vec<&'a ReplicaMetrics>,
}

impl ModelCells<'_> {
    fn replicas(&self) -> &[ReplicaMetrics] {
        &self.reading.value().replicas
    }
}

impl Column {
    /// Whether its cells stand at the left of it: words and pictures do, figures do not.
    fn is_left(&self) -> bool {
        self.is_trend() || ["NAMESPACE", "STATUS"].contains(&self.title)
    }

    fn is_trend(&self) -> bool {
        matches!(self.kind, Kind::QueueTrend | Kind::KvTrend)
    }
}

impl<'a> Group<'a> {
    fn of(shown: &'a Shown) -> Self {
        let replicas = shown.replicas.as_ref().map(|reading| reading.value().replicas.as_slice());
        let mut worst_first: Vec<&ReplicaMetrics> = replicas.unwrap_or_default().iter().collect();
        // Unknown is less than 0 here, and pods that are equally bad stay in the order of their names.
        worst_first.sort_by(|a, b| {
            let usage = b.kv_cache_usage.partial_cmp(&a.kv_cache_usage);
            b.queue_length.cmp(&a.queue_length).then(usage.unwrap_or(Ordering::Equal))
        });
        Self { shown, worst_first }
    }

    fn name(&self) -> String {
        printable(self.shown.model.model.as_str()).to_string()
    }

    /// What the model's figures are made of; `None` when there is no reading.
    fn cells(&self) -> Option<ModelCells<'a>> {
        let reading = self.shown.replicas.as_ref().ok()?;
        Some(ModelCells { shown: self.shown, reading })
    }
}

impl<'a> Table<'a> {
    /// The table of these models in this many columns of the terminal.
    pub(super) fn new(
        models: &'a [Shown],
        history: &'a History,
        signs: &'a Signs,
        available: usize,
    ) -> Self {
        let models = models.iter().map(Group::of).collect();
        let mut table =
            Self { models, history, signs, columns: Vec::new(), name: 0, gap: 1, available };
        table.choose();
        table
    }

    /// Chooses columns by importance while there is room, and how wide each one is.
    fn choose(&mut self) {
        let wanted = self.names().map(|name| name.width()).max().unwrap_or(0);
        let mut left = self.available;
        let mut chosen = Vec::new();
        let mut by_rank: Vec<(usize, &'static Column)> = COLUMNS.iter().enumerate().collect();
        by_rank.sort_by_key(|(_, column)| column.rank);
        for (place, column) in by_rank {
            let width = self.width(column);
            let name = if column.rank < MOST_IMPORTANT { SHORT_NAME } else { LONG_NAME };
            if left < wanted.min(name) + 1 + width {
                break;
            }
            left -= 1 + width;
            chosen.push((place, Chosen { column, width }));
        }
        self.name = wanted.min(left);
        left -= self.name;
        chosen.sort_by_key(|(place, _)| *place);
        self.columns = chosen.into_iter().map(|(_, chosen)| chosen).collect();
        if left >= self.columns.len() {
            self.gap = 2;
            left -= self.columns.len();
        }
        for Chosen { column, width } in &mut self.columns {
            if column.is_trend() {
                let more = left.min(SAMPLES - *width);
                *width += more;
                left -= more;
            }
        }
    }

    fn names(&self) -> impl Iterator<Item = String> {
        self.models.iter().flat_map(|group| {
            let pods = group.worst_first.iter().map(|replica| pod_name(replica));
            std::iter::once(group.name()).chain(pods)
        })
    }

    /// The columns that a figure needs; of a trend, the fewest.
    fn width(&self, column: &Column) -> usize {
        let Kind::Figure(of_model, of_pod) = column.kind else {
            return SHORT_TREND.max(column.title.len());
        };
        let cells = self.models.iter().flat_map(|group| {
            let model = group.cells().map(|cells| of_model(&cells));
            let pods = group.worst_first.iter().filter_map(move |replica| {
                let reading = group.shown.replicas.as_ref().ok()?;
                Some(of_pod(&PodCells { reading, replica }))
            });
            model.into_iter().chain(pods)
        });
        cells.map(|(text, _)| text.width()).max().unwrap_or(0).max(column.title.len())
    }

    /// The titles.
    pub(super) fn header(&self) -> Line {
        let titles = self.columns.iter().map(|chosen| plain(chosen.column.title.to_owned()));
        let mut line = self.row("MODEL, WORST PODS", titles);
        for (_, style) in &mut line.0 {
            *style = Style::Faint;
        }
        line
    }

    /// The row of a model: its figures, or why there are none.
    pub(super) fn model(&self, index: usize) -> Line {
        let group = &self.models[index];
        let Some(cells) = group.cells() else {
            let mut line = self.row(&group.name(), std::iter::empty());
            line.push("  ", Style::Plain);
            if let Err(error) = &group.shown.replicas {
                let message = printable(ErrorDocument::of(error).message()).to_string();
                line.push(message, Style::Bad);
            }
            return line;
        };
        let trends = self.history.of_model(&group.shown.model);
        let top = trends.map_or(1.0, |trends| trends.queue.greatest());
        let mut line = self.row(
            &group.name(),
            self.columns.iter().map(|chosen| match chosen.column.kind {
                Kind::Figure(of_model, _) => of_model(&cells),
                Kind::QueueTrend | Kind::KvTrend => self.trend(chosen, trends, top),
            }),
        );
        if let Some((_, style)) = line.0.first_mut() {
            *style = Style::Strong;
        }
        line
    }

    /// The row of one of a model's pods, counted from the worst.
    pub(super) fn pod(&self, index: usize, pod: usize) -> Line {
        let group = &self.models[index];
        let (Ok(reading), Some(replica)) = (&group.shown.replicas, group.worst_first.get(pod))
        else {
            return Line::default();
        };
        let model = &group.shown.model;
        let trends = self.history.of(model, &replica.pod_name);
        let top = self.history.longest_queue(model);
        let cells = PodCells { reading, replica };
        self.row(
            &pod_name(replica),
            self.columns.iter().map(|chosen| match chosen.column.kind {
                Kind::Figure(_, of_pod) => of_pod(&cells),
                Kind::QueueTrend | Kind::KvTrend => self.trend(chosen, trends, top),
            }),
        )
    }

    /// What the rows and the columns that are shown mean. `window` is the time that peaks are taken over.
    pub(super) fn explanation(&self, window: Option<Duration>) -> String {
        let peak = window.map_or_else(
            || "the peak of the last window".to_owned(),
            |window| format!("the peak of the last {}", duration::format(window)),
        );
        let columns = self.columns.iter().map(|chosen| chosen.column.explanation);
        let rows = "Below each model its pods, longest queue first.";
        let sentences = std::iter::once(rows).chain(columns).chain(["-: not measured, never 0."]);
        let sentences: Vec<&str> = sentences.filter(|text| !text.is_empty()).collect();
        sentences.join(" ").replace("{peak}", &peak)
    }

    /// A name and the cells after it, as wide as their columns. Figures stand at the right.
    fn row(&self, name: &str, cells: impl Iterator<Item = Cell>) -> Line {
        let blanks = |needed: usize, text: &str| " ".repeat(needed.saturating_sub(text.width()));
        let name = shortened(name, self.name, self.signs.ellipsis);
        let mut line = Line::styled(format!("{name}{}", blanks(self.name, &name)), Style::Plain);
        for (Chosen { column, width }, (text, style)) in self.columns.iter().zip(cells) {
            let free = width.saturating_sub(text.width());
            let (before, after) =
                if column.is_left() { (self.gap, free) } else { (self.gap + free, 0) };
            line.push(" ".repeat(before), Style::Plain);
            line.push(text, style);
            line.push(" ".repeat(after), Style::Plain);
        }
        line.0.retain(|(text, _)| !text.is_empty());
        line
    }

    /// The newest values that fit the column. A queue is drawn between 0 and `longest`.
    fn trend(&self, chosen: &Chosen, trends: Option<&Trends>, longest: f64) -> Cell {
        let drawn = trends.map_or_else(String::new, |trends| match chosen.column.kind {
            Kind::KvTrend => trends.kv_cache.draw(1.0, &self.signs.bars),
            _ => trends.queue.draw(longest.max(1.0), &self.signs.bars),
        });
        plain(drawn.chars().skip(SAMPLES.saturating_sub(chosen.width)).collect())
    }
}

fn pod_name(replica: &ReplicaMetrics) -> String {
    format!("  {}", printable(replica.pod_name.as_str()))
}

fn rate(model: &ModelCells<'_>, of: impl Fn(&Allocation) -> Option<f64>) -> Cell {
    let value = model.shown.allocation.as_ref().and_then(|reading| of(reading.value()));
    plain(known(value, |value| format!("{value:.0}")))
}

fn status(freshness: Freshness) -> Cell {
    let style = match freshness {
        Freshness::Fresh => Style::Good,
        Freshness::Stale => Style::Warning,
        Freshness::Unavailable => Style::Bad,
    };
    (freshness.as_str().to_owned(), style)
}

/// A pod that serves needs no word.
fn state(replica: &ReplicaMetrics) -> Cell {
    match replica.state {
        ReplicaState::Serving => blank(),
        other => (other.as_str().to_owned(), Style::Warning),
    }
}

fn plain(text: String) -> Cell {
    (text, Style::Plain)
}

fn blank() -> Cell {
    plain(String::new())
}

fn whole(count: Option<u64>) -> Cell {
    plain(cells::whole(count))
}

fn percent(share: Option<f64>) -> Cell {
    plain(known(share, whole_percent))
}
