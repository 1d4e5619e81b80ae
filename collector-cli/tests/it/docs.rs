// SPDX-License-Identifier: Apache-2.0
//! The examples in the documentation: files that are read as their program does, and commands that it has.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::process::{collector, run};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The pages with their names.
fn pages() -> Vec<(String, String)> {
    let mut paths: Vec<PathBuf> = fs::read_dir(repository().join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "md"))
        .collect();
    let others = ["README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md"];
    paths.extend(others.map(|name| repository().join(name)));
    assert!(paths.len() > 15, "{paths:?}");
    let read = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, fs::read_to_string(path).unwrap())
    };
    paths.iter().map(read).collect()
}

/// A fenced block of a page.
struct Block {
    /// The page and the line that it begins in.
    place: String,
    language: String,
    text: String,
}

/// The blocks of a page, and the page without them.
fn blocks(name: &str, page: &str) -> (Vec<Block>, String) {
    let mut blocks = Vec::new();
    let mut prose = String::new();
    let mut open: Option<(Block, usize)> = None;
    for (number, line) in page.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let fence = line.trim_start().strip_prefix("```");
        match (fence, &mut open) {
            (Some(language), None) => {
                let place = format!("{name}:{}", number + 1);
                let language = language.to_owned();
                open = Some((Block { place, language, text: String::new() }, indent));
            }
            (Some(_), Some(_)) => blocks.extend(open.take().map(|(block, _)| block)),
            (None, Some((block, indent))) => {
                block.text.push_str(line.get(*indent..).unwrap_or_default());
                block.text.push('\n');
            }
            (None, None) => {
                prose.push_str(line);
                prose.push('\n');
            }
        }
    }
    assert!(open.is_none(), "{name} has a block without an end");
    (blocks, prose)
}

fn all_blocks(language: &str) -> Vec<Block> {
    let pages = pages().into_iter().flat_map(|(name, page)| blocks(&name, &page).0);
    pages.filter(|block| block.language == language).collect()
}

#[test]
fn every_configuration_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let mut count = 0;
    for Block { place, text, .. } in all_blocks("toml") {
        let table: toml::Table = text.parse().unwrap_or_else(|error| panic!("{place}: {error}"));
        // A manifest of cargo, or a fleet of the simulator.
        if table.contains_key("dependencies") || table.contains_key("fleet") {
            continue;
        }
        count += 1;
        let file = folder.path().join("collector.toml");
        fs::write(&file, &text).unwrap();
        let mut command = collector();
        // A part of a configuration.
        if table.get("prometheus").is_none_or(|section| section.get("url").is_none()) {
            command.env("PROMETHEUS_BASE_URL", "https://prometheus:9090");
        }
        let ended = run(command.args(["validate", "--no-files"]).arg(file), &[]);
        if text.contains("sigv4") && ended.exit != 0 {
            assert!(ended.stderr.contains("cargo feature `sigv4`"), "{place}: {}", ended.stderr);
        } else {
            assert_eq!(ended.exit, 0, "{place}: {}", ended.stderr);
            // What is shown has nothing superfluous.
            assert!(!ended.stdout.contains("warning"), "{place}: {}", ended.stdout);
        }
    }
    assert!(count >= 20, "{count}");
}

#[test]
fn every_document_can_be_read() {
    for Block { place, text, .. } in all_blocks("yaml") {
        let read: Result<Vec<Value>, _> = serde_saphyr::from_multiple(&text);
        let documents = read.unwrap_or_else(|error| panic!("{place}: {error}"));
        assert!(documents.iter().all(Value::is_object), "{place}: {documents:?}");
    }
    for Block { place, text, .. } in all_blocks("json") {
        let read = serde_json::from_str::<Value>(&text);
        read.unwrap_or_else(|error| panic!("{place}: {error}"));
    }
}

#[cfg(feature = "promql")]
#[test]
fn every_query_is_promql() {
    let mut count = 0;
    for Block { place, text, .. } in all_blocks("promql") {
        for query in text.lines().filter(|line| !line.starts_with('#')) {
            let described = collector_promql::describe(query, &collector_promql::Limits::default());
            described.unwrap_or_else(|error| panic!("{place}: {query}: {error}"));
            count += 1;
        }
    }
    assert!(count > 0, "no page has a query");
}

