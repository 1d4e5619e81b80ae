// SPDX-License-Identifier: Apache-2.0
//! Compression of large answers, for clients that ask for it.

use std::io::Write as _;

use axum::http::{HeaderMap, header};
use flate2::Compression;
use flate2::write::GzEncoder;

/// Compressed bytes that are sent at once.
const PART_BYTES: usize = 16 * 1024;

/// Whether a client takes gzip.
pub(super) fn is_accepted(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT_ENCODING).iter();
    let codings = accepted.filter_map(|value| value.to_str().ok());
    let codings: Vec<&str> = codings.flat_map(|it| it.split(',')).collect();
    let quality = |wanted: &str| {
        codings.iter().find_map(|coding| {
            let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
            let quality = parameters.trim().strip_prefix("q=").unwrap_or("1");
            let is_wanted = name.trim().eq_ignore_ascii_case(wanted);
            is_wanted.then(|| quality.parse::<f32>().unwrap_or(0.0))
        })
    };
    quality("gzip").or_else(|| quality("*")).is_some_and(|quality| quality > 0.0)
}

/// Parts of a text, compressed.
pub(super) struct Gzip<I> {
    parts: I,
    /// `None` at the end.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl<I> Gzip<I> {
    pub(super) fn new(parts: I) -> Self {
        let encoder = GzEncoder::new(Vec::with_capacity(2 * PART_BYTES), Compression::fast());
        Self { parts, encoder: Some(encoder) }
    }
}

impl<I: Iterator<Item = String>> Iterator for Gzip<I> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let encoder = self.encoder.as_mut()?;
        for part in self.parts.by_ref() {
            // Memory takes every write.
            encoder.write_all(part.as_bytes()).ok()?;
            if encoder.get_ref().len() >= PART_BYTES {
                return Some(std::mem::take(encoder.get_mut()));
            }
        }
        self.encoder.take()?.finish().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn only_a_client_that_names_gzip_gets_it() {
        for (value, expected) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("*", true),
            ("", false),
            ("br", false),
            ("gzip;q=0", false),
            ("*, gzip;q=0", false),
            ("gzip; q=nonsense", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            assert_eq!(is_accepted(&headers), expected, "{value:?}");
        }
        assert!(!is_accepted(&HeaderMap::new()));
    }

    #[test]
    fn the_parts_are_one_stream() {
        let parts: Vec<_> = (0..20_000).map(|number| format!("{number}\n")).collect();
        let compressed: Vec<_> = Gzip::new(parts.clone().into_iter()).collect();
        assert!(compressed.len() > 1);
        let mut text = String::new();
        let bytes = compressed.concat();
        flate2::read::GzDecoder::new(&*bytes).read_to_string(&mut text).unwrap();
        assert_eq!(text, parts.concat());
    }
}
