// SPDX-License-Identifier: Apache-2.0
//! What `top` shows, and what keys change about it. No terminal.

use std::cmp::Ordering;

use collector_core::{CollectError, ModelRef, PodName, Reading, ReplicaMetrics, Replicas, Tick};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::commands::totals::{mean_usage, total_queue, total_running};
use crate::output::TracedFetch;

/// Longest filter that can be typed.
const LONGEST_FILTER: usize = 100;

/// A model as it was read.
#[derive(Clone)]
pub(super) struct Row {
    pub(super) model: ModelRef,
    pub(super) reading: Result<Reading<Replicas>, CollectError>,
}

impl Row {
    pub(super) fn replicas(&self) -> &[ReplicaMetrics] {
        self.reading.as_ref().map_or(&[], |reading| &reading.value().replicas)
    }

    pub(super) fn pod(&self, name: &PodName) -> Option<&ReplicaMetrics> {
        self.replicas().iter().find(|pod| pod.pod_name == *name)
    }
}

/// What was read in one round.
#[derive(Clone, Default)]
pub(super) struct Read {
    pub(super) rows: Vec<Row>,
    /// Why there is no list of models.
    pub(super) problem: Option<String>,
    /// When; `None` before the first round.
    pub(super) at: Option<Tick>,
}

/// The fetches behind the fields of a model, or why there are none.
pub(super) struct Traced {
    pub(super) model: ModelRef,
    pub(super) fetches: Result<Vec<TracedFetch>, String>,
}

/// What rows are ordered by.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Order {
    #[default]
    Name,
    Queue,
    Kv,
    Running,
    Age,
}

impl Order {
    fn next(self) -> Self {
        match self {
            Self::Name => Self::Queue,
            Self::Queue => Self::Kv,
            Self::Kv => Self::Running,
            Self::Running => Self::Age,
            Self::Age => Self::Name,
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Queue => "queue",
            Self::Kv => "KV",
            Self::Running => "running",
            Self::Age => "age",
        }
    }
}

/// What keys stand for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Mode {
    #[default]
    Commands,
    /// Text of the filter.
    Filter,
    /// The help is shown; any key ends it.
    Help,
}

/// The state of the screen.
#[derive(Default)]
pub(super) struct State {
    /// What is shown.
    pub(super) read: Read,
    /// What was read while nothing is to change.
    newest: Option<Read>,
    pub(super) paused: bool,
    pub(super) mode: Mode,
    pub(super) order: Order,
    pub(super) reversed: bool,
    /// The text that names of models must have, and that of names of pods.
    filters: [String; 2],
    /// The place of the marked row among those that are shown.
    pub(super) selected: usize,
    /// The model whose pods are shown.
    pub(super) model: Option<ModelRef>,
    /// Of this model, the pod whose fields are shown.
    pub(super) pod: Option<PodName>,
    /// What is known about their sources.
    pub(super) traced: Option<Traced>,
}

impl State {
    /// Takes what was read; shows it, unless nothing is to change.
    pub(super) fn update(&mut self, read: Read) {
        if self.paused {
            self.newest = Some(read);
        } else {
            self.read = read;
        }
    }

    /// The model whose fetches are to be traced, for the sources of the fields that are shown.
    pub(super) fn traces(&self) -> Option<&ModelRef> {
        self.pod.as_ref().and(self.model.as_ref())
    }

    /// Does what a key stands for; true ends the program.
    pub(super) fn key(&mut self, key: KeyEvent) -> bool {
        if key.kind == KeyEventKind::Release {
            return false;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return key.code == KeyCode::Char('c');
        }
        match self.mode {
            Mode::Commands => {}
            Mode::Filter => {
                self.type_filter(key.code);
                return false;
            }
            Mode::Help => {
                self.mode = Mode::Commands;
                return key.code == KeyCode::Char('q');
            }
        }
        match key.code {
            KeyCode::Char('q') => return true,
            KeyCode::Char('?' | 'h') => self.mode = Mode::Help,
            KeyCode::Char('s') => self.order = self.order.next(),
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char('/') if self.pod.is_none() => self.mode = Mode::Filter,
            KeyCode::Char('p' | ' ') => self.pause(),
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.selected = self.selected.saturating_add(1),
            KeyCode::Home | KeyCode::Char('g') => self.selected = 0,
            KeyCode::End | KeyCode::Char('G') => self.selected = usize::MAX,
            KeyCode::Enter | KeyCode::Right => self.open(),
            KeyCode::Esc | KeyCode::Backspace | KeyCode::Left => self.back(),
            _ => {}
        }
        self.mark();
        false
    }

