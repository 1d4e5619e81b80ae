//! The present values of a ScaledObject's triggers: guarded, and as the server itself answers.

use collector_core::{Check, CheckStatus, duration};
use collector_promql::{Empty, Guard, InstantQuery, Limits, Request, describe};
use serde_json::Value;

use super::{ScaledObject, Trigger};

impl ScaledObject {
    /// Runs the query of each trigger, except invalid ones, which the rules report.
    pub(in super::super) async fn values(&self, guard: &Guard, limits: &Limits) -> Vec<Check> {
        let mut checks = Vec::new();
        for trigger in self.triggers.iter().filter(|trigger| trigger.kind == "prometheus") {
            let query = trigger.text("query").filter(|query| describe(query, limits).is_ok());
            let Some(query) = query else { continue };
            let (status, detail) = trigger.value(guard, query).await;
            let detail = format!("trigger {}: {detail}", trigger.number);
            checks.push(self.check("value", status, detail));
        }
        checks
    }
}

impl Trigger {
    async fn value(&self, guard: &Guard, query: &str) -> (CheckStatus, String) {
        let mut parameters = vec![("query".to_owned(), query.to_owned())];
        let mut question = InstantQuery { query: query.to_owned(), ..InstantQuery::default() };
        for pair in self.text("queryParameters").unwrap_or_default().split(',') {
            match pair.trim().split_once('=') {
                Some(("empty", "zero")) => question.empty = Empty::Zero,
                Some(("empty", "pass")) => question.empty = Empty::Pass,
                Some(("max_age", age)) => question.max_age = duration::parse(age).ok(),
                Some((name, value)) => parameters.push((name.to_owned(), value.to_owned())),
                None => {}
            }
        }
        question.parameters.clone_from(&parameters);
        let direct = match guard.pass(Request::new("api/v1/query", parameters)).await {
            Ok(passed) if passed.status == 200 => {
                read_by_keda(&passed.body).unwrap_or_else(|why| why)
            }
            Ok(passed) => format!("an error (status {})", passed.status),
            Err(error) => return (CheckStatus::Fail, error.message),
        };
        let reply = guard.query(question).await;
        if reply.status == 200 {
            let (status, ours) = match read_by_keda(&reply.body) {
                Ok(value) => (CheckStatus::Pass, value),
                Err(why) => (CheckStatus::Fail, why),
            };
            return (status, format!("through the collector {ours}; directly {direct}"));
        }
        let document: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let error = document["error"].as_str().unwrap_or("no answer").to_owned();
        (CheckStatus::Fail, format!("{error} (directly: {direct})"))
    }
}

/// Returns the number that KEDA reads from an answer, or why it reads none.
fn read_by_keda(body: &[u8]) -> Result<String, String> {
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    let data = &document["data"];
    match (data["resultType"].as_str(), data["result"].as_array()) {
        (Some("vector"), Some(result)) => match result.as_slice() {
            [] => Err("nothing, which KEDA reads as 0".to_owned()),
            [sample] => match sample["value"][1].as_str() {
                Some(value @ ("NaN" | "+Inf" | "-Inf")) => {
                    Err(format!("{value}, which KEDA reads as 0"))
                }
                Some(value) => Ok(value.to_owned()),
                None => Err("a histogram, which KEDA reads as 0".to_owned()),
            },
            several => Err(format!("{} elements, which is an error", several.len())),
        },
        (Some("scalar" | "string"), _) => Err("a scalar, which is an error".to_owned()),
        _ => Err("no answer, which KEDA reads as 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_number_or_misread() {
        let vector = |result: &str| {
            let body = format!(r#"{{"data":{{"resultType":"vector","result":[{result}]}}}}"#);
            read_by_keda(body.as_bytes())
        };
        let sample = |value: &str| format!(r#"{{"metric":{{}},"value":[1,"{value}"]}}"#);
        assert_eq!(vector(&sample("7")), Ok("7".to_owned()));
        assert!(vector("").unwrap_err().contains("reads as 0"));
        assert!(vector(&sample("NaN")).unwrap_err().contains("reads as 0"));
        assert!(vector(&[sample("1"), sample("2")].join(",")).unwrap_err().contains("2 elements"));
        assert!(read_by_keda(br#"{"data":{"resultType":"scalar","result":[1,"2"]}}"#).is_err());
        assert!(read_by_keda(b"<html>").is_err());
    }
}
