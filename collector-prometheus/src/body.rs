// SPDX-License-Identifier: Apache-2.0
//! Reads and unpacks the body of a response, with limits on size and memory.

use std::fmt::Display;
use std::io::Read;
use std::time::SystemTime;

use collector_core::ErrorKind;
use collector_transport::quote;
use flate2::read::MultiGzDecoder;
use reqwest::Response;
use reqwest::header::{CONTENT_ENCODING, DATE, HeaderMap};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::failure::{Failure, Split};

/// Above this size only one body is read at a time, so that four of them at the limit are not in memory
/// together. It is also the size at which a group of models is too large for one query.
const LARGE_BYTES: usize = 8 << 20;
/// Buffer space that is reserved for unpacking.
const ROOM_BYTES: usize = 32 << 10;
/// A body, and the permit to hold a large one.
pub(crate) struct Body<'a> {
    pub(crate) bytes: Vec<u8>,
    /// The server's wall clock when it wrote the head, to the second.
    pub(crate) date: Option<SystemTime>,
    _turn: Option<SemaphorePermit<'a>>,
}

impl Body<'_> {
    /// Returns whether the models of this answer should not share a query again.
    pub(crate) fn is_large(&self) -> bool {
        self.bytes.len() > LARGE_BYTES
    }
}

/// Reads bodies.
pub(crate) struct Bodies {
    /// Most bytes of one body, unpacked.
    limit: usize,
    large: Semaphore,
}

impl Bodies {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, large: Semaphore::new(1) }
    }

    /// Reads a complete body; `likely` is its expected length.
    pub(crate) async fn read(
        &self,
        mut response: Response,
        likely: usize,
        explain: impl Fn(reqwest::Error) -> Failure,
    ) -> Result<Body<'_>, Failure> {
        let packed = is_packed(response.headers())?;
        let date = response
            .headers()
            .get(DATE)
            .and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        if response.content_length().is_some_and(|length| length > self.limit as u64) {
            return Err(self.too_large());
        }
        let mut turn = None;
        let mut received = Vec::with_capacity(if packed { 0 } else { likely.min(LARGE_BYTES) });
        while let Some(chunk) = response.chunk().await.map_err(&explain)? {
            received.extend_from_slice(&chunk);
            if received.len() > self.limit {
                return Err(self.too_large());
            }
            if received.len() > LARGE_BYTES && turn.is_none() {
                turn = self.turn().await;
            }
        }
        if !packed {
            return Ok(Body { bytes: received, date, _turn: turn });
        }
        let mut unpacking = MultiGzDecoder::new(&*received);
        let mut bytes = Vec::with_capacity(likely.min(LARGE_BYTES));
        unpack(&mut unpacking, &mut bytes, LARGE_BYTES)?;
        if bytes.len() > LARGE_BYTES {
            if turn.is_none() {
                turn = self.turn().await;
            }
            unpack(&mut unpacking, &mut bytes, self.limit)?;
        }
        if bytes.len() > self.limit {
            return Err(self.too_large());
        }
        Ok(Body { bytes, date, _turn: turn })
    }

    /// Waits for the permit to hold a large body, or for the deadline: the semaphore is never closed.
    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.large.acquire().await.ok()
    }

    fn too_large(&self) -> Failure {
        Failure::new(ErrorKind::TooLarge, format!("the answer is over {} (decoded)", self.limit()))
            .with_remedy("raise prometheus.max_response_bytes or set prometheus.namespaces")
            .with_split(Split::UntilItFits)
    }

    /// Returns the limit, for messages.
    pub(crate) fn limit(&self) -> String {
        if self.limit.is_multiple_of(1 << 20) {
            format!("{} MiB", self.limit >> 20)
        } else {
            format!("{} bytes", self.limit)
        }
    }
}

/// Unpacks until `bytes` has one byte more than `most`, or to the end.
fn unpack(unpacking: &mut impl Read, bytes: &mut Vec<u8>, most: usize) -> Result<(), Failure> {
    let room = most.saturating_add(1).saturating_sub(bytes.len());
    bytes.reserve_exact(room.min(ROOM_BYTES));
    let unpacked = unpacking.take(room as u64).read_to_end(bytes);
    unpacked.map(drop).map_err(|error| unreadable(&error).with_source(error))
}

