// SPDX-License-Identifier: Apache-2.0
//! Where a page comes from: a server, a file or stdin.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use collector_epp::discover::Target;
use collector_epp::scan::TooLarge;
use collector_epp::{EppConfig, FetchedExposition, shown};
use flate2::read::MultiGzDecoder;
use url::Url;

use super::{cut_short, fetch};
use crate::commands::block_on;
use crate::exit::Failure;
use crate::output::{ErrorDocument, printable};

pub(super) enum Source {
    Url(Url),
    File(PathBuf),
    Stdin,
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
                "{scheme:?} is not a scheme of a page: use http, https, a file or -"
            )));
        }
        // The URL itself may hold a password.
        let url = Url::parse(page).map_err(|error| Failure::usage(format!("the URL: {error}")))?;
        Ok(Self::Url(url))
    }

    /// The target of the configuration whose page it is.
    pub(super) fn target(&self, config: &EppConfig) -> Result<Option<Target>, Failure> {
        match self {
            Self::Url(url) => block_on(async { Ok(fetch::target(config, url).await) }),
            Self::File(_) | Self::Stdin => Ok(None),
        }
    }

    /// Reads the page to its end, wherever that is; from a server within `limit` where it is given, and
    /// with the token of a target.
    pub(super) fn read(
        &self,
        config: &EppConfig,
        is_target: bool,
        limit: Option<Duration>,
    ) -> Result<FetchedExposition, Failure> {
        match self {
            Self::Url(url) => block_on(fetch::page(config, url, is_target, limit)),
            Self::Stdin | Self::File(_) if limit.is_some() => {
                Err(Failure::usage("--timeout is for the page of a URL"))
            }
            Self::Stdin => self.read_all(config, io::stdin().lock()),
            Self::File(path) => {
                let file = File::open(path).map_err(|error| self.no_file(path, &error))?;
                if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz")) {
                    self.read_all(config, MultiGzDecoder::new(file))
                } else {
                    self.read_all(config, file)
                }
            }
        }
    }

    /// A file that cannot be opened, or what may have been meant instead.
    fn no_file(&self, path: &Path, error: &io::Error) -> Failure {
        match address(&path.to_string_lossy()).filter(|_| error.kind() == ErrorKind::NotFound) {
            Some(url) => {
                Failure::usage(format!("the file does not exist; did you mean {}?", shown(&url)))
            }
            None => Failure::usage(format!("{self}: cannot be read: {error}")),
        }
    }

    fn read_all(&self, config: &EppConfig, from: impl Read) -> Result<FetchedExposition, Failure> {
        let max_page_bytes = config.limits().max_page_bytes;
        let mut bytes = Vec::new();
        match from.take(max_page_bytes.saturating_add(1)).read_to_end(&mut bytes) {
            Ok(_) if bytes.len() as u64 > max_page_bytes => {
                Err(self.too_large(TooLarge { max_page_bytes }))
            }
            Ok(_) => Ok(FetchedExposition { bytes, content_type: None, end_is_known: true }),
            // A compressed file without its end.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(cut_short(format!(
                "{self}: the page was cut short: the compressed file has no end"
            ))),
            Err(error) => {
                let message = format!("{self}: cannot be read: {error}");
                Err(Failure::explained(ErrorDocument::new("Unreadable", message)))
            }
        }
    }

    /// The error of a page over the limit.
    pub(super) fn too_large(&self, error: TooLarge) -> Failure {
        Failure::explained(ErrorDocument::new("PageTooLarge", format!("{self}: {error}")))
    }
}

/// The URL that a host with a port and perhaps a path would have.
fn address(text: &str) -> Option<Url> {
    let (host, port) = text.split('/').next()?.rsplit_once(':')?;
    let is_address = !host.is_empty() && port.parse::<u16>().is_ok();
    is_address.then(|| Url::parse(&format!("http://{text}")).ok()).flatten()
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(&shown(url)),
            Self::File(path) => write!(f, "{}", printable(&path.to_string_lossy())),
            Self::Stdin => f.write_str("stdin"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_with_a_port_is_an_address_and_a_file_is_none() {
        let shown = |text| address(text).map(|url| shown(&url));
        for (text, url) in [
            ("localhost:8000/metrics", "http://localhost:8000/metrics"),
            ("10.0.0.7:8000", "http://10.0.0.7:8000/"),
            ("[::1]:8000/metrics", "http://[::1]:8000/metrics"),
            ("me:hunter2@m-0.prod:8000/metrics?t=hunter2", "http://m-0.prod:8000/metrics"),
        ] {
            assert_eq!(shown(text).as_deref(), Some(url), "{text}");
        }
        for text in ["metrics.txt", "a/b:80", "a:b", ":80", "host:99999", "host/metrics"] {
            assert_eq!(shown(text), None, "{text}");
        }
    }
}
