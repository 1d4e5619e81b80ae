//! What the demo shows: a line about each model, and one about each of its pods.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use collector_core::text::counted;
use collector_core::{Allocation, CollectError, ModelRef, Reading, Replicas, TrackedModel};
use rustix::termios::tcgetwinsize;
use unicode_width::UnicodeWidthStr;

use super::history::History;
use crate::output::{ErrorDocument, Signs, aligned_by, printable, signs};

/// What is shown of one model.
pub(super) struct Shown {
    pub(super) model: ModelRef,
    pub(super) replicas: Result<Reading<Replicas>, CollectError>,
    /// The allocation of its variant, which has its rates.
    pub(super) allocation: Option<Reading<Allocation>>,
}

impl Shown {
    /// A tracked model with its one variant.
    pub(super) fn of(tracked: TrackedModel) -> Self {
        let first = tracked.allocations.into_iter().next();
        Self {
            model: tracked.model,
            replicas: tracked.replicas,
            allocation: first.and_then(|(_, allocation)| allocation.ok()),
        }
    }
}

/// Where and how frames are drawn.
pub(super) struct Screen {
    terminal: bool,
    colours: bool,
}

impl Screen {
    pub(super) fn of_stdout() -> Self {
        let terminal = io::stdout().is_terminal();
        let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { terminal, colours }
    }

    /// Whether somebody watches.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// The text of a frame: on a terminal it takes the place of the one before, and is cut to its
    /// height, because a line that scrolls away takes the whole picture with it.
    pub(super) fn frame(&self, text: &str) -> String {
        if !self.terminal {
            return format!("{text}\n");
        }
        let lines = text.lines().count();
        let shown = tcgetwinsize(io::stdout()).map_or(lines, |size| {
            fitting(text, usize::from(size.ws_row), usize::from(size.ws_col))
        });
        let mut frame = String::from("\x1b[H\x1b[2J");
        for line in text.lines().take(shown) {
            let _ = writeln!(frame, "{line}");
        }
        if shown < lines {
            let _ = write!(
                frame,
                "{} {}: make the terminal taller",
                signs().ellipsis,
                counted(lines - shown, "more line", "more lines")
            );
        }
        frame
    }

    /// The word for a freshness, green when fresh and yellow or red when not.
    fn status(&self, word: &str) -> String {
        let colour = match word {
            _ if !self.colours => return word.to_owned(),
            "fresh" => 32,
            "stale" => 33,
            _ => 31,
        };
        format!("\x1b[{colour}m{word}\x1b[0m")
    }
}

/// How many lines of the text fit a terminal of this size. A line that is too wide takes several rows;
/// one row stays free for the cursor, and one for saying that there is more.
fn fitting(text: &str, rows: usize, columns: usize) -> usize {
    let lines = text.lines().count();
    if rows <= 2 || columns == 0 {
        return lines;
    }
    let rows_of = |line: &str| visible_width(line).div_ceil(columns).max(1);
    if text.lines().map(rows_of).sum::<usize>() < rows {
        return lines;
    }
    let mut used = 0;
    let fits = |line: &&str| {
        used += rows_of(line);
        used <= rows - 2
    };
    text.lines().take_while(fits).count()
}

/// The columns that a line takes, without its colours.
fn visible_width(line: &str) -> usize {
    let mut parts = line.split("\x1b[");
    let first = parts.next().map_or(0, UnicodeWidthStr::width);
    first
        + parts.map(|part| part.split_once('m').map_or(0, |(_, text)| text.width())).sum::<usize>()
}

/// All models, each under its heading.
pub(super) fn tables(screen: &Screen, shown: &[Shown], history: &History) -> String {
    let mut text = String::new();
    for (index, shown) in shown.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        match &shown.replicas {
            Ok(reading) => {
                heading(&mut text, screen, shown, reading);
                text.push_str(&pods(&shown.model, reading, history));
            }
            Err(error) => {
                let _ = writeln!(text, "{}", printable(ErrorDocument::of(error).message()));
            }
        }
    }
    text
}

fn heading(text: &mut String, screen: &Screen, shown: &Shown, reading: &Reading<Replicas>) {
    let model = &shown.model;
    let _ = write!(
        text,
        "{} in {}: {}, {:.1}s old, from {}",
        printable(model.model.as_str()),
        printable(model.namespace.as_str()),
        screen.status(reading.freshness().as_str()),
        reading.age().as_secs_f64(),
        printable(reading.value().backend.as_str()),
    );
    if reading.value().partial {
        text.push_str(", partial");
    }
    if let Some(allocation) = &shown.allocation {
        let Allocation { load, ttft_average, itl_average, .. } = &**allocation.value();
        let known =
            |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.0}"));
        let Signs { dot, arrow, .. } = signs();
        let _ = write!(
            text,
            " {dot} {} requests/min {dot} {} {arrow} {} tokens {dot} first token {} ms {dot} between \
             tokens {} ms",
            known(load.arrival_rate),
            known(load.avg_input_tokens),
            known(load.avg_output_tokens),
            known(*ttft_average),
            known(*itl_average),
        );
    }
    text.push('\n');
}

fn pods(model: &ModelRef, reading: &Reading<Replicas>, history: &History) -> String {
    let top = history.longest_queue(model);
    let bars = &signs().bars;
    let rows = reading.value().replicas.iter().map(|replica| {
        let pod = history.of(model, &replica.pod_name);
        let whole = |count: Option<u64>| count.map_or("-".to_owned(), |count| count.to_string());
        let usage = replica.kv_cache_usage;
        vec![
            printable(replica.pod_name.as_str()).to_string(),
            whole(replica.queue_length),
            pod.map_or_else(String::new, |pod| pod.queue.draw(top, bars)),
            usage.map_or("-".to_owned(), |usage| format!("{:.0}%", usage * 100.0)),
            pod.map_or_else(String::new, |pod| pod.kv_cache.draw(1.0, bars)),
            whole(replica.running_requests),
            seconds(reading.age_of(replica.sampled_at)),
        ]
    });
    let header = ["POD", "QUEUE", "", "KV", "", "RUNNING", "AGE"];
    aligned_by(&header, rows, &["POD", "QUEUE", "KV", "RUNNING", "AGE"])
}

fn seconds(age: Duration) -> String {
    format!("{:.1}s", age.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_too_wide_count_for_the_rows_they_take() {
        assert_eq!(visible_width("a \x1b[32mfresh\x1b[0m b"), 9);
        let wide = "x".repeat(25);
        let text = format!("{wide}\n{wide}\nshort\nshort\n");
        assert_eq!(fitting(&text, 5, 30), 4, "each takes one row");
        assert_eq!(fitting(&text, 9, 10), 4, "eight rows of nine");
        assert_eq!(fitting(&text, 8, 10), 2, "six rows of eight are for lines");
        assert_eq!(fitting(&text, 4, 30), 2);
        assert_eq!(fitting(&text, 0, 0), 4, "an unknown size cuts nothing");
    }
}
