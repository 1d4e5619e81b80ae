//! Where a page comes from: a server, a file or stdin.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::PathBuf;

use collector_epp::EppConfig;
use collector_epp::scan::{PageTooLarge, Sample};
use flate2::read::MultiGzDecoder;
use reqwest::Url;

use super::fetch;
use super::intake::Intake;
use crate::commands::block_on;
use crate::exit::Failure;
use crate::output::{ErrorDocument, printable};

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 64 << 10;

pub(super) enum Source {
    Url(Url),
    File(PathBuf),
    Stdin,
}

/// How a page ended.
pub(super) enum Transfer {
    Complete,
    /// Before its end, and why.
    CutShort(String),
}

impl Source {
    /// What a user calls it.
    pub(super) fn of(page: &str) -> Result<Self, Failure> {
        if page == "-" {
            return Ok(Self::Stdin);
        }
        let Some((scheme, _)) = page.split_once("://") else {
            return Ok(Self::File(page.into()));
        };
        if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return Err(Failure::usage(format!(
                "{scheme:?} is no scheme of a page: use http, https, a file or -"
            )));
        }
        // The URL itself may hold a password.
        let url = Url::parse(page).map_err(|error| Failure::usage(format!("the URL: {error}")))?;
        Ok(Self::Url(url))
    }

    /// Reads the page to its end, wherever that is. A Content-Type of the user's beats the server's.
    pub(super) fn read<Each: FnMut(&Sample<'_>)>(
        &self,
        config: &EppConfig,
        content_type: Option<&str>,
        intake: &mut Intake<Each>,
    ) -> Result<Transfer, Failure> {
        match self {
            Self::Url(url) => block_on(fetch::page(config, url, content_type, intake)),
            Self::Stdin => {
                intake.begin(content_type);
                self.take_all(io::stdin().lock(), intake)
            }
            Self::File(path) => {
                intake.begin(content_type);
                let file = File::open(path)
                    .map_err(|error| Failure::usage(format!("{self}: cannot be read: {error}")))?;
                if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz")) {
                    self.take_all(MultiGzDecoder::new(file), intake)
                } else {
                    self.take_all(file, intake)
                }
            }
        }
    }

    fn take_all<Each: FnMut(&Sample<'_>)>(
        &self,
        mut from: impl Read,
        intake: &mut Intake<Each>,
    ) -> Result<Transfer, Failure> {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match from.read(&mut chunk) {
                Ok(0) => return Ok(Transfer::Complete),
                Ok(length) => {
                    intake.take(&chunk[..length]).map_err(|error| self.too_large(error))?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A compressed file without its end.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    return Ok(Transfer::CutShort("the compressed file has no end".to_owned()));
                }
                Err(error) => {
                    let message = format!("{self}: cannot be read: {error}");
                    return Err(Failure::explained(ErrorDocument::new("Unreadable", message)));
                }
            }
        }
    }

    /// A page over the limit.
    pub(super) fn too_large(&self, error: PageTooLarge) -> Failure {
        if let Self::Url(url) = self {
            return fetch::too_large(url, error);
        }
        Failure::explained(ErrorDocument::new("PageTooLarge", format!("{self}: {error}")))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(&fetch::shown(url)),
            Self::File(path) => write!(f, "{}", printable(&path.to_string_lossy())),
            Self::Stdin => f.write_str("stdin"),
        }
    }
}
