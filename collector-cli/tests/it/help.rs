// SPDX-License-Identifier: Apache-2.0
//! The help of every command, as it was looked at.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::process::{collector, run};

/// Set to write the file anew.
const UPDATE: &str = "UPDATE_HELP";

/// Where the options begin that are the same for every command.
const GLOBAL: &str = "\nOptions of every command:\n";

/// Where the last of them ends.
const LAST: &str = "[default: auto]";

/// Each command with its help.
fn helps() -> Vec<(Vec<String>, String)> {
    let mut helps = Vec::new();
    let mut left = VecDeque::from([Vec::<String>::new()]);
    while let Some(command) = left.pop_front() {
        let mut args: Vec<&str> = command.iter().map(String::as_str).collect();
        args.push("--help");
        let ended = run(&mut collector(), &args);
        assert_eq!((ended.exit, ended.stderr.as_str()), (0, ""), "{args:?}");
        let commands = ended.stdout.split("\nCommands:\n").nth(1).unwrap_or_default();
        for line in commands.lines().take_while(|line| !line.is_empty()) {
            // What an entry is about may go on in lines without a name.
            let name = line.strip_prefix("  ").and_then(|line| line.split(' ').next());
            if let Some(name) = name.filter(|name| !name.is_empty() && *name != "help") {
                left.push_back([&command[..], &[name.to_owned()]].concat());
            }
        }
        helps.push((command, ended.stdout));
    }
    helps
}

/// The options of every command, from their help.
fn global(help: &str) -> &str {
    let section = help.split(GLOBAL).nth(1).expect("it has the options of every command");
    &section[..section.find(LAST).expect("the last of them")]
}

#[test]
fn the_help_of_each_command_is_as_it_was_looked_at() {
    let helps = helps();
    let same = global(&helps[0].1);
    let mut text = format!(
        "The output of `--help`, written by `{UPDATE}=1 cargo test -p collector-cli --test it help`.\n"
    );
    for (command, help) in &helps {
        let name = [&["collector".to_owned()], &command[..]].concat().join(" ");
        assert_eq!(global(help), same, "{name}");
        let help = if command.is_empty() { help.clone() } else { help.replace(same, "  ...  ") };
        writeln!(text, "\n$ {name} --help\n{}", help.trim_end()).unwrap();
    }
    let lines = text.lines().map(str::trim_end);
    let text = lines.fold(String::new(), |text, line| text + line + "\n");
    let long = text.lines().skip(1).find(|line| line.chars().count() > 100);
    assert_eq!(long, None, "a line is wider than many terminals");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/help.txt");
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&path, &text).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let differs = text.lines().zip(written.lines()).find(|(now, then)| now != then);
    assert!(
        text == written,
        "tests/it/help.txt is out of date, from {differs:?} on: run this test with {UPDATE}=1 and look at \
         what it changes"
    );
}

#[test]
fn the_page_about_the_terminal_names_each_command_and_option() {
    let page = include_str!("../../docs/terminal.md");
    for (command, help) in helps() {
        let name = [&["collector".to_owned()], &command[..]].concat().join(" ");
        assert!(page.contains(&format!("`{name}")), "`{name}` is not on the page");
        if !["get", "watch", "top", "check", "validate"]
            .iter()
            .any(|it| command.first().is_some_and(|name| name == it))
        {
            continue;
        }
        let options = help.split(GLOBAL).next().unwrap_or_default();
        let words = options.split_whitespace().filter(|word| word.starts_with("--"));
        let words = words.map(|word| word.trim_end_matches(['.', ',', ']', ':']));
        for option in words.filter(|word| !["--version", "--help"].contains(word)) {
            assert!(page.contains(option), "{option} of `{name}` is not on the page");
        }
    }
}
