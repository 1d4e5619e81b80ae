// SPDX-License-Identifier: Apache-2.0
//! Raw strings: the parser looks for escapes in them, and a server does not.

use std::borrow::Cow;

use promql_parser::util::escape_string;

/// Returns a query with `"\\d"` for each raw string such as `` `\d` ``. The parser reports a string without an end.
pub(crate) fn without_raw_strings(query: &str) -> Cow<'_, str> {
    if !query.contains('`') {
        return Cow::Borrowed(query);
    }
    let mut written = String::with_capacity(2 * query.len());
    let mut rest = query;
    while let Some(at) = rest.find(['"', '\'', '`', '#']) {
        let (before, from) = rest.split_at(at);
        written.push_str(before);
        let length = match from.as_bytes()[0] {
            b'#' => from.find('\n'),
            b'`' => from[1..].find('`').map(|end| end + 2),
            quote => length_of(from, quote),
        };
        let (text, after) = from.split_at(length.unwrap_or(from.len()));
        match text.strip_prefix('`').and_then(|text| text.strip_suffix('`')) {
            Some(raw) => written.extend(["\"", &escape_string(raw), "\""]),
            None => written.push_str(text),
        }
        rest = after;
    }
    written.push_str(rest);
    Cow::Owned(written)
}

/// Returns the length of the string literal that a text begins with, with its quotes.
fn length_of(text: &str, quote: u8) -> Option<usize> {
    let mut is_escaped = false;
    let is_end = |byte: u8| {
        let ends = byte == quote && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    };
    text.bytes().skip(1).position(is_end).map(|index| index + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, expected: &str) {
        assert_eq!(without_raw_strings(query), expected);
    }

    #[test]
    fn a_raw_string_has_no_escapes_and_others_stay() {
        check(r#"a{b=~`\d+\.x`,c="`\\"}"#, r#"a{b=~"\\d+\\.x",c="`\\"}"#);
        check("a{b=`x\"y`,c=`\\`,d=`é\n`}", r#"a{b="x\"y",c="\\",d="é\n"}"#);
        check(r#"a{b='\'`',c="\"`"} + d{e=``}"#, r#"a{b='\'`',c="\"`"} + d{e=""}"#);
        check("a # `\\d`\n + b{c=`\\d`} # `", "a # `\\d`\n + b{c=\"\\\\d\"} # `");
        check(r#"a{b="c"}"#, r#"a{b="c"}"#);
    }

    #[test]
    fn a_string_without_an_end_stays() {
        check("a{b=`c", "a{b=`c");
        check("a{b=`c`,d=\"`\\\"", "a{b=\"c\",d=\"`\\\"");
        check("`", "`");
    }
}
