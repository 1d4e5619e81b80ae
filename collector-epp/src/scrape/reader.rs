// SPDX-License-Identifier: Apache-2.0
//! Reads the bytes of a metrics page into samples, and the samples into an [`Exposition`].

use std::sync::Arc;
use std::time::SystemTime;

use collector_core::{ErrorKind, GaugePage};
use collector_transport::{Cause, quote};

use super::client::{ExpositionSink, too_large};
use super::content::{Content, HEAD_BYTES, came_as};
use crate::discover::Target;
use crate::engines::{Engines, Exposition, ExpositionReader, UnknownExposition};
use crate::scan::{Ended, Format, Limits, Scanner, Summary, TooLarge};

/// Bytes of a Content-Type that are kept for messages.
const CONTENT_TYPE_BYTES_MAX: usize = 128;

/// Reads one metrics page after the other.
pub(crate) struct Reader {
    engines: Engines,
    scanner: Scanner,
    pages: ExpositionReader,
    format: Format,
    /// The beginning of the page, to recognise what it is if it has no metrics.
    head: Vec<u8>,
    content_type: Option<String>,
    /// The gauges of the last page, if they are kept.
    gauges: Option<GaugePage>,
}

impl Reader {
    /// A reader that scans for the series of `engines` and gives them to `pages`.
    pub(super) fn new(engines: &Engines, pages: ExpositionReader, limits: Limits) -> Self {
        Self {
            engines: engines.clone(),
            scanner: Scanner::new(Arc::clone(engines.wanted()), limits),
            pages,
            format: Format::Text,
            head: Vec::new(),
            content_type: None,
            gauges: None,
        }
    }

    /// A reader for the pages of a target. An unknown engine is an error of the target.
    pub(crate) fn of_target(
        engines: &Engines,
        target: &Target,
        limits: Limits,
    ) -> Result<Self, Cause> {
        let pages = match &target.engine {
            None => engines.reader(),
            Some(name) => engines.reader_of(name).ok_or_else(|| {
                let known: Vec<_> = engines.names().collect();
                Cause::new(
                    ErrorKind::Configuration,
                    format!(
                        "its engine {:?} is not known; there are {}",
                        quote(name.as_str()),
                        known.join(", ")
                    ),
                )
                .with_remedy(
                    "correct the target's engine or label llm-d.ai/engine-type, leave it out to tell \
                     it from the page, or define it in [[engines]]",
                )
            })?,
        };
        let pages = pages.with_model(target.model.clone()).with_increases();
        Ok(Self::new(engines, pages, limits))
    }

    /// Keeps the gauges of each page, for [`take_gauges`](Self::take_gauges).
    #[must_use]
    pub(crate) fn with_gauges(mut self) -> Self {
        self.pages = self.pages.with_gauges();
        self
    }

    /// Returns the gauges of the page that was finished; `None` if none are kept.
    pub(super) fn take_gauges(&mut self) -> Option<GaugePage> {
        self.gauges.take()
    }

    /// Sets the wall-clock time of the next scrape, and whether it reads the buckets of histograms: several times as
    /// many lines.
    pub(super) fn prepare(&mut self, now: SystemTime, has_buckets: bool) {
        let engines = &self.engines;
        let wanted = if has_buckets { engines.wanted_with_buckets() } else { engines.wanted() };
        self.scanner.look_for(Arc::clone(wanted));
        self.pages.set_buckets(has_buckets);
        self.pages.set_time(now);
    }

    /// Ends the page. `end_is_known`: the transfer gave its length or marked its end.
    pub(super) fn finish(
        &mut self,
        end_is_known: bool,
    ) -> Result<(Exposition, Summary), ExpositionError> {
        let Self { scanner, pages, format, gauges, .. } = self;
        let ended = if end_is_known { Ended::Complete } else { Ended::CutShort };
        let finished = scanner.finish(ended, |sample| pages.sample(sample));
        let summary = finished.map_err(ExpositionError::TooLarge)?;
        if summary.samples == 0
            && let Some(content) = Content::of(&self.head, self.content_type.as_deref())
        {
            return Err(ExpositionError::NoMetrics(content));
        }
        if let Some(cut) = CutShort::of(*format, &summary, end_is_known) {
            return Err(ExpositionError::CutShort(cut));
        }
        *gauges = pages.take_gauges(&summary);
        match pages.finish(&summary) {
            Ok(page) => Ok((page, summary)),
            Err(unknown) => Err(ExpositionError::Unknown(unknown, summary)),
        }
    }

