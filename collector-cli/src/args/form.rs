// SPDX-License-Identifier: Apache-2.0
//! Forms of a result: the value of `--output`.

use std::ffi::OsStr;

use clap::builder::{EnumValueParser, PossibleValue, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Command, Error, ValueEnum};

/// Forms of a result. Not every command has each of them.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    /// Columns for people
    Table,
    /// More columns
    Wide,
    /// One document
    Json,
    /// The same document
    Yaml,
    /// Series in the Prometheus text format
    Prometheus,
    /// A name a line
    Name,
    /// Comma-separated values, with a line of titles
    Csv,
    /// Columns with these titles: custom-columns=TITLE:.field,…
    CustomColumns,
}

/// A form, and the columns of the one that has its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Form {
    pub(crate) format: Format,
    /// Title and field of each column; empty for other forms.
    pub(crate) columns: Vec<(String, String)>,
}

/// Parses the value of `--output`.
#[derive(Clone)]
pub(super) struct FormParser;

impl TypedValueParser for FormParser {
    type Value = Form;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Form, Error> {
        let refused = |problem: &str| {
            let text =
                format!("--output: {problem}: write custom-columns=TITLE:.field,TITLE:.field\n");
            Error::raw(ErrorKind::InvalidValue, text).with_cmd(command)
        };
        let text = value.to_str().unwrap_or_default();
        if let Some(columns) = text.strip_prefix("custom-columns=") {
            let column = |column: &str| {
                let (title, field) = column.split_once(':')?;
                let field = field.strip_prefix('.').unwrap_or(field);
                let is_whole = !title.is_empty() && !field.is_empty();
                is_whole.then(|| (title.to_owned(), field.to_owned()))
            };
            let columns = columns.split(',').map(column).collect::<Option<Vec<_>>>();
            let columns = columns
                .ok_or_else(|| refused("each column is TITLE:FIELD, separated by commas"))?;
            return Ok(Form { format: Format::CustomColumns, columns });
        }
        let format = EnumValueParser::<Format>::new().parse_ref(command, arg, value)?;
        if format == Format::CustomColumns {
            return Err(refused("custom-columns has no columns"));
        }
        Ok(Form { format, columns: Vec::new() })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(Format::value_variants().iter().filter_map(Format::to_possible_value)))
    }
}
