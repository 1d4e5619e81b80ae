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
file, variables of other tools, `COLLECTOR_*`, flags.

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
                let _ = write!(text, "\n## `[{name}]`\n");
                if name == SCRAPE[0] {
                    let [main, other] = SCRAPE;
                    let _ = write!(
                        text,
                        "\nDirect scraping. `[{other}]`, `backend = \"{other}\"` and \
                         `COLLECTOR_{}__` mean the same as `[{main}]`, `backend = \"{main}\"` and \
                         `COLLECTOR_{}__`; a configuration uses one of the two names.\n",
                        other.to_uppercase(),
                        main.to_uppercase()
                    );
                }
            } else if !text.contains("## Top level") {
                text.push_str("\n## Top level\n");
            }
            section = of_key;
        }
        describe(&mut text, key, Some(&key.variable()));
    }
    text.push_str(
        "\n## `[[variants]]`\n\nOne table per variant, in a file only. If the globs of two \
         match a pod, the first is used.\n",
    );
    for key in VARIANT_KEYS {
        describe(&mut text, key, None);
    }
    text.push_str(
        "\n## Aliases if `scrape` is the only backend\n\nThese variables set the cache as well:\n\n",
    );
    for (alias, path) in EPP_ALIASES {
        let _ = writeln!(text, "- `{alias}`: `{path}`");
    }
    text
}

fn describe(text: &mut String, key: &Key, variable: Option<&str>) {
    let _ = write!(text, "\n### `{}`\n\n{}\n\n", key.path, key.doc);
    let _ = write!(text, "- Value: {}", key.kind.describe());
    match key.default {
        Some(default) => {
            let _ = writeln!(text, "; default `{default}`");
        }
        None => text.push_str("; no default\n"),
    }
    if matches!(key.kind, Kind::Secret | Kind::NamedSecrets) {
        text.push_str("- Secret: never shown\n");
    }
    if let Some(variable) = variable {
        let names: Vec<String> = std::iter::once(variable)
            .chain(key.aliases.iter().copied())
            .map(|name| format!("`{name}`"))
            .collect();
        let _ = writeln!(text, "- Environment: {}", names.join(", "));
    }
}
