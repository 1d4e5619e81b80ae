// SPDX-License-Identifier: Apache-2.0
//! The bearer token: from the configuration, or from a file that rotates.

use std::path::Path;

use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

use crate::error::{ConfigError, Section};
use crate::files::NamedFile;
use crate::secret::Secret;

/// The source of the `Authorization` header.
pub struct Token {
    section: Section,
    /// `bearer_token`, or that of `token_path`; `None`: no token is sent.
    secret: Option<Secret>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Token").field(&self.describe()).finish()
    }
}

impl Token {
    /// The token of a section's keys `bearer_token` and `token_path`; the first overrides the second. Reads the file for
    /// the first time.
    ///
    /// # Errors
    /// When the file cannot be read or holds no token.
    pub fn new(
        section: Section,
        bearer_token: Option<&SecretString>,
        token_path: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let secret = match (bearer_token, token_path) {
            (Some(token), _) => Some(Secret::given(token)),
            (None, Some(path)) => {
                let file = NamedFile::new(section, "token_path", path);
                Some(Secret::in_file(file, extract)?)
            }
            (None, None) => None,
        };
        Ok(Self { section, secret })
    }

    /// Whether there is a token to send.
    pub fn is_some(&self) -> bool {
        self.secret.is_some()
    }

    /// The header to send; never shown by `Debug`.
    pub fn header(&self) -> Option<HeaderValue> {
        let token = self.secret.as_ref()?.get();
        sensitive(&format!("Bearer {}", token.expose_secret()))
    }

    /// Reads the file again after the server refused the token, even if its stamp is unchanged. Returns whether there is
    /// another token to try.
    pub fn changed_after_refusal(&self) -> bool {
        self.secret.as_ref().is_some_and(Secret::reread)
    }

    /// Returns a text of the server's without the token.
    pub fn redact(&self, text: &str) -> String {
        match &self.secret {
            None => text.to_owned(),
            Some(secret) => text.replace(secret.last().expose_secret(), "[token]"),
        }
    }

    /// Describes what was sent, for messages.
    pub fn describe(&self) -> String {
        match self.secret.as_ref().map(Secret::path) {
            None => "no bearer token was sent".to_owned(),
            Some(None) => {
                format!("the bearer token of {} was sent", self.section.key("bearer_token"))
            }
            Some(Some(path)) => format!(
                "the bearer token of {} ({}) was sent",
                path.display(),
                self.section.key("token_path")
            ),
        }
    }
}

/// Returns a value of a header that `Debug` never shows; `None` if it is no such value.
pub fn sensitive(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Returns the token in a file's text, without blanks around it.
fn extract(text: &str) -> Result<&str, String> {
    let token = text.trim();
    check_token(token).map_err(|problem| format!("holds a token that {problem}"))?;
    Ok(token)
}

/// Checks that a bearer token can be sent in a header.
///
/// # Errors
/// The problem, to follow the word "token".
pub fn check_token(token: &str) -> Result<(), &'static str> {
    let begins_with =
        |scheme: &str| token.get(..scheme.len()).is_some_and(|it| it.eq_ignore_ascii_case(scheme));
    if token.is_empty() {
        Err("is empty")
    } else if begins_with("bearer ") {
        Err("begins with \"Bearer \", which is put before it when it is sent: leave that off")
    } else if begins_with("basic ") {
        Err("begins with \"Basic \", so it is not a bearer token: set a user name and a password")
    } else if token.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(())
    } else {
        Err("holds blanks, line breaks or other characters that no bearer token has")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const SECTION: Section = Section { name: "prometheus", variables: Some("PROMETHEUS") };

    fn from_file(path: &Path) -> Result<Token, ConfigError> {
        Token::new(SECTION, None, Some(path))
    }

    #[track_caller]
    fn check(token: &Token, expected: &str) {
        let header = token.header().unwrap();
        assert!(header.is_sensitive());
        assert_eq!(header.to_str().unwrap(), format!("Bearer {expected}"));
    }

    #[test]
    fn a_token_file_is_trimmed_and_read_again_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "one\n").unwrap();
        let token = from_file(&path).unwrap();
        check(&token, "one");
        fs::write(&path, "second\r\n").unwrap();
        check(&token, "second");
        assert!(!token.changed_after_refusal());
    }

    #[test]
    fn the_last_good_token_survives_a_file_that_is_gone_or_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "good").unwrap();
        let token = from_file(&path).unwrap();
        fs::remove_file(&path).unwrap();
        check(&token, "good");
        fs::write(&path, "\n").unwrap();
        check(&token, "good");
        fs::write(&path, "new").unwrap();
        check(&token, "new");
    }

    #[test]
    fn a_refused_token_is_read_again_even_if_the_file_looks_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "aaa").unwrap();
        let token = from_file(&path).unwrap();
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, "bbb").unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert!(token.changed_after_refusal());
        check(&token, "bbb");
    }

    #[track_caller]
    fn refused(path: &Path, part: &str) {
        let text = from_file(path).err().unwrap().to_string();
        assert!(text.starts_with("prometheus.token_path: "), "{text}");
        assert!(text.contains(path.to_str().unwrap()), "{text}");
        assert!(text.contains(part), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn a_file_that_cannot_be_a_token_is_refused_with_key_and_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        refused(&path, "cannot be read");
        fs::write(&path, "").unwrap();
        refused(&path, "is empty");
        fs::write(&path, "hunter2 and more").unwrap();
        refused(&path, "blanks");
        fs::write(&path, "bearer hunter2\n").unwrap();
        refused(&path, "leave that off");
        fs::write(&path, [0xff]).unwrap();
        refused(&path, "not text");
        refused(folder.path(), "is not a file");
    }

    #[test]
    fn the_configured_value_overrides_the_file() {
        let (value, path) = (SecretString::from("value"), Path::new("/does/not/exist"));
        let token = Token::new(SECTION, Some(&value), Some(path)).unwrap();
        check(&token, "value");
        assert!(token.describe().contains("prometheus.bearer_token"));
    }
}
