// SPDX-License-Identifier: Apache-2.0
//! The file that describes a fleet.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use collector_sim::FleetSpec;

use crate::exit::Failure;

/// A description is written by hand; whatever is longer is another file.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Reads a description: YAML when the file is called so, TOML otherwise.
pub(super) fn read(path: &Path) -> Result<FleetSpec, Failure> {
    let fail = |problem: String| Failure::usage(format!("{}: {problem}", path.display()));
    let mut text = String::new();
    let read = File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text))
        .map_err(|error| fail(format!("cannot be read: {error}")))?;
    if read as u64 > MAX_FILE_BYTES {
        return Err(fail(format!("has more than {MAX_FILE_BYTES} bytes")));
    }
    let yaml = path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml");
    let spec: FleetSpec = if yaml {
        // The whole message quotes the lines around.
        serde_saphyr::from_str(&text)
            .map_err(|error| fail(first_line(&error.without_snippet().to_string())))?
    } else {
        toml::from_str(&text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            match before {
                Some(before) => {
                    let line = before.matches('\n').count() + 1;
                    fail(format!("line {line}: {}", first_line(error.message())))
                }
                None => fail(first_line(error.message())),
            }
        })?
    };
    if spec.variants.is_empty() {
        return Err(fail("describes no variants: write at least one [[variants]]".into()));
    }
    Ok(spec)
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}
