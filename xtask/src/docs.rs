// SPDX-License-Identifier: Apache-2.0
//! Checks the links of the documentation, and makes a book of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Subcommand;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use serde_json::Value;

use crate::run::{output, step};
use crate::{install, workspace};

/// The folder of the pages, and the page that orders them.
const PAGES: &str = "docs";
const SUMMARY: &str = "docs/SUMMARY.md";

/// What mdbook asks before it sends a book.
#[derive(Subcommand)]
pub(crate) enum Question {
    /// Whether it can be used for this form of the book: always.
    Supports {
        /// The form.
        renderer: String,
    },
}

/// Checks all pages, and makes the book.
pub(crate) fn make() -> Result<()> {
    check()?;
    book(&mdbook()?)
}

/// The same, without the book where mdbook cannot be installed.
pub(crate) fn make_if_possible() -> Result<()> {
    check()?;
    match mdbook() {
        Ok(mdbook) => book(&mdbook),
        Err(error) => {
            println!("== book: skipped, because mdbook cannot be installed: {error:#}");
            Ok(())
        }
    }
}

fn mdbook() -> Result<PathBuf> {
    let installed = output(Command::new("mdbook").arg("--version")).is_some();
    if installed {
        return Ok(PathBuf::from("mdbook"));
    }
    // Without what serves the book, it compiles in less than two minutes.
    install::tool("mdbook", &["--no-default-features", "--features=search"])
}

fn check() -> Result<()> {
    println!("== links of the documentation");
    let problems = problems(workspace::root())?;
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

fn book(mdbook: &Path) -> Result<()> {
    step("book", Command::new(mdbook).arg("build").current_dir(workspace::root()))?;
    println!("   target/book/index.html");
    Ok(())
}

/// The links and headings of a page.
#[derive(Default)]
struct Page {
    /// The targets of links and images, and where in the text each link is.
    links: Vec<(String, Range<usize>)>,
    /// What `#` can lead to.
    anchors: BTreeSet<String>,
}

impl Page {
    fn of(text: &str) -> Self {
        let mut page = Self::default();
        let mut heading: Option<String> = None;
        let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH;
        for (event, range) in Parser::new_ext(text, options).into_offset_iter() {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push((dest_url.into_string(), range));
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    let anchor = anchor(&heading.take().unwrap_or_default());
                    // The second of a name ends with -1.
                    let mut free = anchor.clone();
                    let mut number = 0;
                    while !page.anchors.insert(free) {
                        number += 1;
                        free = format!("{anchor}-{number}");
                    }
                }
                Event::Text(text) | Event::Code(text) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&text);
                    }
                }
                _ => {}
            }
        }
        page
    }
}

/// The anchor of a heading, as GitHub and mdbook make it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter_map(|letter| match letter {
        ' ' => Some('-'),
        '-' | '_' => Some(letter),
        _ => letter.is_alphanumeric().then_some(letter),
    });
    kept.collect::<String>().to_lowercase()
}

/// A link within the repository: its path and its anchor. `None` for one that leads elsewhere.
fn within(link: &str) -> Option<(&str, Option<&str>)> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    Some(link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor))))
}

/// Removes `.` and `..` from a path; `None` if it leads above its beginning.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                if !normal.pop() {
                    return None;
                }
            }
            part => normal.push(part),
        }
    }
    Some(normal)
}

/// What is wrong with the pages of a repository: links that lead nowhere, and pages that the summary lacks.
fn problems(root: &Path) -> Result<Vec<String>> {
    let mut pages: BTreeMap<PathBuf, Page> = BTreeMap::new();
    for path in workspace::files(root, "md")? {
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        pages.insert(path.strip_prefix(root)?.to_owned(), Page::of(&text));
    }
    let mut problems = Vec::new();
    for (path, page) in &pages {
        let folder = path.parent().unwrap_or(Path::new(""));
        for (link, _) in &page.links {
            let Some((to, anchor)) = within(link) else { continue };
            let target = if to.is_empty() { Some(path.clone()) } else { normal(&folder.join(to)) };
            let target = target.filter(|target| root.join(target).exists());
            let Some(target) = target else {
                problems.push(format!("{}: {link} leads to no file", path.display()));
                continue;
            };
            let known = pages.get(&target).map(|page| &page.anchors);
            if let (Some(anchor), Some(known)) = (anchor, known) {
                if !known.contains(anchor) {
                    problems.push(format!("{}: {link} leads to no heading", path.display()));
                } else if anchor.contains("--") {
                    let problem = "mdbook makes one hyphen of several: change the heading";
                    problems.push(format!("{}: {link}: {problem}", path.display()));
                }
            }
        }
    }
    let listed: Vec<PathBuf> = match pages.get(Path::new(SUMMARY)) {
        Some(summary) => {
            summary.links.iter().map(|(link, _)| Path::new(PAGES).join(link)).collect()
        }
        None => bail!("there is no {SUMMARY}"),
    };
    for path in pages.keys().filter(|path| path.starts_with(PAGES)) {
        let times = listed.iter().filter(|listed| *listed == path).count();
        if times != 1 && path != Path::new(SUMMARY) {
            problems.push(format!("{SUMMARY} lists {} {times} times", path.display()));
        }
    }
    Ok(problems)
}

