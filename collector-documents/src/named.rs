// SPDX-License-Identifier: Apache-2.0
//! Values by the names of fields.

use serde::ser::{Serialize, SerializeStruct as _, Serializer};

/// An object in JSON, ordered by name. The names are keys of the program, so they are written as those of a struct.
pub(crate) struct Named<T>(Vec<(&'static str, T)>);

impl<T> Named<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts a value in the place of the one that the name has.
    pub(crate) fn insert(&mut self, name: &'static str, value: T) {
        match self.position(name) {
            Ok(index) => self.0[index].1 = value,
            Err(index) => self.0.insert(index, (name, value)),
        }
    }

    /// Gives a value to a name that has none.
    pub(crate) fn insert_if_absent(&mut self, name: &'static str, value: T) {
        if let Err(index) = self.position(name) {
            self.0.insert(index, (name, value));
        }
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by_key(&name, |(known, _)| *known)
    }
}

impl<T> FromIterator<(&'static str, T)> for Named<T> {
    fn from_iter<I: IntoIterator<Item = (&'static str, T)>>(values: I) -> Self {
        let mut named = Self(Vec::new());
        values.into_iter().for_each(|(name, value)| named.insert(name, value));
        named
    }
}

impl<T: Serialize> Serialize for Named<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Named", self.0.len())?;
        for (name, value) in &self.0 {
            object.serialize_field(name, value)?;
        }
        object.end()
    }
}

#[cfg(feature = "schemars")]
impl<T: schemars::JsonSchema> schemars::JsonSchema for Named<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Named".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        std::collections::BTreeMap::<String, T>::json_schema(generator)
    }
}
