// SPDX-License-Identifier: Apache-2.0
use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::matcher::MatchOperator;

fn parsed(text: &str) -> Expression {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[track_caller]
fn written_back(text: &str, shown: &str) {
    let expression = parsed(text);
    assert_eq!(expression.to_string(), shown, "{text}");
    assert_eq!(parsed(shown), expression, "{shown}");
}

#[test]
fn every_form_of_the_syntax_is_read_and_written_back() {
    written_back(" vllm:num_requests_waiting ", "vllm:num_requests_waiting");
    written_back(
        "nv_trt { request_type = waiting , v=\"a, b}\", }",
        "nv_trt{request_type=waiting,v=\"a, b}\"}",
    );
    written_back("a{b!=c,d=~\"e|f\",g!~\"h.*\"}", "a{b!=c,d=~\"e|f\",g!~\"h.*\"}");
    written_back("c[num_gpu_blocks]", "c[num_gpu_blocks]");
    written_back("16", "16");
    written_back("\"acme.tokens\"*1.5e2", "\"acme.tokens\" * 150");
    written_back("a+b ?-c", "a + b? - c");
    written_back("a-(b-c)", "a - (b - c)");
    written_back("(a-b)-c", "a - b - c");
    written_back("(a+b)/c*100", "(a + b) / c * 100");
    written_back("a+b/c", "a + b / c");
    written_back("a/(b*c)", "a / (b * c)");
}

fn value(text: &str, values: &[(&str, f64)]) -> Option<f64> {
    let values: HashMap<&str, f64> = values.iter().copied().collect();
    parsed(text).evaluate(&mut |series| values.get(&*series.name).copied())
}

#[test]
fn values_are_combined_as_written() {
    let values = [("a", 6.0), ("b", 2.0), ("z", 0.0)];
    for (text, expected) in [
        ("a + b * 10", Some(26.0)),
        ("(a + b) * 10", Some(80.0)),
        ("a - b - 1", Some(3.0)),
        ("a / b / 3", Some(1.0)),
        ("a / z", None),
        ("a + absent", None),
        ("a + absent?", Some(6.0)),
        ("absent? + other?", None),
        ("16", Some(16.0)),
    ] {
        assert_eq!(value(text, &values), expected, "{text}");
    }
}

#[test]
fn an_expression_is_complete_with_all_required_series() {
    let complete = |text: &str, present: &[&str]| {
        parsed(text).is_complete(|series| present.contains(&&*series.name))
    };
    assert!(complete("a + b?", &["a"]));
    assert!(!complete("a + b?", &["b"]));
    assert!(complete("a? + b?", &["b"]));
    assert!(!complete("a? + b?", &[]));
    assert!(!complete("16", &[]));
}

#[test]
fn what_is_linear_can_be_read_from_increases() {
    for (text, linear) in [
        ("a", true),
        ("a + b? - c", true),
        ("2 * (a + b) / 3", true),
        ("a / b", false),
        ("a * b", false),
        ("a + 1", false),
    ] {
        assert_eq!(parsed(text).is_linear(), linear, "{text}");
    }
}

fn any_series() -> impl Strategy<Value = Series> {
    let operator = prop_oneof![Just(MatchOperator::Is), Just(MatchOperator::IsNot)];
    let matcher = ("[a-z\" .]{1,6}", operator, ".{0,8}").prop_map(|(label, operator, value)| {
        LabelMatcher::new(label, operator, value).expect("it is no pattern")
    });
    let matchers = proptest::collection::vec(matcher, 0..4).prop_map(|mut matchers| {
        matchers.sort_by(|a, b| a.label.cmp(&b.label));
        matchers.dedup_by(|a, b| a.label == b.label);
        matchers.into_boxed_slice()
    });
    ("\\PC{1,12}", matchers, proptest::option::of(".{1,6}")).prop_map(
        |(name, matchers, number_in)| Series {
            name: name.into(),
            matchers,
            number_in: number_in.map(Into::into),
        },
    )
}

fn any_expression() -> impl Strategy<Value = Expression> {
    let leaf = prop_oneof![
        (any_series(), any::<bool>())
            .prop_map(|(series, optional)| Expression::Series { series, optional }),
        (1_u32..1000).prop_map(|number| Expression::Number(f64::from(number) / 8.0)),
    ];
    leaf.prop_recursive(4, 12, 2, |inner| {
        let operator = prop_oneof![
            Just(Operator::Plus),
            Just(Operator::Minus),
            Just(Operator::Times),
            Just(Operator::Per)
        ];
        (inner.clone(), operator, inner).prop_map(|(left, operator, right)| {
            Expression::Combined(Box::new(left), operator, Box::new(right))
        })
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_the_same(expression in any_expression()) {
        prop_assert_eq!(expression.to_string().parse::<Expression>(), Ok(expression));
    }

    #[test]
    fn no_text_panics(text in "(\\PC|[a{}()?\\[\\]=~!,\" *+/0.e\\\\\n-]){0,30}") {
        if let Ok(expression) = text.parse::<Expression>() {
            prop_assert_eq!(expression.to_string().parse::<Expression>(), Ok(expression));
        }
    }
}
