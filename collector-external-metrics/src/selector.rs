// SPDX-License-Identifier: Apache-2.0
//! Label selectors: the whole syntax of Kubernetes is read, and the operators that select one value are used. Pure.

use std::collections::BTreeMap;
use std::fmt;

use collector_core::text::quote;

/// The longest selector, in bytes.
const SELECTOR_BYTES_MAX: usize = 4096;
/// Requirements of a selector, and values of a requirement.
const REQUIREMENTS_MAX: usize = 32;
/// The longest name of a label, and the longest value.
const NAME_BYTES_MAX: usize = 63;
/// The longest prefix of a label's name.
const PREFIX_BYTES_MAX: usize = 253;

/// One requirement of a selector.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// What is required of its value.
    pub operator: Operator,
    /// The operands: one, or any number for `in` and `notin`, or none.
    pub values: Vec<String>,
}

/// An operator of selectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operator {
    /// `=` or `==`.
    Equals,
    /// `!=`.
    NotEquals,
    /// `in`.
    In,
    /// `notin`.
    NotIn,
    /// The label alone.
    Exists,
    /// `!` before the label.
    DoesNotExist,
    /// `>`.
    GreaterThan,
    /// `<`.
    LessThan,
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, operator, values } = self;
        let values = values.join(",");
        match operator {
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

/// Returns the requirements of a selector, in its order.
///
/// # Errors
/// Why the text is not a selector.
pub fn parse(selector: &str) -> Result<Vec<Requirement>, String> {
    if selector.len() > SELECTOR_BYTES_MAX {
        return Err(format!("it is longer than {SELECTOR_BYTES_MAX} bytes"));
    }
    let mut tokens = Tokens { rest: selector };
    let mut requirements = Vec::new();
    if tokens.peek() == Token::End {
        return Ok(requirements);
    }
    loop {
        if requirements.len() == REQUIREMENTS_MAX {
            return Err(format!("it has more than {REQUIREMENTS_MAX} requirements"));
        }
        requirements.push(requirement(&mut tokens)?);
        match tokens.next() {
            Token::End => return Ok(requirements),
            Token::Symbol(",") => {}
            token => return Err(format!("found {token}, expected a comma or the end")),
        }
    }
}

/// Returns the value that a selector requires of each label.
///
/// # Errors
/// A requirement that does not select one value: it is never left out, because that would select more.
pub(crate) fn values(requirements: Vec<Requirement>) -> Result<BTreeMap<String, String>, String> {
    let mut values = BTreeMap::new();
    for requirement in requirements {
        let value = match (requirement.operator, &requirement.values[..]) {
            (Operator::Equals | Operator::In, [value]) => value.clone(),
            _ => {
                return Err(format!(
                    "{} cannot be used: a label must be equal to one value",
                    quote(&requirement.to_string())
                ));
            }
        };
        if values.contains_key(&requirement.key) {
            return Err(format!("{} is required twice", requirement.key));
        }
        values.insert(requirement.key, value);
    }
    Ok(values)
}

fn requirement(tokens: &mut Tokens<'_>) -> Result<Requirement, String> {
    let is_absent = tokens.take("!");
    let key = match tokens.next() {
        Token::Word(word) => key(word)?,
        token => return Err(format!("found {token}, expected a label")),
    };
    let requirement = |operator, values| Ok(Requirement { key, operator, values });
    if is_absent {
        return requirement(Operator::DoesNotExist, Vec::new());
    }
    let operator = match tokens.peek() {
        Token::End | Token::Symbol(",") => return requirement(Operator::Exists, Vec::new()),
        Token::Symbol("=" | "==") => Operator::Equals,
        Token::Symbol("!=") => Operator::NotEquals,
        Token::Symbol(">") => Operator::GreaterThan,
        Token::Symbol("<") => Operator::LessThan,
        Token::Word("in") => Operator::In,
        Token::Word("notin") => Operator::NotIn,
        token => return Err(format!("found {token}, expected an operator")),
    };
    tokens.next();
    match operator {
        Operator::In | Operator::NotIn => requirement(operator, set(tokens)?),
        Operator::GreaterThan | Operator::LessThan => {
            let number = exact(tokens)?;
            if number.parse::<i64>().is_err() {
                return Err(format!("\"{}\" is not a whole number", quote(&number)));
            }
            requirement(operator, vec![number])
        }
        _ => requirement(operator, vec![exact(tokens)?]),
    }
}

/// The value behind `=`, which may be empty.
fn exact(tokens: &mut Tokens<'_>) -> Result<String, String> {
    match tokens.peek() {
        Token::End | Token::Symbol(",") => Ok(String::new()),
        Token::Word(word) => {
            tokens.next();
            value(word)
        }
        token @ Token::Symbol(_) => Err(format!("found {token}, expected a value")),
    }
}

/// The values behind `in`, each of which may be empty.
fn set(tokens: &mut Tokens<'_>) -> Result<Vec<String>, String> {
    if !tokens.take("(") {
        return Err(format!("found {}, expected a list: (a,b)", tokens.peek()));
    }
    let mut values = Vec::new();
    loop {
        if values.len() == REQUIREMENTS_MAX {
            return Err(format!("a list has more than {REQUIREMENTS_MAX} values"));
        }
        values.push(match tokens.peek() {
            Token::Word(word) => {
                tokens.next();
                value(word)?
            }
            _ => String::new(),
        });
        match tokens.next() {
            Token::Symbol(")") => return Ok(values),
            Token::Symbol(",") => {}
            token => return Err(format!("found {token}, expected a comma or ) after a value")),
        }
    }
}

/// A label's name, with a DNS name in front of it or without.
fn key(word: &str) -> Result<String, String> {
    let (prefix, name) = match word.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, word),
    };
    let is_part = |part: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !part.is_empty()
            && part.bytes().all(inner)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    let is_prefix =
        |prefix: &str| prefix.len() <= PREFIX_BYTES_MAX && prefix.split('.').all(is_part);
    if name.is_empty() || !is_value(name) || !prefix.is_none_or(is_prefix) {
        return Err(format!("\"{}\" is not the name of a label", quote(word)));
    }
    Ok(word.to_owned())
}

