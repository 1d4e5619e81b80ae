// SPDX-License-Identifier: Apache-2.0
//! Makes the crate of a new backend, as a copy of an example under another name.
//!
//! The examples are the templates, because they are compiled, linted and tested with the workspace; files
//! that only look like code would decay.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::run;
use crate::workspace;

/// An example that is copied.
pub(crate) struct Template {
    /// Its name, and its backend's type.
    name: &'static str,
    type_name: &'static str,
    files: &'static [(&'static str, &'static str)],
    /// What stands in a copy's README after [`README_ENDS`].
    readme_of_a_copy: &'static str,
    /// What to do with a copy.
    steps: &'static str,
}

macro_rules! files {
    ($example:literal: $($path:literal),* $(,)?) => {
        &[$((
            $path,
            include_str!(concat!("../../examples/", $example, "/", $path)),
        )),*]
    };
}

/// Reads a file.
pub(crate) const FILE: Template = Template {
    name: "static-json",
    type_name: "StaticJson",
    files: files![
        "own_backend":
        "Cargo.toml",
        "README.md",
        "fleet.json",
        "src/backend.rs",
        "src/document.rs",
        "src/lib.rs",
        "src/main.rs",
        "src/settings.rs",
        "tests/it/command.rs",
        "tests/it/main.rs",
    ],
    readme_of_a_copy: include_str!("../templates/backend/README.md"),
    steps: "2. put your server in place of the file: src/document.rs, and `contents` in src/backend.rs\n\
            3. list the keys of its section of a configuration: src/settings.rs\n\
            4. describe your test server to the conformance suite: tests/it/main.rs",
};

/// Polls an HTTP server.
pub(crate) const HTTP: Template = Template {
    name: "http-json",
    type_name: "HttpJson",
    files: files![
        "http-json-backend":
        "Cargo.toml",
        "README.md",
        "fleet.json",
        "src/backend.rs",
        "src/client.rs",
        "src/document.rs",
        "src/lib.rs",
        "tests/it/main.rs",
        "tests/it/server.rs",
    ],
    readme_of_a_copy: include_str!("../templates/http-backend/README.md"),
    steps: "2. read what your server answers: src/document.rs, and the request in src/client.rs\n\
            3. let the test server answer as yours, and describe its fleet: tests/it/server.rs",
};

/// From here on an example's README is about making a backend like it.
const README_ENDS: &str = "## Write your own";

/// Names that a crate cannot have: keywords, and the crates of the standard library.
const RESERVED: [&str; 52] = [
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc-macro",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "unsafe",
    "use",
    "where",
    "while",
];

/// Names of the prelude, which a type of the new crate must not shadow.
const PRELUDE: [&str; 9] = ["Box", "Err", "None", "Ok", "Option", "Self", "Some", "String", "Vec"];

/// Makes the crate and prints what to do next. Adds it to the workspace when it lies inside.
pub(crate) fn make_and_explain(
    template: &Template,
    name: &str,
    path: Option<PathBuf>,
) -> Result<()> {
    let folder = match path {
        Some(path) => {
            std::path::absolute(&path).with_context(|| format!("no path: {}", path.display()))?
        }
        None => workspace::root().join(name),
    };
    make(template, name, &folder)?;
    let test = match inside(&folder) {
        Some(_) => format!("cargo test -p {name}"),
        None => format!("cd {} && cargo test", folder.display()),
    };
    println!("made {}\n1. {test}\n{}", folder.display(), template.steps);
    Ok(())
}

/// Makes the crate `name` in `folder`, which must not exist.
pub(crate) fn make(template: &Template, name: &str, folder: &Path) -> Result<()> {
    let names = Names::of(template, name)?;
    ensure!(!folder.exists(), "{} exists already", folder.display());
    let member = inside(folder);
    for (path, text) in template.files {
        let text = match *path {
            "README.md" => readme(template, text),
            "Cargo.toml" if member.is_none() => standalone(text, &root_manifest()?)?,
            _ => (*text).to_owned(),
        };
        let path = folder.join(path);
        write(&path, &names.rename(&text))?;
    }
    if let Some(member) = member {
        let manifest = with_member(&root_manifest()?, &member)?;
        write(&workspace::root().join("Cargo.toml"), &manifest)?;
    }
    // The new name may sort differently among the imports. It compiles without rustfmt too.
    let mut rustfmt = Command::new("rustfmt");
    rustfmt.args(["--edition", "2024"]);
    for path in ["src/main.rs", "src/lib.rs", "tests/it/main.rs"] {
        if folder.join(path).exists() {
            rustfmt.arg(path);
        }
    }
    run::output(rustfmt.current_dir(folder));
    Ok(())
}

/// Returns the folder's path below the workspace's root, if it is inside.
fn inside(folder: &Path) -> Option<String> {
    let member = folder.strip_prefix(workspace::root()).ok()?;
    member.to_str().map(str::to_owned)
}

