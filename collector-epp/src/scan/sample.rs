// SPDX-License-Identifier: Apache-2.0
//! The input of a scanner besides bytes, and the samples that it returns.

use super::labels::Labels;
use super::names::NameId;

/// The format of a page.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Format {
    /// The Prometheus text format.
    #[default]
    Text,
    /// OpenMetrics: timestamps in seconds, exemplars, and an end that is marked.
    OpenMetrics,
}

impl Format {
    /// What an HTTP `Content-Type` announces; whatever is not OpenMetrics is read as text.
    pub fn from_content_type(content_type: Option<&str>) -> Self {
        let media_type = content_type.and_then(|value| value.split(';').next()).unwrap_or("");
        if media_type.trim().eq_ignore_ascii_case("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }
}

/// Size limits of lines and pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// A longer line, without its newline, is skipped, and counted if its name is wanted. Default 64 KiB. A scanner
    /// keeps no more bytes of a page than this.
    pub max_line_bytes: usize,
    /// A larger page is refused. Default 16 MiB.
    pub max_page_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_line_bytes: 64 * 1024, max_page_bytes: 16 * 1024 * 1024 }
    }
}

/// How the transfer of a page ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// As announced: the last line is whole, even without a newline.
    Complete,
    /// Before the announced length, or the last chunk: without a newline the last line may lack
    /// digits, so it is dropped.
    CutShort,
}

/// One sample, valid during the call that it is handed to.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// Which wanted name it has.
    pub name: NameId,
    /// Its labels.
    pub labels: Labels<'a>,
    /// As on the page: NaN and infinities too.
    pub value: f64,
    /// Milliseconds since 1970, when the page gives them.
    pub timestamp_ms: Option<i64>,
    /// The line that it stands on, counted from 1.
    pub line: u64,
}
