// SPDX-License-Identifier: Apache-2.0
//! Writes JSON as serde_json does, for 0.6 of its instructions for documents, which are keys and short texts for the most part: a key
//! or a text is written at once with what surrounds it. Numbers are written by the libraries that serde_json uses.

use serde::Serialize;
use serde::ser::{
    Error as _, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};
use serde_json::Error;

use super::{SERIALISABLE, escape_controls};

type Written = Result<(), Error>;

/// JSON text, as far as it is written.
pub(super) struct Writer(pub(super) String);

impl Writer {
    fn text(&mut self, text: &str) {
        if is_plain(text.as_bytes()) {
            self.0.push('"');
            self.0.push_str(text);
            self.0.push('"');
        } else {
            let escaped = escape_controls(serde_json::to_string(text).expect(SERIALISABLE));
            self.0.push_str(&escaped);
        }
    }

    /// Begins an object or array; `of` is the name of the variant that it is the value of.
    fn open(&mut self, of: Option<&str>, open: char, end: &'static str) -> Open<'_> {
        if let Some(variant) = of {
            self.0.push('{');
            self.text(variant);
            self.0.push(':');
        }
        self.0.push(open);
        Open { writer: self, is_first: true, end }
    }
}

/// The bytes that are escaped in JSON, or by [`escape_controls`], or begin a character that is.
const SPECIAL: [bool; 256] = {
    let mut special = [false; 256];
    let mut byte = 0;
    while byte < special.len() {
        // 0x22 is a quotation mark, 0x5c a backslash.
        special[byte] = matches!(byte, 0..0x20 | 0x22 | 0x5c | 0x7f | 0xc2);
        byte += 1;
    }
    special
};

fn is_plain(text: &[u8]) -> bool {
    !text.iter().any(|byte| SPECIAL[usize::from(*byte)])
}

/// An object or array that has not ended.
pub(super) struct Open<'a> {
    writer: &'a mut Writer,
    is_first: bool,
    end: &'static str,
}

impl Open<'_> {
    fn separate(&mut self) {
        if !std::mem::take(&mut self.is_first) {
            self.writer.0.push(',');
        }
    }

    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        self.separate();
        value.serialize(&mut *self.writer)
    }

    fn field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Written {
        debug_assert!(is_plain(key.as_bytes()), "{key:?} is no name of a field");
        let json = &mut self.writer.0;
        if !std::mem::take(&mut self.is_first) {
            json.push(',');
        }
        json.push('"');
        json.push_str(key);
        json.push_str("\":");
        value.serialize(&mut *self.writer)
    }

    fn close(self) {
        self.writer.0.push_str(self.end);
    }
}

macro_rules! integers {
    ($($method:ident: $type:ty),*) => {
        $(fn $method(self, value: $type) -> Written {
            self.0.push_str(itoa::Buffer::new().format(value));
            Ok(())
        })*
    };
}

macro_rules! floats {
    ($($method:ident: $type:ty),*) => {
        $(fn $method(self, value: $type) -> Written {
            if !value.is_finite() {
                return self.serialize_unit();
            }
            self.0.push_str(zmij::Buffer::new().format_finite(value));
            Ok(())
        })*
    };
}

impl<'a> Serializer for &'a mut Writer {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Open<'a>;
    type SerializeTuple = Open<'a>;
    type SerializeTupleStruct = Open<'a>;
    type SerializeTupleVariant = Open<'a>;
    type SerializeMap = Open<'a>;
    type SerializeStruct = Open<'a>;
    type SerializeStructVariant = Open<'a>;

    integers!(
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
        serialize_i128: i128, serialize_u128: u128
    );
    floats!(serialize_f32: f32, serialize_f64: f64);

    fn serialize_bool(self, value: bool) -> Written {
        self.0.push_str(if value { "true" } else { "false" });
        Ok(())
    }