fn value(word: &str) -> Result<String, String> {
    if !is_value(word) {
        return Err(format!(
            "\"{}\" is not the value of a label: it has at most {NAME_BYTES_MAX} letters, digits, -, _ and ., and a \
             letter or a digit at both ends",
            quote(word)
        ));
    }
    Ok(word.to_owned())
}

/// Whether a text can be the value of a label, other than the empty one.
fn is_value(text: &str) -> bool {
    let ends = [text.bytes().next(), text.bytes().next_back()];
    text.len() <= NAME_BYTES_MAX
        && ends.into_iter().all(|end| end.is_some_and(|byte| byte.is_ascii_alphanumeric()))
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Returns what stands for a name in a label: characters that a label cannot hold are `_`, without `-`, `_` and `.` at
/// the ends, and the first 63 of them. `org/model` is `org_model`.
pub fn label_of(name: &str) -> String {
    let held = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let is_inner = |c: char| !c.is_ascii_alphanumeric();
    let text: String = name.chars().map(held).collect();
    let text = text.trim_matches(is_inner);
    let text = text.get(..NAME_BYTES_MAX).unwrap_or(text);
    text.trim_end_matches(is_inner).to_owned()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Token<'a> {
    Word(&'a str),
    Symbol(&'a str),
    End,
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(text) | Self::Symbol(text) => write!(f, "\"{}\"", quote(text)),
            Self::End => f.write_str("the end"),
        }
    }
}

/// The tokens of a selector.
struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    /// The next token; it is not taken.
    fn peek(&self) -> Token<'a> {
        let text = self.rest.trim_start_matches(is_space);
        let two = ["==", "!="].into_iter().find(|symbol| text.starts_with(symbol));
        let length = match (two, text.chars().next()) {
            (_, None) => return Token::End,
            (Some(_), _) => 2,
            (None, Some(c)) if is_symbol(c) => 1,
            _ => {
                let end = text.find(|c| is_space(c) || is_symbol(c)).unwrap_or(text.len());
                return Token::Word(&text[..end]);
            }
        };
        Token::Symbol(&text[..length])
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        if let Token::Word(text) | Token::Symbol(text) = token {
            self.rest = &self.rest.trim_start_matches(is_space)[text.len()..];
        }
        token
    }

    /// Takes a symbol if it is the next token.
    fn take(&mut self, symbol: &str) -> bool {
        let is_next = self.peek() == Token::Symbol(symbol);
        if is_next {
            self.next();
        }
        is_next
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_symbol(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(key: &str, operator: Operator, values: &[&str]) -> Requirement {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        Requirement { key: key.to_owned(), operator, values }
    }

    #[test]
    fn the_whole_syntax_is_read() {
        use Operator::*;
        for (text, expected) in [
            ("", vec![]),
            (" \t\r\n", vec![]),
            ("a", vec![one("a", Exists, &[])]),
            ("!a", vec![one("a", DoesNotExist, &[])]),
            ("! a", vec![one("a", DoesNotExist, &[])]),
            ("a=b", vec![one("a", Equals, &["b"])]),
            ("a==b", vec![one("a", Equals, &["b"])]),
            ("a = b ", vec![one("a", Equals, &["b"])]),
            ("a=", vec![one("a", Equals, &[""])]),
            ("a!=b", vec![one("a", NotEquals, &["b"])]),
            ("a in (b)", vec![one("a", In, &["b"])]),
            ("a in(b,c)", vec![one("a", In, &["b", "c"])]),
            ("a in ()", vec![one("a", In, &[""])]),
            ("a in (b,)", vec![one("a", In, &["b", ""])]),
            ("a notin ( b , c )", vec![one("a", NotIn, &["b", "c"])]),
            ("a>1,b<2", vec![one("a", GreaterThan, &["1"]), one("b", LessThan, &["2"])]),
            ("in in (in,notin)", vec![one("in", In, &["in", "notin"])]),
            ("a=in", vec![one("a", Equals, &["in"])]),
            ("x.io/a=B-1_2.c", vec![one("x.io/a", Equals, &["B-1_2.c"])]),
            (
                "a=1,b,!c",
                vec![one("a", Equals, &["1"]), one("b", Exists, &[]), one("c", DoesNotExist, &[])],
            ),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        let long = "a".repeat(64);
        let many = vec!["a"; 33].join(",");
        for text in [
            ",",
            "a,",
            ",a",
            "a,,b",
            "=b",
            "a=b=c",
            "a b",
            "a=b c",
            "a===b",
            "!",
            "!!a",
            "!a=b",
            "a in",
            "a in b",
            "a in (b",
            "a in (b,c",
            "a in (b c)",
            "a in b)",
            "a notin",
            "a(b)",
            "a>",
            "a>b",
            "a<1.5",
            "a=org/model",
            "a=-b",
            "a=b-",
            "a=é",
            "é=a",
            "/a=b",
            "a/=b",
            "A.io/a=b",
            "a/b/c=d",
            "-a=b",
            "a=(b)",
            "a=\0",
            "a=b\u{a0}",
            &format!("a={long}"),
            &format!("{long}=a"),
            &format!("a={}", "b,".repeat(4000)),
            &many,
            &format!("a in ({many})"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(!error.is_empty() && error.len() < 500, "{error}");
        }
        assert!(parse(&vec!["a"; 32].join(",")).is_ok());
    }

    #[test]
    fn only_equality_selects_one_value() {
        let of = |text: &str| values(parse(text).unwrap());
        let expected =
            BTreeMap::from([("a".to_owned(), "b".to_owned()), ("c".to_owned(), "d".to_owned())]);
        for text in ["a=b,c=d", "a==b,c in (d)", "c in ( d ),a = b"] {
            assert_eq!(of(text), Ok(expected.clone()), "{text}");
        }
        for text in ["a!=b", "a in (b,c)", "a notin (b)", "a", "!a", "a>1", "a<1", "c=d,a"] {
            assert!(of(text).unwrap_err().contains("cannot be used"), "{text}");
        }
        assert_eq!(of("a=b,a=c"), Err("a is required twice".to_owned()));
        assert_eq!(of("a=b,a in (b)"), Err("a is required twice".to_owned()));
    }

    #[test]
    fn the_label_of_a_model_is_one_that_a_user_guesses() {
        for (name, label) in [
            ("chat", "chat"),
            ("org/model", "org_model"),
            ("meta-llama/Llama-3.1-8B", "meta-llama_Llama-3.1-8B"),
            ("/models/llama/", "models_llama"),
            ("a:b@c", "a_b_c"),
            ("模型", ""),
            ("--", ""),
        ] {
            assert_eq!(label_of(name), label, "{name}");
        }
        assert_eq!(label_of(&"x".repeat(80)), "x".repeat(63));
        assert_eq!(label_of(&format!("{}/{}", "x".repeat(62), "y")), "x".repeat(62));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}") {
            if let Ok(requirements) = parse(&text) {
                prop_assert!(requirements.len() <= REQUIREMENTS_MAX);
            }
        }

        #[test]
        fn a_selector_that_is_read_is_read_again_from_its_text(
            text in "[a-c]{0,2}( ?(=|==|!=| in | notin |>|<) ?[(]?[a-c1]{0,2}(,[a-c]{0,2})?[)]?)?(,!?[a-c])?"
        ) {
            if let Ok(requirements) = parse(&text) {
                let again = requirements.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
                prop_assert_eq!(parse(&again), Ok(requirements), "{} {}", text, again);
            }
        }

        #[test]
        fn a_label_is_the_value_of_a_label(name in ".{0,100}") {
            let label = label_of(&name);
            prop_assert!(label.is_empty() || is_value(&label), "{label}");
            prop_assert_eq!(label_of(&label), label.clone());
        }
    }
}
