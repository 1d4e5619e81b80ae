// SPDX-License-Identifier: Apache-2.0
//! The figures, beside their goals: for people and for programs.

use std::borrow::Cow;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde_json::{Map, Value, json};

use crate::machine::Machine;

/// Everything that was measured.
pub(crate) struct Report {
    machine: Machine,
    rows: Vec<Row>,
    goals: Vec<Goal>,
    notes: Vec<Note>,
}

/// What one system did in one case.
pub(crate) struct Row {
    pub(crate) suite: &'static str,
    pub(crate) case: &'static str,
    pub(crate) system: &'static str,
    pub(crate) figures: Vec<Figure>,
}

/// One number.
#[derive(Clone, Copy)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
}

struct Goal {
    id: &'static str,
    bound: Bound,
    value: f64,
}

/// Why there is no figure.
struct Note {
    suite: &'static str,
    text: Cow<'static, str>,
}

/// What a value is to be.
#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    fn met(&self) -> bool {
        match self.bound {
            Bound::AtMost(bound) => self.value <= bound,
            Bound::AtLeast(bound) => self.value >= bound,
        }
    }
}

impl Report {
    /// A report without figures, of this machine as it stands.
    pub(crate) fn new() -> Self {
        Self { machine: Machine::of_this(), rows: Vec::new(), goals: Vec::new(), notes: Vec::new() }
    }

    /// What the figures are of.
    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Adds what one system did in one case.
    pub(crate) fn row(
        &mut self,
        suite: &'static str,
        case: &'static str,
        system: &'static str,
        figures: &[Figure],
    ) {
        self.rows.push(Row { suite, case, system, figures: figures.to_vec() });
    }

    /// Holds a value, in the unit of its goal, against that goal.
    pub(crate) fn goal(&mut self, id: &'static str, at_most: f64, value: f64) {
        self.goals.push(Goal { id, bound: Bound::AtMost(at_most), value });
    }

    /// The same for a value that is good when it is great.
    pub(crate) fn goal_at_least(&mut self, id: &'static str, at_least: f64, value: f64) {
        self.goals.push(Goal { id, bound: Bound::AtLeast(at_least), value });
    }

    /// Says why something was not measured: no figure is not a figure of 0.
    pub(crate) fn note(&mut self, suite: &'static str, text: impl Into<Cow<'static, str>>) {
        self.notes.push(Note { suite, text: text.into() });
    }

