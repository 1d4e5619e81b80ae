// SPDX-License-Identifier: Apache-2.0
//! Fetches and reads a single metrics page as the backend scrapes its targets, for `collector scrape`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use collector_core::{Clock, ErrorKind};
use collector_transport::{Cause, ConfigError};
use url::Url;

use super::client::{Client, Credential, ExpositionSink, Fetched};
use super::reader::{ExpositionError, Reader};
use super::settings::Settings;
use crate::config::EppConfig;
use crate::discover::{Discovery as _, DiscoveryError, DnsRecord, DnsTargets, FileTargets, Target};
use crate::engines::{Engines, Exposition, ExpositionReader};
use crate::scan::{Limits, Summary, TooLarge};

/// A metrics page as it arrived.
#[derive(Default, Debug)]
pub struct FetchedExposition {
    /// The page.
    pub bytes: Vec<u8>,
    /// Its Content-Type, if it came with one.
    pub content_type: Option<String>,
    /// The transfer gave its length or marked its end: the page is complete, even without a newline at its end.
    pub end_is_known: bool,
}

/// Why a page could not be fetched.
#[derive(Debug)]
pub enum FetchError {
    /// The server did not send one.
    Failed(Cause),
    /// The connection broke within the page.
    CutShort(Cause),
}

/// Collects a page.
struct Collector {
    page: Option<FetchedExposition>,
    max_page_bytes: u64,
}

impl ExpositionSink for Collector {
    fn begin(&mut self, content_type: Option<&str>) {
        let content_type = content_type.map(str::to_owned);
        self.page = Some(FetchedExposition { content_type, ..FetchedExposition::default() });
    }

    fn feed(&mut self, chunk: &[u8]) -> Result<(), TooLarge> {
        let bytes = &mut self.page.get_or_insert_default().bytes;
        let max_page_bytes = self.max_page_bytes;
        if (bytes.len() + chunk.len()) as u64 > max_page_bytes {
            return Err(TooLarge { max_page_bytes });
        }
        bytes.extend_from_slice(chunk);
        Ok(())
    }
}

/// Fetches single pages as the backend does: with its certificates, limits, redirects and errors.
pub struct ExpositionClient(Settings);

impl fmt::Debug for ExpositionClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExpositionClient").finish_non_exhaustive()
    }
}

impl ExpositionClient {
    /// A client with these settings. Reads tokens and certificates, and sends nothing.
    ///
    /// # Errors
    /// The first file that cannot work, with its key and path.
    pub fn new(config: &EppConfig, clock: Arc<dyn Clock>) -> Result<Self, ConfigError> {
        Settings::new(config, clock).map(Self)
    }

    /// Fetches the page at `url`, all of it within `limit`. Credentials in the URL are not sent.
    ///
    /// # Errors
    /// Why there is no complete page, in the backend's words.
    ///
    /// # Cancel safety
    /// It may be dropped at any time.
    pub async fn fetch(
        &self,
        url: &Url,
        credential: Credential,
        limit: Duration,
    ) -> Result<FetchedExposition, FetchError> {
        let max_page_bytes = self.0.limits.max_page_bytes;
        let mut collector = Collector { page: None, max_page_bytes };
        let mut client = Client::new(url.clone(), credential);
        let fetched = client.fetch(&self.0, limit, &mut collector).await;
        let page = collector.page;
        match fetched {
            Ok(Fetched { end_is_known, .. }) => {
                Ok(FetchedExposition { end_is_known, ..page.unwrap_or_default() })
            }
            Err(cause) if cause.kind == ErrorKind::Disconnected && page.is_some() => {
                Err(FetchError::CutShort(cause))
            }
            Err(cause) => Err(FetchError::Failed(cause)),
        }
    }
}

/// Reads a page as the backend reads those of its targets: the series of `engines` by `reader`.
///
/// # Errors
/// Why it cannot be read.
pub fn read_exposition(
    engines: &Engines,
    reader: ExpositionReader,
    limits: Limits,
    page: &FetchedExposition,
) -> Result<(Exposition, Summary), ExpositionError> {
    let mut reader = Reader::new(engines, reader, limits);
    reader.begin(page.content_type.as_deref());
    reader.feed(&page.bytes).map_err(ExpositionError::TooLarge)?;
    reader.finish(page.end_is_known)
}

/// Returns the target of the configuration whose page is at `url`. A DNS name is only looked up if the URL could
/// belong to one of its pods.
///
/// # Errors
/// A source of targets failed, and no other has this target.
pub async fn target_at(config: &EppConfig, url: &Url) -> Result<Option<Target>, DiscoveryError> {
    let at_url = |targets: Vec<Target>| targets.into_iter().find(|target| target.url == *url);
    let fixed = config.targets.iter().filter_map(|spec| spec.target().ok()).collect();
    let mut found = at_url(fixed);
    let mut failed = None;
    let mut keep = |targets: Result<Vec<Target>, DiscoveryError>| match targets {
        Ok(targets) => at_url(targets),
        Err(error) => {
            failed.get_or_insert(error);
            None
        }
    };
    if let (None, Some(path)) = (&found, &config.target_file) {
        found = keep(FileTargets::new(path).targets().await);
    }
    for spec in &config.dns {
        let port = (spec.record != DnsRecord::Srv).then_some(spec.port).flatten();
        let may_be = spec.scheme == url.scheme()
            && spec.path.trim_start_matches('/') == url.path().trim_start_matches('/')
            && (port.is_none() || port == url.port_or_known_default());
        if found.is_none() && may_be {
            found = keep(DnsTargets::new(spec.clone()).targets().await);
        }
    }
    match (found, failed) {
        (None, Some(error)) => Err(error),
        (found, _) => Ok(found),
    }
}