fn root_manifest() -> Result<String> {
    let path = workspace::root().join("Cargo.toml");
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn readme(template: &Template, text: &str) -> String {
    let about_the_server = text.split(README_ENDS).next().unwrap_or(text);
    format!("{about_the_server}{}", template.readme_of_a_copy)
}

/// The names that the example goes by, and those of a copy.
struct Names([(String, String); 4]);

impl Names {
    fn of(template: &Template, name: &str) -> Result<Self> {
        check_name(name)?;
        let backend = name.strip_prefix("collector-").unwrap_or(name);
        let backend = backend.strip_suffix("-backend").unwrap_or(backend);
        let type_name = type_name(template, backend);
        let example = format!("{}-backend", template.name);
        // The longer ones first: the shorter ones are parts of them.
        Ok(Self([
            (example.replace('-', "_"), name.replace('-', "_")),
            (example, name.to_owned()),
            (template.name.to_owned(), backend.to_owned()),
            (template.type_name.to_owned(), type_name),
        ]))
    }

    fn rename(&self, text: &str) -> String {
        let Self(names) = self;
        names.iter().fold(text.to_owned(), |text, (old, new)| text.replace(old, new))
    }
}

fn check_name(name: &str) -> Result<()> {
    let is_word = |word: &str| {
        !word.is_empty()
            && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    ensure!(
        name.len() <= 32
            && name.split('-').all(is_word)
            && name.starts_with(|letter: char| letter.is_ascii_lowercase()),
        "{name:?} cannot be the name of a backend's crate: use at most 32 of a-z, 0-9 and single hyphens, \
         beginning with a letter, as in acme-backend"
    );
    let manifest = root_manifest()?;
    let is_dependency = manifest
        .lines()
        .any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(" = ")));
    let is_member = workspace::packages()?.contains_key(name);
    if RESERVED.contains(&name) || is_dependency || is_member {
        bail!("{name:?} is taken: call it {name}-backend, or something else");
    }
    Ok(())
}

/// `acme-json` becomes `AcmeJson`; with `Backend` behind it where the example has such a name.
fn type_name(template: &Template, backend: &str) -> String {
    let mut name = String::new();
    for word in backend.split('-') {
        let mut letters = word.chars();
        name.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        name.push_str(letters.as_str());
    }
    let in_the_example = template.files.iter().any(|(_, text)| {
        text.split(|letter: char| !letter.is_ascii_alphanumeric()).any(|word| word == name)
    });
    if in_the_example || PRELUDE.contains(&name.as_str()) {
        name.push_str("Backend");
    }
    name
}

/// Returns the example's manifest for a crate outside the workspace, with all inherited values written out.
fn standalone(manifest: &str, root_manifest: &str) -> Result<String> {
    let inherited = |key: &str| {
        root_manifest
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))
            .with_context(|| format!("the root manifest has no {key}"))
    };
    let mut lines = Vec::new();
    for line in manifest.lines() {
        lines.push(if let Some(key) = line.strip_suffix(".workspace = true") {
            format!("{key} = {}", inherited(key)?)
        } else if let Some((key, rest)) = line.split_once(" = { workspace = true") {
            let table = inherited(key)?.trim_end_matches('}').trim_end();
            format!("{key} = {table}{rest}")
        } else {
            match line {
                "[lints]" => "[lints.rust]".to_owned(),
                "workspace = true" => r#"unsafe_code = "forbid""#.to_owned(),
                other => other.to_owned(),
            }
        });
    }
    lines.push("\n# It stands alone, whatever folder it lies in.\n[workspace]\n".to_owned());
    let here = format!(r#"path = "{}/"#, workspace::root().display());
    Ok(lines.join("\n").replace(r#"path = ""#, &here))
}

fn with_member(root_manifest: &str, member: &str) -> Result<String> {
    let members = root_manifest.find("members = [").context("no members in the root manifest")?;
    let length = root_manifest[members..].find("\n]").context("the list of members has no end")?;
    let mut manifest = root_manifest.to_owned();
    manifest.insert_str(members + length, &format!("\n    {member:?},"));
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_refused(name: &str) {
        assert!(check_name(name).is_err(), "{name:?} was accepted");
    }

    #[test]
    fn names_that_cannot_work_are_refused() {
        let too_long = "a".repeat(33);
        for name in ["", "-a", "a-", "a--b", "A", "1a", "a_b", "../a", "a b", &too_long] {
            check_refused(name);
        }
        for name in ["self", "core", "tokio", "collector-core", "static-json-backend"] {
            check_refused(name);
        }
        check_name("acme-backend").unwrap();
    }

    #[track_caller]
    fn check_type_name(backend: &str, expected: &str) {
        assert_eq!(type_name(&FILE, backend), expected);
    }

    #[test]
    fn a_type_never_hides_another() {
        check_type_name("acme", "Acme");
        check_type_name("acme-v2-json", "AcmeV2Json");
        check_type_name("model", "ModelBackend");
        check_type_name("self", "SelfBackend");
    }

    #[test]
    fn every_name_of_the_example_is_replaced() {
        let renamed = |template, text| Names::of(template, "acme-backend").unwrap().rename(text);
        let acme = "acme-backend acme_backend acme Acme";
        let file = "static-json-backend static_json_backend static-json StaticJson";
        assert_eq!(renamed(&FILE, file), acme);
        let http = "http-json-backend http_json_backend http-json HttpJson";
        assert_eq!(renamed(&HTTP, http), acme);
    }

    #[test]
    fn a_crate_outside_inherits_nothing() {
        let root = "version = \"1.2.3\"\na = { path = \"a\" }\nb = { version = \"1\" }\n";
        let manifest = "version.workspace = true\na.workspace = true\n\
                        b = { workspace = true, features = [\"x\"] }\n[lints]\nworkspace = true";
        let made = standalone(manifest, root).unwrap();
        let here = workspace::root().display();
        assert!(made.starts_with(&format!(
            "version = \"1.2.3\"\na = {{ path = \"{here}/a\" }}\n\
             b = {{ version = \"1\", features = [\"x\"] }}\n\
             [lints.rust]\nunsafe_code = \"forbid\"\n"
        )));
    }

    #[test]
    fn a_member_is_added_at_the_end_of_the_list() {
        let made = with_member("[workspace]\nmembers = [\n    \"a\",\n]\nx = []\n", "b").unwrap();
        assert_eq!(made, "[workspace]\nmembers = [\n    \"a\",\n    \"b\",\n]\nx = []\n");
    }
}