    /// The Content-Type of the page, for messages.
    pub(super) fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }
}

impl ExpositionSink for Reader {
    fn begin(&mut self, content_type: Option<&str>) {
        self.format = Format::from_content_type(content_type);
        self.head.clear();
        self.content_type =
            content_type.map(|it| it.chars().take(CONTENT_TYPE_BYTES_MAX).collect());
        self.pages.reset();
        self.scanner.begin(self.format);
    }

    fn feed(&mut self, chunk: &[u8]) -> Result<(), TooLarge> {
        let room = HEAD_BYTES - self.head.len();
        self.head.extend_from_slice(&chunk[..chunk.len().min(room)]);
        let Self { scanner, pages, .. } = self;
        scanner.feed(chunk, |sample| pages.sample(sample))
    }
}

/// Why a metrics page cannot be read.
#[derive(Clone, PartialEq, Debug)]
pub enum ExpositionError {
    /// It has more bytes than are allowed.
    TooLarge(TooLarge),
    /// It is something other than metrics.
    NoMetrics(Content),
    /// Its end may be missing.
    CutShort(CutShort),
    /// It belongs to no known engine, or not to the expected one.
    Unknown(UnknownExposition, Summary),
}

impl ExpositionError {
    /// The error of a target with such a page, which came with this Content-Type.
    pub(super) fn cause(self, content_type: Option<&str>) -> Cause {
        match self {
            Self::TooLarge(error) => too_large(error),
            Self::NoMetrics(content) => {
                Cause::new(ErrorKind::BadAnswer, content.problem(content_type))
                    .with_remedy(content.remedy())
            }
            // As far as is known, no connection broke.
            Self::CutShort(cut @ CutShort::NoEofMarker) => Cause::new(
                ErrorKind::BadAnswer,
                cut.to_string(),
            )
            .with_remedy(
                "pages of OpenMetrics end with that line: check the server, or have it answer in \
                     text/plain",
            ),
            Self::CutShort(cut @ CutShort::HalfLine) => {
                Cause::new(ErrorKind::Disconnected, cut.to_string())
            }
            Self::Unknown(page, summary) => unknown_page(&page, &summary, content_type),
        }
    }
}

/// Why a page that was transferred may lack its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CutShort {
    /// A page of OpenMetrics without its last line.
    #[error("`# EOF` is missing, so that the page may be cut")]
    NoEofMarker,
    /// The last line has no newline, and the transfer neither gave its length nor marked its end.
    #[error("the page ends in the middle of a line")]
    HalfLine,
}

impl CutShort {
    /// Judges a page of this format; `None` if it is complete. `end_is_known`: see
    /// [`FetchedExposition`](super::FetchedExposition).
    pub fn of(format: Format, summary: &Summary, end_is_known: bool) -> Option<Self> {
        if format == Format::OpenMetrics && !summary.eof_marker {
            Some(Self::NoEofMarker)
        } else if !end_is_known && summary.last_line_unterminated {
            Some(Self::HalfLine)
        } else {
            None
        }
    }
}

fn unknown_page(page: &UnknownExposition, summary: &Summary, content_type: Option<&str>) -> Cause {
    let (lines, bytes) = (summary.lines, summary.bytes);
    if let Some(router) = page.router {
        let detail =
            format!("its page is that of {router}, which shows the metrics of other servers");
        return Cause::new(ErrorKind::BadAnswer, detail)
            .with_remedy("name the model servers behind it as targets, not the router");
    }
    // The usual ones say nothing.
    let came_as = content_type
        .filter(|it| {
            !it.starts_with("text/plain") && !it.starts_with("application/openmetrics-text")
        })
        .map_or_else(String::new, came_as);
    let detail = match (&page.expected, &page.looks_like) {
        (Some(expected), Some(looks_like)) => {
            format!("its page is not of {expected}, but of {looks_like}")
        }
        (Some(expected), None) => {
            format!(
                "its page of {lines} lines ({bytes} bytes) has no series of {expected}{came_as}"
            )
        }
        (None, _) => format!(
            "its page of {lines} lines ({bytes} bytes) has no series of a known engine{came_as}"
        ),
    };
    Cause::new(ErrorKind::BadAnswer, detail).with_remedy(
        "is it the metrics page of a model server? `collector scrape URL` shows what is read of it; \
         other servers are defined in [[engines]]",
    )
}