/// Splits a command line as a shell does, as far as the pages need it: into commands, and these into words.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![vec![]];
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ' ' | '|' | ';' | '&' | '>' | '<') => {
                commands.last_mut().unwrap().extend(word.take());
                if matches!(letter, '|' | ';' | '&') {
                    commands.push(Vec::new());
                } else if letter != ' ' {
                    // The file of a redirection is no argument.
                    while letters.next_if(|letter| " >&".contains(*letter)).is_some() {}
                    while letters.next_if(|letter| !" |;&".contains(*letter)).is_some() {}
                }
            }
            _ => word.get_or_insert_default().push(letter),
        }
    }
    // A quote may go on in the next line: it is an argument of the last command.
    commands.last_mut().unwrap().extend(word);
    commands
}

/// The arguments of `collector` in a command; `None` if it runs another program.
fn arguments(command: &[String]) -> Option<&[String]> {
    let is_variable = |word: &String| {
        word.split_once('=').is_some_and(|(name, _)| {
            name.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_')
        })
    };
    let begin = command.iter().position(|word| !is_variable(word))?;
    let command = &command[begin..];
    match command.first()?.as_str() {
        "collector" => Some(&command[1..]),
        "cargo" if command.get(1).is_some_and(|word| word == "run") => {
            // Of the one package that is run without a name.
            let other = command.iter().any(|word| word == "-p" || word == "--package");
            let end = command.iter().position(|word| word == "--")?;
            (!other).then(|| &command[end + 1..])
        }
        _ => None,
    }
}

/// The error of a command line that the program does not take: `--help` at its end is reached only if all before it is
/// known.
fn error(arguments: &[String]) -> Option<String> {
    let ended = run(collector().args(arguments), &["--help"]);
    (ended.exit != 0).then(|| format!("collector {arguments:?}: {}", ended.stderr))
}

#[test]
fn every_command_is_one_that_the_program_has() {
    let mut count = 0;
    let mut errors = Vec::new();
    for (name, page) in pages() {
        let (blocks, prose) = blocks(&name, &page);
        for block in blocks {
            let joined = block.text.replace("\\\n", " ");
            let lines = joined.lines().filter_map(|line| match block.language.as_str() {
                "sh" => Some(line),
                "text" => line.strip_prefix("$ "),
                _ => None,
            });
            for command in lines.flat_map(commands) {
                if let Some(arguments) = arguments(&command) {
                    count += 1;
                    errors
                        .extend(error(arguments).map(|error| format!("{}: {error}", block.place)));
                }
            }
        }
        // In the text, between two backticks.
        for code in prose.split('`').skip(1).step_by(2) {
            let code = code.replace('\n', " ");
            if code.starts_with("collector ")
                && !["...", "COMMAND"].iter().any(|part| code.contains(part))
            {
                for command in commands(&code) {
                    if let Some(arguments) = arguments(&command) {
                        count += 1;
                        // A flag without its value is named, not used.
                        let error =
                            error(arguments).filter(|error| !error.contains("a value is required"));
                        errors.extend(error.map(|error| format!("{name}: {error}")));
                    }
                }
            }
        }
    }
    assert!(errors.is_empty(), "{}", errors.concat());
    assert!(count > 100, "{count}");
}

#[test]
fn lines_are_split_as_a_shell_does() {
    let words = |line: &str| commands(line).concat().join("|");
    assert_eq!(words("a 'b c' \"d\"e # f"), "a|b c|de");
    assert_eq!(words("collector man > x.1"), "collector|man");
    assert_eq!(commands("a | b -o json 2>&1 && c").len(), 4);
    let command = &commands("A=1 COLLECTOR_B=x collector get models")[0];
    assert_eq!(arguments(command).unwrap(), ["get", "models"]);
    let command = &commands("cargo run --release -- demo --once")[0];
    assert_eq!(arguments(command).unwrap(), ["demo", "--once"]);
    assert_eq!(arguments(&commands("cargo run -p other -- demo")[0]), None);
}

