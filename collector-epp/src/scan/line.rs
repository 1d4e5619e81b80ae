//! One line behind its name: labels, value, timestamp, exemplar.

use super::labels::{self, Labels, Piece, Spans};
use super::{Format, NameId, Reason, Wanted, number};

/// What a sample line says behind its name.
pub(super) struct Body<'a> {
    pub(super) labels: Labels<'a>,
    pub(super) value: f64,
    pub(super) timestamp_ms: Option<i64>,
}

/// Room for what is read of one line.
#[derive(Debug)]
pub(super) struct Tables {
    sample: Spans,
    exemplar: Spans,
}

impl Tables {
    pub(super) fn new() -> Self {
        Self { sample: Spans::new(), exemplar: Spans::new() }
    }
}

/// Reads what follows a bare name.
pub(super) fn after_name<'a>(
    rest: &'a [u8],
    format: Format,
    tables: &'a mut Tables,
) -> Result<Body<'a>, Reason> {
    let mut cursor = Cursor::new(rest);
    cursor.skip_blanks();
    if cursor.peek() != Some(b'{') {
        let (value, timestamp_ms) = after_labels(&mut cursor, format, tables)?;
        return Ok(Body { labels: Labels::new("", &[]), value, timestamp_ms });
    }
    cursor.advance();
    let mut cursor = Cursor::new(cursor.rest());
    let mut name = None;
    labels::read(&mut cursor, &mut tables.sample, &mut name)?;
    if name.is_some() {
        return Err(Reason::NameTwice);
    }
    after_brace(cursor, format, tables)
}

/// Reads a line whose name is among its labels, from behind the opening brace. `None` when that name is
/// not wanted, or is not reached because something before it is malformed.
pub(super) fn with_quoted_name<'a>(
    rest: &'a [u8],
    format: Format,
    tables: &'a mut Tables,
    wanted: &Wanted,
) -> Option<(NameId, Result<Body<'a>, Reason>)> {
    let mut cursor = Cursor::new(rest);
    let mut name = None;
    let labels = labels::read(&mut cursor, &mut tables.sample, &mut name);
    let name = labels::unescaped(rest, &name?);
    let name = wanted.id_of(str::from_utf8(&name).ok()?)?;
    Some((name, labels.and_then(|()| after_brace(cursor, format, tables))))
}

/// Reads on behind the closing brace; the cursor began behind the opening one.
fn after_brace<'a>(
    mut cursor: Cursor<'a>,
    format: Format,
    tables: &'a mut Tables,
) -> Result<Body<'a>, Reason> {
    let text = str::from_utf8(cursor.passed()).map_err(|_| Reason::NotUtf8)?;
    let (value, timestamp_ms) = after_labels(&mut cursor, format, tables)?;
    Ok(Body { labels: Labels::new(text, tables.sample.as_slice()), value, timestamp_ms })
}

fn after_labels(
    cursor: &mut Cursor<'_>,
    format: Format,
    tables: &mut Tables,
) -> Result<(f64, Option<i64>), Reason> {
    let value = match cursor.token() {
        [] => return Err(Reason::NoValue),
        token => number::value(token)?,
    };
    let mut timestamp_ms = None;
    cursor.skip_blanks();
    if !matches!(cursor.peek(), None | Some(b'#')) {
        timestamp_ms = Some(timestamp(cursor.token(), format)?);
        cursor.skip_blanks();
    }
    match (cursor.peek(), format) {
        (None, _) => {}
        (Some(b'#'), Format::OpenMetrics) => {
            cursor.advance();
            exemplar(cursor, &mut tables.exemplar).ok_or(Reason::Exemplar)?;
        }
        _ => return Err(Reason::TrailingCharacters),
    }
    Ok((value, timestamp_ms))
}

fn timestamp(token: &[u8], format: Format) -> Result<i64, Reason> {
    let timestamp = match format {
        Format::Text => number::milliseconds(token),
        Format::OpenMetrics => number::seconds(token),
    };
    timestamp.ok_or(Reason::Timestamp)
}

/// Checks an exemplar from behind its `#`: labels, a value and perhaps a timestamp.
fn exemplar(cursor: &mut Cursor<'_>, spans: &mut Spans) -> Option<()> {
    cursor.skip_blanks();
    cursor.expect(b'{', Reason::Exemplar).ok()?;
    let mut name: Option<Piece> = None;
    labels::read(cursor, spans, &mut name).ok()?;
    if name.is_some() {
        return None;
    }
    number::value(cursor.token()).ok()?;
    let timestamp = cursor.token();
    if !timestamp.is_empty() {
        number::seconds(timestamp)?;
    }
    cursor.skip_blanks();
    cursor.peek().is_none().then_some(())
}

/// A place in the bytes of a line.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// All bytes, from before the first step.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub(super) fn passed(&self) -> &'a [u8] {
        &self.bytes[..self.at]
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// Steps made so far. A line of 4 GiB is over every limit.
    pub(super) fn at(&self) -> u32 {
        u32::try_from(self.at).unwrap_or(u32::MAX)
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Passes one byte, which must be there.
    pub(super) fn advance(&mut self) {
        self.at += 1;
    }

    pub(super) fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    pub(super) fn expect(&mut self, byte: u8, otherwise: Reason) -> Result<(), Reason> {
        if self.peek() != Some(byte) {
            return Err(self.unless_at_end(otherwise));
        }
        self.at += 1;
        Ok(())
    }

    /// The reason for what stands here, when it is not that nothing does.
    pub(super) fn unless_at_end(&self, otherwise: Reason) -> Reason {
        if self.at < self.bytes.len() { otherwise } else { Reason::LabelsUnclosed }
    }

    /// Passes blanks and what follows them up to the next one; empty at the end.
    pub(super) fn token(&mut self) -> &'a [u8] {
        self.skip_blanks();
        let start = self.at;
        while !matches!(self.peek(), None | Some(b' ' | b'\t')) {
            self.at += 1;
        }
        &self.bytes[start..self.at]
    }
}