    fn type_filter(&mut self, key: KeyCode) {
        let filter = &mut self.filters[usize::from(self.model.is_some())];
        match key {
            KeyCode::Enter => self.mode = Mode::Commands,
            KeyCode::Esc => {
                filter.clear();
                self.mode = Mode::Commands;
            }
            KeyCode::Backspace => drop(filter.pop()),
            KeyCode::Char(c) if filter.chars().count() < LONGEST_FILTER => filter.push(c),
            _ => {}
        }
        self.mark();
    }

    fn pause(&mut self) {
        self.paused = !self.paused;
        if !self.paused
            && let Some(newest) = self.newest.take()
        {
            self.read = newest;
        }
    }

    /// Shows what the marked row is made of: the pods of a model, the fields of a pod.
    fn open(&mut self) {
        if self.model.is_none() {
            self.model = self.models().get(self.selected).map(|row| row.model.clone());
            self.selected = 0;
        } else if self.pod.is_none() {
            let pods = self.opened().map(|row| self.pods(row)).unwrap_or_default();
            self.pod = pods.get(self.selected).map(|pod| pod.pod_name.clone());
            if self.pod.is_some() {
                self.selected = 0;
            }
        }
    }

    /// One step back: to all rows, where there is a filter; else to where this was opened, with it marked.
    fn back(&mut self) {
        let place = if let Some(name) = self.pod.take() {
            self.traced = None;
            let pods = self.opened().map(|row| self.pods(row)).unwrap_or_default();
            pods.iter().position(|pod| pod.pod_name == name)
        } else if !self.filter().is_empty() {
            self.filters[usize::from(self.model.is_some())].clear();
            return;
        } else if let Some(model) = self.model.take() {
            self.models().iter().position(|row| row.model == model)
        } else {
            return;
        };
        self.selected = place.unwrap_or(0);
    }

    /// Keeps the mark on a row.
    pub(super) fn mark(&mut self) {
        let rows = match self.opened() {
            // What a pod lacks is shown too, so each has as many.
            Some(_) if self.pod.is_some() => super::fields::FIELDS.len(),
            Some(row) => self.pods(row).len(),
            None => self.models().len(),
        };
        self.selected = self.selected.min(rows.saturating_sub(1));
    }

    /// The model whose pods are shown.
    pub(super) fn opened(&self) -> Option<&Row> {
        let model = self.model.as_ref()?;
        self.read.rows.iter().find(|row| row.model == *model)
    }

    /// The text that the names of shown rows have.
    pub(super) fn filter(&self) -> &str {
        if self.pod.is_some() { "" } else { &self.filters[usize::from(self.model.is_some())] }
    }

    /// The models that are shown, in their order.
    pub(super) fn models(&self) -> Vec<&Row> {
        let filter = &self.filters[0];
        let has = |row: &&Row| {
            contains(row.model.model.as_str(), filter)
                || contains(row.model.namespace.as_str(), filter)
        };
        let mut rows: Vec<&Row> = self.read.rows.iter().filter(has).collect();
        let whole = |count: Option<u64>| count.map(|count| count as f64);
        self.arrange(&mut rows, |order, row| match order {
            Order::Name => None,
            Order::Queue => whole(total_queue(row.replicas())),
            Order::Kv => mean_usage(row.replicas()),
            Order::Running => whole(total_running(row.replicas())),
            Order::Age => row.reading.as_ref().ok().map(|reading| reading.age().as_secs_f64()),
        });
        rows
    }

    /// The pods of a model that are shown, in their order.
    pub(super) fn pods<'a>(&self, row: &'a Row) -> Vec<&'a ReplicaMetrics> {
        let has = |pod: &&ReplicaMetrics| contains(pod.pod_name.as_str(), &self.filters[1]);
        let mut pods: Vec<&ReplicaMetrics> = row.replicas().iter().filter(has).collect();
        let whole = |count: Option<u64>| count.map(|count| count as f64);
        self.arrange(&mut pods, |order, pod| match order {
            Order::Name => None,
            Order::Queue => whole(pod.queue_length),
            Order::Kv => pod.kv_cache_usage,
            Order::Running => whole(pod.running_requests),
            Order::Age => {
                let reading = row.reading.as_ref().ok()?;
                Some(reading.age_of(pod.sampled_at).as_secs_f64())
            }
        });
        pods
    }

    /// Names from the first, figures from the greatest; reversed, the other way. What is unknown comes last.
    fn arrange<T>(&self, rows: &mut [T], value: impl Fn(Order, &T) -> Option<f64>) {
        if self.order == Order::Name {
            if self.reversed {
                rows.reverse();
            }
            return;
        }
        rows.sort_by(|a, b| match (value(self.order, a), value(self.order, b)) {
            (Some(a), Some(b)) if self.reversed => a.total_cmp(&b),
            (Some(a), Some(b)) => b.total_cmp(&a),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        });
    }
}

/// Whether a name has a text, in letters of either case.
fn contains(name: &str, text: &str) -> bool {
    name.to_lowercase().contains(&text.to_lowercase())
}
