//! The table of docs/engines.md is what the code reads.

use std::fmt::Write as _;
use std::path::Path;

use collector_engines::{ENDPOINT_PICKER, Quantity};
use collector_epp::engines::Engines;

const UPDATE: &str = "UPDATE_DOCS";
const BEGIN: &str = "<!-- coverage: ";
const END: &str = "<!-- end of coverage -->";

/// Engines in rows, quantities in columns.
fn coverage() -> String {
    let engines = Engines::builtin();
    let described = collector_engines::Engines::builtin();
    let names: Vec<_> = engines.names().filter(|name| name.as_str() != ENDPOINT_PICKER).collect();
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
            let generations = described.iter().filter(|engine| engine.name == **name);
            let most = generations.map(|engine| engine.alternatives(*quantity).len()).max();
            let cell = match most.unwrap_or(0) {
                0 => String::new(),
                1 => "✓".to_owned(),
                most => format!("✓ {most}"),
            };
            let _ = write!(table, " {cell} |");
        }
        table.push('\n');
    }
    table
}

#[test]
fn docs_show_which_engine_reports_what() {
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
