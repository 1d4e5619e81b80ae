//! Reads JSON from one end to the other, without building a tree of it.
//!
//! Made for answers of a megabyte that repeat a few shapes over and over: texts are borrowed where they
//! stand unless they have escapes, and what nobody reads is checked and passed over. The text is
//! hostile: how deep it nests is bounded, and nothing is taken that is not JSON.

use std::borrow::Cow;
use std::mem;
use std::ops::Range;

use wide::u8x16;

/// Lists and objects within each other at most; what is read of an answer has five.
const DEPTH_MAX: u8 = 100;

/// What is wrong, and where.
#[derive(PartialEq, Debug, thiserror::Error)]
#[error("{what} at line {line} column {column}")]
pub(crate) struct Malformed {
    what: String,
    line: usize,
    column: usize,
}

/// A place in a text. Which kind of value comes next tells [`peek`](Self::peek), by its first byte.
pub(crate) struct Json<'a> {
    text: &'a str,
    at: usize,
    depth: u8,
    /// The innermost list or object was entered, and nothing in it read yet.
    entered: bool,
}

impl<'a> Json<'a> {
    /// The beginning of a text.
    pub(crate) fn new(text: &'a [u8]) -> Result<Self, Malformed> {
        let valid = |text| Self { text, at: 0, depth: 0, entered: false };
        str::from_utf8(text).map(valid).map_err(|error| {
            let (line, column) = place(text, error.valid_up_to());
            Malformed { what: "no UTF-8".to_owned(), line, column }
        })
    }

    /// The first byte of what comes next, after blanks.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.as_bytes().get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    /// How far we are.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Back to a place that was in the same list or object.
    pub(crate) fn back_to(&mut self, at: usize) {
        self.at = at;
    }

    /// Whether what stands at `range` comes next, just so; then it is behind us.
    pub(crate) fn repeats(&mut self, range: &Range<usize>) -> bool {
        let text = self.text.as_bytes();
        let repeats = text[self.at..].starts_with(&text[range.clone()]);
        if repeats {
            self.at += range.len();
        }
        repeats
    }

    /// Enters an object.
    pub(crate) fn enter_object(&mut self, expected: &str) -> Result<(), Malformed> {
        self.enter(b'{', expected)
    }

