// SPDX-License-Identifier: Apache-2.0
//! A second reader of the same formats, as plain as can be, to hold the scanner against.
//!
//! It sees the whole page, copies whatever it reads, and shares no code with the scanner: the fuzz
//! target includes this file by its path.

/// A sample as read.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
    /// By its bits, so that NaN equals itself.
    pub(crate) value: u64,
    pub(crate) timestamp_ms: Option<i64>,
    pub(crate) line: u64,
}

/// All that is read of a page.
#[derive(Clone, PartialEq, Default, Debug)]
pub(crate) struct Exposition {
    pub(crate) seen: Vec<Seen>,
    /// Line and name of wanted lines that were refused.
    pub(crate) malformed: Vec<(u64, String)>,
    pub(crate) lines: u64,
    pub(crate) last_line_unterminated: bool,
    pub(crate) eof_marker: bool,
}

impl Exposition {
    /// The malformed lines that a summary lists: so many, and the first of each other name.
    pub(crate) fn listed(&self, kept: usize) -> Vec<(u64, String)> {
        let is_listed = |index: usize| {
            let (before, name) = (&self.malformed[..index], &self.malformed[index].1);
            index < kept || before.iter().all(|(_, other)| other != name)
        };
        let all = self.malformed.iter().enumerate();
        all.filter(|(index, _)| is_listed(*index)).map(|(_, line)| line.clone()).collect()
    }
}

/// How to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How<'a> {
    pub(crate) wanted: &'a [&'a str],
    pub(crate) openmetrics: bool,
    pub(crate) max_line_bytes: usize,
    /// The transfer was not cut short.
    pub(crate) complete: bool,
}

/// Reads a page.
pub(crate) fn read(page: &[u8], how: How<'_>) -> Exposition {
    let mut out = Exposition::default();
    let mut lines: Vec<&[u8]> = page.split(|byte| *byte == b'\n').collect();
    // What follows the last newline is a line only when there is something.
    let last = lines.pop().unwrap_or_default();
    for line in lines {
        out.lines += 1;
        read_line(line, how, &mut out);
        if out.eof_marker {
            return out;
        }
    }
    if !last.is_empty() {
        out.lines += 1;
        out.last_line_unterminated = true;
        if how.complete {
            read_line(last, how, &mut out);
        } else if last.len() > how.max_line_bytes {
            read_long_line(last, how, &mut out);
        }
    }
    out
}

fn read_line(line: &[u8], how: How<'_>, out: &mut Exposition) {
    if line.len() > how.max_line_bytes {
        return read_long_line(line, how, out);
    }
    let line = without_mark(line, out);
    let line = trim(line.strip_suffix(b"\r").unwrap_or(line));
    if line.starts_with(b"#") {
        out.eof_marker = how.openmetrics && line == b"# EOF";
        return;
    }
    let (name, sample) = read_sample(line, how);
    let Some(name) = name.filter(|name| how.wanted.contains(&name.as_str())) else { return };
    match sample {
        Some((labels, value, timestamp_ms)) => out.seen.push(Seen {
            name,
            labels,
            value: value.to_bits(),
            timestamp_ms,
            line: out.lines,
        }),
        None => out.malformed.push((out.lines, name)),
    }
}

/// A line over the limit is malformed when its name is wanted and surely ends within the limit.
fn read_long_line(line: &[u8], how: How<'_>, out: &mut Exposition) {
    let beginning = Rest(without_mark(&line[..how.max_line_bytes], out)).after_blanks();
    if beginning.0.starts_with(b"#") {
        return;
    }
    let name = if beginning.0.starts_with(b"{") {
        read_sample(beginning.0, how).0
    } else {
        let mut rest = beginning;
        let name = rest.bare(is_name_byte);
        if matches!(rest.0, [] | [b'\r']) { None } else { ended_name(name, &rest) }
    };
    let name = name.filter(|name| how.wanted.contains(&name.as_str()));
    out.malformed.extend(name.map(|name| (out.lines, name)));
}

type Sample = (Vec<(String, String)>, f64, Option<i64>);

/// The name, when one can be told, and what follows, when all of it is legal.
fn read_sample(line: &[u8], How { openmetrics, .. }: How<'_>) -> (Option<String>, Option<Sample>) {
    let mut rest = Rest(line).after_blanks();
    let bare = rest.bare(is_name_byte);
    if !bare.is_empty() {
        let name = ended_name(bare, &rest);
        let mut inner = None;
        let labels = rest.set(&mut inner).filter(|_| inner.is_none());
        return (name, labels.and_then(|labels| rest.tail(labels, openmetrics)));
    }
    if rest.0.first() != Some(&b'{') {
        return (None, None);
    }
    let mut name = None;
    let labels = rest.set(&mut name);
    let name = name.and_then(|name| String::from_utf8(name).ok());
    (name, labels.and_then(|labels| rest.tail(labels, openmetrics)))
}

/// The first line of a page without a byte order mark.
fn without_mark<'a>(line: &'a [u8], out: &Exposition) -> &'a [u8] {
    match line {
        [0xef, 0xbb, 0xbf, rest @ ..] if out.lines == 1 => rest,
        line => line,
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':'
}

fn is_label_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// A bare name is one only when a blank, a brace or the line's end follows.
fn ended_name(name: Vec<u8>, rest: &Rest<'_>) -> Option<String> {
    let ends = rest.0.first().is_none_or(|byte| b" \t{".contains(byte));
    String::from_utf8(name).ok().filter(|_| ends)
}