    /// The suites, in the order in which they were measured.
    pub(crate) fn suites(&self) -> Vec<&'static str> {
        let mut suites = Vec::new();
        let rows = self.rows.iter().map(|row| row.suite);
        for suite in rows.chain(self.notes.iter().map(|note| note.suite)) {
            if !suites.contains(&suite) {
                suites.push(suite);
            }
        }
        suites
    }

    /// The rows of a suite, in the order in which they were measured.
    pub(crate) fn rows_of<'a>(&'a self, suite: &'a str) -> impl Iterator<Item = &'a Row> {
        self.rows.iter().filter(move |row| row.suite == suite)
    }

    /// Why figures of a suite are not there.
    pub(crate) fn notes_of<'a>(&'a self, suite: &'a str) -> impl Iterator<Item = &'a str> {
        self.notes.iter().filter(move |note| note.suite == suite).map(|note| &*note.text)
    }

    /// For people.
    pub(crate) fn print(&self) {
        println!("{}", self.machine.line());
        for suite in self.suites() {
            println!("\n{}\n", suite.to_uppercase());
            for table in self.tables(suite) {
                println!("{table}\n");
            }
            for note in self.notes_of(suite) {
                println!("{note}");
            }
        }
        println!("\nGOALS\n\n{}", self.goals());
        if let Some(warning) = self.machine.warning() {
            println!("{warning}");
        }
    }

    /// The rows of a suite, those with the same figures in one table.
    pub(crate) fn tables(&self, suite: &str) -> Vec<Table> {
        let mut tables: Vec<(Vec<&str>, Table)> = Vec::new();
        let mut last_case = "";
        for row in self.rows_of(suite) {
            let names: Vec<&str> = row.figures.iter().map(|figure| figure.name).collect();
            if tables.last().is_none_or(|(last, _)| *last != names) {
                let units = row.figures.iter().map(heading);
                let header = ["case".to_owned(), "system".to_owned()].into_iter().chain(units);
                tables.push((names, table(header.collect())));
                last_case = "";
            }
            // A case is named once, above the systems that it compares.
            let case = if row.case == last_case { "" } else { row.case };
            last_case = row.case;
            let figures = row.figures.iter().map(|figure| number(figure.value));
            let cells = [case, row.system].map(escaped).into_iter().chain(figures);
            if let Some((_, table)) = tables.last_mut() {
                table.add_row(cells);
            }
        }
        let left = |(_, mut table): (_, Table)| {
            align(&mut table, 2);
            table
        };
        tables.into_iter().map(left).collect()
    }

    /// Whether each goal is met.
    pub(crate) fn goals(&self) -> Table {
        let header = ["", "goal", "bound", "measured"].map(str::to_owned);
        let mut table = table(header.to_vec());
        for goal in &self.goals {
            let mark = if goal.met() { "✓" } else { "×" };
            let bound = match goal.bound {
                Bound::AtMost(bound) => format!("at most {}", number(bound)),
                Bound::AtLeast(bound) => format!("at least {}", number(bound)),
            };
            table.add_row([mark, goal.id, &bound, &number(goal.value)]);
        }
        align(&mut table, 3);
        table
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let figures: Map<String, Value> = row
                .figures
                .iter()
                .map(|figure| {
                    let figure_json = json!({"value": figure.value, "unit": figure.unit});
                    (figure.name.to_owned(), figure_json)
                })
                .collect();
            json!({"suite": row.suite, "case": row.case, "system": row.system, "figures": figures})
        });
        let goals = self.goals.iter().map(|goal| {
            let bound = match goal.bound {
                Bound::AtMost(bound) => format!("<= {bound}"),
                Bound::AtLeast(bound) => format!(">= {bound}"),
            };
            json!({
                "id": goal.id,
                "goal": bound,
                "value": goal.value,
                "met": goal.met(),
            })
        });
        let notes = self.notes.iter().map(|note| json!({"suite": note.suite, "note": note.text}));
        json!({
            "machine": self.machine.json(),
            "rows": rows.collect::<Vec<_>>(),
            "goals": goals.collect::<Vec<_>>(),
            "notes": notes.collect::<Vec<_>>(),
        })
    }
}

/// An empty table, which is Markdown as well.
fn table(header: Vec<String>) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::ASCII_MARKDOWN)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    table
}

/// Text in a cell of Markdown, in which `<HashMap>` would be a tag and vanish.
fn escaped(text: &str) -> String {
    text.replace('<', "\\<")
}

/// Numbers stand to the right.
fn align(table: &mut Table, first_number: usize) {
    for column in table.column_iter_mut().skip(first_number) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

fn heading(figure: &Figure) -> String {
    match figure.unit {
        "" => figure.name.to_owned(),
        unit => format!("{} ({unit})", figure.name),
    }
}

/// With three digits that say something, and no more than three places.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        _ if value.fract() == 0.0 => 0,
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::new();
        let figure = |value| [Figure { name: "time", value, unit: "ns" }];
        report.row("hit", "hot", "ours", &figure(26.04));
        report.row("hit", "hot", "moka", &figure(244.4));
        report.note("refresh", "not measured: there is no `prometheus` program");
        report.goal("a", 10.0, 26.04);
        report.goal_at_least("b", 7.0, 9.5);
        report
    }

    #[test]
    fn a_table_names_a_case_once_and_its_systems_below_each_other() {
        let table = report().tables("hit").remove(0).to_string();
        let lines: Vec<String> = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(lines[0], "| case | system | time (ns) |");
        assert_eq!(lines[2..], ["| hot | ours | 26.0 |", "| | moka | 244 |"]);
    }

    #[test]
    fn a_type_in_angle_brackets_is_no_tag_in_a_table() {
        let mut report = report();
        report.row("hit", "hot", "RwLock<HashMap>", &[]);
        let tables: String = report.tables("hit").iter().map(ToString::to_string).collect();
        assert!(tables.contains(r"RwLock\<HashMap>"), "{tables}");
    }

    #[test]
    fn what_was_not_measured_is_said_and_is_no_figure() {
        let json = report().json();
        assert_eq!(json["notes"][0]["suite"], "refresh");
        assert_eq!(json["rows"].as_array().unwrap().len(), 2);
        assert_eq!(report().suites(), ["hit", "refresh"]);
    }

    #[test]
    fn a_goal_is_met_by_less_or_by_more_as_it_says() {
        let goals = report().json()["goals"].clone();
        assert_eq!(goals[0]["met"], false);
        assert_eq!(goals[1]["met"], true);
    }
}
