//! Who may change something: any caller on this machine, and any caller with the admin token.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use axum::http::{HeaderMap, header};
use subtle::ConstantTimeEq as _;

use crate::exit::Failure;

/// Longer than any token in use.
const MAX_TOKEN_BYTES: u64 = 16 * 1024;

/// Who may change something.
pub(crate) struct Admin {
    token_path: Option<PathBuf>,
}

impl Admin {
    /// Allows callers on this machine, and callers with the token in this file.
    ///
    /// # Errors
    /// When the file holds no token.
    pub(crate) fn new(token_path: Option<PathBuf>) -> Result<Self, Failure> {
        if let Some(path) = &token_path {
            read_token(path).map_err(|error| {
                Failure::usage(format!(
                    "server.admin_token_path: cannot use {}: {error}",
                    path.display()
                ))
            })?;
        }
        Ok(Self { token_path })
    }

    /// Whether this caller may. The token is read again each time, because it may be rotated.
    pub(super) fn allows(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        if peer.to_canonical().is_loopback() {
            return true;
        }
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let (Some(given), Some(path)) = (given, &self.token_path) else {
            return false;
        };
        match read_token(path) {
            Ok(token) => token.as_bytes().ct_eq(given).into(),
            Err(error) => {
                tracing::warn!(?path, %error, "Cannot read server.admin_token_path");
                false
            }
        }
    }
}

fn read_token(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_TOKEN_BYTES).read_to_string(&mut text)?;
    let token = text.trim();
    if token.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty"));
    }
    Ok(token.to_owned())
}
