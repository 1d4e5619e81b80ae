//! What `top` shows, and what keys change about it. No terminal.

use std::cmp::Ordering;

use collector_core::{CollectError, ModelRef, Reading, ReplicaMetrics, Replicas};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::commands::totals::{mean_usage, total_queue, total_running};

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
}

/// What was read in one round.
#[derive(Clone, Default)]
pub(super) struct Read {
    pub(super) rows: Vec<Row>,
    /// Why there is no list of models.
    pub(super) problem: Option<String>,
    /// Whether there was a round.
    pub(super) any: bool,
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

/// The state of the screen.
#[derive(Default)]
pub(super) struct State {
    /// What is shown.
    pub(super) read: Read,
    /// What was read while nothing is to change.
    newest: Option<Read>,
    pub(super) paused: bool,
    pub(super) help: bool,
    pub(super) order: Order,
    pub(super) reversed: bool,
    pub(super) filter: String,
    /// Whether keys are part of the filter.
    pub(super) typing: bool,
    /// The place of the marked row among those that are shown.
    pub(super) selected: usize,
    /// The model whose pods are shown.
    pub(super) open: Option<ModelRef>,
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

    /// Does what a key stands for; true ends the program.
    pub(super) fn key(&mut self, key: KeyEvent) -> bool {
        if key.kind == KeyEventKind::Release {
            return false;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return key.code == KeyCode::Char('c');
        }
        if self.typing {
            self.type_filter(key.code);
            return false;
        }
        if self.help {
            self.help = false;
            return key.code == KeyCode::Char('q');
        }
        match key.code {
            KeyCode::Char('q') => return true,
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Char('s') => self.order = self.order.next(),
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('p' | ' ') => self.pause(),
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.selected += 1,
            KeyCode::Home | KeyCode::Char('g') => self.selected = 0,
            KeyCode::End | KeyCode::Char('G') => self.selected = usize::MAX,
            KeyCode::Enter | KeyCode::Right if self.open.is_none() => {
                self.open = self.models().get(self.selected).map(|row| row.model.clone());
                self.selected = 0;
            }
            KeyCode::Esc | KeyCode::Backspace | KeyCode::Left => self.back(),
            _ => {}
        }
        self.mark();
        false
    }

    fn type_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => (self.typing, self.filter) = (false, String::new()),
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) if self.filter.chars().count() < LONGEST_FILTER => self.filter.push(c),
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

    /// One step back: from the pods to the models, with that of the pods marked; else to all rows.
    fn back(&mut self) {
        match self.open.take() {
            Some(model) => {
                let place = self.models().iter().position(|row| row.model == model);
                self.selected = place.unwrap_or(0);
            }
            None => self.filter.clear(),
        }
    }

    /// Keeps the mark on a row.
    pub(super) fn mark(&mut self) {
        let rows = match self.opened() {
            Some(row) => self.pods(row).len(),
            None => self.models().len(),
        };
        self.selected = self.selected.min(rows.saturating_sub(1));
    }

    /// The model whose pods are shown.
    pub(super) fn opened(&self) -> Option<&Row> {
        let model = self.open.as_ref()?;
        self.read.rows.iter().find(|row| row.model == *model)
    }

    fn fits(&self, name: &str) -> bool {
        name.to_lowercase().contains(&self.filter.to_lowercase())
    }

    /// The models that are shown, in their order.
    pub(super) fn models(&self) -> Vec<&Row> {
        let fits = |row: &&Row| {
            self.fits(row.model.model.as_str()) || self.fits(row.model.namespace.as_str())
        };
        let mut rows: Vec<&Row> = self.read.rows.iter().filter(fits).collect();
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

    /// The pods of a model that are shown, in their order. A filter of models is none of pods.
    pub(super) fn pods<'a>(&self, row: &'a Row) -> Vec<&'a ReplicaMetrics> {
        let mut pods: Vec<&ReplicaMetrics> = row.replicas().iter().collect();
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
