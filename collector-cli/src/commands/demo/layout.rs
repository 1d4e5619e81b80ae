// SPDX-License-Identifier: Apache-2.0
//! The demo's frame: what is shown of a fleet in this many rows and columns. A pure function.

use collector_core::Reading;

use super::history::History;
use super::line::{Line, Style, cut, wrapped};
use super::shown::Shown;
use super::table::Table;
use crate::output::Signs;

/// A terminal's size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Size {
    pub(super) rows: usize,
    pub(super) columns: usize,
}

/// What a frame shows.
pub(super) struct Frame<'a> {
    /// What runs, in one line.
    pub(super) title: &'a str,
    /// How to end it: `q or Ctrl-C ends the demo`.
    pub(super) ending: &'a str,
    pub(super) models: &'a [Shown],
    pub(super) history: &'a History,
    pub(super) signs: &'a Signs,
}

impl Frame<'_> {
    /// The lines from the top of the screen to its bottom. The last one says how to end the demo. Where rows
    /// are scarce, more pods are left out first, then the explanation, all pods, and models.
    pub(super) fn lines(&self, size: Size) -> Vec<Line> {
        let Size { rows, columns } = size;
        let mut lines = Vec::new();
        let mut bottom = vec![Line::styled(self.ending, Style::Strong)];
        let mut left = rows.saturating_sub(bottom.len());

        let table = Table::new(self.models, self.history, self.signs, columns);
        if left > 4 {
            lines.push(Line::styled(self.title, Style::Strong));
            left -= 1;
        }
        if left > 2 && !self.models.is_empty() {
            lines.push(table.header());
            left -= 1;
        }
        if self.models.is_empty() {
            lines.push(Line::styled("no readings yet: the first ones take a second", Style::Faint));
            left = left.saturating_sub(1);
        }
        let models = if self.models.len() <= left { self.models.len() } else { left.max(1) - 1 };
        left = left.saturating_sub(self.models.len().min(models + 1));

        // The worst pod of each model comes before the explanation, the explanation before more pods.
        let pods: Vec<usize> = self.models[..models].iter().map(Shown::pods).collect();
        let worst = pods.iter().filter(|pods| **pods > 0).count();
        let explanation = wrapped(&table.explanation(peaks(self.models)), columns);
        if !self.models.is_empty() && left > worst + explanation.len() {
            left -= explanation.len() + 1;
            bottom.splice(0..0, explanation);
            bottom.insert(0, Line::default());
        }
        for (index, pods) in shares(&pods, left).into_iter().enumerate() {
            lines.push(table.model(index));
            lines.extend((0..pods).map(|pod| table.pod(index, pod)));
        }
        if models < self.models.len() {
            let more = format!(
                "{} {} more models: make the terminal taller",
                self.signs.ellipsis,
                self.models.len() - models
            );
            lines.push(Line::styled(more, Style::Faint));
        }
        let filled = rows.saturating_sub(lines.len() + bottom.len());
        lines.extend((0..filled).map(|_| Line::default()));
        lines.extend(bottom);
        // Of a terminal with fewer rows than that, the last.
        let lines = lines.split_off(lines.len().saturating_sub(rows));
        lines.into_iter().map(|line| cut(line, columns, self.signs.ellipsis)).collect()
    }
}

/// How many rows the pods of each model get: one each in turn, until the rows or the pods are used up.
fn shares(pods: &[usize], rows: usize) -> Vec<usize> {
    let mut shares = vec![0; pods.len()];
    let mut left = rows.min(pods.iter().sum());
    while left > 0 {
        for (share, pods) in shares.iter_mut().zip(pods) {
            if left > 0 && *share < *pods {
                *share += 1;
                left -= 1;
            }
        }
    }
    shares
}

/// The time that peaks are taken over, where a reading says.
fn peaks(models: &[Shown]) -> Option<std::time::Duration> {
    let readings = models.iter().filter_map(|shown| shown.replicas.as_ref().ok());
    readings.map(Reading::value).find_map(|replicas| replicas.window)
}

#[cfg(test)]
mod tests;
