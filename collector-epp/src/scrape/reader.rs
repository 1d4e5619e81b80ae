//! What is read of one pod's pages: bytes into samples, samples into what a page says.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use collector_core::ErrorKind;
use collector_transport::{Cause, quote};

use super::client::{PageSink, too_large};
use super::content::{Content, HEAD_BYTES, came_as};
use crate::discover::Target;
use crate::engines::{Engines, Page, PageReader, UnknownPage};
use crate::scan::{Ended, Format, Limits, PageTooLarge, Scanner, Summary};

/// Bytes of a Content-Type that are kept for messages.
const CONTENT_TYPE_BYTES_MAX: usize = 128;

/// Reads one page after the other.
pub(crate) struct Reader {
    scanner: Scanner,
    pages: PageReader,
    format: Format,
    /// How the page begins, to tell what it is when it is none.
    head: Vec<u8>,
    content_type: Option<String>,
}

impl Reader {
    /// A reader that scans for the series of `engines` and gives them to `pages`.
    pub(super) fn new(engines: &Engines, pages: PageReader, limits: Limits) -> Self {
        Self {
            scanner: Scanner::new(Arc::clone(engines.wanted()), limits),
            pages,
            format: Format::Text,
            head: Vec::new(),
            content_type: None,
        }
    }

    /// A reader for the pages of a target. An engine that the table does not have is an error of the target.
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

    /// Says when the next page is asked for.
    pub(super) fn set_time(&mut self, now: SystemTime) {
        self.pages.set_time(now);
    }

    /// Ends the page. `end_is_known`: the transfer told its length, or its end.
    pub(super) fn finish(&mut self, end_is_known: bool) -> Result<(Page, Summary), PageError> {
        let Self { scanner, pages, format, .. } = self;
        let ended = if end_is_known { Ended::Complete } else { Ended::CutShort };
        let finished = scanner.finish(ended, |sample| pages.sample(sample));
        let summary = finished.map_err(PageError::TooLarge)?;
        if summary.samples == 0
            && let Some(content) = Content::of(&self.head, self.content_type.as_deref())
        {
            return Err(PageError::NoMetrics(content));
        }
        if let Some(cut) = CutShort::of(*format, &summary, end_is_known) {
            return Err(PageError::CutShort(cut));
        }
        match pages.finish(&summary) {
            Page::Unknown(unknown) => Err(PageError::Unknown(unknown, summary)),
            page => Ok((page, summary)),
        }
    }

    /// The Content-Type of the page, for messages.
    pub(super) fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }
}

impl PageSink for Reader {
    fn begin(&mut self, content_type: Option<&str>) {
        self.format = Format::from_content_type(content_type);
        self.head.clear();
        self.content_type =
            content_type.map(|it| it.chars().take(CONTENT_TYPE_BYTES_MAX).collect());
        self.pages.reset();
        self.scanner.begin(self.format);
    }

    fn feed(&mut self, chunk: &[u8]) -> Result<(), PageTooLarge> {
        let room = HEAD_BYTES - self.head.len();
        self.head.extend_from_slice(&chunk[..chunk.len().min(room)]);
        let Self { scanner, pages, .. } = self;
        scanner.feed(chunk, |sample| pages.sample(sample))
    }
}

/// Why a metrics page cannot be read.
#[derive(Clone, PartialEq, Debug)]
pub enum PageError {
    /// It has more bytes than are allowed.
    TooLarge(PageTooLarge),
    /// It has no metrics but something else.
    NoMetrics(Content),
    /// Its end may be missing.
    CutShort(CutShort),
    /// It is of no engine, or not of the one that it should be of.
    Unknown(UnknownPage, Summary),
}

impl PageError {
    /// The error of a target with such a page, which came with this Content-Type.
    pub(super) fn cause(self, content_type: Option<&str>) -> Cause {
        match self {
            Self::TooLarge(error) => too_large(error),
            Self::NoMetrics(content) => {
                Cause::new(ErrorKind::BadAnswer, content.problem(content_type))
                    .with_remedy(content.remedy())
            }
            // No connection broke, as far as anybody knows.
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
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CutShort {
    /// A page of OpenMetrics without its last line.
    NoEofMarker,
    /// The last line has no newline, and the transfer told neither its length nor its end.
    HalfLine,
}

impl CutShort {
    /// Judges a page of this format; `None` when it is whole. `end_is_known`: see
    /// [`Fetched`](super::Fetched).
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

impl fmt::Display for CutShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoEofMarker => "`# EOF` is missing, so that the page may be cut",
            Self::HalfLine => "the page ends in the middle of a line",
        })
    }
}

fn unknown_page(page: &UnknownPage, summary: &Summary, content_type: Option<&str>) -> Cause {
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
