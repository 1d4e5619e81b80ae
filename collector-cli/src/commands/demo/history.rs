// SPDX-License-Identifier: Apache-2.0
//! What the spark lines show: the last values of each model and of each pod.

use std::collections::{HashMap, VecDeque};

use collector_core::{ModelRef, PodName, ReplicaMetrics};

use crate::commands::totals::{mean_usage, total_queue};

/// How many values a line has.
pub(super) const SAMPLES: usize = 24;

/// The last values of one quantity; `None` where it was not measured.
#[derive(Default)]
pub(super) struct Line(VecDeque<Option<f64>>);

impl Line {
    fn push(&mut self, value: Option<f64>) {
        if self.0.len() == SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }

    /// The greatest value; 0 without any.
    pub(super) fn greatest(&self) -> f64 {
        self.0.iter().flatten().copied().fold(0.0, f64::max)
    }

    /// Drawn between 0 and `top`. What was not measured is a gap.
    pub(super) fn draw(&self, top: f64, bars: &[char]) -> String {
        let bar = |value: f64| {
            let share = if top > 0.0 { (value / top).clamp(0.0, 1.0) } else { 0.0 };
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of 0 to 1 of seven"
            )]
            let height = (share * (bars.len() - 1) as f64).round() as usize;
            bars[height]
        };
        let gap = std::iter::repeat_n(' ', SAMPLES - self.0.len());
        gap.chain(self.0.iter().map(|value| value.map_or(' ', bar))).collect()
    }
}

/// The lines of a pod, or of a model.
#[derive(Default)]
pub(super) struct Trends {
    pub(super) queue: Line,
    pub(super) kv_cache: Line,
}

/// The lines of all models and pods.
#[derive(Default)]
pub(super) struct History {
    models: HashMap<ModelRef, Trends>,
    pods: HashMap<(ModelRef, PodName), Trends>,
}

impl History {
    /// Adds what was just read of a model; pods that are gone are forgotten.
    pub(super) fn add(&mut self, model: &ModelRef, replicas: &[ReplicaMetrics]) {
        self.pods.retain(|(of, pod), _| {
            of != model || replicas.iter().any(|replica| replica.pod_name == *pod)
        });
        for replica in replicas {
            let pod = self.pods.entry((model.clone(), replica.pod_name.clone())).or_default();
            pod.queue.push(replica.queue_length.map(|length| length as f64));
            pod.kv_cache.push(replica.kv_cache_usage);
        }
        let trends = self.models.entry(model.clone()).or_default();
        trends.queue.push(total_queue(replicas).map(|length| length as f64));
        trends.kv_cache.push(mean_usage(replicas));
    }

    pub(super) fn of_model(&self, model: &ModelRef) -> Option<&Trends> {
        self.models.get(model)
    }

    pub(super) fn of(&self, model: &ModelRef, pod: &PodName) -> Option<&Trends> {
        self.pods.get(&(model.clone(), pod.clone()))
    }

    /// The longest queue that any pod of a model had, to draw all of them to one scale.
    pub(super) fn longest_queue(&self, model: &ModelRef) -> f64 {
        let of_model = self.pods.iter().filter(|((of, _), _)| of == model);
        of_model.map(|(_, pod)| pod.queue.greatest()).fold(1.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use collector_core::{Clock as _, ManualClock};

    fn line(values: &[Option<f64>]) -> Line {
        let mut line = Line::default();
        for value in values {
            line.push(*value);
        }
        line
    }

    #[test]
    fn what_was_not_measured_is_a_gap_and_zero_is_none() {
        let drawn = line(&[Some(0.0), None, Some(0.5), Some(1.0), Some(7.0)])
            .draw(1.0, &['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']);
        assert_eq!(drawn.chars().count(), SAMPLES);
        assert_eq!(drawn.trim_start(), "▁ ▅██");
    }

    #[test]
    fn pods_that_are_gone_are_forgotten_and_others_models_stay() {
        let now = ManualClock::new().now();
        let (a, b) = (ModelRef::new("a", "n"), ModelRef::new("b", "n"));
        let mut history = History::default();
        let row = |pod: &str, queue| {
            let mut row = ReplicaMetrics::new(pod, now);
            row.queue_length = Some(queue);
            row
        };
        history.add(&b, &[row("y", 9)]);
        history.add(&a, &[row("x", 1), row("y", 4)]);
        history.add(&a, &[row("x", 2)]);
        assert!(history.of(&a, &"y".into()).is_none() && history.of(&b, &"y".into()).is_some());
        assert!((history.longest_queue(&a) - 2.0).abs() < f64::EPSILON);
    }
}
