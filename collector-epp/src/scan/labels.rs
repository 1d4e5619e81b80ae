// SPDX-License-Identifier: Apache-2.0
//! Reads label sets, in one pass over the bytes into a fixed table of spans.

use std::borrow::Cow;
use std::ops::Range;

use wide::u8x16;

use super::Reason;
use super::cursor::Cursor;

/// Labels that one line may have. Info series have some twenty, and grow.
const MAX_LABELS: usize = 128;

/// The labels of a sample. Names are unique; order is the page's.
#[derive(Clone, Copy, Default, Debug)]
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

    fn cut(&self, piece: &Piece) -> Cow<'a, str> {
        if piece.escaped {
            let bytes = unescaped(self.text.as_bytes(), piece);
            Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
        } else {
            Cow::Borrowed(&self.text[piece.range()])
        }
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
    table: Box<[Span; MAX_LABELS]>,
    /// A hash of each name, so that a second one of the same name is found without reading them again.
    tags: Box<[u32; MAX_LABELS]>,
    len: usize,
}

impl Spans {
    pub(super) fn new() -> Self {
        let table = Box::new([Span::default(); MAX_LABELS]);
        Self { table, tags: Box::new([0; MAX_LABELS]), len: 0 }
    }

    pub(super) fn as_slice(&self) -> &[Span] {
        &self.table[..self.len]
    }

    #[inline]
    fn push(&mut self, bytes: &[u8], span: Span, tag: u32) -> Result<(), Reason> {
        if self.tags[..self.len].contains(&tag) && self.has(bytes, &span.name) {
            return Err(Reason::LabelTwice);
        }
        *self.table.get_mut(self.len).ok_or(Reason::TooManyLabels)? = span;
        self.tags[self.len] = tag;
        self.len += 1;
        Ok(())
    }

    #[cold]
    fn has(&self, bytes: &[u8], name: &Piece) -> bool {
        let name = unescaped(bytes, name);
        self.as_slice().iter().any(|span| unescaped(bytes, &span.name) == name)
    }
}

/// Reads a label set from behind its opening brace, where the cursor begins, to behind its closing one.
///
/// A quoted string that is no label's name is the metric's, and goes to `metric`.
pub(super) fn read<'a>(
    mut cursor: Cursor<'a>,
    spans: &mut Spans,
    metric: &mut Option<Piece>,
) -> Result<Cursor<'a>, Reason> {
    spans.len = 0;
    loop {
        cursor.skip_blanks();
        let (name, tag) = match cursor.peek() {
            Some(b'}') => {
                cursor.advance();
                return Ok(cursor);
            }
            Some(b'"') => {
                let name = string(&mut cursor)?;
                cursor.skip_blanks();
                if matches!(cursor.peek(), Some(b',' | b'}')) {
                    if metric.is_some() {
                        return Err(Reason::NameTwice);
                    }
                    *metric = Some(name);
                    if end_of_label(&mut cursor)? {
                        return Ok(cursor);
                    }
                    continue;
                }
                if !matches!(cursor.peek(), Some(b'=') | None) {
                    // The error is one of this metric's line.
                    metric.get_or_insert(name);
                    return Err(Reason::LabelSeparator);
                }
                (name, unescaped(cursor.bytes(), &name).iter().copied().fold(0, tag_with))
            }
            None => return Err(Reason::LabelsUnclosed),
            Some(_) => bare_name(&mut cursor)?,
        };
        cursor.skip_blanks();
        cursor.expect(b'=', Reason::LabelEquals)?;
        cursor.skip_blanks();
        if cursor.peek() != Some(b'"') {
            return Err(cursor.unless_at_end(Reason::LabelValue));
        }
        let value = string(&mut cursor)?;
        spans.push(cursor.bytes(), Span { name, value }, tag)?;
        if end_of_label(&mut cursor)? {
            return Ok(cursor);
        }
    }
}

/// Skips the comma or the brace after a label, and returns whether it was the brace.
#[inline]
fn end_of_label(cursor: &mut Cursor<'_>) -> Result<bool, Reason> {
    cursor.skip_blanks();
    let closes = cursor.peek() == Some(b'}');
    if !closes && cursor.peek() != Some(b',') {
        return Err(cursor.unless_at_end(Reason::LabelSeparator));
    }
    cursor.advance();
    Ok(closes)
}

/// Skips a bare name, and returns it with its tag.
#[inline]
fn bare_name(cursor: &mut Cursor<'_>) -> Result<(Piece, u32), Reason> {
    let start = cursor.at();
    let mut tag = 0;
    while let Some(byte) = cursor.peek()
        && (byte.is_ascii_alphanumeric() || byte == b'_')
    {
        tag = tag_with(tag, byte);
        cursor.advance();
    }
    let name = Piece { start, end: cursor.at(), escaped: false };
    match cursor.bytes()[name.range()] {
        [] | [b'0'..=b'9', ..] => Err(Reason::LabelName),
        _ => Ok((name, tag)),
    }
}

/// The tag of what the other tag stands for and one more byte.
#[inline]
fn tag_with(tag: u32, byte: u8) -> u32 {
    tag.rotate_left(5) ^ u32::from(byte)
}

/// Skips a quoted string that begins at the cursor.
#[inline]
fn string(cursor: &mut Cursor<'_>) -> Result<Piece, Reason> {
    cursor.advance();
    let start = cursor.at();
    let mut escaped = false;
    loop {
        cursor.skip(until_special(cursor.rest()));
        match cursor.peek() {
            Some(b'"') => break,
            Some(_) => {
                // Whatever follows a backslash belongs to it.
                escaped = true;
                cursor.advance();
                cursor.peek().ok_or(Reason::LabelsUnclosed)?;
                cursor.advance();
            }
            None => return Err(Reason::LabelsUnclosed),
        }
    }
    let end = cursor.at();
    cursor.advance();
    Ok(Piece { start, end, escaped })
}

/// How many bytes are neither a quote nor a backslash, up to the first that is.
#[inline]
fn until_special(bytes: &[u8]) -> usize {
    let (blocks, rest) = bytes.as_chunks::<16>();
    for (index, block) in blocks.iter().enumerate() {
        let block = u8x16::new(*block);
        let special = block.simd_eq(u8x16::splat(b'"')) | block.simd_eq(u8x16::splat(b'\\'));
        let mask = special.to_bitmask();
        if mask != 0 {
            return 16 * index + mask.trailing_zeros() as usize;
        }
    }
    let special = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'));
    16 * blocks.len() + special.unwrap_or(rest.len())
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
