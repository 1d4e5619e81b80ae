// SPDX-License-Identifier: Apache-2.0
//! The visitor that reads an answer: passes on each row as it is read, and keeps the rest.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{
    self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor,
};

use super::Unreadable;

/// Most rows of one answer: twenty times the pods that a query is made for.
pub(super) const ROWS_MAX: usize = 50_000;
/// Most bytes of a label's value that are kept. No usual name is so long, and longer ones would be copied
/// into every document about them.
const LABEL_BYTES_MAX: usize = 4 << 10;
/// Most labels of a row that are read; others are skipped.
const LABELS_MAX: usize = 64;

/// The labels of a row. If a label is written twice, the last one is used.
#[derive(Default, Debug)]
pub(crate) struct RowLabels<'a> {
    all: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> RowLabels<'a> {
    /// Returns the text of a label; an empty label is an absent one.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.all.iter().find(|(key, _)| key == name);
        found.map(|(_, text)| &**text).filter(|text| !text.is_empty())
    }

    /// Returns the text of the first of these labels that is present.
    pub(crate) fn first_of(&self, names: &[Box<str>]) -> Option<&str> {
        names.iter().find_map(|name| self.get(name))
    }

    /// Iterates over the non-empty labels in the order of the text.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.all.iter().map(|(key, text)| (&**key, &**text));
        all.filter(|(_, text)| !text.is_empty())
    }

    fn add(&mut self, key: Cow<'a, str>, text: Cow<'a, str>) {
        if let Some(known) = self.all.iter_mut().find(|(known, _)| *known == key) {
            known.1 = text;
        } else if self.all.len() < LABELS_MAX {
            self.all.push((key, text));
        }
    }
}

/// One sample of an instant vector.
#[derive(Default, Debug)]
pub(crate) struct Row<'a> {
    pub(crate) labels: RowLabels<'a>,
    /// The evaluation time, in seconds of the server's clock; NaN if it was not given.
    pub(crate) time: f64,
    /// NaN if it was not a number.
    pub(crate) value: f64,
}

/// The parts of an answer besides its rows.
#[derive(Default)]
pub(super) struct Document<'a> {
    pub(super) status: Option<Text<'a>>,
    /// The first warning that rows may be absent.
    pub(super) warning: Option<String>,
    pub(super) partial: bool,
    pub(super) data: bool,
    pub(super) result_type: Option<Text<'a>>,
    pub(super) result: bool,
    /// Why reading was given up, if the JSON itself was valid.
    pub(super) refused: Option<Unreadable>,
}

/// Reads one document.
pub(super) struct Reader<'a, 'f> {
    pub(super) document: Document<'a>,
    on_row: &'f mut dyn FnMut(&Row<'_>),
    rows_left: usize,
    /// The current row; its label buffer is reused for the next one.
    row: Row<'a>,
    /// The label that was read last, if it is text.
    label: Option<Cow<'a, str>>,
}

impl<'a, 'f> Reader<'a, 'f> {
    pub(super) fn new(on_row: &'f mut dyn FnMut(&Row<'_>)) -> Self {
        Self {
            document: Document::default(),
            on_row,
            rows_left: ROWS_MAX,
            row: Row::default(),
            label: None,
        }
    }

    /// Reads a complete text.
    pub(super) fn read(&mut self, text: &'a str) -> serde_json::Result<()> {
        let mut json = serde_json::Deserializer::from_str(text);
        self.at(Position::Document).deserialize(&mut json)?;
        json.end()
    }

    fn at(&mut self, position: Position) -> At<'_, 'a, 'f> {
        At { position, reader: self }
    }

    fn document<A: MapAccess<'a>>(&mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(key)) = map.next_key()? {
            match &*key {
                "status" => self.document.status = map.next_value()?,
                "warnings" => map.next_value_seed(self.at(Position::Warnings))?,
                "isPartial" => {
                    self.document.partial = map.next_value::<Option<bool>>()?.unwrap_or_default();
                }
                "data" => map.next_value_seed(self.at(Position::Data))?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn data<A: MapAccess<'a>>(&mut self, mut map: A) -> Result<(), A::Error> {
        self.document.data = true;
        while let Some(Text(key)) = map.next_key()? {
            match &*key {
                "resultType" => self.document.result_type = map.next_value()?,
                "result" => map.next_value_seed(self.at(Position::Result))?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn result<A: SeqAccess<'a>>(&mut self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(self.at(Position::Row))?.is_some() {}
        self.document.result = true;
        Ok(())
    }

    fn row<A: MapAccess<'a>>(&mut self, mut map: A) -> Result<(), A::Error> {
        let (mut has_labels, mut has_sample, mut other) = (false, false, None);
        while let Some(Text(key)) = map.next_key()? {
            match &*key {
                "metric" => {
                    has_labels = true;
                    map.next_value_seed(self.at(Position::Labels))?;
                }
                "value" => {
                    has_sample = true;
                    map.next_value_seed(self.at(Position::Sample))?;
                }
                key => {
                    other = match key {
                        "values" | "histograms" => Some(Unreadable::NoVector("matrix".to_owned())),
                        "histogram" => Some(Unreadable::NativeHistogram),
                        _ => other,
                    };
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        match other {
            Some(other) if !has_sample => return Err(self.refuse(other)),
            _ if !has_labels => return Err(de::Error::custom("a sample without `metric`")),
            _ if !has_sample => return Err(de::Error::custom("a sample without `value`")),
            _ => {}
        }
        self.hand_on()
    }

    fn labels<A: MapAccess<'a>>(&mut self, mut map: A) -> Result<(), A::Error> {
        self.row.labels.all.clear();
        while let Some(Text(key)) = map.next_key()? {
            map.next_value_seed(self.at(Position::Label))?;
            if let Some(text) = self.label.take() {
                let text = kept(&key, text);
                self.row.labels.add(key, text);
            }
        }
        Ok(())
    }

    /// `[time, "value"]`.
    fn sample<A: SeqAccess<'a>>(&mut self, mut list: A) -> Result<(), A::Error> {
        let time = list.next_element_seed(self.at(Position::Time))?;
        let value = list.next_element_seed(self.at(Position::Value))?;
        if time.and(value).is_none() || list.next_element::<IgnoredAny>()?.is_some() {
            return Err(de::Error::custom("expected a time and a value"));
        }
        Ok(())
    }

    /// Keeps only the warning that is reported: a list of a million empty texts would take far more memory
    /// than its JSON.
    fn warnings<A: SeqAccess<'a>>(&mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(Text(warning)) = list.next_element()? {
            self.warning(&warning);
        }
        Ok(())
    }

    fn warning(&mut self, warning: &str) {
        // Warnings of the query language are about how a query is written; all rows are present.
        let is_advice =
            ["PromQL info:", "PromQL warning:"].iter().any(|it| warning.starts_with(it))
                || warning.ends_with("annotations omitted");
        if !is_advice && self.document.warning.is_none() {
            self.document.warning = Some(warning.to_owned());
        }
    }

    fn hand_on<E: de::Error>(&mut self) -> Result<(), E> {
        let Some(left) = self.rows_left.checked_sub(1) else {
            return Err(self.refuse(Unreadable::TooManyRows));
        };
        self.rows_left = left;
        (self.on_row)(&self.row);
        Ok(())
    }

    fn refuse<E: de::Error>(&mut self, refused: Unreadable) -> E {
        let error = E::custom(&refused);
        self.document.refused = Some(refused);
        error
    }
}

