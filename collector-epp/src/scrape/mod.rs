//! Gets one page of one pod: a connection that is kept, one request, and a page read as it arrives.
//!
//! Everything has a limit: one deadline counts over name look-up, connecting, TLS, redirects, head and
//! body; the head must fit into the connection's buffer of 8 KiB; lines and pages have theirs. Whatever
//! goes wrong is a [`Cause`](collector_transport::Cause) for this pod alone. [`PageClient`] and
//! [`read_page`] fetch and read a single page by the same code.

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
pub use content::Content;
pub(crate) use reader::Reader;
pub use reader::{CutShort, PageError};
pub use refused::shown;
pub(crate) use scraper::{Scraped, Scraper};
pub(crate) use settings::Settings;
pub use single::{FetchError, FetchedPage, PageClient, read_page, target_at};
