//! The figures, beside their goals.

use std::fs;
use std::thread;

use serde_json::{Map, Value, json};

/// Everything that was measured.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    goals: Vec<Goal>,
}

/// What one system did in one case.
struct Row {
    suite: &'static str,
    case: &'static str,
    system: &'static str,
    figures: Vec<Figure>,
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

    /// For people.
    pub(crate) fn print(&self) {
        for row in &self.rows {
            println!("{} / {} / {}", row.suite, row.case, row.system);
            for figure in &row.figures {
                println!("  {:<12} {:>10.2} {}", figure.name, figure.value, figure.unit);
            }
        }
        println!("goals");
        for goal in &self.goals {
            let mark = if goal.met() { "✓" } else { "×" };
            let bound = match goal.bound {
                Bound::AtMost(bound) => format!("at most {bound}"),
                Bound::AtLeast(bound) => format!("at least {bound}"),
            };
            println!("  {mark} {:<30} {:>10.2}  {bound}", goal.id, goal.value);
        }
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
        json!({
            "machine": machine(),
            "rows": rows.collect::<Vec<_>>(),
            "goals": goals.collect::<Vec<_>>(),
        })
    }
}

fn machine() -> Value {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map(|(_, name)| name);
    json!({
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "cpu": cpu,
        "threads": thread::available_parallelism().map(usize::from).ok(),
    })
}