    /// The next key of the object; after its value comes the next one. `None` behind the last.
    pub(crate) fn next_key(&mut self) -> Result<Option<Cow<'a, str>>, Malformed> {
        if !self.goes_on(b'}')? {
            return Ok(None);
        }
        let key = self.text("a key")?;
        if self.peek() != Some(b':') {
            return Err(self.expected("`:`"));
        }
        self.at += 1;
        Ok(Some(key))
    }

    /// Enters a list.
    pub(crate) fn enter_list(&mut self, expected: &str) -> Result<(), Malformed> {
        self.enter(b'[', expected)
    }

    /// Whether the list has another element, which comes next.
    pub(crate) fn next_element(&mut self) -> Result<bool, Malformed> {
        self.goes_on(b']')
    }

    /// A text.
    pub(crate) fn text(&mut self, expected: &str) -> Result<Cow<'a, str>, Malformed> {
        if self.peek() != Some(b'"') {
            return Err(self.expected(expected));
        }
        self.at += 1;
        self.rest_of_text()
    }

    /// A text, and where it stands, with its second quotation mark and without the first: what stands
    /// before it then ends with the first, as [`text_after`](Self::text_after) expects.
    pub(crate) fn text_at(
        &mut self,
        expected: &str,
    ) -> Result<(Cow<'a, str>, Range<usize>), Malformed> {
        self.peek();
        let start = self.at + 1;
        let text = self.text(expected)?;
        Ok((text, start..self.at))
    }

    /// A text whose first quotation mark is the last of what stands at `range` and comes next, just so.
    pub(crate) fn text_after(&mut self, range: &Range<usize>) -> Option<Cow<'a, str>> {
        if self.repeats(range) { self.rest_of_text().ok() } else { None }
    }

    /// A text whose first quotation mark is behind us.
    fn rest_of_text(&mut self) -> Result<Cow<'a, str>, Malformed> {
        let start = self.at;
        self.at = plain_end(self.text.as_bytes(), start);
        if self.text.as_bytes().get(self.at) != Some(&b'"') {
            return self.escaped_text(start);
        }
        let text = &self.text[start..self.at];
        self.at += 1;
        Ok(Cow::Borrowed(text))
    }

    /// A number. None is so great that it is infinite.
    pub(crate) fn number(&mut self, expected: &str) -> Result<f64, Malformed> {
        if !matches!(self.peek(), Some(b'-' | b'0'..=b'9')) {
            return Err(self.expected(expected));
        }
        let start = self.at;
        self.skip_number()?;
        // The digits were checked, so only the size can be wrong.
        match self.text[start..self.at].parse() {
            Ok(number) if f64::is_finite(number) => Ok(number),
            _ => Err(self.error("a number out of range")),
        }
    }

    /// `true` or `false`.
    pub(crate) fn truth(&mut self, expected: &str) -> Result<bool, Malformed> {
        match self.peek() {
            Some(b't') => self.literal("true").map(|()| true),
            Some(b'f') => self.literal("false").map(|()| false),
            _ => Err(self.expected(expected)),
        }
    }

    /// `null`, if that comes next.
    pub(crate) fn null(&mut self) -> Result<bool, Malformed> {
        let null = self.peek() == Some(b'n');
        if null {
            self.literal("null")?;
        }
        Ok(null)
    }

    /// Passes over whatever comes next.
    pub(crate) fn skip(&mut self) -> Result<(), Malformed> {
        match self.peek() {
            Some(b'{') => {
                self.enter_object("")?;
                while self.next_key()?.is_some() {
                    self.skip()?;
                }
            }
            Some(b'[') => {
                self.enter_list("")?;
                while self.next_element()? {
                    self.skip()?;
                }
            }
            Some(b'"') => {
                self.at += 1;
                self.skip_rest_of_text()?;
            }
            Some(b'-' | b'0'..=b'9') => self.skip_number()?,
            Some(b'n') => self.literal("null")?,
            _ => {
                self.truth("a value")?;
            }
        }
        Ok(())
    }

    /// Nothing may follow.
    pub(crate) fn end(&mut self) -> Result<(), Malformed> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.error("trailing characters")),
        }
    }

    /// Something else should stand here.
    pub(crate) fn expected(&self, what: &str) -> Malformed {
        let end = if self.at < self.text.len() { "" } else { ", found the end" };
        self.error(&format!("expected {what}{end}"))
    }

    /// Something is wrong here.
    pub(crate) fn error(&self, what: &str) -> Malformed {
        let (line, column) = place(self.text.as_bytes(), self.at);
        Malformed { what: what.to_owned(), line, column }
    }

    fn enter(&mut self, bracket: u8, expected: &str) -> Result<(), Malformed> {
        if self.peek() != Some(bracket) {
            return Err(self.expected(expected));
        }
        if self.depth == DEPTH_MAX {
            return Err(self.error("nested too deep"));
        }
        self.at += 1;
        self.depth += 1;
        self.entered = true;
        Ok(())
    }

    /// Whether something comes before this bracket; else the bracket is behind us.
    fn goes_on(&mut self, bracket: u8) -> Result<bool, Malformed> {
        let entered = mem::take(&mut self.entered);
        match self.peek() {
            Some(byte) if byte == bracket => {
                self.at += 1;
                self.depth -= 1;
                Ok(false)
            }
            Some(b',') if !entered => {
                self.at += 1;
                Ok(true)
            }
            Some(_) if entered => Ok(true),
            _ => Err(self.expected("`,` or the end of a list or an object")),
        }
    }

    /// A text with an escape or an error, which begins at `start` and is plain up to here.
    #[cold]
    fn escaped_text(&mut self, start: usize) -> Result<Cow<'a, str>, Malformed> {
        self.skip_rest_of_text()?;
        serde_json::from_str(&self.text[start - 1..self.at])
            .map(Cow::Owned)
            .map_err(|_| self.error("a text with half a surrogate pair"))
    }

    /// Passes over the rest of a text, whatever its escapes stand for.
    fn skip_rest_of_text(&mut self) -> Result<(), Malformed> {
        let bytes = self.text.as_bytes();
        loop {
            self.at = plain_end(bytes, self.at);
            let escape = match bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => &bytes[self.at + 1..],
                Some(_) => return Err(self.error("a control character in a text")),
                None => return Err(self.expected("the end of a text")),
            };
            self.at += match escape {
                [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
                [b'u', digits @ ..]
                    if digits.len() >= 4 && digits[..4].iter().all(u8::is_ascii_hexdigit) =>
                {
                    6
                }
                _ => return Err(self.error("a text with an escape that is none")),
            };
        }
    }

    fn skip_number(&mut self) -> Result<(), Malformed> {
        self.accept(|byte| byte == b'-');
        if !self.accept(|byte| byte == b'0') {
            self.digits()?;
        }
        if self.accept(|byte| byte == b'.') {
            self.digits()?;
        }
        if self.accept(|byte| matches!(byte, b'e' | b'E')) {
            self.accept(|byte| matches!(byte, b'+' | b'-'));
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let digits =
            self.text.as_bytes()[self.at..].iter().take_while(|byte| byte.is_ascii_digit());
        match digits.count() {
            0 => Err(self.expected("a digit")),
            count => {
                self.at += count;
                Ok(())
            }
        }
    }

    /// Passes over one byte of this kind, if that comes next.
    fn accept(&mut self, kind: impl Fn(u8) -> bool) -> bool {
        let is_it = self.text.as_bytes().get(self.at).is_some_and(|byte| kind(*byte));
        self.at += usize::from(is_it);
        is_it
    }

    fn literal(&mut self, literal: &str) -> Result<(), Malformed> {
        if !self.text.as_bytes()[self.at..].starts_with(literal.as_bytes()) {
            return Err(self.expected("a value"));
        }
        self.at += literal.len();
        Ok(())
    }
}

