//! What stands before the parts of a key: its kind, and the lengths of the parts.
//!
//! It is text like they are, a byte for each in most keys. In fields they would take 16 bytes of each
//! entry of a cache, a third of what its names do.

use super::{KeyKind, KeyRef};

/// Lengths below this are one byte. Others are several, of six bits each, the lowest first; a seventh bit
/// says that more follow.
const BASE: usize = 64;

/// How long a head of four bytes is.
pub(super) const SHORT: usize = 4;

pub(super) struct Head {
    pub(super) kind: KeyKind,
    /// Lengths of model, namespace and variant.
    pub(super) lengths: [usize; 3],
    /// Where the parts begin.
    pub(super) end: usize,
}

impl Head {
    pub(super) fn write(text: &mut String, key: KeyRef<'_>) {
        text.push(char::from(key.kind as u8));
        for mut length in key.lengths() {
            while length >= BASE {
                text.push(char::from(byte(length % BASE + BASE)));
                length /= BASE;
            }
            text.push(char::from(byte(length)));
        }
    }

    /// How many bytes it takes.
    pub(super) fn size(key: KeyRef<'_>) -> usize {
        let digits = |length: usize| 1 + length.checked_ilog(BASE).unwrap_or(0) as usize;
        1 + key.lengths().map(digits).iter().sum::<usize>()
    }

    #[inline]
    pub(super) fn read(text: &str) -> Self {
        match *text.as_bytes() {
            [kind, model, namespace, variant, ..]
                if usize::from(model | namespace | variant) < BASE =>
            {
                Self::of(kind, [model, namespace, variant].map(usize::from), SHORT)
            }
            _ => Self::read_long(text),
        }
    }

    #[cold]
    fn read_long(text: &str) -> Self {
        let mut bytes = text.bytes();
        let mut next = || bytes.next().unwrap_or(0);
        let kind = next();
        let lengths = [(); 3].map(|()| {
            let (mut length, mut unit) = (0, 1);
            loop {
                let byte = usize::from(next());
                length += byte % BASE * unit;
                if byte < BASE {
                    return length;
                }
                unit *= BASE;
            }
        });
        Self::of(kind, lengths, text.len() - bytes.len())
    }

    #[inline]
    fn of(kind: u8, lengths: [usize; 3], end: usize) -> Self {
        let kind =
            if kind == KeyKind::Replicas as u8 { KeyKind::Replicas } else { KeyKind::Allocation };
        Self { kind, lengths, end }
    }
}

/// The head of a key none of whose parts is long, to be compared as a whole.
#[inline]
pub(super) fn short(key: KeyRef<'_>) -> Option<[u8; SHORT]> {
    let [model, namespace, variant] = key.lengths();
    let is_short = model | namespace | variant < BASE;
    is_short.then(|| [key.kind as u8, byte(model), byte(namespace), byte(variant)])
}

#[expect(clippy::cast_possible_truncation, reason = "it is below 128")]
fn byte(digit: usize) -> u8 {
    digit as u8
}
