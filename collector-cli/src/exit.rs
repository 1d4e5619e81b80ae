//! How a command ends: exit codes, and failures that become a line on stderr and a document.

use std::fmt;
use std::process::ExitCode;

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
    /// stdout has a document already, which says so too.
    told: bool,
}

impl Failure {
    /// The command line or the configuration is wrong. stdout stays empty.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self { exit: Exit::Usage, message: message.to_string(), document: None, told: false }
    }

    /// Anything that has no exit code of its own.
    pub(crate) fn other(message: impl fmt::Display) -> Self {
        Self { exit: Exit::Failure, message: message.to_string(), document: None, told: false }
    }

    /// The command's own document was printed, and says what failed: stdout holds one document.
    pub(crate) fn told_on_stdout(self) -> Self {
        Self { told: true, ..self }
    }

    /// The same with what to do about it, and a document.
    #[cfg(feature = "epp")]
    pub(crate) fn explained(document: ErrorDocument) -> Self {
        let message = document.message().to_owned();
        Self { exit: Exit::Failure, message, document: Some(Box::new(document)), told: false }
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// What `-o json` prints in place of a result.
    pub(crate) fn document(&self) -> Option<&ErrorDocument> {
        self.document.as_deref().filter(|_| !self.told)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Only configuration errors have lines of their own, and quote what they name.
        let mut lines = self.message.lines().map(printable);
        if let Some(first) = lines.next() {
            write!(f, "{first}")?;
        }
        lines.try_for_each(|line| write!(f, "\n{line}"))?;
        let hints = self.document.iter().flat_map(|document| document.hints());
        // A backend's own remedy is part of its message already.
        hints
            .filter(|hint| !self.message.contains(hint.as_str()))
            .try_for_each(|hint| write!(f, "\n  {}", printable(hint)))
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
        let document = ErrorDocument::of(&error);
        Self {
            exit,
            message: document.message().to_owned(),
            document: Some(Box::new(document)),
            told: false,
        }
    }
}
