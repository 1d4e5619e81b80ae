// SPDX-License-Identifier: Apache-2.0
//! What was checked, as it is shown.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

use collector_core::text::counted;
use collector_core::{Check, CheckStatus, duration};

use super::PAUSE;
use crate::args::Format;
use crate::exit::Failure;
use crate::logging;
use crate::output::{CheckDocument, Colour, painted, print, printable, printed_json, signs};

/// Groups in the order in which they build on each other.
const GROUPS: [&str; 8] = [
    "configuration",
    "connection",
    "metrics",
    "cluster",
    "model",
    "timings",
    "scaled-object",
    "hpa",
];

/// The checks of one round.
pub(super) struct Report {
    checks: Vec<Check>,
    /// Each check is printed as soon as it is known.
    at_once: bool,
    /// stdout has something else.
    to_stderr: bool,
    /// The group that was printed last.
    last_group: String,
}

pub(super) fn group(check: &Check) -> &str {
    check.id.split('.').next().unwrap_or_default()
}

fn place(check: &Check) -> Option<usize> {
    GROUPS.iter().position(|name| *name == group(check))
}

impl Report {
    /// No checks yet. With `at_once` they are printed for people as they are added, with `to_stderr` not on stdout.
    pub(super) fn new(at_once: bool, to_stderr: bool) -> Self {
        Self { checks: Vec::new(), at_once, to_stderr, last_group: String::new() }
    }

