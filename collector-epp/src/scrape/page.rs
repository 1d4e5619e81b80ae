//! What is read of one pod's pages: bytes into samples, samples into what a page says.

use std::sync::Arc;

use std::time::SystemTime;

use collector_core::{EngineName, ErrorKind, ModelId};
use collector_transport::Cause;

use crate::engines::{Engines, Page, PageReader, UnknownPage};
use crate::scan::{Ended, Format, Limits, PageTooLarge, Scanner, Summary};

/// Reads one page after the other.
pub(crate) struct Reader {
    scanner: Scanner,
    pages: PageReader,
    format: Format,
}

impl Reader {
    /// A reader for pages of `engine`, or of any, about `model` or what they say. An engine that the table
    /// does not have is an error of the target.
    pub(crate) fn new(
        engines: &Engines,
        engine: Option<&EngineName>,
        model: Option<&ModelId>,
        limits: Limits,
    ) -> Result<Self, Cause> {
        let pages = match engine {
            None => engines.reader(),
            Some(name) => engines.reader_of(name).ok_or_else(|| {
                let known: Vec<_> = engines.names().map(EngineName::as_str).collect();
                Cause::new(
                    ErrorKind::Configuration,
                    format!(
                        "its engine {:?} is not known; there are {}",
                        collector_transport::quote(name.as_str()),
                        known.join(", ")
                    ),
                )
                .with_remedy(
                    "correct the target's engine or label llm-d.ai/engine-type, leave it out to tell \
                     it from the page, or define it in [[engines]]",
                )
            })?,
        };
        Ok(Self {
            // Without its memo: it takes a tenth off the cost of a scrape, and 6 KB a pod.
            scanner: Scanner::new(Arc::clone(engines.wanted()), limits),
            pages: pages.with_model(model.cloned()).with_increases(),
            format: Format::Text,
        })
    }

    /// Begins a page; what was read of an unfinished one is forgotten.
    pub(super) fn begin(&mut self, format: Format, now: SystemTime) {
        self.format = format;
        self.pages.reset();
        self.pages.set_time(now);
        self.scanner.begin(format);
    }

    pub(super) fn feed(&mut self, chunk: &[u8]) -> Result<(), Cause> {
        let Self { scanner, pages, .. } = self;
        scanner.feed(chunk, |sample| pages.sample(sample)).map_err(too_large)
    }

    /// Ends the page. `end_is_known`: the transfer told its length, or its end.
    pub(super) fn finish(&mut self, end_is_known: bool) -> Result<(Page, Summary), Cause> {
        let Self { scanner, pages, format } = self;
        let ended = if end_is_known { Ended::Complete } else { Ended::CutShort };
        let summary = scanner.finish(ended, |sample| pages.sample(sample)).map_err(too_large)?;
        if *format == Format::OpenMetrics && !summary.eof_marker {
            return Err(cut_short("the page ends before its # EOF"));
        }
        // Without an announced end, half a line is all that tells a page that was cut short.
        if !end_is_known && summary.last_line_unterminated {
            return Err(cut_short("the page ends in the middle of a line"));
        }
        match pages.finish(&summary) {
            Page::Unknown(unknown) => Err(unknown_page(&unknown, &summary)),
            page => Ok((page, summary)),
        }
    }
}

fn too_large(error: PageTooLarge) -> Cause {
    Cause::new(ErrorKind::TooLarge, error.to_string())
        .with_remedy("is it the page of a model server? epp.max_page_bytes may be raised")
}

fn cut_short(detail: &'static str) -> Cause {
    Cause::new(ErrorKind::Disconnected, detail)
}

fn unknown_page(page: &UnknownPage, summary: &Summary) -> Cause {
    let (lines, bytes) = (summary.lines, summary.bytes);
    if let Some(router) = page.router {
        let detail = format!("its page is that of {router}, which tells of other servers");
        return Cause::new(ErrorKind::BadAnswer, detail)
            .with_remedy("name the model servers behind it as targets, not the router");
    }
    let detail = match (&page.expected, &page.looks_like) {
        (Some(expected), Some(looks_like)) => {
            format!("its page is not of {expected}, but of {looks_like}")
        }
        (Some(expected), None) => {
            format!("its page of {lines} lines ({bytes} bytes) has no series of {expected}")
        }
        (None, _) => {
            format!("its page of {lines} lines ({bytes} bytes) has no series of a known engine")
        }
    };
    Cause::new(ErrorKind::BadAnswer, detail).with_remedy(
        "is it the metrics page of a model server? `collector scrape URL` shows what is read of it; \
         other servers are defined in [[engines]]",
    )
}
