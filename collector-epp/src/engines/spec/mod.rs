//! The syntax in which users and the built-in table say where a quantity stands on a page.
//!
//! ```text
//! vllm:num_requests_waiting                            a series
//! nv_trt_llm_request_metrics{request_type=waiting}     one told apart by labels; "" quotes
//! vllm:cache_config_info[num_gpu_blocks]               the number in one of its labels
//! 16                                                   a number
//! acme_tokens_max / acme_tokens_per_block              *, / or +, once
//! ```

use std::fmt;
use std::str::FromStr;

mod parse;

pub use parse::SpecSyntaxError;

/// Where one quantity stands on a page: read with [`FromStr`], written back by `Display`.
#[derive(Clone, PartialEq, Debug)]
pub enum Spec {
    /// A series, or a number.
    Operand(Operand),
    /// Two of them, combined.
    Combined(Operand, Operator, Operand),
}

/// A part of a [`Spec`].
#[derive(Clone, PartialEq, Debug)]
pub enum Operand {
    /// The same number on every page. Finite, not negative.
    Number(f64),
    /// Series of one name.
    Series(Series),
}

/// How two operands are combined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operator {
    /// `*`
    Times,
    /// `/`
    Per,
    /// `+`
    Plus,
}

/// Series of one sample name, told apart by labels where one name holds several quantities.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Series {
    /// The whole sample name.
    pub name: Box<str>,
    /// What its labels must be.
    pub labels: Box<[LabelIs]>,
    /// The label whose text is the number; without it the sample's value is.
    pub number_in: Option<Box<str>>,
}

/// One label with its value. As in PromQL, an empty value is an absent label.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LabelIs {
    /// The label's whole name.
    pub label: Box<str>,
    /// Its whole value.
    pub value: Box<str>,
}

impl Spec {
    /// The series it reads.
    pub fn series(&self) -> impl Iterator<Item = &Series> {
        let (first, second) = match self {
            Self::Operand(operand) => (operand, None),
            Self::Combined(left, _, right) => (left, Some(right)),
        };
        std::iter::once(first).chain(second).filter_map(|operand| match operand {
            Operand::Number(_) => None,
            Operand::Series(series) => Some(series),
        })
    }
}

impl Operator {
    /// Combines two values.
    pub fn apply(self, left: f64, right: f64) -> f64 {
        match self {
            Self::Times => left * right,
            Self::Per => left / right,
            Self::Plus => left + right,
        }
    }

    fn sign(self) -> char {
        match self {
            Self::Times => '*',
            Self::Per => '/',
            Self::Plus => '+',
        }
    }
}

impl FromStr for Spec {
    type Err = SpecSyntaxError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse::spec(text)
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operand(operand) => write!(f, "{operand}"),
            Self::Combined(left, operator, right) => {
                write!(f, "{left} {} {right}", operator.sign())
            }
        }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Series(series) => write!(f, "{series}"),
        }
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Name(&self.name))?;
        for (i, LabelIs { label, value }) in self.labels.iter().enumerate() {
            let before = if i == 0 { '{' } else { ',' };
            write!(f, "{before}{}={}", Name(label), Value(value))?;
        }
        if !self.labels.is_empty() {
            f.write_str("}")?;
        }
        match &self.number_in {
            Some(label) => write!(f, "[{}]", Name(label)),
            None => Ok(()),
        }
    }
}

/// A name as the syntax has it: quoted where it is none of the classic names.
struct Name<'a>(&'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let classic = self.0.starts_with(parse::starts_name) && self.0.chars().all(parse::in_name);
        if classic { f.write_str(self.0) } else { quoted(self.0, f) }
    }
}

/// The value of a label, likewise.
struct Value<'a>(&'a str);

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = !self.0.is_empty() && self.0.chars().all(parse::in_bare_value);
        if bare { f.write_str(self.0) } else { quoted(self.0, f) }
    }
}