    fn print(&self, text: &str) -> Result<(), Failure> {
        if !self.to_stderr {
            return print(text);
        }
        match io::stderr().lock().write_all(text.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::other(format!("cannot write to stderr: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Adds checks of one source, in the order of their groups.
    pub(super) fn add(&mut self, checks: impl IntoIterator<Item = Check>) -> Result<(), Failure> {
        let mut checks: Vec<Check> = checks.into_iter().collect();
        // Stable: within a group the order stays.
        checks.sort_by_key(place);
        if self.at_once {
            let text = for_people(&checks, &mut self.last_group, self.to_stderr);
            self.print(&text)?;
        }
        self.checks.extend(checks);
        Ok(())
    }

    pub(super) fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// How many checks failed.
    pub(super) fn failed(&self) -> usize {
        self.count(CheckStatus::Fail)
    }

    fn count(&self, status: CheckStatus) -> usize {
        self.checks.iter().filter(|check| check.status == status).count()
    }

    /// What failed in a round that another one follows.
    pub(super) fn attempt(&self, number: u32, left: Duration) -> String {
        let mut text = format!(
            "attempt {number}: {}; trying again in {}",
            self.failures(),
            duration::format(PAUSE)
        );
        match left.as_secs() {
            0 => text.push_str(" for the last time"),
            left => {
                let left = duration::format(Duration::from_secs(left));
                let _ = write!(text, ", {left} left then");
            }
        }
        for check in self.checks.iter().filter(|check| check.status == CheckStatus::Fail) {
            let _ = write!(text, "\n  {}: {}", printable(&check.id), printable(&check.detail));
        }
        text
    }

    fn failures(&self) -> String {
        let checks = counted(self.checks.len(), "check", "checks");
        format!("{} of {checks} failed", self.failed())
    }

    /// Prints what has not been printed yet, and the verdict.
    pub(super) fn finish(mut self, format: Format, stopped: Option<&str>) -> Result<(), Failure> {
        let details = self.checks.iter().map(|check| check.detail.as_str());
        logging::release(&details.collect::<Vec<_>>().join("\n"));
        // Each source comes with its own groups.
        self.checks.sort_by_key(place);
        if format == Format::Json {
            return self.print(&printed_json(&CheckDocument::new(&self.checks)));
        }
        let mut text = String::new();
        if !self.at_once {
            text = for_people(&self.checks, &mut self.last_group, self.to_stderr);
        }
        let colour = match (self.failed(), self.count(CheckStatus::Warn)) {
            (0, 0) if stopped.is_none() => Colour::Green,
            (0, _) => Colour::Yellow,
            _ => Colour::Red,
        };
        text.push_str(&on(self.to_stderr, &self.verdict(stopped), colour));
        text.push('\n');
        self.print(&text)
    }

    /// The outcome in one line.
    fn verdict(&self, stopped: Option<&str>) -> String {
        let mut text = match (self.failed(), self.checks.len()) {
            (0, 1) => "the only check passed".to_owned(),
            (0, all) => format!("none of {all} checks failed"),
            _ => self.failures(),
        };
        for (status, one, many) in
            [(CheckStatus::Warn, "warning", "warnings"), (CheckStatus::Skip, "skipped", "skipped")]
        {
            let count = self.count(status);
            if count > 0 {
                let _ = write!(text, ", {}", counted(count, one, many));
            }
        }
        match stopped {
            Some(signal) => format!("stopped by {signal}: {text} until then"),
            None => text,
        }
    }
}

/// The text in this colour, for the stream that it goes to.
fn on(stderr: bool, text: &str, colour: Colour) -> String {
    if stderr { painted(text, colour, &io::stderr()) } else { painted(text, colour, &io::stdout()) }
}

/// The checks in lines, under the names of their groups.
fn for_people(checks: &[Check], last_group: &mut String, to_stderr: bool) -> String {
    let signs = signs();
    let mut text = String::new();
    for check in checks {
        let group = group(check);
        if group != last_group {
            let _ = writeln!(text, "{}", printable(group));
            group.clone_into(last_group);
        }
        let (sign, colour) = match check.status {
            CheckStatus::Pass => (signs.pass, Colour::Green),
            CheckStatus::Warn => (signs.warn, Colour::Yellow),
            CheckStatus::Fail => (signs.fail, Colour::Red),
            CheckStatus::Skip => (signs.skip, Colour::Faint),
        };
        let sign = on(to_stderr, sign, colour);
        let name = check.id.strip_prefix(group).unwrap_or(&check.id);
        let name = name.trim_start_matches('.');
        let _ = writeln!(text, "  {sign} {}: {}", printable(name), printable(&check.detail));
        if let Some(remedy) = &check.remedy {
            for line in remedy.lines() {
                let _ = writeln!(text, "      {}", printable(line));
            }
        }
        if matches!(check.status, CheckStatus::Warn | CheckStatus::Fail) {
            let _ = writeln!(text, "      see `collector docs checks {}`", printable(group));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(statuses: &[CheckStatus]) -> Report {
        let mut report = Report::new(false, false);
        let checks = statuses.iter().map(|status| Check::new("model.x", *status, "detail"));
        report.add(checks).unwrap();
        report
    }

    #[test]
    fn the_verdict_counts_what_failed() {
        use CheckStatus::{Fail, Pass, Skip, Warn};
        let verdict = |statuses: &[CheckStatus]| report(statuses).verdict(None);
        assert_eq!(verdict(&[Pass, Pass]), "none of 2 checks failed");
        assert_eq!(verdict(&[Pass]), "the only check passed");
        assert_eq!(verdict(&[Fail, Pass, Warn]), "1 of 3 checks failed, 1 warning");
        assert_eq!(
            verdict(&[Fail, Fail, Warn, Warn, Skip]),
            "2 of 5 checks failed, 2 warnings, 1 skipped"
        );
        assert_eq!(
            report(&[Pass, Pass]).verdict(Some("SIGINT")),
            "stopped by SIGINT: none of 2 checks failed until then"
        );
    }

    #[test]
    fn an_attempt_names_what_failed() {
        let text = report(&[CheckStatus::Pass, CheckStatus::Fail])
            .attempt(3, Duration::from_millis(57_900));
        assert_eq!(
            text,
            "attempt 3: 1 of 2 checks failed; trying again in 2s, 57s left then\n  model.x: detail"
        );
    }
}
