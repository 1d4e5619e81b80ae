// SPDX-License-Identifier: Apache-2.0
//! The table of docs/engines.md is what both backends read, by their own word.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;

use collector_engines::{Engine, Engines, Expression, Quantity};
use collector_prometheus::queried_quantities;

const UPDATE: &str = "UPDATE_DOCS";
const BEGIN: &str = "<!-- coverage: ";
const END: &str = "<!-- end of coverage -->";

/// What the Prometheus backend does about a quantity of an engine.
#[derive(PartialEq)]
enum Asks {
    /// Asks for it at a server that holds every series.
    Always,
    /// Asks for it where a quantity that counts before it is not held.
    InPlace,
    Never,
}

fn asks(engines: &[&Engine], quantity: Quantity) -> Asks {
    // What the server holds in any case, or nothing would say who lives.
    let gauges = [Quantity::Waiting, Quantity::Running, Quantity::KvCacheUsage];
    let asks_in_place = |engine: &Engine| {
        let held = gauges.into_iter().chain([quantity]).flat_map(|it| engine.alternatives(it));
        let held: HashSet<&str> =
            held.flat_map(Expression::series).map(|series| &*series.name).collect();
        queried_quantities(engine, |name| held.contains(name)).contains(&quantity)
    };
    if engines.iter().any(|engine| queried_quantities(engine, |_| true).contains(&quantity)) {
        Asks::Always
    } else if engines.iter().any(|engine| asks_in_place(engine)) {
        Asks::InPlace
    } else {
        Asks::Never
    }
}

/// Quantities in rows, engines in columns.
fn coverage() -> String {
    let scraped = collector_epp::engines::Engines::builtin();
    let described = Engines::builtin();
    let names = described.names();
    let mut table = "| quantity |".to_owned();
    for name in &names {
        let _ = write!(table, " {name} |");
    }
    table += "\n|---|";
    table += &"---|".repeat(names.len());
    table.push('\n');
    for quantity in Quantity::ALL {
        let _ = write!(table, "| `{}` |", quantity.key());
        for name in &names {
            let alternatives = scraped.looked_for(name, *quantity).len();
            // Releases and spellings of one engine.
            let engines: Vec<&Engine> = described.iter().filter(|it| it.name == *name).collect();
            let mark = match (alternatives, asks(&engines, *quantity)) {
                (0, Asks::Never) => "",
                (0, _) => panic!("{name}: the Prometheus backend alone reads {}", quantity.key()),
                (_, Asks::Always) => "✓",
                (_, Asks::InPlace) => "(✓)",
                (_, Asks::Never) => "d",
            };
            let _ = match alternatives {
                0 | 1 => write!(table, " {mark} |"),
                several => write!(table, " {mark} {several} |"),
            };
        }
        table.push('\n');
    }
    table
}

#[test]
fn docs_show_which_backend_reads_what_of_which_engine() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/engines.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let begin = text.find(BEGIN).unwrap();
    let begin = begin + text[begin..].find('\n').unwrap() + 1;
    let end = text.find(END).unwrap();
    let written = format!("{}{}{}", &text[..begin], coverage(), &text[end..]);
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, written).unwrap();
        return;
    }
    assert_eq!(text, written, "docs/engines.md is out of date: run this test with {UPDATE}=1");
}
