// SPDX-License-Identifier: Apache-2.0
//! A page with constant text, whose numbers are filled in at each read.
//!
//! Names, labels and comments are nine tenths of a page and never change. For a thousand pods scraped each
//! second, a scrape must cost no more than writing the numbers.

use std::fmt;

use crate::engine::exposition::{Numbers, Page, bound_label};
use crate::engine::histogram::Histogram;

/// Reads a number for the page.
type Read<V> = Box<dyn Fn(&V) -> f64 + Send + Sync>;
/// Writes samples with changing numbers.
type WriteLines<V> = Box<dyn Fn(&V, &mut Page) + Send + Sync>;

/// A page for values of type `V`.
pub(crate) struct Template<V> {
    text: String,
    numbers: Numbers,
    slots: Vec<Slot<V>>,
}

/// The parts that are filled in, each after the text up to `end`.
struct Slot<V> {
    end: usize,
    fill: Fill<V>,
}

enum Fill<V> {
    Number(Read<V>),
    Lines(WriteLines<V>),
}

impl<V> fmt::Debug for Template<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template")
            .field("bytes", &self.text.len())
            .field("slots", &self.slots.len())
            .finish_non_exhaustive()
    }
}

impl<V> Template<V> {
    /// Renders the page of `view`.
    pub(crate) fn render(&self, view: &V) -> String {
        // A number has fewer than 22 characters.
        let bytes = self.text.len() + 22 * self.slots.len();
        let mut page = Page::with_capacity(self.numbers, bytes);
        let mut begin = 0;
        for Slot { end, fill } in &self.slots {
            page.push(&self.text[begin..*end]);
            match fill {
                Fill::Number(read) => page.value(read(view)),
                Fill::Lines(write) => write(view, &mut page),
            }
            begin = *end;
        }
        page.push(&self.text[begin..]);
        page.finish()
    }
}

/// A template under construction.
pub(crate) struct Layout<V> {
    text: Page,
    slots: Vec<Slot<V>>,
}

impl<V> Layout<V> {
    pub(crate) fn new(numbers: Numbers) -> Self {
        Self { text: Page::new(numbers), slots: Vec::new() }
    }

    pub(crate) fn finish(self) -> Template<V> {
        let numbers = self.text.numbers();
        Template { text: self.text.finish(), numbers, slots: self.slots }
    }

    /// Returns the current length of the page, assuming numbers of five characters.
    pub(crate) fn len(&self) -> usize {
        self.text.len() + 5 * self.slots.len()
    }

    /// Starts a family.
    pub(crate) fn family(&mut self, name: &str, help: &str, kind: &str) {
        self.text.family(name, help, kind);
    }

    /// Adds a constant sample.
    pub(crate) fn constant(&mut self, name: &str, labels: &[&str], value: f64) {
        self.text.sample(name, labels, value);
    }

    /// Adds a sample.
    pub(crate) fn sample(
        &mut self,
        name: &str,
        labels: &[&str],
        read: impl Fn(&V) -> f64 + Send + Sync + 'static,
    ) {
        self.text.series(name, labels);
        self.slot(Fill::Number(Box::new(read)));
    }

    /// Adds samples whose number is not known in advance.
    pub(crate) fn lines(&mut self, write: impl Fn(&V, &mut Page) + Send + Sync + 'static) {
        self.slot(Fill::Lines(Box::new(write)));
    }

    fn slot(&mut self, fill: Fill<V>) {
        self.slots.push(Slot { end: self.text.len(), fill });
    }

    /// Adds the samples of one histogram, whose labels sort around `le` as given.
    pub(crate) fn histogram(
        &mut self,
        name: &str,
        (before, after): (&str, &str),
        bounds: &'static [f64],
        read: impl Fn(&V) -> &Histogram + Copy + Send + Sync + 'static,
    ) {
        let bucket_name = format!("{name}_bucket");
        for (bucket, bound) in bounds.iter().copied().chain([f64::INFINITY]).enumerate() {
            let le = bound_label(self.text.numbers(), bound);
            self.sample(&bucket_name, &[before, &le, after], move |view| {
                read(view).up_to(bucket) as f64
            });
        }
        let labels = [before, after];
        self.sample(&format!("{name}_count"), &labels, move |view| read(view).count() as f64);
        self.sample(&format!("{name}_sum"), &labels, move |view| read(view).sum());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_lines_are_filled_into_their_places() {
        let mut layout = Layout::<Vec<f64>>::new(Numbers::Go);
        layout.family("a", "Help", "gauge");
        layout.sample("a", &["x=\"1\","], |view| view[0]);
        layout.constant("a", &["x=\"2\","], 7.0);
        layout.lines(|view, page| {
            for value in &view[1..] {
                page.sample("b", &[], *value);
            }
        });
        layout.constant("c", &[], 9.0);
        let template = layout.finish();
        assert_eq!(
            template.render(&vec![0.5, 3.0, 4.0]),
            "# HELP a Help\n# TYPE a gauge\na{x=\"1\"} 0.5\na{x=\"2\"} 7\nb 3\nb 4\nc 9\n"
        );
    }
}
