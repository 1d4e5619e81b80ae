//! Label sets: one pass over the bytes into a fixed table of spans.

use std::borrow::Cow;
use std::ops::Range;

use super::Reason;
use super::line::Cursor;

/// Labels that one line may have. Info series have some twenty, and grow.
const MAX_LABELS: usize = 128;

/// The labels of a sample. Names are unique; order is the page's.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    /// What the spans point into.
    text: &'a str,
    spans: &'a [Span],
}

impl<'a> Labels<'a> {
    pub(super) fn new(text: &'a str, spans: &'a [Span]) -> Self {
        Self { text, spans }
    }

    /// The value of a label; `None` when there is no label of this whole name. Allocates only when an
    /// escape must be undone.
    pub fn get(&self, name: &str) -> Option<Cow<'a, str>> {
        let found = self.spans.iter().find(|span| self.cut(&span.name) == name)?;
        Some(self.cut(&found.value))
    }

    /// Each name with its value. Allocates only where an escape must be undone.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Cow<'a, str>, Cow<'a, str>)> + use<'a> {
        let labels = *self;
        labels.spans.iter().map(move |span| (labels.cut(&span.name), labels.cut(&span.value)))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    fn cut(&self, piece: &Piece) -> Cow<'a, str> {
        let text = &self.text[piece.range()];
        if piece.escaped { Cow::Owned(unescape(text)) } else { Cow::Borrowed(text) }
    }
}

/// A label's place in the bytes of its set.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Span {
    name: Piece,
    value: Piece,
}

/// A string's place, without its quotes.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Piece {
    start: u32,
    end: u32,
    /// Whether it has a backslash in it.
    escaped: bool,
}

impl Piece {
    pub(super) fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Room for the labels of one line.
#[derive(Debug)]
pub(super) struct Spans {
    spans: Box<[Span; MAX_LABELS]>,
    len: usize,
}

impl Spans {
    pub(super) fn new() -> Self {
        Self { spans: Box::new([Span::default(); MAX_LABELS]), len: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    pub(super) fn as_slice(&self) -> &[Span] {
        &self.spans[..self.len]
    }

    fn push(&mut self, bytes: &[u8], span: Span) -> Result<(), Reason> {
        let name = unescaped(bytes, &span.name);
        if self.as_slice().iter().any(|other| unescaped(bytes, &other.name) == name) {
            return Err(Reason::LabelTwice);
        }
        *self.spans.get_mut(self.len).ok_or(Reason::TooManyLabels)? = span;
        self.len += 1;
        Ok(())
    }
}

/// Reads a label set from behind its opening brace to behind its closing one.
///
/// A quoted string that is no label's name is the metric's, and goes to `metric`; it is known there
/// even when what follows it is malformed.
pub(super) fn read(
    cursor: &mut Cursor<'_>,
    spans: &mut Spans,
    metric: &mut Option<Piece>,
) -> Result<(), Reason> {
    spans.clear();
    loop {
        cursor.skip_blanks();
        let name = match cursor.peek() {
            Some(b'}') => {
                cursor.advance();
                return Ok(());
            }
            Some(b'"') => {
                let name = string(cursor)?;
                cursor.skip_blanks();
                if matches!(cursor.peek(), Some(b',' | b'}')) {
                    if metric.is_some() {
                        return Err(Reason::NameTwice);
                    }
                    *metric = Some(name);
                    if end_of_label(cursor)? {
                        return Ok(());
                    }
                    continue;
                }
                name
            }
            None => return Err(Reason::LabelsUnclosed),
            Some(_) => bare_name(cursor)?,
        };
        cursor.skip_blanks();
        cursor.expect(b'=', Reason::LabelEquals)?;
        cursor.skip_blanks();
        if cursor.peek() != Some(b'"') {
            return Err(cursor.unless_at_end(Reason::LabelValue));
        }
        let value = string(cursor)?;
        spans.push(cursor.bytes(), Span { name, value })?;
        if end_of_label(cursor)? {
            return Ok(());
        }
    }
}

/// Passes the comma or the brace behind a label, and tells whether it was the brace.
fn end_of_label(cursor: &mut Cursor<'_>) -> Result<bool, Reason> {
    cursor.skip_blanks();
    let closes = cursor.peek() == Some(b'}');
    if !closes && cursor.peek() != Some(b',') {
        return Err(cursor.unless_at_end(Reason::LabelSeparator));
    }
    cursor.advance();
    Ok(closes)
}

fn bare_name(cursor: &mut Cursor<'_>) -> Result<Piece, Reason> {
    let start = cursor.at();
    if !matches!(cursor.peek(), Some(byte) if byte.is_ascii_alphabetic() || byte == b'_') {
        return Err(Reason::LabelName);
    }
    while matches!(cursor.peek(), Some(byte) if byte.is_ascii_alphanumeric() || byte == b'_') {
        cursor.advance();
    }
    Ok(Piece { start, end: cursor.at(), escaped: false })
}

/// Passes a quoted string, at whose opening quote the cursor stands.
fn string(cursor: &mut Cursor<'_>) -> Result<Piece, Reason> {
    cursor.advance();
    let mut piece = Piece { start: cursor.at(), ..Piece::default() };
    loop {
        match cursor.peek() {
            None => return Err(Reason::LabelsUnclosed),
            Some(b'"') => break,
            Some(b'\\') => {
                piece.escaped = true;
                cursor.advance();
                if cursor.peek().is_none() {
                    return Err(Reason::LabelsUnclosed);
                }
            }
            Some(_) => {}
        }
        cursor.advance();
    }
    piece.end = cursor.at();
    cursor.advance();
    Ok(piece)
}

/// The bytes that a string stands for.
pub(super) fn unescaped<'a>(bytes: &'a [u8], piece: &Piece) -> Cow<'a, [u8]> {
    let bytes = &bytes[piece.range()];
    if !piece.escaped {
        return Cow::Borrowed(bytes);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match rest.next() {
            Some(b'n') => out.push(b'\n'),
            Some(quoted @ (b'"' | b'\\')) => out.push(quoted),
            other => {
                out.push(b'\\');
                out.extend(other);
            }
        }
    }
    Cow::Owned(out)
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(char) = rest.next() {
        if char != '\\' {
            out.push(char);
            continue;
        }
        match rest.next() {
            Some('n') => out.push('\n'),
            Some(quoted @ ('"' | '\\')) => out.push(quoted),
            other => {
                out.push('\\');
                out.extend(other);
            }
        }
    }
    out
}