/// Rust is a part of an example, which the tests compile and run, or is compiled as a doc test of the library.
#[test]
fn all_rust_is_compiled() {
    let mut examples = Vec::new();
    let mut folders = vec![repository().join("examples")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                examples.push(fs::read_to_string(path).unwrap());
            }
        }
    }
    let library = fs::read_to_string(repository().join("collector/src/lib.rs")).unwrap();
    for (name, page) in pages() {
        for block in blocks(&name, &page).0 {
            let words: Vec<&str> = block.language.split(',').collect();
            if words[0] != "rust" {
                continue;
            }
            if words.contains(&"ignore") {
                let of_an_example = examples.iter().any(|example| example.contains(&block.text));
                assert!(of_an_example, "{} is in no example", block.place);
            } else {
                assert!(library.contains(&format!("/{name}\")]")), "{}", block.place);
            }
        }
    }
}

#[test]
fn docs_prints_every_page() {
    let listed = run(&mut collector(), &["docs"]).stdout;
    for (name, _) in pages() {
        let name = name.trim_end_matches(".md");
        let is_page = repository().join("docs").join(format!("{name}.md")).exists();
        // The benchmarks are about the program, not its use; the summary orders the pages of the book.
        if is_page && !["benchmarks", "SUMMARY"].contains(&name) {
            assert!(listed.lines().any(|line| line.split(' ').next() == Some(name)), "{name}");
        }
    }
}

/// Every field of the two documents of readings has its place on the page.
#[test]
fn the_page_of_fields_has_them_all() {
    let page = fs::read_to_string(repository().join("docs/fields.md")).unwrap();
    for name in ["replicas", "allocation"] {
        let path = repository().join(format!("docs/schema/{name}.json"));
        let schema: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let rows = ["/$defs/ReplicaRow/properties", "/$defs/LatenciesDocument/properties"];
        let properties = [&["/properties"][..], &rows].concat();
        let fields = properties.into_iter().filter_map(|pointer| schema.pointer(pointer));
        for field in fields.flat_map(|fields| fields.as_object().unwrap().keys()) {
            // `load` by what is in it.
            let named =
                page.contains(&format!("`{field}`")) || page.contains(&format!("`{field}."));
            assert!(named, "{name}: {field}");
        }
        let load = schema.pointer("/$defs/LoadDocument/properties");
        for field in load.iter().flat_map(|load| load.as_object().unwrap().keys()) {
            assert!(page.contains(&format!("`load.{field}`")), "{field}");
        }
    }
}

/// The example of a configuration, as it is and with everything that it comments out.
#[test]
fn the_example_of_a_configuration_has_the_defaults() {
    let path = repository().join("examples/collector.toml");
    let text = fs::read_to_string(&path).unwrap();
    let ended = run(collector().arg("validate").arg(&path), &[]);
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    assert!(!ended.stdout.contains("warning"), "{}", ended.stdout);

    // In the text a sentence begins with a capital.
    let is_key = |line: &str| {
        line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '))
    };
    let lines = text.lines().map(|line| match line.strip_prefix("# ") {
        Some(line) if is_key(line) => line,
        _ => line,
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("collector.toml");
    fs::write(&file, lines.collect::<Vec<_>>().join("\n")).unwrap();
    let ended = run(collector().args(["validate", "--no-files"]).arg(&file), &[]);
    assert_eq!(ended.exit, 0, "{}", ended.stderr);

    let defaults = run(&mut collector(), &["config", "show", "-o", "json", "--defaults"]).json();
    let shown =
        run(collector().arg("--config").arg(&file), &["config", "show", "-o", "json"]).json();
    let mut compared = 0;
    // The lists are of the same keys, in the same order. Two keys are set to make the example work as it is.
    let active = ["prometheus.url", "prometheus.allow_http"];
    let entries = |document: &Value| document["entries"].as_array().unwrap().clone();
    for (default, set) in entries(&defaults).iter().zip(entries(&shown)) {
        assert_eq!(default["key"], set["key"]);
        let key = default["key"].as_str().unwrap();
        if default["value"] != "" && !active.contains(&key) {
            assert_eq!(default["value"], set["value"], "{key}");
            compared += 1;
        }
    }
    assert!(compared > 40, "{compared}");
}

#[test]
fn the_page_of_installation_lists_every_feature() {
    let page = fs::read_to_string(repository().join("docs/install.md")).unwrap();
    let manifest: toml::Table = include_str!("../../Cargo.toml").parse().unwrap();
    for feature in manifest["features"].as_table().unwrap().keys().filter(|key| *key != "default") {
        assert!(page.contains(&format!("| `{feature}` |")), "{feature}");
    }
}