/// Returns the beginning of a body, as far as it can be read, for messages.
pub(crate) async fn beginning(mut response: Response, limit: usize) -> Vec<u8> {
    let packed = is_packed(response.headers()).unwrap_or(false);
    let mut received = Vec::new();
    while received.len() < limit
        && let Ok(Some(chunk)) = response.chunk().await
    {
        received.extend_from_slice(&chunk);
    }
    received.truncate(limit);
    if !packed {
        return received;
    }
    let mut text = Vec::new();
    // The text before a defect is kept.
    let _ = MultiGzDecoder::new(&*received).take(limit as u64).read_to_end(&mut text);
    text
}

/// Returns whether a body is compressed, in the one way that was requested.
fn is_packed(headers: &HeaderMap) -> Result<bool, Failure> {
    let mut packed = false;
    for encoding in headers.get_all(CONTENT_ENCODING) {
        let is = |name: &str| encoding.as_bytes().eq_ignore_ascii_case(name.as_bytes());
        match packed {
            false if is("gzip") || is("x-gzip") => packed = true,
            _ if is("identity") => {}
            _ => {
                let encoding = quote(&String::from_utf8_lossy(encoding.as_bytes()));
                return Err(Failure::bad_answer(format!(
                    "the encoding {encoding:?} of the answer was not requested"
                ))
                .with_remedy("is there a proxy in between?"));
            }
        }
    }
    Ok(packed)
}

fn unreadable(why: &dyn Display) -> Failure {
    Failure::bad_answer(format!("its compressed body cannot be read: {why}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    use super::*;

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut packing = GzEncoder::new(Vec::new(), Compression::default());
        packing.write_all(text).unwrap();
        packing.finish().unwrap()
    }

    fn unpacked(body: &[u8], most: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        unpack(&mut MultiGzDecoder::new(body), &mut bytes, most).ok()?;
        Some(bytes)
    }

    proptest! {
        #[test]
        fn a_body_of_several_members_is_unpacked_and_a_truncated_one_refused(
            texts in prop::collection::vec(prop::collection::vec(0..4_u8, 0..3000), 1..4),
        ) {
            let body: Vec<u8> = texts.iter().flat_map(|text| packed(text)).collect();
            prop_assert_eq!(unpacked(&body, usize::MAX), Some(texts.concat()));
            prop_assert_eq!(unpacked(&body[..body.len() - 1], usize::MAX), None);
        }
    }

    #[test]
    fn no_more_is_unpacked_than_one_byte_over_the_limit() {
        let bomb = packed(&vec![b' '; 4 << 20]);
        assert_eq!(unpacked(&bomb, 1 << 20).unwrap().len(), (1 << 20) + 1);
    }

    #[test]
    fn a_damaged_body_is_refused() {
        let spoil = |at: usize| {
            let mut body = packed(b"some text, some more text");
            body[at] ^= 0x40;
            unpacked(&body, 1000)
        };
        let length = packed(b"some text, some more text").len();
        for at in [0, length / 2, length - 5, length - 1] {
            assert_eq!(spoil(at), None, "{at}");
        }
        let followed = [packed(b"text"), b"and what is none".to_vec()].concat();
        assert_eq!(unpacked(&followed, 1000), None);
    }

    #[test]
    fn an_unrequested_encoding_is_refused() {
        let packed = |values: &[&'static str]| {
            let values =
                values.iter().map(|value| (CONTENT_ENCODING, HeaderValue::from_static(value)));
            let mut headers = HeaderMap::new();
            values.for_each(|(name, value)| _ = headers.append(name, value));
            is_packed(&headers).ok()
        };
        assert_eq!(packed(&[]), Some(false));
        assert_eq!(packed(&["identity"]), Some(false));
        assert_eq!(packed(&["GZIP"]), Some(true));
        assert_eq!(packed(&["identity", "x-gzip"]), Some(true));
        for other in [&["br"][..], &["gzip, gzip"], &["gzip", "gzip"], &["gzip", "br"], &[""]] {
            assert_eq!(packed(other), None, "{other:?}");
        }
    }
}
