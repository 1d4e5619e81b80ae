//! The samples of an instant vector.
//!
//! The rows of an answer are written alike. So what stands between the texts of one is expected of the
//! next, and only where that fails is the next one read bit by bit.

use std::borrow::Cow;
use std::ops::Range;

use super::Unreadable;
use crate::json::{Json, Malformed};

/// Rows of one answer at most: twenty times the pods that a query is made for.
pub(super) const ROWS_MAX: usize = 50_000;
/// Bytes of a label's value that are kept: no name that anybody gives is so long, and what is longer
/// would be copied into every document about it.
const LABEL_BYTES_MAX: usize = 4 << 10;
/// Labels of a row that are read; what a row has beyond them is skipped.
const LABELS_MAX: usize = 64;

/// The labels of a row. One that is written twice has its last text.
#[derive(Default, Debug)]
pub(crate) struct Labels<'a> {
    all: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// There was a label, be it one that is no text.
    any: bool,
}

impl<'a> Labels<'a> {
    /// The text of a label; an empty label is an absent one.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.all.iter().find(|(key, _)| key == name);
        found.map(|(_, text)| &**text).filter(|text| !text.is_empty())
    }

    /// The text of the first of these labels that there is.
    pub(crate) fn first_of(&self, names: &[Box<str>]) -> Option<&str> {
        names.iter().find_map(|name| self.get(name))
    }

    /// Every label that is not empty, in the order in which they came.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.all.iter().map(|(key, text)| (&**key, &**text));
        all.filter(|(_, text)| !text.is_empty())
    }

    /// Adds a label; false where it was there already, or there are too many.
    fn add(&mut self, key: Cow<'a, str>, text: Cow<'a, str>) -> bool {
        if let Some(known) = self.all.iter_mut().find(|(known, _)| *known == key) {
            known.1 = text;
            return false;
        }
        let has_room = self.all.len() < LABELS_MAX;
        if has_room {
            self.all.push((key, text));
        }
        has_room
    }
}

/// One sample of an instant vector.
#[derive(Default, Debug)]
pub(crate) struct Row<'a> {
    pub(crate) labels: Labels<'a>,
    /// The evaluation time, in seconds of the server's clock; NaN when it was not given.
    pub(crate) time: f64,
    /// NaN when it was not a number.
    pub(crate) value: f64,
}

impl Row<'_> {
    /// The value of a row that is a bare number: no label says of what.
    pub(crate) fn scalar(&self) -> Option<f64> {
        (!self.labels.any).then_some(self.value)
    }
}

/// The two shapes that a result may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// A list of rows, which may be empty.
    Rows,
    /// A time and a value, without labels.
    Scalar,
}

/// Where rows go, and the last of them.
pub(super) struct Rows<'a, 'f> {
    on_row: &'f mut dyn FnMut(&Row<'_>),
    left: usize,
    row: Row<'a>,
    pattern: Pattern,
}

/// How the last row was written, which is how the next one most likely is: what stands before, between
/// and behind the texts of its labels and of its value.
#[derive(Default)]
struct Pattern {
    /// Nothing else in the row may differ.
    complete: bool,
    /// What stands before the text of each label.
    labels: Vec<Range<usize>>,
    before_value: Range<usize>,
    after_value: Range<usize>,
}

