//! Reads and unpacks the body of a response, with limits on size and memory.

use std::fmt::Display;
use std::time::SystemTime;

use collector_core::ErrorKind;
use collector_transport::quote;
use flate2::{Decompress, DecompressError, FlushDecompress, Status};
use reqwest::Response;
use reqwest::header::{CONTENT_ENCODING, DATE, HeaderMap};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::failure::{Failure, Split};

/// Above this size only one body is read at a time, so that four of them at the limit are not in memory
/// together. It is also the size at which a group of models is too large for one query.
const LARGE_BYTES: usize = 8 << 20;
/// Buffer space that is added when there is none left.
const ROOM_BYTES: usize = 32 << 10;
/// Log2 of the distance that gzip may refer back to.
const WINDOW_BITS: u8 = 15;

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
        let announced = response.content_length().unwrap_or(0);
        if announced > self.limit as u64 {
            return Err(self.too_large());
        }
        // The limit until this body has the permit for large ones.
        let mut most = self.limit.min(LARGE_BYTES);
        let mut turn = None;
        let mut text = Text::new(packed, likely.min(most));
        let mut received = 0_usize;
        while let Some(chunk) = response.chunk().await.map_err(&explain)? {
            // A packed body may unpack to nothing forever.
            received = received.saturating_add(chunk.len());
            if received > self.limit {
                return Err(self.too_large());
            }
            let mut rest = &chunk[..];
            while text
                .take(&mut rest, most)
                .map_err(|error| unreadable(&error).with_source(error))?
            {
                if text.bytes.len() > self.limit {
                    return Err(self.too_large());
                }
                if text.bytes.len() > most {
                    // The semaphore is never closed, so this waits until the permit is free, or for the
                    // deadline.
                    turn = self.large.acquire().await.ok();
                    most = self.limit;
                }
            }
        }
        if !text.is_complete() {
            return Err(unreadable(&"it is truncated"));
        }
        Ok(Body { bytes: text.bytes, date, _turn: turn })
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

/// Returns the beginning of a body, as far as it can be read, for messages.
pub(crate) async fn beginning(mut response: Response, limit: usize) -> Vec<u8> {
    let mut text = Text::new(is_packed(response.headers()).unwrap_or(false), 0);
    let mut received = 0;
    'body: while received < limit
        && let Ok(Some(chunk)) = response.chunk().await
    {
        received += chunk.len();
        let mut rest = &chunk[..];
        while text.take(&mut rest, limit).unwrap_or(false) {
            if text.bytes.len() >= limit {
                break 'body;
            }
        }
        // The rest cannot be unpacked.
        if !rest.is_empty() {
            break;
        }
    }
    text.bytes.truncate(limit);
    text.bytes
}

/// A body as far as it was received.
struct Text {
    bytes: Vec<u8>,
    /// Present if the body is packed.
    unpacking: Option<Decompress>,
    /// Whether the last gzip member is complete.
    ended: bool,
}

impl Text {
    fn new(packed: bool, likely: usize) -> Self {
        let unpacking = packed.then(|| Decompress::new_gzip(WINDOW_BITS));
        Self { bytes: Vec::with_capacity(likely), unpacking, ended: false }
    }

    /// Consumes bytes from `rest`, as many as there is room for. Returns false when nothing was left. Unpacks
    /// at most one byte beyond `most`.
    fn take(&mut self, rest: &mut &[u8], most: usize) -> Result<bool, DecompressError> {
        let Some(unpacking) = &mut self.unpacking else {
            self.bytes.extend_from_slice(rest);
            return Ok(!std::mem::take(rest).is_empty());
        };
        if self.ended {
            if rest.is_empty() {
                return Ok(false);
            }
            // A body may have several gzip members in a row.
            *unpacking = Decompress::new_gzip(WINDOW_BITS);
        }
        if self.bytes.len() == self.bytes.capacity() {
            let left = most.saturating_add(1).saturating_sub(self.bytes.len());
            self.bytes.reserve_exact(self.bytes.len().max(ROOM_BYTES).min(left));
        }
        let (before, room) = (unpacking.total_in(), self.bytes.len());
        let status = unpacking.decompress_vec(rest, &mut self.bytes, FlushDecompress::None)?;
        let taken = usize::try_from(unpacking.total_in() - before).unwrap_or(rest.len());
        *rest = &rest[taken..];
        self.ended = status == Status::StreamEnd;
        Ok(taken > 0 || self.bytes.len() > room)
    }

    fn is_complete(&self) -> bool {
        self.unpacking.is_none() || self.ended
    }
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

    /// Reads a body that arrives in chunks of this size.
    fn taken(body: &[u8], chunk: usize, likely: usize, limit: usize) -> Result<Text, String> {
        let mut text = Text::new(true, likely.min(limit));
        for chunk in body.chunks(chunk) {
            let mut rest = chunk;
            while text.take(&mut rest, limit).map_err(|error| error.to_string())? {
                if text.bytes.len() > limit {
                    return Ok(text);
                }
            }
        }
        Ok(text)
    }

    proptest! {
        #[test]
        fn a_body_is_unpacked_in_whatever_pieces_it_comes(
            texts in prop::collection::vec(prop::collection::vec(0..4_u8, 0..3000), 1..4),
            chunk in 1..700_usize,
            likely in 0..5000_usize,
        ) {
            let body: Vec<u8> = texts.iter().flat_map(|text| packed(text)).collect();
            let text = taken(&body, chunk, likely, usize::MAX).unwrap();
            prop_assert_eq!(&text.bytes, &texts.concat());
            prop_assert!(text.is_complete());
            let cut = taken(&body[..body.len() - 1], chunk, likely, usize::MAX).unwrap();
            prop_assert!(!cut.is_complete());
        }
    }

    #[test]
    fn no_more_is_unpacked_than_one_byte_over_the_limit() {
        let bomb = packed(&vec![b' '; 4 << 20]);
        for likely in [0, 1 << 20, 100 << 20] {
            let text = taken(&bomb, bomb.len(), likely, 1 << 20).unwrap();
            assert_eq!(text.bytes.len(), (1 << 20) + 1);
            assert!(text.bytes.capacity() <= (1 << 20) + 1, "{}", text.bytes.capacity());
        }
    }

    #[test]
    fn a_damaged_body_is_not_complete() {
        let spoil = |at: usize| {
            let mut body = packed(b"some text, some more text");
            body[at] ^= 0x40;
            taken(&body, 7, 0, 1000).is_ok_and(|text| text.is_complete())
        };
        let length = packed(b"some text, some more text").len();
        assert!(!spoil(0) && !spoil(length / 2) && !spoil(length - 5) && !spoil(length - 1));
        let followed = [packed(b"text"), b"and what is none".to_vec()].concat();
        assert!(taken(&followed, 1000, 0, 1000).is_err());
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
