// SPDX-License-Identifier: Apache-2.0
//! Scrapes one pod again and again.

use collector_core::GaugePage;
use collector_transport::Cause;
use url::Url;

use super::client::{Client, Credential, Fetched};
use super::reader::Reader;
use super::settings::Settings;
use crate::engines::Exposition;
use crate::scan::Summary;

/// Scrapes one pod over one connection.
///
/// Cancel-safe: a scrape that is dropped loses its connection, nothing else.
pub(crate) struct Scraper {
    client: Client,
    reader: Result<Reader, Cause>,
}

/// A page that was read to its end.
#[derive(Debug)]
pub(crate) struct Scraped {
    pub(crate) page: Exposition,
    pub(crate) summary: Summary,
    pub(crate) fetched: Fetched,
    /// The gauges of the page, if they are kept.
    pub(crate) gauges: Option<GaugePage>,
}

impl Scraper {
    pub(crate) fn new(url: Url, credential: Credential, reader: Result<Reader, Cause>) -> Self {
        Self { client: Client::new(url, credential), reader }
    }

    /// Closes the connection.
    pub(crate) fn disconnect(&mut self) {
        self.client.disconnect();
    }

    /// Fetches and reads the page within the time-out, with the buckets of its histograms if they are asked for.
    pub(crate) async fn scrape(
        &mut self,
        settings: &Settings,
        has_buckets: bool,
    ) -> Result<Scraped, Cause> {
        let reader = self.reader.as_mut().map_err(|cause| cause.clone())?;
        reader.prepare(settings.clock.wall(), has_buckets);
        let fetched = self.client.fetch(settings, settings.timeout, reader).await?;
        // The connection is kept if the page is refused here.
        let finished = reader.finish(fetched.end_is_known);
        let (page, summary) = finished.map_err(|error| error.cause(reader.content_type()))?;
        let gauges = reader.take_gauges();
        Ok(Scraped { page, summary, fetched, gauges })
    }
}