impl<'a, 'f> Rows<'a, 'f> {
    pub(super) fn new(on_row: &'f mut dyn FnMut(&Row<'_>)) -> Self {
        Self { on_row, left: ROWS_MAX, row: Row::default(), pattern: Pattern::default() }
    }

    /// All of a result: rows, or the two parts of a scalar.
    pub(super) fn take_all(&mut self, json: &mut Json<'a>) -> Result<Shape, Unreadable> {
        let mut parts = Vec::new();
        json.enter_list("a list of samples as result")?;
        while json.next_element()? {
            if json.peek() == Some(b'{') {
                self.take(json)?;
            } else if parts.len() == 2 {
                return Err(json.error("a scalar of more than two parts").into());
            } else if json.peek() == Some(b'"') {
                parts.push(number(&json.text("a number")?));
            } else {
                parts.push(json.number("a sample with its labels")?);
            }
        }
        match parts.as_slice() {
            [] => Ok(Shape::Rows),
            [time, value] => self.take_scalar(*time, *value).map(|()| Shape::Scalar),
            _ => Err(json.error("a scalar of one part").into()),
        }
    }

    /// Reads a row and hands it on.
    fn take(&mut self, json: &mut Json<'a>) -> Result<(), Unreadable> {
        let start = json.at();
        if self.repeat(json).is_none() {
            json.back_to(start);
            self.read(json)?;
        }
        self.hand_on()
    }

    /// Hands on a row without labels.
    fn take_scalar(&mut self, time: f64, value: f64) -> Result<(), Unreadable> {
        self.row = Row { labels: Labels::default(), time, value };
        self.pattern.complete = false;
        self.hand_on()
    }

    /// A row that follows the pattern, and so would be read as the last one was but for those texts.
    fn repeat(&mut self, json: &mut Json<'a>) -> Option<()> {
        let Pattern { complete, labels, before_value, after_value } = &self.pattern;
        if !complete {
            return None;
        }
        for (before, (key, text)) in labels.iter().zip(&mut self.row.labels.all) {
            *text = kept(key, json.text_after(before)?);
        }
        self.row.value = number(&json.text_after(before_value)?);
        json.repeats(after_value).then_some(())
    }

    fn read(&mut self, json: &mut Json<'a>) -> Result<(), Unreadable> {
        let start = json.at();
        self.pattern.complete = false;
        let mut has_labels = false;
        let (mut end_of_labels, mut repeatable) = (start, true);
        let mut sample = None;
        let mut other = None;
        json.enter_object("a sample")?;
        while let Some(key) = json.next_key()? {
            match &*key {
                "metric" => {
                    has_labels = true;
                    (end_of_labels, repeatable) = self.read_labels(start, json)?;
                }
                "value" => sample = Some(Sample::read(json)?),
                "values" | "histograms" => {
                    other = Some(Unreadable::NoVector("matrix".to_owned()));
                    json.skip()?;
                }
                "histogram" => {
                    other = Some(Unreadable::NativeHistogram);
                    json.skip()?;
                }
                _ => json.skip()?,
            }
        }
        if let (Some(other), None) = (other, &sample) {
            return Err(other);
        }
        if !has_labels {
            return Err(json.error("a sample without `metric`").into());
        }
        let Some(Sample { time, value, text }) = sample else {
            return Err(json.error("a sample without `value`").into());
        };
        self.row.time = time;
        self.row.value = value;
        if let Some(text) = text
            && end_of_labels < text.start
            && repeatable
        {
            self.pattern.before_value = end_of_labels..text.start;
            self.pattern.after_value = text.end..json.at();
            self.pattern.complete = true;
        }
        Ok(())
    }

    /// The labels of a row that begins at `start`: where the last text ends, and whether the row can be a
    /// pattern.
    fn read_labels(
        &mut self,
        start: usize,
        json: &mut Json<'a>,
    ) -> Result<(usize, bool), Malformed> {
        self.row.labels.all.clear();
        self.row.labels.any = false;
        self.pattern.labels.clear();
        let (mut end, mut repeatable) = (start, true);
        json.enter_object("an object of labels")?;
        while let Some(key) = json.next_key()? {
            self.row.labels.any = true;
            if matches!(json.peek(), Some(b'[' | b'{')) {
                json.skip()?;
                continue;
            }
            let (text, range) = json.text_at("a text as label")?;
            let text = kept(&key, text);
            repeatable &= self.row.labels.add(key, text);
            self.pattern.labels.push(end..range.start);
            end = range.end;
        }
        Ok((end, repeatable))
    }

    fn hand_on(&mut self) -> Result<(), Unreadable> {
        self.left = self.left.checked_sub(1).ok_or(Unreadable::TooManyRows)?;
        (self.on_row)(&self.row);
        Ok(())
    }
}

/// `[time, "value"]`, or a bare number.
struct Sample {
    time: f64,
    value: f64,
    /// Where the text of the value stands, if it is one.
    text: Option<Range<usize>>,
}

impl Sample {
    fn read(json: &mut Json<'_>) -> Result<Self, Malformed> {
        let expected = "a time and a value";
        if json.peek() != Some(b'[') {
            let value = json.number(expected)?;
            return Ok(Self { time: f64::NAN, value, text: None });
        }
        json.enter_list(expected)?;
        let (time, _) = Self::part(json, expected)?;
        let (value, text) = Self::part(json, expected)?;
        if json.next_element()? {
            return Err(json.expected(expected));
        }
        Ok(Self { time, value, text })
    }

