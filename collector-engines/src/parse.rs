// SPDX-License-Identifier: Apache-2.0
//! Parses an [`Expression`] in one pass, without backtracking.

use std::str::FromStr;

use crate::expression::{Expression, Operator, Series, in_bare_value, in_name, starts_name};
use crate::matcher::{LabelMatcher, MatchOperator};

/// Longest expression that is read, in bytes.
const LENGTH_MAX: usize = 4096;
/// Brackets within brackets.
const DEPTH_MAX: u32 = 32;

/// An expression that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("at character {position}: expected {expected}, found {}", shown(*.found))]
pub struct ExpressionError {
    /// The character at which reading stopped, counted from 1.
    pub position: usize,
    /// What was expected.
    pub expected: &'static str,
    /// What was found; `None` at the end.
    pub found: Option<char>,
}

fn shown(found: Option<char>) -> String {
    found.map_or_else(|| "the end".to_owned(), |c| format!("{c:?}"))
}

impl FromStr for Expression {
    type Err = ExpressionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut reader = Reader { text, at: 0 };
        if text.len() > LENGTH_MAX {
            return Err(reader.expected("at most 4096 bytes"));
        }
        let expression = reader.sum(0)?;
        reader.end("+, -, *, / or the end")?;
        Ok(expression)
    }
}

fn in_number(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '.'
}

struct Reader<'a> {
    text: &'a str,
    /// Byte offset of what was not read yet.
    at: usize,
}

impl<'a> Reader<'a> {
    /// Terms, added and subtracted from left to right.
    fn sum(&mut self, depth: u32) -> Result<Expression, ExpressionError> {
        let mut left = self.product(depth)?;
        loop {
            let operator = match self.peek() {
                Some('+') => Operator::Plus,
                Some('-') => Operator::Minus,
                _ => return Ok(left),
            };
            self.at += 1;
            let right = self.product(depth)?;
            left = Expression::Combined(Box::new(left), operator, Box::new(right));
        }
    }

    /// Factors, multiplied and divided from left to right.
    fn product(&mut self, depth: u32) -> Result<Expression, ExpressionError> {
        let mut left = self.factor(depth)?;
        loop {
            let operator = match self.peek() {
                Some('*') => Operator::Times,
                Some('/') => Operator::Per,
                _ => return Ok(left),
            };
            self.at += 1;
            self.skip_blanks();
            let start = self.at;
            let right = self.factor(depth)?;
            if operator == Operator::Per && right == Expression::Number(0.0) {
                self.at = start;
                return Err(self.expected("a divisor other than 0"));
            }
            left = Expression::Combined(Box::new(left), operator, Box::new(right));
        }
    }

    fn factor(&mut self, depth: u32) -> Result<Expression, ExpressionError> {
        match self.peek() {
            Some('(') if depth < DEPTH_MAX => {
                self.at += 1;
                let inner = self.sum(depth + 1)?;
                self.must(')', "+, -, *, / or )")?;
                Ok(inner)
            }
            Some('(') => Err(self.expected("no more than 32 brackets within brackets")),
            Some(c) if c.is_ascii_digit() || c == '.' => self.number().map(Expression::Number),
            Some(c) if starts_name(c) || c == '"' => {
                let series = self.series()?;
                Ok(Expression::Series { series, optional: self.eat('?') })
            }
            _ => Err(self.expected("a series, a number or (")),
        }
    }

    fn number(&mut self) -> Result<f64, ExpressionError> {
        let start = self.at;
        self.take_while(in_number);
        // The sign of an exponent. A + after anything else is an operator.
        if self.text[start..self.at].ends_with(['e', 'E']) && self.rest().starts_with(['+', '-']) {
            self.at += 1;
            self.take_while(|c| c.is_ascii_digit());
        }
        let number = self.text[start..self.at].parse().ok();
        number.filter(|number: &f64| number.is_finite()).ok_or_else(|| {
            self.at = start;
            self.expected("a decimal number")
        })
    }

    fn series(&mut self) -> Result<Series, ExpressionError> {
        let name = self.name("the name of a series")?;
        let matchers = if self.eat('{') { self.matchers()? } else { Vec::new() };
        let number_in = if self.eat('[') {
            let label = self.name("the name of a label")?;
            self.must(']', "]")?;
            Some(label)
        } else {
            None
        };
        Ok(Series { name, matchers: matchers.into(), number_in })
    }

    /// What follows a `{`.
    fn matchers(&mut self) -> Result<Vec<LabelMatcher>, ExpressionError> {
        let mut matchers: Vec<LabelMatcher> = Vec::new();
        while !self.eat('}') {
            self.skip_blanks();
            let start = self.at;
            let label = self.name("the name of a label or }")?;
            if matchers.iter().any(|known| known.label == label) {
                self.at = start;
                return Err(self.expected("another label than before"));
            }
            let operator = self.match_operator()?;
            self.skip_blanks();
            let start = self.at;
            let value = self.value()?;
            let Ok(matcher) = LabelMatcher::new(label, operator, value) else {
                self.at = start;
                return Err(self.expected("a pattern that can be compiled"));
            };
            matchers.push(matcher);
            if !self.eat(',') {
                self.must('}', ", or }")?;
                break;
            }
        }
        Ok(matchers)
    }

