// SPDX-License-Identifier: Apache-2.0
//! The present value of a query: guarded, and as the server itself answers.

use collector_core::CheckStatus;
use collector_promql::{Empty, Guard, InstantQuery, Request};
use serde_json::Value;

use crate::server::max_age;

/// What a client reads from the body of a 200: a number, or why it reads none.
pub(super) type Reader = fn(&[u8]) -> Result<String, String>;

/// Runs a query with parameters as KEDA writes them (`empty=zero,max_age=1m`).
pub(super) async fn present(
    guard: &Guard,
    query: &str,
    parameters: &str,
    read: Reader,
) -> (CheckStatus, String) {
    let question = match question(query, parameters) {
        Ok(question) => question,
        Err(problem) => return (CheckStatus::Fail, problem),
    };
    let sent = question.parameters.clone();
    let direct = match guard.pass(Request::new("api/v1/query", sent)).await {
        Ok(passed) if passed.status == 200 => read(&passed.body).unwrap_or_else(|why| why),
        Ok(passed) => format!("an error (status {})", passed.status),
        Err(error) => return (CheckStatus::Fail, error.message),
    };
    let reply = guard.query(question).await;
    if reply.status == 200 {
        let (status, ours) = match read(&reply.body) {
            Ok(value) => (CheckStatus::Pass, value),
            Err(why) => (CheckStatus::Fail, why),
        };
        return (status, format!("through the collector {ours}; directly {direct}"));
    }
    let document: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    let error = document["error"].as_str().unwrap_or("no answer").to_owned();
    (CheckStatus::Fail, format!("{error} (directly: {direct})"))
}

/// The question of such a client, as `serve` reads it. The parameters that the server gets are among it.
fn question(query: &str, parameters: &str) -> Result<InstantQuery, String> {
    let mut question = InstantQuery { query: query.to_owned(), ..InstantQuery::default() };
    question.parameters.push(("query".to_owned(), query.to_owned()));
    for (name, value) in parameters.split(',').filter_map(|pair| pair.trim().split_once('=')) {
        match (name, value) {
            ("empty", "error") => question.empty = Empty::Error,
            ("empty", "zero") => question.empty = Empty::Zero,
            ("empty", "pass") => question.empty = Empty::Pass,
            ("empty", _) => return Err(format!("empty={value} is none of error, zero and pass")),
            ("max_age", _) => {
                let age = max_age(value)
                    .ok_or_else(|| format!("max_age={value} is not a duration, such as 90s"))?;
                question.max_age = Some(age);
            }
            _ => question.parameters.push((name.to_owned(), value.to_owned())),
        }
    }
    Ok(question)
}

/// What KEDA reads from an answer.
pub(super) fn read_by_keda(body: &[u8]) -> Result<String, String> {
    read(body, "which KEDA reads as 0")
}

/// What KEDA reads from an answer with `ignoreNullValues: "false"`.
pub(super) fn read_by_strict_keda(body: &[u8]) -> Result<String, String> {
    read(body, "which is an error")
}

fn read(body: &[u8], if_empty: &str) -> Result<String, String> {
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    let data = &document["data"];
    match (data["resultType"].as_str(), data["result"].as_array()) {
        (Some("vector"), Some(result)) => match result.as_slice() {
            [] => Err(format!("nothing, {if_empty}")),
            [sample] => match sample["value"][1].as_str() {
                // Before KEDA 2.20 it becomes the smallest number.
                Some("NaN") => Err("NaN, which KEDA reads as less than any target".to_owned()),
                Some(value @ ("+Inf" | "-Inf")) => Err(format!("{value}, {if_empty}")),
                Some(value) => Ok(value.to_owned()),
                None => Err(format!("a histogram, {if_empty}")),
            },
            several => Err(format!("{} elements, which is an error", several.len())),
        },
        (Some("scalar" | "string"), _) => Err("a scalar, which is an error".to_owned()),
        _ => Err(format!("no answer, {if_empty}")),
    }
}

/// What an HPA gets from prometheus-adapter: the sum of an answer's elements.
pub(super) fn read_by_adapter(body: &[u8]) -> Result<String, String> {
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    let data = &document["data"];
    let (Some("vector"), Some(result)) = (data["resultType"].as_str(), data["result"].as_array())
    else {
        return Err("no vector, which is an error".to_owned());
    };
    let mut sum = 0.0;
    for sample in result {
        let value = sample["value"][1].as_str().and_then(|text| text.parse::<f64>().ok());
        match value.filter(|value| value.is_finite()) {
            Some(value) => sum += value,
            None => {
                return Err("no finite number, which the adapter passes on as garbage".to_owned());
            }
        }
    }
    if result.is_empty() {
        return Err("nothing, so the HPA keeps its replicas".to_owned());
    }
    Ok(sum.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(read: Reader, result: &str) -> Result<String, String> {
        let body = format!(r#"{{"data":{{"resultType":"vector","result":[{result}]}}}}"#);
        read(body.as_bytes())
    }

    fn sample(value: &str) -> String {
        format!(r#"{{"metric":{{}},"value":[1,"{value}"]}}"#)
    }

    #[test]
    fn parameters_are_read_as_the_server_of_queries_reads_them() {
        let age = |text: &str| question("up", text).unwrap().max_age.unwrap().as_secs();
        assert_eq!([age("max_age=90"), age("a=b, max_age=1m30s")], [90, 90]);
        let both = question("up", "empty=zero,namespace=prod").unwrap();
        assert_eq!((both.empty, both.parameters.len()), (Empty::Zero, 2));
        assert!(question("up", "empty=none").unwrap_err().contains("is none of error"));
        assert!(question("up", "max_age=soon").unwrap_err().contains("is not a duration"));
    }

    #[test]
    fn keda_reads_a_number_or_misreads() {
        let vector = |result: &str| vector(read_by_keda, result);
        assert_eq!(vector(&sample("7")), Ok("7".to_owned()));
        assert!(vector("").unwrap_err().contains("reads as 0"));
        let strict = |result: &str| self::vector(read_by_strict_keda, result);
        assert_eq!(strict(&sample("7")), Ok("7".to_owned()));
        assert_eq!(strict("").unwrap_err(), "nothing, which is an error");
        assert!(vector(&sample("NaN")).unwrap_err().contains("less than any target"));
        assert!(strict(&sample("NaN")).unwrap_err().contains("less than any target"));
        assert!(vector(&sample("+Inf")).unwrap_err().contains("reads as 0"));
        assert!(vector(&[sample("1"), sample("2")].join(",")).unwrap_err().contains("2 elements"));
        assert!(read_by_keda(br#"{"data":{"resultType":"scalar","result":[1,"2"]}}"#).is_err());
        assert!(read_by_keda(b"<html>").is_err());
    }

    #[test]
    fn an_hpa_adds_elements_and_keeps_its_replicas_without_any() {
        let vector = |result: &str| vector(read_by_adapter, result);
        assert_eq!(vector(&[sample("1"), sample("2.5")].join(",")), Ok("3.5".to_owned()));
        assert!(vector("").unwrap_err().contains("keeps its replicas"));
        assert!(vector(&sample("NaN")).unwrap_err().contains("garbage"));
        assert!(read_by_adapter(br#"{"data":{"resultType":"scalar","result":[1,"2"]}}"#).is_err());
    }
}
