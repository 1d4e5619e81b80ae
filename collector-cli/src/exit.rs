// SPDX-License-Identifier: Apache-2.0
//! How a command ends: exit codes, and failures that become lines on stderr and a document.

use std::fmt;
use std::process::ExitCode;

use collector_config::ConfigErrors;
use collector_core::CollectError;

use crate::output::{ErrorDocument, printable};

/// Exit codes, the same for every command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Found, all good.
    Success = 0,
    /// Any other failure, and a check that failed.
    Failure = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// The metrics are missing.
    Missing = 3,
    /// The metrics are older than `unavailable_threshold`.
    Unavailable = 4,
    /// The backend failed.
    Backend = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command gave no result.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    document: Option<Box<ErrorDocument>>,
    /// What to do about it, where no document says so.
    hint: Option<String>,
    /// stdout has a document already, which says so too.
    is_on_stdout: bool,
}

impl Failure {
    /// The command line or the configuration is wrong. stdout stays empty.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, message.to_string())
    }

    /// Anything that has no exit code of its own.
    pub(crate) fn other(message: impl fmt::Display) -> Self {
        Self::new(Exit::Failure, message.to_string())
    }

    /// The command's own document was printed, and says what failed: stdout holds one document.
    pub(crate) fn shown_on_stdout(self) -> Self {
        Self { is_on_stdout: true, ..self }
    }

    /// Anything that has no exit code of its own, with a document.
    #[cfg(feature = "epp")]
    pub(crate) fn explained(document: ErrorDocument) -> Self {
        Self::with_document(Exit::Failure, document)
    }

    /// The metrics are missing, with a document that says why.
    pub(crate) fn missing(document: ErrorDocument) -> Self {
        Self::with_document(Exit::Missing, document)
    }

    /// The backend failed, with a document that says why.
    #[cfg(all(feature = "keda", feature = "promql"))]
    pub(crate) fn backend(document: ErrorDocument) -> Self {
        Self::with_document(Exit::Backend, document)
    }

    fn with_document(exit: Exit, document: ErrorDocument) -> Self {
        let message = document.message().to_owned();
        Self { document: Some(Box::new(document)), ..Self::new(exit, message) }
    }

    fn new(exit: Exit, message: String) -> Self {
        Self { exit, message, document: None, hint: None, is_on_stdout: false }
    }

    /// The same failure with what to do about it.
    pub(crate) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// What `-o json` prints in place of a result.
    pub(crate) fn document(&self) -> Option<&ErrorDocument> {
        self.document.as_deref().filter(|_| !self.is_on_stdout)
    }

    /// What failed, fit for a terminal: one text for each problem.
    pub(crate) fn problems(&self) -> Vec<String> {
        let lines = printable_lines(&self.message);
        // A configuration has as many problems as its message has lines.
        if self.exit == Exit::Usage { lines } else { vec![lines.join("\n")] }
    }

    /// What to do about it, likewise.
    pub(crate) fn advice(&self) -> Vec<String> {
        let hints = self.document.iter().flat_map(|document| document.hints());
        hints
            .chain(&self.hint)
            // A backend's own remedy is part of its message already.
            .filter(|hint| !self.message.contains(hint.as_str()))
            .map(|hint| printable_lines(hint).join("\n"))
            .collect()
    }
}

fn printable_lines(text: &str) -> Vec<String> {
    text.lines().map(|line| printable(line).to_string()).collect()
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::usage(errors)
    }
}

impl From<CollectError> for Failure {
    fn from(error: CollectError) -> Self {
        let exit = match error {
            CollectError::Missing { .. } | CollectError::UnknownVariant { .. } => Exit::Missing,
            CollectError::Unavailable { .. } => Exit::Unavailable,
            CollectError::Backend(_) => Exit::Backend,
            _ => Exit::Failure,
        };
        Self::with_document(exit, ErrorDocument::of(&error))
    }
}
