//! Single pages, fetched as the backend scrapes its targets.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use collector_core::Clock;
use collector_transport::{Cause, ConfigError};
use url::Url;

use super::client::{Client, Credential, Fetched, PageSink};
use super::settings::Settings;
use crate::config::EppConfig;
use crate::discover::{Discovery as _, DiscoveryError, DnsRecord, DnsTargets, FileTargets, Target};

/// Fetches single pages as the backend does: with its certificates, limits, redirects and errors.
pub struct PageClient(Settings);

impl fmt::Debug for PageClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageClient").finish_non_exhaustive()
    }
}

impl PageClient {
    /// A client as these settings make the backend's. Reads tokens and certificates, and sends nothing.
    ///
    /// # Errors
    /// The first file that cannot work, with its key and path.
    pub fn new(config: &EppConfig, clock: Arc<dyn Clock>) -> Result<Self, ConfigError> {
        Settings::new(config, clock).map(Self)
    }

    /// Hands the page at `url` to `sink`, all of it within `limit`. Credentials in the URL are not sent.
    ///
    /// # Errors
    /// Why there is no page, or no whole one, as the backend says it.
    ///
    /// # Cancel safety
    /// It may be dropped at any time.
    pub async fn fetch(
        &self,
        url: &Url,
        credential: Credential,
        limit: Duration,
        sink: &mut impl PageSink,
    ) -> Result<Fetched, Cause> {
        Client::new(url.clone(), credential).fetch(&self.0, limit, sink).await
    }

    /// An error for a page over the limit, as [`fetch`](Self::fetch) says it.
    pub fn too_large(error: crate::scan::PageTooLarge) -> Cause {
        super::client::too_large(error)
    }
}

/// The target of the configuration whose page is at `url`. A DNS name is only looked up where the URL could
/// be one of its pods'.
///
/// # Errors
/// A source of targets could not tell, and no other has this one.
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
        found = keep(FileTargets::new(path).look().await);
    }
    for spec in &config.dns {
        let port = (spec.record != DnsRecord::Srv).then_some(spec.port).flatten();
        let may_be = spec.scheme == url.scheme()
            && spec.path.trim_start_matches('/') == url.path().trim_start_matches('/')
            && (port.is_none() || port == url.port_or_known_default());
        if found.is_none() && may_be {
            found = keep(DnsTargets::new(spec.clone()).look().await);
        }
    }
    match (found, failed) {
        (None, Some(error)) => Err(error),
        (found, _) => Ok(found),
    }
}
