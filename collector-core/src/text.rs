//! Text for messages.

use std::borrow::Cow;
use std::fmt;

/// Characters of a name that a message shows.
const SHOWN: usize = 200;

/// A name for a message: its first 200 characters, and how many more there are. Names come from users
/// and servers and may be of any length.
pub fn shortened(name: &str) -> Cow<'_, str> {
    match name.char_indices().nth(SHOWN) {
        None => Cow::Borrowed(name),
        Some((end, _)) => {
            let more = name[end..].chars().count();
            let more = counted(more, "more character", "more characters");
            Cow::Owned(format!("{}... ({more})", &name[..end]))
        }
    }
}

/// A number of things: `1 model`, `2 models`.
pub fn counted<N>(count: N, one: &str, many: &str) -> String
where
    N: Copy + fmt::Display + PartialEq + From<u8>,
{
    let word = if count == N::from(1) { one } else { many };
    format!("{count} {word}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_shortened() {
        let name = "模".repeat(200);
        assert_eq!(shortened(&name), name);
        assert_eq!(shortened(&(name.clone() + "型x")), name + "... (2 more characters)");
        assert_eq!(shortened(""), "");
    }

    #[test]
    fn one_of_something_is_singular() {
        assert_eq!(counted(0_u64, "model", "models"), "0 models");
        assert_eq!(counted(1_usize, "model", "models"), "1 model");
        assert_eq!(counted(2_u64, "model", "models"), "2 models");
    }
}
