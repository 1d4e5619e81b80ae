// SPDX-License-Identifier: Apache-2.0
//! Reads the parts of a line: labels, value and timestamp.

use super::cursor::Cursor;
use super::labels::{self, Labels, Piece, Spans};
use super::{Format, NameId, Reason, Wanted, number};

/// The labels of a line, as they stand in the bytes behind its name or its first brace.
pub(super) struct Series<'a> {
    pub(super) labels: Labels<'a>,
    /// Where those bytes go on behind the labels.
    pub(super) rest: &'a [u8],
}

/// What follows the labels.
pub(super) struct Measured {
    pub(super) value: f64,
    pub(super) timestamp_ms: Option<i64>,
}

/// Reads the labels behind a bare name, if there are any.
#[inline]
pub(super) fn series<'a>(
    behind_name: &'a [u8],
    spans: &'a mut Spans,
) -> Result<Series<'a>, Reason> {
    let mut cursor = Cursor::new(behind_name);
    cursor.skip_blanks();
    if cursor.peek() != Some(b'{') {
        return Ok(Series { labels: Labels::default(), rest: behind_name });
    }
    cursor.advance();
    let mut name = None;
    let cursor = labels::read(Cursor::new(cursor.rest()), spans, &mut name)?;
    if name.is_some() {
        return Err(Reason::NameTwice);
    }
    behind_brace(&cursor, spans)
}

/// Reads the labels of a line whose name is among them, from behind the opening brace. `None` if that name is not
/// wanted, or the set is malformed before it.
pub(super) fn series_with_name<'a>(
    behind_brace_open: &'a [u8],
    spans: &'a mut Spans,
    wanted: &Wanted,
) -> Option<(NameId, Result<Series<'a>, Reason>)> {
    let id_of = |name: &Piece| {
        let name = labels::unescaped(behind_brace_open, name);
        wanted.id_of(str::from_utf8(&name).ok()?)
    };
    let mut name = None;
    let read = labels::read(Cursor::new(behind_brace_open), spans, &mut name);
    Some((id_of(&name?)?, read.and_then(|cursor| behind_brace(&cursor, spans))))
}

/// The labels that a cursor has passed, which began behind the opening brace.
fn behind_brace<'a>(cursor: &Cursor<'a>, spans: &'a Spans) -> Result<Series<'a>, Reason> {
    let text = str::from_utf8(cursor.passed()).map_err(|_| Reason::NotUtf8)?;
    Ok(Series { labels: Labels::new(text, spans.as_slice()), rest: cursor.rest() })
}

/// Reads value and timestamp. An exemplar, which ends a line of OpenMetrics, is left out.
#[inline]
pub(super) fn measured(behind_labels: &[u8], format: Format) -> Result<Measured, Reason> {
    let mut cursor = Cursor::new(behind_labels);
    let value = match cursor.token() {
        [] => return Err(Reason::NoValue),
        token => number::value(token)?,
    };
    let mut timestamp_ms = None;
    cursor.skip_blanks();
    if !matches!(cursor.peek(), None | Some(b'#')) {
        timestamp_ms = timestamp(cursor.token(), format)?;
        cursor.skip_blanks();
    }
    match (cursor.peek(), format) {
        (None, _) | (Some(b'#'), Format::OpenMetrics) => Ok(Measured { value, timestamp_ms }),
        _ => Err(Reason::TrailingCharacters),
    }
}

/// Reads a timestamp; `None` when it is beyond what milliseconds of 64 bits hold.
fn timestamp(token: &[u8], format: Format) -> Result<Option<i64>, Reason> {
    match format {
        Format::Text => number::milliseconds(token).map(Some).ok_or(Reason::Timestamp),
        Format::OpenMetrics => number::seconds(token),
    }
}
