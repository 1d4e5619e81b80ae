// SPDX-License-Identifier: Apache-2.0
//! Reads a page as a backend does.

use std::sync::Arc;

use collector_epp::engines::{
    Engines, Exposition, ExpositionReader, ServerExposition, UnknownExposition,
};
use collector_epp::scan::{Ended, Format, Limits, Scanner};

/// What a reader makes of a page that comes in chunks of so many bytes.
pub(crate) fn read(
    engines: &Engines,
    reader: &mut ExpositionReader,
    page: &[u8],
    chunk: usize,
) -> Result<Exposition, UnknownExposition> {
    let mut scanner = Scanner::new(Arc::clone(engines.wanted()), Limits::default());
    scanner.begin(Format::Text);
    for bytes in page.chunks(chunk) {
        scanner.feed(bytes, |sample| reader.sample(sample)).unwrap();
    }
    let summary = scanner.finish(Ended::Complete, |sample| reader.sample(sample)).unwrap();
    reader.finish(&summary)
}

/// What these engines find out about a page.
pub(crate) fn page_of(engines: &Engines, page: &str) -> Result<Exposition, UnknownExposition> {
    read(engines, &mut engines.reader(), page.as_bytes(), usize::MAX)
}

/// The same of a page that is a model server's.
#[track_caller]
pub(crate) fn server_of(engines: &Engines, page: &str) -> ServerExposition {
    match page_of(engines, page) {
        Ok(Exposition::Server(page)) => page,
        page => panic!("{page:?}"),
    }
}
