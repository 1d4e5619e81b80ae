// SPDX-License-Identifier: Apache-2.0
//! The common parts of the pages of Python servers.

use crate::engine::counters::Counters;
use crate::engine::exposition::{Numbers, bound_label, label};
use crate::engine::histogram::Histogram;
use crate::engine::template::Layout;
use crate::spec::EngineSpec;

use super::{PodView, Whose};

/// Returns one gauge of an engine.
pub(super) type Gauge = fn(&PodView, usize) -> f64;
/// Returns one counter.
pub(super) type Count = fn(&Counters) -> u64;
/// Returns one histogram.
pub(super) type Pick = fn(&Counters) -> &Histogram;

/// One series of a family, without its name.
#[derive(Debug, Clone)]
pub(super) struct Series {
    /// Sorted by name, as the client writes them.
    labels: Vec<(String, String)>,
    whose: Whose,
}

impl Series {
    pub(super) fn of_pod(labels: &[(&str, &str)]) -> Self {
        Self { labels: Vec::new(), whose: Whose::Pod }.with(labels)
    }

    pub(super) fn of_engine(engine: usize, labels: &[(&str, &str)]) -> Self {
        Self { labels: Vec::new(), whose: Whose::Engine(engine) }.with(labels)
    }

    /// Adds labels.
    pub(super) fn with(&self, more: &[(&str, &str)]) -> Self {
        let mut labels = self.labels.clone();
        labels.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        labels.sort();
        Self { labels, whose: self.whose }
    }

    /// Splits its labels: those that sort before `le`, and those after.
    pub(super) fn around_le(&self) -> [String; 2] {
        let le = self.labels.partition_point(|(name, _)| name.as_str() < "le");
        let text = |labels: &[(String, String)]| {
            labels.iter().map(|(name, value)| label(name, value)).collect()
        };
        [text(&self.labels[..le]), text(&self.labels[le..])]
    }
}

/// A Python server's page under construction.
pub(super) struct PythonPage {
    pub(super) layout: Layout<PodView>,
    /// The engine whose histogram bounds are used.
    bounds: Counters,
}

impl PythonPage {
    pub(super) fn new(spec: &EngineSpec) -> Self {
        Self { layout: Layout::new(Numbers::Python), bounds: Counters::new(spec, false) }
    }

    /// Adds a gauge per engine, or per pod with the value of its first engine.
    pub(super) fn gauge(
        &mut self,
        name: &str,
        help: &str,
        series: &[Series],
        read: impl Fn(&PodView, usize) -> f64 + Copy + Send + Sync + 'static,
    ) {
        let samples: Vec<_> = series.iter().map(|series| (series.clone(), read)).collect();
        self.gauges(name, help, &samples);
    }