    fn match_operator(&mut self) -> Result<MatchOperator, ExpressionError> {
        self.skip_blanks();
        for operator in [
            MatchOperator::Matches,
            MatchOperator::MatchesNot,
            MatchOperator::IsNot,
            MatchOperator::Is,
        ] {
            if self.rest().starts_with(operator.as_str()) {
                self.at += operator.as_str().len();
                return Ok(operator);
            }
        }
        Err(self.expected("=, !=, =~ or !~"))
    }

    fn name(&mut self, expected: &'static str) -> Result<Box<str>, ExpressionError> {
        match self.peek() {
            Some('"') => {
                let start = self.at;
                let name = self.quoted()?;
                if name.is_empty() {
                    self.at = start;
                    return Err(self.expected(expected));
                }
                Ok(name)
            }
            Some(c) if starts_name(c) => Ok(self.take_while(in_name).into()),
            _ => Err(self.expected(expected)),
        }
    }

    fn value(&mut self) -> Result<Box<str>, ExpressionError> {
        match self.peek() {
            Some('"') => self.quoted(),
            Some(c) if in_bare_value(c) => Ok(self.take_while(in_bare_value).into()),
            _ => Err(self.expected("the value of the label, quoted where it is not a plain word")),
        }
    }

    /// A text in quotes, in which `\\`, `\"` and `\n` are escapes.
    fn quoted(&mut self) -> Result<Box<str>, ExpressionError> {
        self.at += 1;
        let mut text = String::new();
        loop {
            let Some(c) = self.rest().chars().next() else {
                return Err(self.expected("a closing quote"));
            };
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(text.into()),
                '\\' => {
                    text.push(match self.rest().chars().next() {
                        Some('n') => '\n',
                        Some(c @ ('\\' | '"')) => c,
                        _ => return Err(self.expected("\\, \" or n after a backslash")),
                    });
                    self.at += 1;
                }
                c => text.push(c),
            }
        }
    }

    fn end(&mut self, expected: &'static str) -> Result<(), ExpressionError> {
        if self.peek().is_none() { Ok(()) } else { Err(self.expected(expected)) }
    }

    fn must(&mut self, c: char, expected: &'static str) -> Result<(), ExpressionError> {
        if self.eat(c) { Ok(()) } else { Err(self.expected(expected)) }
    }

    fn eat(&mut self, c: char) -> bool {
        let is_next = self.peek() == Some(c);
        if is_next {
            self.at += c.len_utf8();
        }
        is_next
    }

    fn take_while(&mut self, is_part: fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// The next character that is no blank.
    fn peek(&mut self) -> Option<char> {
        self.skip_blanks();
        self.rest().chars().next()
    }

    fn skip_blanks(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn expected(&self, expected: &'static str) -> ExpressionError {
        ExpressionError {
            position: self.text[..self.at].chars().count() + 1,
            expected,
            found: self.rest().chars().next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(text.parse::<Expression>().unwrap_err().to_string(), expected, "{text}");
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_position() {
        check("", "at character 1: expected a series, a number or (, found the end");
        check("-1", "at character 1: expected a series, a number or (, found '-'");
        check("a{", "at character 3: expected the name of a label or }, found the end");
        check("a{b}", "at character 4: expected =, !=, =~ or !~, found '}'");
        check("a{b=c", "at character 6: expected , or }, found the end");
        check("a{b=\"é\\x\"}", "at character 8: expected \\, \" or n after a backslash, found 'x'");
        check("a{b=\"c", "at character 7: expected a closing quote, found the end");
        check("a{b=c,b=d}", "at character 7: expected another label than before, found 'b'");
        check("a{b=>c}", {
            "at character 5: expected the value of the label, quoted where it is not a plain word, \
             found '>'"
        });
        check("a{b=~\"(\"}", "at character 6: expected a pattern that can be compiled, found '\"'");
        check("a[b", "at character 4: expected ], found the end");
        check("\"\"", "at character 1: expected the name of a series, found '\"'");
        check("a b", "at character 3: expected +, -, *, / or the end, found 'b'");
        check("(a + b", "at character 7: expected +, -, *, / or ), found the end");
        check("a / 0", "at character 5: expected a divisor other than 0, found '0'");
        check("0x10", "at character 1: expected a decimal number, found '0'");
        check("1e999", "at character 1: expected a decimal number, found '1'");
        let deep = "(".repeat(40);
        check(
            &deep,
            "at character 33: expected no more than 32 brackets within brackets, found '('",
        );
    }

    #[test]
    fn a_sign_is_an_operator_unless_it_signs_an_exponent() {
        let shown = |text: &str| text.parse::<Expression>().unwrap().to_string();
        assert_eq!(shown("1+a"), "1 + a");
        assert_eq!(shown("1e+2+a"), "100 + a");
        assert_eq!(shown("2e-1*a-b"), "0.2 * a - b");
    }
}