fn quoted(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '\\' => f.write_str("\\\\")?,
            '"' => f.write_str("\\\"")?,
            '\n' => f.write_str("\\n")?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn label_is(label: &str, value: &str) -> LabelIs {
        LabelIs { label: label.into(), value: value.into() }
    }

    fn series(name: &str) -> Series {
        Series { name: name.into(), labels: Box::default(), number_in: None }
    }

    #[track_caller]
    fn check(text: &str, shown: &str, expected: &Spec) {
        let spec: Spec = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(&spec, expected, "{text}");
        assert_eq!(spec.to_string(), shown);
        assert_eq!(shown.parse::<Spec>().as_ref(), Ok(expected), "{shown}");
    }

    #[test]
    fn every_form_of_the_syntax_is_read_and_written_back() {
        let plain = series("vllm:num_requests_waiting");
        let spec = Spec::Operand(Operand::Series(plain.clone()));
        check(" vllm:num_requests_waiting ", "vllm:num_requests_waiting", &spec);

        let told_apart = Series {
            labels: [label_is("request_type", "waiting"), label_is("v", "a, b}")].into(),
            ..series("nv_trt_llm_request_metrics")
        };
        check(
            "nv_trt_llm_request_metrics { request_type = waiting , v=\"a, b}\", }",
            "nv_trt_llm_request_metrics{request_type=waiting,v=\"a, b}\"}",
            &Spec::Operand(Operand::Series(told_apart)),
        );

        let info = Series { number_in: Some("num_gpu_blocks".into()), ..series("c") };
        check("c[num_gpu_blocks]", "c[num_gpu_blocks]", &Spec::Operand(Operand::Series(info)));
        check("16", "16", &Spec::Operand(Operand::Number(16.0)));
        check(
            "\"acme.tokens\"*1.5e2",
            "\"acme.tokens\" * 150",
            &Spec::Combined(
                Operand::Series(series("acme.tokens")),
                Operator::Times,
                Operand::Number(150.0),
            ),
        );
    }

    #[test]
    fn operators_do_what_they_say() {
        let results = [Operator::Times, Operator::Per, Operator::Plus].map(|it| it.apply(6.0, 2.0));
        assert_eq!(results.map(f64::to_bits), [12.0, 3.0, 8.0].map(f64::to_bits));
    }

    fn any_series() -> impl Strategy<Value = Series> {
        let label =
            ("[a-z\" .]{1,6}", ".{0,8}").prop_map(|(label, value)| label_is(&label, &value));
        let labels = proptest::collection::vec(label, 0..4).prop_map(|mut labels| {
            labels.sort();
            labels.dedup_by(|a, b| a.label == b.label);
            labels.into_boxed_slice()
        });
        ("\\PC{1,12}", labels, proptest::option::of(".{1,6}")).prop_map(
            |(name, labels, number_in)| Series {
                name: name.into(),
                labels,
                number_in: number_in.map(Into::into),
            },
        )
    }

    fn any_operand() -> impl Strategy<Value = Operand> {
        prop_oneof![
            any_series().prop_map(Operand::Series),
            any::<f64>()
                .prop_map(f64::abs)
                .prop_filter("finite", |number| number.is_finite())
                .prop_map(Operand::Number),
        ]
    }

    fn any_spec() -> impl Strategy<Value = Spec> {
        let operator =
            prop_oneof![Just(Operator::Times), Just(Operator::Per), Just(Operator::Plus)];
        prop_oneof![
            any_operand().prop_map(Spec::Operand),
            (any_operand(), operator, any_operand())
                .prop_map(|(left, operator, right)| Spec::Combined(left, operator, right)),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same(spec in any_spec()) {
            prop_assert_eq!(spec.to_string().parse::<Spec>(), Ok(spec));
        }

        #[test]
        fn no_text_panics(text in "(\\PC|[a{}\\[\\]=,\" *+/0.e\\\\\n-]){0,30}") {
            if let Ok(spec) = text.parse::<Spec>() {
                prop_assert_eq!(spec.to_string().parse::<Spec>(), Ok(spec));
            }
        }
    }
}