    /// Adds a gauge with a different value for each series.
    pub(super) fn gauges(
        &mut self,
        name: &str,
        help: &str,
        samples: &[(Series, impl Fn(&PodView, usize) -> f64 + Copy + Send + Sync + 'static)],
    ) {
        self.layout.family(name, help, "gauge");
        for (series, read) in samples {
            let (whose, read) = (series.whose, *read);
            self.sample(name, series, move |view| match whose {
                Whose::Engine(engine) => read(view, engine),
                Whose::Pod => read(view, 0),
            });
        }
    }

    /// Adds a constant gauge.
    pub(super) fn constant(&mut self, name: &str, help: &str, series: &[Series], value: f64) {
        self.layout.family(name, help, "gauge");
        for series in series {
            constant(&mut self.layout, name, series, value);
        }
    }

    fn sample(
        &mut self,
        name: &str,
        series: &Series,
        read: impl Fn(&PodView) -> f64 + Send + Sync + 'static,
    ) {
        self.layout.sample(name, &series.around_le().each_ref().map(String::as_str), read);
    }

    /// Adds a counter with the same value for each of its series.
    pub(super) fn counter(&mut self, name: &str, help: &str, series: &[Series], read: Count) {
        let samples: Vec<_> = series.iter().map(|series| (series.clone(), read)).collect();
        self.counters(name, help, &samples);
    }

    /// Adds a counter.
    pub(super) fn counters(&mut self, name: &str, help: &str, samples: &[(Series, Count)]) {
        self.padded_counters(name, help, samples, |_| {});
    }

    /// Adds a counter that `pad` extends by more series.
    pub(super) fn padded_counters(
        &mut self,
        name: &str,
        help: &str,
        samples: &[(Series, Count)],
        pad: impl FnOnce(&mut Layout<PodView>),
    ) {
        let total = format!("{name}_total");
        self.layout.family(&total, help, "counter");
        for (series, read) in samples {
            let (whose, read) = (series.whose, *read);
            self.sample(&total, series, move |view| read(view.counters(whose)) as f64);
        }
        pad(&mut self.layout);
        self.created(name, help, samples.iter().map(|(series, _)| series));
    }

    /// Adds a histogram.
    pub(super) fn histogram(&mut self, name: &str, help: &str, series: &[Series], pick: Pick) {
        let picks: Vec<_> = series.iter().map(|series| (series.clone(), pick)).collect();
        self.histograms(name, help, &picks);
    }

    /// Adds a histogram with different values for each series, but the same bounds.
    pub(super) fn histograms(&mut self, name: &str, help: &str, samples: &[(Series, Pick)]) {
        self.padded_histograms(name, help, samples, |_| {});
    }

    /// Adds a histogram that `pad` extends by more series.
    pub(super) fn padded_histograms(
        &mut self,
        name: &str,
        help: &str,
        samples: &[(Series, Pick)],
        pad: impl FnOnce(&mut Layout<PodView>),
    ) {
        self.layout.family(name, help, "histogram");
        for (series, pick) in samples {
            let (whose, pick) = (series.whose, *pick);
            let bounds = pick(&self.bounds).bounds();
            let [before, after] = series.around_le();
            self.layout.histogram(name, (&before, &after), bounds, move |view: &PodView| {
                pick(view.counters(whose))
            });
        }
        pad(&mut self.layout);
        self.created(name, help, samples.iter().map(|(series, _)| series));
    }

    /// Adds the creation times of the series of a counter, histogram or summary.
    pub(super) fn created<'s>(
        &mut self,
        name: &str,
        help: &str,
        series: impl Iterator<Item = &'s Series>,
    ) {
        let created = format!("{name}_created");
        self.layout.family(&created, help, "gauge");
        for series in series {
            self.sample(&created, series, |view| view.started);
        }
    }

    /// Adds a summary without quantiles: a count and a sum.
    pub(super) fn summary(&mut self, name: &str, help: &str, samples: &[(Series, Count, Count)]) {
        self.layout.family(name, help, "summary");
        for (series, count, sum) in samples {
            for (part, read) in [("count", *count), ("sum", *sum)] {
                let whose = series.whose;
                self.sample(&format!("{name}_{part}"), series, move |view| {
                    read(view.counters(whose)) as f64
                });
            }
        }
        self.created(name, help, samples.iter().map(|(series, ..)| series));
    }

    /// Adds the families of any Python process.
    pub(super) fn process(&mut self) {
        let pod = [Series::of_pod(&[])];
        let generations = ["0", "1", "2"].map(|value| Series::of_pod(&[("generation", value)]));
        for (name, help) in [
            ("python_gc_objects_collected", "Objects collected by the garbage collector"),
            ("python_gc_objects_uncollectable", "Objects that could not be collected"),
            ("python_gc_collections", "Collections of a generation"),
        ] {
            self.counter(name, help, &generations, |_| 0);
        }
        let python = Series::of_pod(&[
            ("implementation", "CPython"),
            ("major", "3"),
            ("minor", "12"),
            ("patchlevel", "11"),
            ("version", "3.12.11"),
        ]);
        self.constant("python_info", "Python platform information", &[python], 1.0);
        for (name, help, value) in [
            ("process_virtual_memory_bytes", "Virtual memory size in bytes", 18_123_436_032.0),
            ("process_resident_memory_bytes", "Resident memory size in bytes", 1_121_667_072.0),
        ] {
            self.constant(name, help, &pod, value);
        }
        let started = "process_start_time_seconds";
        self.gauge(started, "Start time of the process, in Unix time", &pod, |view, _| {
            view.started
        });
        self.constant("process_open_fds", "Open file descriptors", &pod, 91.0);
        self.constant("process_max_fds", "Most open file descriptors", &pod, 1_048_576.0);
        self.counter("process_cpu_seconds", "Processor time spent, in seconds", &pod, |counters| {
            counters.generation_tokens / 1000
        });
    }
}

/// Adds a constant sample.
pub(super) fn constant(layout: &mut Layout<PodView>, name: &str, series: &Series, value: f64) {
    layout.constant(name, &series.around_le().each_ref().map(String::as_str), value);
}

/// Adds a histogram without observations.
pub(super) fn unused_histogram(
    layout: &mut Layout<PodView>,
    name: &str,
    series: &Series,
    bounds: &[f64],
) {
    let [before, after] = series.around_le();
    for bound in bounds.iter().copied().chain([f64::INFINITY]) {
        let le = bound_label(Numbers::Python, bound);
        layout.constant(&format!("{name}_bucket"), &[&before, &le, &after], 0.0);
    }
    for part in ["count", "sum"] {
        constant(layout, &format!("{name}_{part}"), series, 0.0);
    }
}

/// Adds series up to this many bytes; `more` adds the series of a number, counted from 0.
pub(super) fn pad(
    layout: &mut Layout<PodView>,
    bytes: usize,
    mut more: impl FnMut(&mut Layout<PodView>, usize),
) {
    let end = layout.len() + bytes;
    let mut number = 0;
    while layout.len() < end {
        more(layout, number);
        number += 1;
    }
}