    /// A number, or null, or a text that should hold a number and where it stands.
    fn part(json: &mut Json<'_>, expected: &str) -> Result<(f64, Option<Range<usize>>), Malformed> {
        if !json.next_element()? {
            return Err(json.expected(expected));
        }
        if json.null()? {
            return Ok((f64::NAN, None));
        }
        if json.peek() != Some(b'"') {
            return Ok((json.number(expected)?, None));
        }
        let (text, range) = json.text_at(expected)?;
        Ok((number(&text), Some(range)))
    }
}

/// As much of a label's value as is kept. By namespace and model a row is matched with what was asked
/// for, so these two are kept in full.
fn kept<'a>(label: &str, text: Cow<'a, str>) -> Cow<'a, str> {
    if text.len() <= LABEL_BYTES_MAX || matches!(label, "namespace" | "model_name") {
        return text;
    }
    Cow::Owned(shortened(&text).into_owned())
}

/// A label's value, or the beginning of one that is too long for a document.
pub(crate) fn shortened(text: &str) -> Cow<'_, str> {
    if text.len() <= LABEL_BYTES_MAX {
        return Cow::Borrowed(text);
    }
    let end = (0..=LABEL_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end));
    Cow::Owned(format!("{}…", &text[..end.unwrap_or_default()]))
}