/// A position in the document.
#[derive(Clone, Copy)]
enum Position {
    Document,
    Warnings,
    Data,
    Result,
    Row,
    Labels,
    Label,
    /// A time and a value, or a bare number.
    Sample,
    Time,
    Value,
}

/// Reads the value at a position.
struct At<'r, 'a, 'f> {
    position: Position,
    reader: &'r mut Reader<'a, 'f>,
}

impl At<'_, '_, '_> {
    fn number<E: de::Error>(self, number: f64) -> Result<(), E> {
        let row = &mut self.reader.row;
        match self.position {
            Position::Time => row.time = number,
            Position::Value => row.value = number,
            Position::Sample => (row.time, row.value) = (f64::NAN, number),
            _ => return Err(E::invalid_type(Unexpected::Float(number), &self)),
        }
        Ok(())
    }
}

impl<'a> DeserializeSeed<'a> for At<'_, 'a, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for At<'_, 'a, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.position {
            Position::Document => "an object",
            Position::Warnings => "a text or a list of texts",
            Position::Data => "an object as data",
            Position::Result => "a list of samples as result",
            Position::Row => "a sample with its labels",
            Position::Labels => "an object of labels",
            Position::Label => "a text as label",
            Position::Sample | Position::Time | Position::Value => "a time and a value",
        })
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        match self.position {
            Position::Document => self.reader.document(map),
            Position::Data => self.reader.data(map),
            Position::Row => self.reader.row(map),
            Position::Labels => self.reader.labels(map),
            // A label of another form is no label.
            Position::Label => {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(())
            }
            _ => Err(de::Error::invalid_type(Unexpected::Map, &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut list: A) -> Result<(), A::Error> {
        match self.position {
            Position::Result => self.reader.result(list),
            Position::Sample => self.reader.sample(list),
            Position::Warnings => self.reader.warnings(list),
            Position::Label => {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(())
            }
            _ => Err(de::Error::invalid_type(Unexpected::Seq, &self)),
        }
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'a str) -> Result<(), E> {
        match self.position {
            Position::Label => self.reader.label = Some(Cow::Borrowed(text)),
            _ => return self.visit_str(text),
        }
        Ok(())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        match self.position {
            Position::Label => self.reader.label = Some(Cow::Owned(text.to_owned())),
            Position::Warnings => self.reader.warning(text),
            // Anything else becomes NaN.
            Position::Time | Position::Value => {
                return self.number(text.parse().unwrap_or(f64::NAN));
            }
            _ => return Err(E::invalid_type(Unexpected::Str(text), &self)),
        }
        Ok(())
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        match self.position {
            Position::Warnings | Position::Data | Position::Result => Ok(()),
            Position::Time | Position::Value => self.number(f64::NAN),
            _ => Err(E::invalid_type(Unexpected::Unit, &self)),
        }
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<(), E> {
        self.number(number)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<(), E> {
        self.number(number as f64)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<(), E> {
        self.number(number as f64)
    }
}

/// A text that borrows from the input unless it has escapes; a bare `Cow` would always copy.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// Shortens a label's value, except namespace and model: they are compared with the requested names.
fn kept<'a>(label: &str, text: Cow<'a, str>) -> Cow<'a, str> {
    if text.len() <= LABEL_BYTES_MAX || matches!(label, "namespace" | "model_name") {
        return text;
    }
    Cow::Owned(shortened(&text).into_owned())
}

/// Returns a label's value, or the beginning of one that is too long for a document.
pub(crate) fn shortened(text: &str) -> Cow<'_, str> {
    if text.len() <= LABEL_BYTES_MAX {
        return Cow::Borrowed(text);
    }
    let end = (0..=LABEL_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end));
    Cow::Owned(format!("{}…", &text[..end.unwrap_or_default()]))
}

#[cfg(test)]
mod tests;