fn trim(bytes: &[u8]) -> &[u8] {
    let blank = |byte: &u8| b" \t".contains(byte);
    let Some(start) = bytes.iter().position(|byte| !blank(byte)) else { return &[] };
    let end = bytes.iter().rposition(|byte| !blank(byte)).unwrap_or(start);
    &bytes[start..=end]
}

type ByteLabels = Vec<(Vec<u8>, Vec<u8>)>;

/// What is left of a line.
#[derive(Clone, Copy)]
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn after_blanks(mut self) -> Self {
        while let [b' ' | b'\t', rest @ ..] = self.0 {
            self.0 = rest;
        }
        self
    }

    /// Takes a byte and the blanks before it, if it comes next.
    fn take(&mut self, byte: u8) -> bool {
        let rest = self.after_blanks();
        let found = rest.0.first() == Some(&byte);
        if found {
            self.0 = &rest.0[1..];
        }
        found
    }

    fn bare(&mut self, part: impl Fn(u8) -> bool) -> Vec<u8> {
        let mut taken = Vec::new();
        while let [byte, rest @ ..] = self.0
            && part(*byte)
        {
            taken.push(*byte);
            self.0 = rest;
        }
        taken
    }

    /// A string whose opening quote has been taken.
    fn string(&mut self) -> Option<Vec<u8>> {
        let mut string = Vec::new();
        loop {
            match self.0 {
                [b'"', rest @ ..] => {
                    self.0 = rest;
                    return Some(string);
                }
                [b'\\', escaped, rest @ ..] => {
                    match escaped {
                        b'n' => string.push(b'\n'),
                        b'"' | b'\\' => string.push(*escaped),
                        other => string.extend([b'\\', *other]),
                    }
                    self.0 = rest;
                }
                [b'\\'] | [] => return None,
                [byte, rest @ ..] => {
                    string.push(*byte);
                    self.0 = rest;
                }
            }
        }
    }

    /// A label set, if there is one. A quoted metric name goes to `name`.
    fn set(&mut self, name: &mut Option<Vec<u8>>) -> Option<ByteLabels> {
        let mut labels = Vec::new();
        if !self.take(b'{') {
            return Some(labels);
        }
        while !self.take(b'}') {
            *self = self.after_blanks();
            let quoted = self.take(b'"');
            let label = if quoted { self.string()? } else { self.bare(is_label_byte) };
            let next = self.after_blanks().0.first();
            if quoted && matches!(next, Some(b',' | b'}')) {
                if name.is_some() {
                    return None;
                }
                *name = Some(label);
            } else if quoted && next.is_some_and(|next| *next != b'=') {
                name.get_or_insert(label);
                return None;
            } else {
                if !quoted && label.first().is_none_or(u8::is_ascii_digit) {
                    return None;
                }
                if !(self.take(b'=') && self.take(b'"')) {
                    return None;
                }
                let value = self.string()?;
                if labels.len() == 128 || labels.iter().any(|(name, _)| *name == label) {
                    return None;
                }
                labels.push((label, value));
            }
            if !self.take(b',') && self.after_blanks().0.first() != Some(&b'}') {
                return None;
            }
        }
        Some(labels)
    }

    /// Value, timestamp and exemplar, to the end of the line.
    fn tail(mut self, labels: ByteLabels, openmetrics: bool) -> Option<Sample> {
        let text = |bytes| String::from_utf8(bytes).ok();
        let labels = labels.into_iter().map(|(name, value)| Some((text(name)?, text(value)?)));
        let labels = labels.collect::<Option<_>>()?;
        let value = number(&self.word())?;
        let mut timestamp = None;
        if !matches!(self.after_blanks().0.first(), None | Some(b'#')) {
            let word = self.word();
            timestamp = if openmetrics { seconds(&word)? } else { Some(word.parse().ok()?) };
        }
        let rest = self.after_blanks().0;
        let ends = rest.is_empty() || (openmetrics && rest.starts_with(b"#"));
        ends.then_some((labels, value, timestamp))
    }

    /// The bytes up to the next blank; those that are not UTF-8 are in no number.
    fn word(&mut self) -> String {
        *self = self.after_blanks();
        let word = self.bare(|byte| byte != b' ' && byte != b'\t');
        String::from_utf8_lossy(&word).into_owned()
    }
}

/// A value: the forms that Go reads, without hexadecimals and `_`.
pub(crate) fn number(word: &str) -> Option<f64> {
    let lower = word.to_ascii_lowercase();
    match lower.as_str() {
        "nan" => return Some(f64::NAN),
        "inf" | "+inf" | "infinity" | "+infinity" => return Some(f64::INFINITY),
        "-inf" | "-infinity" => return Some(f64::NEG_INFINITY),
        _ => {}
    }
    if !lower.bytes().all(|byte| b"0123456789+-.e".contains(&byte)) {
        return None;
    }
    lower.parse().ok().filter(|value: &f64| value.is_finite())
}

/// A time, and its milliseconds where they fit.
#[expect(clippy::option_option, reason = "no time and a time that does not fit are two things")]
fn seconds(word: &str) -> Option<Option<i64>> {
    let decimal = |byte| b"0123456789+-.eE".contains(&byte);
    let seconds = word.bytes().all(decimal).then(|| word.parse::<f64>().ok())??;
    Some(format!("{:.0}", (seconds * 1000.0).round()).parse().ok())
}
