// SPDX-License-Identifier: Apache-2.0
//! The reference of all keys, written from their table.

use std::fmt::Write as _;

use crate::backend::SCRAPE;
use crate::environment::EPP_ALIASES;
use crate::key::{Key, Kind};
use crate::keys::{Keys, VARIANT_KEYS};

const HEAD: &str = "\
# Configuration

<!-- Generated from the table of keys by `UPDATE_REFERENCE=1 cargo test -p collector-config`. -->

Everything can be set in a file, and most keys in the environment. Later layers take precedence: defaults,
file, variables of other tools, `COLLECTOR_*`, flags. [examples/collector.toml](../examples/collector.toml) is a file with
comments to begin with; [PromQL servers](prometheus.md) has one for each kind of server.

- **File**: `--config FILE` or `COLLECTOR_CONFIG`. `.yaml` and `.yml` are YAML, everything else is
  TOML; at most 1 MiB. Relative paths start at the file's folder.
- **Environment**: `COLLECTOR_` and the key's path with `__` between levels, such as
  `COLLECTOR_CACHE__TTL=45s`; lists are separated by commas. An empty variable is ignored, and
  one whose name is not in capitals is ignored with a warning. The key determines the type of a value: a
  token `00123` stays text.
- **Durations** have the forms of Go and Rust: `30s`, `1m30s`, `1.5h`, `0`.
- `collector config show --origin` shows each value and its origin. `collector validate FILE` reports
  everything that is wrong with a file and the files that it names; `--no-files` skips the latter.
";

/// The reference of these keys, in Markdown.
pub(crate) fn reference(keys: &Keys) -> String {
    let mut text = HEAD.to_owned();
    let mut section = None;
    for key in keys.iter() {
        let of_key = key.path.split_once('.').map(|(section, _)| section);
        if of_key != section || section.is_none() {
            if let Some(name) = of_key {
                let _ = writeln!(text, "\n## `[{name}]`");
                if name == SCRAPE[0] {
                    let [main, other] = SCRAPE;
                    let _ = writeln!(
                        text,
                        "Direct scraping. `[{other}]`, `backend = \"{other}\"` and \
                         `COLLECTOR_{}__` mean the same as `[{main}]`, `backend = \"{main}\"` and \
                         `COLLECTOR_{}__`; a configuration uses one of the two names.\n",
                        other.to_uppercase(),
                        main.to_uppercase()
                    );
                }
                text.push_str(TABLE);
            } else if !text.contains("## Top level") {
                text.push_str("\n## Top level\n");
                text.push_str(TABLE);
            }
            section = of_key;
        }
        row(&mut text, key);
    }
    text.push_str(
        "\n## `[[variants]]`\nOne table per variant, in a file only. If the globs of two \
         match a pod, the first is used.\n\n",
    );
    text.push_str(TABLE);
    for key in VARIANT_KEYS {
        row(&mut text, key);
    }
    text.push_str(
        "\n## Variables of other tools\nThese are read as well. `COLLECTOR_*` takes precedence over them.\n\n\
         | variable | key |\n|---|---|\n",
    );
    for key in keys.iter() {
        for alias in key.aliases {
            let _ = writeln!(text, "| `{alias}` | `{}` |", key.path);
        }
    }
    text.push_str("\nAnd if `scrape` is the only backend:\n\n| variable | key |\n|---|---|\n");
    for (alias, path) in EPP_ALIASES {
        let _ = writeln!(text, "| `{alias}` | `{path}` |");
    }
    text
}

const TABLE: &str = "| key | value | default | what it does |\n|---|---|---|---|\n";

fn row(text: &mut String, key: &Key) {
    let value = match key.kind {
        Kind::OneOf(words) => {
            words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
        }
        Kind::Secret => "text; never shown".to_owned(),
        Kind::NamedSecrets => format!("{}; never shown", key.kind.describe()),
        // The head of the page says how to write these.
        Kind::Duration => "a duration".to_owned(),
        kind => kind.describe().to_owned(),
    };
    let default = key.default.map_or_else(|| "none".to_owned(), |default| format!("`{default}`"));
    let doc = key.doc.replace('|', "\\|");
    let _ = writeln!(text, "| `{}` | {value} | {default} | {doc} |", key.path);
}
