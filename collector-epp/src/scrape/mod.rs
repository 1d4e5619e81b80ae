// SPDX-License-Identifier: Apache-2.0
//! Scrapes one pod: over a connection that is kept open, with one request, reading the metrics page as it arrives.
//!
//! Everything is limited: one deadline covers name look-up, connecting, TLS, redirects, head and body; the head must
//! fit into the connection's buffer of 8 KiB; lines and pages have limits of their own. Every failure is a
//! [`Cause`](collector_transport::Cause) for this pod alone. [`ExpositionClient`] and
//! [`read_exposition`] fetch and read a single page by the same code.

mod client;
mod connection;
mod content;
mod reader;
mod refused;
mod scraper;
mod settings;
mod single;
mod words;

pub use client::Credential;
pub(crate) use client::Fetched;
pub use content::Content;
pub(crate) use reader::Reader;
pub use reader::{CutShort, ExpositionError};
pub(crate) use scraper::{Scraped, Scraper};
pub(crate) use settings::Settings;
pub use single::{ExpositionClient, FetchError, FetchedExposition, read_exposition, target_at};
