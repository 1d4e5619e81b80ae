// SPDX-License-Identifier: Apache-2.0
//! Mistakes in a configuration: where, which key, what to do.

use std::fmt;

use collector_engine::TimingErrors;

use crate::origin::Origin;

/// One mistake. Never holds the value of a secret key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    origin: Option<Origin>,
    key: Option<String>,
    message: String,
    /// It is about an entry of a list; the other entries are as they were written.
    inside: bool,
}

impl ConfigError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { origin: None, key: None, message: message.into(), inside: false }
    }

    /// The same error, of an entry of a list whose other entries could be read.
    pub(crate) fn inside(self) -> Self {
        Self { inside: true, ..self }
    }

    pub(crate) fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    pub(crate) fn at(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }

    /// The path of the key whose value could not be read, where there is one.
    pub(crate) fn unread_key(&self) -> Option<&str> {
        self.key.as_deref().filter(|_| !self.inside)
    }

    /// Whether it is the file as a whole that cannot be read.
    pub(crate) fn is_of_whole_file(&self) -> bool {
        self.key.is_none() && matches!(self.origin, Some(Origin::File { .. }))
    }

    /// Where the wrong value stands; `None` when it is not one place, as for a key that is not set.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = self.origin.as_ref().filter(|origin| **origin != Origin::Default) {
            write!(f, "{origin}: ")?;
        }
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}

/// Every mistake in a configuration, one line each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// The errors, in the order in which they were found; there is at least one.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }

    /// `value`, unless something is wrong.
    ///
    /// # Errors
    /// These errors, where there are any.
    pub fn or<T>(errors: Vec<ConfigError>, value: T) -> Result<T, Self> {
        if errors.is_empty() { Ok(value) } else { Err(Self(errors)) }
    }
}

impl From<TimingErrors> for ConfigErrors {
    fn from(errors: TimingErrors) -> Self {
        ConfigError::new(errors.to_string()).into()
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, error) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