    fn serialize_char(self, value: char) -> Written {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Written {
        self.text(value);
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Written {
        self.collect_seq(value)
    }

    fn serialize_unit(self) -> Written {
        self.0.push_str("null");
        Ok(())
    }

    fn serialize_none(self) -> Written {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Written {
        value.serialize(self)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Written {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Written {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T>(self, _: &'static str, value: &T) -> Written
    where
        T: Serialize + ?Sized,
    {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Written
    where
        T: Serialize + ?Sized,
    {
        let mut open = self.open(None, '{', "}");
        open.field(variant, value)?;
        open.close();
        Ok(())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Open<'a>, Error> {
        Ok(self.open(None, '[', "]"))
    }

    fn serialize_tuple(self, _: usize) -> Result<Open<'a>, Error> {
        Ok(self.open(None, '[', "]"))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Open<'a>, Error> {
        Ok(self.open(None, '[', "]"))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Open<'a>, Error> {
        Ok(self.open(Some(variant), '[', "]}"))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Open<'a>, Error> {
        Ok(self.open(None, '{', "}"))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Open<'a>, Error> {
        Ok(self.open(None, '{', "}"))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Open<'a>, Error> {
        Ok(self.open(Some(variant), '{', "}}"))
    }
}

macro_rules! arrays {
    ($($trait:ident: $method:ident),*) => {
        $(impl $trait for Open<'_> {
            type Ok = ();
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
                self.item(value)
            }

            fn end(self) -> Written {
                self.close();
                Ok(())
            }
        })*
    };
}

arrays!(
    SerializeSeq: serialize_element, SerializeTuple: serialize_element,
    SerializeTupleStruct: serialize_field, SerializeTupleVariant: serialize_field
);

macro_rules! structs {
    ($($trait:ident),*) => {
        $(impl $trait for Open<'_> {
            type Ok = ();
            type Error = Error;

            fn serialize_field<T>(&mut self, key: &'static str, value: &T) -> Written
            where
                T: Serialize + ?Sized,
            {
                self.field(key, value)
            }

            fn end(self) -> Written {
                self.close();
                Ok(())
            }
        })*
    };
}

structs!(SerializeStruct, SerializeStructVariant);

impl SerializeMap for Open<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Written {
        self.separate();
        let start = self.writer.0.len();
        key.serialize(&mut *self.writer)?;
        if self.writer.0[start..].starts_with('"') {
            Ok(())
        } else {
            Err(Error::custom("a key is not a text"))
        }
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        self.writer.0.push(':');
        value.serialize(&mut *self.writer)
    }

    fn end(self) -> Written {
        self.close();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::to_json;
    use super::*;

    #[track_caller]
    fn check(document: &impl Serialize) {
        assert_eq!(to_json(document), escape_controls(serde_json::to_string(document).unwrap()));
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[ -~]{0,40}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..8).prop_map(Value::from),
                btree_map(any::<String>(), inner, 0..8)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_document_is_the_same_as_serde_jsons(value in values()) {
            check(&value);
        }
    }

    #[test]
    fn a_character_that_needs_an_escape_is_found_wherever_it_is() {
        for special in ["\"", "\\", "\n", "\u{0}", "\u{1f}", "\u{7f}", "\u{85}", "\u{a0}", "é"] {
            for length in 0..40 {
                for at in 0..=length {
                    let mut text = "x".repeat(length);
                    text.insert_str(at, special);
                    check(&text);
                }
            }
        }
    }

    #[test]
    fn every_shape_of_a_type_is_written_as_serde_json_writes_it() {
        #[derive(Serialize)]
        struct Unit;
        #[derive(Serialize)]
        struct Newtype(u8);
        #[derive(Serialize)]
        struct Pair(i8, Option<char>);
        #[derive(Serialize)]
        enum Shape {
            Unit,
            Newtype(Newtype),
            Pair(Pair, Unit),
            Struct { a: u16, b: Option<()> },
            Empty {},
        }
        #[derive(Serialize)]
        struct Flat {
            x: f32,
            #[serde(flatten)]
            rest: BTreeMap<char, (i16, u32)>,
        }
        check(&[Shape::Unit, Shape::Newtype(Newtype(1)), Shape::Pair(Pair(-1, Some('"')), Unit)]);
        check(&[Shape::Struct { a: 1, b: Some(()) }, Shape::Struct { a: 2, b: None }]);
        check(&(Shape::Empty {}, i32::MIN, i128::MIN, u128::MAX, f64::NAN, f32::INFINITY, -0.0));
        check(&Flat { x: 0.1, rest: [('a', (1, 2)), ('\u{7f}', (3, 4))].into() });
        check(&BTreeMap::from([(Some("key"), [[0_u8; 2], [1; 2]])]));
        check(&[(); 0]);
    }

    #[test]
    #[should_panic(expected = "a key is not a text")]
    fn a_key_that_is_no_text_is_no_json() {
        to_json(&BTreeMap::from([(1, 2)]));
    }
}