/// A sample value as Prometheus writes it; NaN when the text is none.
fn number(text: &str) -> f64 {
    text.parse().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::{Expect, decode};

    /// What is read of a row: namespace, model, pod, and the bits of time and value.
    type Read = (Option<String>, Option<String>, Option<String>, u64, u64);

    fn body(result: &str) -> String {
        format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{result}]}}}}"#)
    }

    fn read(body: &str) -> Option<Vec<Read>> {
        read_as(body, Expect::Vector)
    }

    fn read_as(body: &str, expect: Expect) -> Option<Vec<Read>> {
        let mut rows = Vec::new();
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let decoded = decode(body.as_bytes(), expect, &mut |row| {
            let labels = &row.labels;
            rows.push((
                owned(labels.get("namespace")),
                owned(labels.get("model_name")),
                owned(labels.get("pod").or_else(|| labels.get("pod_name"))),
                row.time.to_bits(),
                row.value.to_bits(),
            ));
        });
        decoded.ok().map(|_| rows)
    }

    /// The same by a reader that builds a tree of the whole.
    fn expected(body: &str) -> Option<Vec<Read>> {
        let text = body.strip_prefix('\u{feff}').unwrap_or(body);
        let tree: Value = serde_json::from_str(text).ok()?;
        // A number where rows are due is no answer.
        tree["data"]["result"].as_array()?.iter().map(row).collect()
    }

    fn row(row: &Value) -> Option<Read> {
        let labels = row["metric"].as_object()?;
        let is_read = |label: &Value| label.is_string() || label.is_array() || label.is_object();
        labels.values().all(is_read).then_some(())?;
        let label = |name| {
            let text = labels.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())?;
            let is_kept_whole = matches!(name, "namespace" | "model_name");
            Some(if is_kept_whole { text.to_owned() } else { beginning(text) })
        };
        let pod = ["pod", "pod_name"].into_iter().find_map(label);
        let (time, value) = match row.get("value")? {
            Value::Array(parts) => match &parts[..] {
                [time, value] => (bits(time)?, bits(value)?),
                _ => return None,
            },
            Value::Number(_) => (f64::NAN.to_bits(), bits(row.get("value")?)?),
            _ => return None,
        };
        Some((label("namespace"), label("model_name"), pod, time, value))
    }

    /// As much of a label as is kept, taken character by character.
    fn beginning(text: &str) -> String {
        let mut kept = String::new();
        for c in text.chars() {
            if kept.len() + c.len_utf8() > 4096 {
                return kept + "…";
            }
            kept.push(c);
        }
        kept
    }

    fn bits(part: &Value) -> Option<u64> {
        let number = match part {
            Value::Null => f64::NAN,
            Value::Number(number) => number.as_f64()?,
            Value::String(text) => text.parse().unwrap_or(f64::NAN),
            _ => return None,
        };
        Some(number.to_bits())
    }

    /// Some rows of one form, which differ in their texts.
    fn a_run() -> impl Strategy<Value = Vec<String>> {
        let forms = [
            r#"{"metric":{"model_name":"$M","namespace":"$N","pod":"$P"},"value":[$T,"$V"]}"#,
            r#"{"metric":{"model_name":"$M","namespace":"$N"},"value":[$T,"$V"]}"#,
            r#"{"metric":{"model_name":"$M","namespace":"$N"},"value":[$T,"$V"],"more":{}}"#,
            r#"{ "value" : [ $T , "$V" ] , "metric" : { "namespace" : "$N" , "pod" : "$P" } }"#,
            r#"{"metric":{"pod":"$M","namespace":"$N","pod":"$P","zone":"$M"},"value":[$T,"$V"]}"#,
            r#"{"metric":{"pod_name":"$M","zone":["$N"],"pod":"$P"},"value":[$T,"1"],"value":[2,$W]}"#,
            r#"{"metric":{"pod":"$M"},"value":[1,"$V"],"metric":{"namespace":"$N","p\u006fd":"$P"}}"#,
            r#"{"metric":{"pod":"$P"},"metric":{"namespace":"$N"},"value":[$T,"$V"],"more":{}}"#,
            r#"{"metric":{},"value":[$T,"$V"]}"#,
            r#"{"metric":{"namespace":"$N","pod":"$P"},"value":$W}"#,
        ];
        let select = prop::sample::select::<&'static str>;
        let mut names = vec!["a", "b", "a-name-longer-than-others", "", r#"\"é"#];
        let long: Vec<String> = [4096, 4097, 5000].map(|bytes| "x".repeat(bytes)).into();
        let long = [long, vec![format!("y{}", "é".repeat(3000))]].concat();
        names.extend(long.into_iter().map(|name| &*name.leak()));
        let names = || select(names.clone());
        let times = select(vec!["1732.5", "1732.75", "null"]);
        let values = select(vec!["0", "1", "0.25", "NaN", "+Inf", "x", r"\u0031"]);
        let numbers = select(vec!["-3e5", "7"]);
        let texts = (names(), names(), names(), times, values, numbers);
        (select(forms.to_vec()), prop::collection::vec(texts, 1..5)).prop_map(|(form, rows)| {
            let row = |(model, namespace, pod, time, value, number)| {
                [("$M", model), ("$N", namespace), ("$P", pod), ("$T", time), ("$V", value)]
                    .into_iter()
                    .chain([("$W", number)])
                    .fold(form.to_owned(), |row, (place, text)| row.replace(place, text))
            };
            rows.into_iter().map(row).collect()
        })
    }

    #[test]
    fn a_scalar_is_no_row_to_go_by() {
        let row = |pod| format!(r#"{{"metric":{{"pod":"{pod}"}},"value":[5,"3"]}}"#);
        let body = body(&format!("{},1,\"2\"],\"result\":[{}", row("a"), row("b")));
        let rows = read_as(&body, Expect::Number).unwrap();
        let numbers: Vec<[u64; 2]> = rows.into_iter().map(|row| [row.3, row.4]).collect();
        assert_eq!(numbers, [[5.0, 3.0], [1.0, 2.0], [5.0, 3.0]].map(|it| it.map(f64::to_bits)));
    }

    proptest! {
        #[test]
        fn rows_are_read_as_others_read_them(
            runs in prop::collection::vec(a_run(), 1..6),
            mark in any::<bool>(),
        ) {
            let mark = if mark { "\u{feff}" } else { "" };
            let body = format!("{mark}{}", body(&runs.concat().join(",")));
            let (read, expected) = (read(&body), expected(&body));
            prop_assert!(expected.is_some(), "{body}");
            prop_assert_eq!(read, expected, "{}", body);
        }

        #[test]
        fn a_spoiled_answer_is_read_as_by_others_or_not_at_all(
            runs in prop::collection::vec(a_run(), 1..3),
            at in any::<prop::sample::Index>(),
            byte in prop::sample::select(b"\"\\{}[],:0x \n\x01".to_vec()),
            cut in any::<bool>(),
        ) {
            let mut body = body(&runs.concat().join(",")).into_bytes();
            let at = at.index(body.len());
            if cut {
                body.remove(at);
            } else {
                body[at] = byte;
            }
            let Ok(body) = String::from_utf8(body) else { return Ok(()) };
            let (read, expected) = (read(&body), expected(&body));
            // What is wrong besides the rows is not looked at by the other reader.
            if read.is_some() || expected.is_none() {
                prop_assert_eq!(read, expected, "{}", body);
            }
        }
    }
}