/// Reads a book of mdbook from standard input, and prints it with links to files outside of it that lead to the
/// repository. In a clone these links are right as they are.
pub(crate) fn lead_links_out() -> Result<()> {
    let input: Value = serde_json::from_reader(io::stdin()).context("mdbook sent no book")?;
    let mut book = input.get(1).cloned().context("mdbook sent no book")?;
    let base = workspace::repository()? + "/blob/main/";
    chapters(&mut book, &base)?;
    print!("{book}");
    Ok(())
}

/// Changes each chapter of a book, at any depth.
fn chapters(book: &mut Value, base: &str) -> Result<()> {
    match book {
        Value::Array(items) => items.iter_mut().try_for_each(|item| chapters(item, base)),
        Value::Object(fields) => {
            if let (Some(Value::String(content)), Some(Value::String(path))) =
                (fields.get("content"), fields.get("path"))
            {
                let content = led_out(content, &Path::new(PAGES).join(path), base);
                fields.insert("content".to_owned(), content.into());
            }
            fields.values_mut().try_for_each(|field| chapters(field, base))
        }
        _ => Ok(()),
    }
}

/// The text of a page in `docs`, with links that leave this folder led to `base`.
fn led_out(text: &str, path: &Path, base: &str) -> String {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut changed = text.to_owned();
    // From the end, so that earlier places stay where they are.
    for (link, range) in Page::of(text).links.into_iter().rev() {
        let Some((to, _)) = within(&link) else { continue };
        let Some(target) = normal(&folder.join(to)) else { continue };
        if to.is_empty() || target.starts_with(PAGES) {
            continue;
        }
        let anchor = &link[to.len()..];
        let whole = text[range.clone()].to_owned();
        if let Some(at) = whole.rfind(&link) {
            let at = range.start + at;
            changed
                .replace_range(at..at + link.len(), &format!("{base}{}{anchor}", target.display()));
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_links_of_this_repository_lead_somewhere() {
        assert_eq!(problems(workspace::root()).unwrap(), [""; 0]);
    }

    #[test]
    fn every_task_that_a_page_names_exists() {
        let tasks = crate::Args::command();
        let mut count = 0;
        for path in workspace::files(workspace::root(), "md").unwrap() {
            let text = fs::read_to_string(&path).unwrap();
            for rest in text.split("cargo xtask ").skip(1) {
                let end = rest.find(|letter: char| !(letter.is_ascii_lowercase() || letter == '-'));
                let name = &rest[..end.unwrap_or(rest.len())];
                assert!(tasks.find_subcommand(name).is_some(), "{}: {name:?}", path.display());
                count += 1;
            }
        }
        assert!(count > 20, "{count}");
    }

    #[test]
    fn wrong_links_and_unlisted_pages_are_found() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("docs")).unwrap();
        let write = |path: &str, text: &str| fs::write(folder.path().join(path), text).unwrap();
        write("docs/SUMMARY.md", "- [One](one.md)\n- [Two](two.md)\n- [Again](two.md)\n");
        write(
            "docs/one.md",
            "# One, `two` and *three*!\n## Twice\n## Twice\n[a](#one-two-and-three) [b](#twice-1) [c](#twice-2)\n\
             [d](../README.md#top) [e](../../x.md) [f](gone.md) [g](https://example.org/#x) ![h](no.svg)\n\
             `[i](code.md)`\n",
        );
        write("docs/two.md", "# A - b\n| a | b |\n|---|---|\n| [c](one.md#four) | [d](#a---b) |\n");
        write("docs/three.md", "");
        write("README.md", "# Top\n[docs](docs)\n");
        assert_eq!(
            problems(folder.path()).unwrap(),
            [
                "docs/one.md: #twice-2 leads to no heading",
                "docs/one.md: ../../x.md leads to no file",
                "docs/one.md: gone.md leads to no file",
                "docs/one.md: no.svg leads to no file",
                "docs/two.md: one.md#four leads to no heading",
                "docs/two.md: #a---b: mdbook makes one hyphen of several: change the heading",
                "docs/SUMMARY.md lists docs/three.md 0 times",
                "docs/SUMMARY.md lists docs/two.md 2 times",
            ]
        );
    }

    #[test]
    fn links_out_of_the_book_lead_to_the_repository() {
        let text = "[a](../README.md#use), [b](one.md), [../README.md](../README.md) [c](#d)";
        assert_eq!(
            led_out(text, Path::new("docs/two.md"), "https://host/"),
            "[a](https://host/README.md#use), [b](one.md), [../README.md](https://host/README.md) [c](#d)"
        );
        let mut book = serde_json::json!({"sections": [{"Chapter": {
            "content": "[a](../x.rs)", "path": "a.md", "sub_items": [{"Chapter": {
                "content": "[b](../y.rs)", "path": "b.md" }}],
        }}]});
        chapters(&mut book, "https://host/").unwrap();
        let text = book.to_string();
        assert!(text.contains("https://host/x.rs") && text.contains("https://host/y.rs"), "{text}");
    }
}