/// From `at` on, the first quotation mark, backslash or control character; or the end.
fn plain_end(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    let (blocks, tail) = rest.as_chunks::<16>();
    let mut end = at;
    for block in blocks {
        let block = u8x16::new(*block);
        let control = block.min(u8x16::splat(b' ' - 1)).simd_eq(block);
        let special =
            control | block.simd_eq(u8x16::splat(b'"')) | block.simd_eq(u8x16::splat(b'\\'));
        let special = special.to_bitmask();
        if special != 0 {
            return end + special.trailing_zeros() as usize;
        }
        end += 16;
    }
    let is_plain = |byte: &&u8| !matches!(byte, b'"' | b'\\' | 0..b' ');
    bytes.len() - tail.len() + tail.iter().take_while(is_plain).count()
}

/// Line and column, both from 1, columns in bytes.
fn place(text: &[u8], at: usize) -> (usize, usize) {
    let mut lines = text[..at.min(text.len())].rsplit(|byte| *byte == b'\n');
    let column = lines.next().map_or(0, <[u8]>::len) + 1;
    (lines.count() + 1, column)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;
    use serde_json::Value;

    use super::*;

    fn tree(json: &mut Json<'_>) -> Result<Value, Malformed> {
        Ok(match json.peek() {
            Some(b'{') => {
                let mut object = serde_json::Map::new();
                json.enter_object("")?;
                while let Some(key) = json.next_key()? {
                    object.insert(key.into_owned(), tree(json)?);
                }
                object.into()
            }
            Some(b'[') => {
                let mut list = Vec::new();
                json.enter_list("")?;
                while json.next_element()? {
                    list.push(tree(json)?);
                }
                list.into()
            }
            Some(b'"') => json.text("")?.into(),
            Some(b't' | b'f') => json.truth("")?.into(),
            Some(b'n') if json.null()? => Value::Null,
            _ => json.number("")?.into(),
        })
    }

    fn whole<'a, T>(
        text: &'a [u8],
        read: impl FnOnce(&mut Json<'a>) -> Result<T, Malformed>,
    ) -> Result<T, Malformed> {
        let mut json = Json::new(text)?;
        let read = read(&mut json)?;
        json.end()?;
        Ok(read)
    }

    fn a_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>()
                .prop_filter("JSON has no other", |it| it.is_finite())
                .prop_map(Value::from),
            any::<i32>().prop_map(|number| Value::from(f64::from(number))),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map(any::<String>(), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_is_read_as_it_was_written(value in a_value(), pretty in any::<bool>()) {
            let text = if pretty { format!("{value:#}") } else { value.to_string() };
            prop_assert_eq!(whole(text.as_bytes(), tree).unwrap(), value);
            prop_assert!(whole(text.as_bytes(), Json::skip).is_ok());
        }

        #[test]
        fn what_is_no_json_is_not_read(
            value in a_value(),
            at in any::<prop::sample::Index>(),
            byte in prop::sample::select(b"\"\\{}[],:-+.0e1u tnf\n\x01\xff".to_vec()),
            cut in any::<bool>(),
        ) {
            let mut text = value.to_string().into_bytes();
            let at = at.index(text.len());
            if cut {
                text.truncate(at);
            } else {
                text[at] = byte;
            }
            let read = whole(&text, tree).ok();
            let expected = serde_json::from_slice::<Value>(&text).ok();
            prop_assert_eq!(read.is_some(), expected.is_some(), "{}", String::from_utf8_lossy(&text));
            // Numbers may be too great and escapes half of a pair, which is nothing to who passes over.
            let is_json = serde_json::from_slice::<IgnoredAny>(&text).is_ok();
            let skipped = whole(&text, Json::skip).is_ok();
            prop_assert_eq!(skipped, is_json && str::from_utf8(&text).is_ok());
        }
    }

    #[test]
    fn texts_end_where_they_end() {
        for length in 0..70 {
            let text = format!(r#""{}" "#, "é".repeat(length));
            assert_eq!(
                whole(text.as_bytes(), |json| json.text("").map(|it| it.chars().count())),
                Ok(length)
            );
            for control in ["\n", "\0", "\u{1f}"] {
                let text = format!("\"{}{control}\"", "x".repeat(length));
                let error = whole(text.as_bytes(), Json::skip).unwrap_err().to_string();
                assert!(error.starts_with("a control character"), "{error}");
            }
        }
    }

    #[track_caller]
    fn refused(text: &[u8], expected: &str) {
        assert_eq!(whole(text, Json::skip).unwrap_err().to_string(), expected);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        refused(b"{\"a\":1,\n  2}", "expected a key at line 2 column 3");
        refused(b"[1 2]", "expected `,` or the end of a list or an object at line 1 column 4");
        refused(b"[1,", "expected a value, found the end at line 1 column 4");
        refused(b"{\"a\" 1}", "expected `:` at line 1 column 6");
        refused(b"\"\\x\"", "a text with an escape that is none at line 1 column 2");
        refused(b"\"\\u12\"", "a text with an escape that is none at line 1 column 2");
        refused(b"\"\\", "a text with an escape that is none at line 1 column 2");
        refused(b"[,1]", "expected a value at line 1 column 2");
        refused(b"[1,]", "expected a value at line 1 column 4");
        refused(b"01", "trailing characters at line 1 column 2");
        refused(b"1.e3", "expected a digit at line 1 column 3");
        refused(b"[] []", "trailing characters at line 1 column 4");
        refused(b"[\"\xff\"]", "no UTF-8 at line 1 column 3");
        // Nobody reads half a pair, and whoever passes over it need not.
        let half = br#""\ud83d""#;
        assert_eq!(whole(half, Json::skip), Ok(()));
        let error = whole(half, |json| json.text("").map(|_| ())).unwrap_err();
        assert_eq!(error.to_string(), "a text with half a surrogate pair at line 1 column 9");
        let nested = |depth: usize| [b"[".repeat(depth), b"]".repeat(depth)].concat();
        assert_eq!(whole(&nested(usize::from(DEPTH_MAX)), Json::skip), Ok(()));
        refused(&nested(101), "nested too deep at line 1 column 101");
        let beside_each_other = [b"[", &b"[],".repeat(200)[..], b"[]]"].concat();
        assert_eq!(whole(&beside_each_other, Json::skip), Ok(()));
        let number = |text: &str| {
            whole(text.as_bytes(), |json| json.number("")).map_err(|it| it.to_string())
        };
        assert_eq!(number("-1.5e2"), Ok(-150.0));
        assert_eq!(number("1e400"), Err("a number out of range at line 1 column 6".to_owned()));
    }
}
