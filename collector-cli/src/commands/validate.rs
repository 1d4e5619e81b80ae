// SPDX-License-Identifier: Apache-2.0
//! `collector validate`: whether configuration files work, without the network.

use std::fmt::Write as _;
use std::sync::Arc;

use collector_config::{Kind, Loaded, Loader, Origin};
use collector_core::SystemClock;
use collector_core::text::counted;

use super::files;
use super::settings::{format, layers, url_of, with_origin};
use crate::args::{Format, GlobalArgs, ValidateArgs};
use crate::exit::{Exit, Failure};
use crate::output::{
    CheckedFile, Targets, ValidatedBackend, ValidatedFile, ValidationDocument, print, printable,
    printed_json,
};
use crate::server::{Access, api_tls, external_metrics_tls, keda_tls, load_tls};

/// What a configuration may want that is not on this machine.
const WITHOUT_FILES: &str = "if files that it names exist only where the collector is to run, \
                             --no-files checks everything else";

pub(super) fn run(
    base: &Loader,
    global: &GlobalArgs,
    args: &ValidateArgs,
) -> Result<Exit, Failure> {
    let format = format(global, &[Format::Table, Format::Json])?;
    let (mut good, mut wrong, mut with_files) = (Vec::new(), Vec::new(), false);
    for file in &args.files {
        let name = file.to_string_lossy();
        let (loaded, errors) = layers(base, global, Some(file)).load_with_errors();
        let mut problems: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let mut targets = None;
        if !args.no_files {
            let findings = check_files(&loaded, problems.is_empty())?;
            with_files |= !findings.problems.is_empty();
            problems.extend(findings.problems);
            targets = findings.targets;
        }
        if problems.is_empty() {
            let found = found(&name, loaded, targets, args.no_files);
            if format == Format::Table {
                print(&for_people(&found))?;
            }
            good.push(found);
        }
        // Most problems name the file by themselves, and the line.
        let named = |problem: String| {
            let begins =
                problem.starts_with(&*name) || problem.starts_with("environment variable ");
            if begins { problem } else { format!("{name}: {problem}") }
        };
        wrong.extend(problems.into_iter().map(named));
    }
    if format == Format::Json && !good.is_empty() {
        print(&printed_json(&ValidationDocument::of(&good)))?;
    }
    if wrong.is_empty() {
        return Ok(Exit::Success);
    }
    let failure = Failure::usage(wrong.join("\n"));
    Err(if with_files { failure.with_hint(WITHOUT_FILES) } else { failure })
}

/// The result of checking the files that a configuration names.
struct FileFindings {
    problems: Vec<String>,
    /// How many targets are in the file of targets.
    targets: Option<usize>,
}

/// Checks the files that `serve` would open. `builds` says that the configuration has no mistake.
fn check_files(loaded: &Loaded, builds: bool) -> Result<FileFindings, Failure> {
    let config = &loaded.config;
    let mut problems: Vec<String> = Vec::new();
    if builds && let Err(errors) = config.build(Arc::new(SystemClock::new())) {
        problems.extend(errors.iter().map(ToString::to_string));
    }
    let targets = match super::block_on(async { Ok(files::targets(config).await) })? {
        Some(Err(problem)) => {
            problems.push(problem);
            None
        }
        targets => targets.and_then(Result::ok),
    };
    problems.extend(files::snapshot_problem(config));
    let server = &config.server;
    let external_metrics = external_metrics_tls(&config.external_metrics);
    for tls in [api_tls(server), keda_tls(&config.keda), external_metrics].iter().flatten() {
        if let Err(failure) = load_tls(tls) {
            problems.extend(failure.problems());
        }
    }
    if let Err(failure) = Access::new(server) {
        problems.extend(failure.problems());
    }
    let problems = problems.iter().map(|problem| with_origin(loaded, problem)).collect();
    Ok(FileFindings { problems, targets })
}

fn found(name: &str, loaded: Loaded, in_file: Option<usize>, no_files: bool) -> ValidatedFile {
    let backends = loaded.config.backend.iter();
    let backends = backends
        .map(|name| ValidatedBackend { name: name.clone(), url: url_of(&loaded, name) })
        .collect();
    ValidatedFile {
        file: name.to_owned(),
        backends,
        variants: loaded.config.variants.len(),
        targets: targets(&loaded, in_file),
        files_checked: (!no_files).then(|| files_checked(&loaded)),
        warnings: loaded.warnings,
    }
}

#[cfg(feature = "epp")]
fn targets(loaded: &Loaded, in_file: Option<usize>) -> Option<Targets> {
    let epp = loaded.config.chosen_settings_of::<collector_epp::EppConfig>()?;
    Some(Targets { configured: epp.targets.len(), dns_names: epp.dns.len(), in_file })
}

#[cfg(not(feature = "epp"))]
fn targets(_: &Loaded, _: Option<usize>) -> Option<Targets> {
    None
}

/// Returns the files that were checked, by the keys that name them.
fn files_checked(loaded: &Loaded) -> Vec<CheckedFile> {
    let is_set = |key: &str| loaded.origins.of(key) != Origin::Default;
    let is_read = |key: &str| {
        let (section, rest) = key.split_once('.').unwrap_or((key, ""));
        let chosen = ["cache", "external_metrics", "keda", "server"].contains(&section)
            || loaded.config.backend.iter().any(|name| name == section);
        // The token itself takes precedence over its file.
        let beaten = rest == "token_path" && is_set(&format!("{section}.bearer_token"));
        chosen && !beaten && is_set(key)
    };
    let entries = loaded.entries();
    loaded
        .keys()
        .filter(|key| matches!(key.kind, Kind::Path | Kind::NamedPaths) && is_read(key.path))
        .filter_map(|key| {
            let entry = entries.iter().find(|entry| entry.key == key.path)?;
            Some(CheckedFile { key: key.path.to_owned(), path: entry.value.clone() })
        })
        .collect()
}

fn for_people(found: &ValidatedFile) -> String {
    let mut text = format!("{}: ok\n", printable(&found.file));
    let backends: Vec<String> = found
        .backends
        .iter()
        .map(|ValidatedBackend { name, url }| match url {
            Some(url) => format!("{name} at {url}"),
            None => name.clone(),
        })
        .collect();
    let _ = writeln!(text, "  backends: {}", printable(&backends.join(", ")));
    let _ = writeln!(text, "  variants: {}", found.variants);
    if let Some(Targets { configured, dns_names, in_file }) = &found.targets {
        let mut parts = vec![format!("{configured} in the configuration")];
        if let Some(in_file) = in_file {
            parts.push(format!("{in_file} in the target file"));
        }
        if *dns_names > 0 {
            parts.push(format!("those of {}", counted(*dns_names, "DNS name", "DNS names")));
        }
        let _ = writeln!(text, "  targets: {}", parts.join(", "));
    }
    match found.files_checked.as_deref() {
        None => text.push_str("  files: not checked (--no-files)\n"),
        Some([]) => text.push_str("  files: the configuration names none\n"),
        Some(files) => {
            text.push_str("  files checked:\n");
            for CheckedFile { key, path } in files {
                let _ = writeln!(text, "    {}: {}", printable(key), printable(path));
            }
        }
    }
    for warning in &found.warnings {
        let _ = writeln!(text, "  warning: {}", printable(warning));
    }
    text
}
