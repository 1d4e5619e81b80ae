// SPDX-License-Identifier: Apache-2.0
//! The answer of a pod to a request, according to its faults.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::future::pending;
use std::io;
use std::time::{Duration, SystemTime};

use http_body_util::channel::{Channel, Sender};
use http_body_util::{Either, Full};
use hyper::body::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::time::sleep;

use super::clock;
use super::faults::{BodyFault, Faults, TransferFault, ValueFault};
use crate::engine::{Lie, escape};
use crate::fleet::View;

/// A body, sent at once or over time.
pub(super) type Body = Either<Full<Bytes>, Channel<Bytes, io::Error>>;

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Time between two bytes of a dripping body.
const DRIP: Duration = Duration::from_secs(1);
/// Time limit for writing half a page to a socket.
const TIME_TO_WRITE: Duration = Duration::from_millis(50);
/// Bytes of an endless page that are made at once.
const ENDLESS_CHUNK: usize = 64 * 1024;
const HUGE_LINE_BYTES: usize = 1024 * 1024;
const MANY_LABELS: usize = 100_000;

/// A family that a reader wants, per server.
const QUEUES: [&str; 5] = [
    "vllm:num_requests_waiting",
    "sglang:num_queue_reqs",
    "trtllm_num_requests_waiting",
    "nv_trt_llm_request_metrics",
    "inference_pool_average_queue_size",
];

/// Delays a request as its faults require. A hanging request ends with its connection.
pub(super) async fn delay(faults: &Faults) {
    if faults.hang {
        pending::<Infallible>().await;
    }
    if let Some(slow) = faults.slow {
        sleep(slow).await;
    }
}

/// Answers a request for the page of `view`; `None` for a dead pod.
pub(super) fn answer(view: Option<View>, faults: &Faults) -> Response<Body> {
    let mut response = match (view, faults.status.map(StatusCode::from_u16)) {
        (None, _) => plain(StatusCode::SERVICE_UNAVAILABLE, "this pod is dead\n"),
        (Some(_), Some(Ok(status))) => plain(status, "the simulator was told to fail\n"),
        (Some(view), _) => page(view, faults),
    };
    if let Some(date) = date(faults) {
        response.headers_mut().insert(DATE, date);
    }
    response
}

/// Makes a body of one text.
pub(super) fn plain(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::new(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
    response
}

fn page(mut view: View, faults: &Faults) -> Response<Body> {
    if let Some(values) = faults.values {
        view.lie(match values {
            ValueFault::Nan => Lie::NotANumber,
            ValueFault::Negative => Lie::Negative,
            ValueFault::KvAboveOne => Lie::KvAboveOne,
        });
    }
    let mut page = view.render();
    if let Some(model) = &faults.other_model {
        page = renamed(&page, model);
    }
    let endless = faults.body == Some(BodyFault::Endless);
    let body = match faults.body {
        None | Some(BodyFault::FalseGzip | BodyFault::Endless) => Bytes::from(page),
        Some(BodyFault::Garbage) => garbage(page.len()),
        Some(BodyFault::Html) => Bytes::from_static(
            b"<!DOCTYPE html>\n<html><head><title>Log in</title></head>\
              <body><form method=\"post\"><input name=\"user\"></form></body></html>\n",
        ),
        Some(BodyFault::HugeLine) => Bytes::from(huge_line(&page) + &page),
        Some(BodyFault::ManyLabels) => Bytes::from(many_labels(&page) + &page),
    };
    let mut response = match faults.transfer {
        None if !endless => plain(StatusCode::OK, body),
        transfer => over_time(body, transfer, endless),
    };
    let headers = response.headers_mut();
    match faults.body {
        Some(BodyFault::Html) => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        }
        Some(BodyFault::FalseGzip) => {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        _ => {}
    }
    response
}

/// A body that is sent by its own task, which ends when the connection does.
fn over_time(body: Bytes, transfer: Option<TransferFault>, endless: bool) -> Response<Body> {
    let (sender, channel) = Channel::new(1);
    let mut response = Response::new(Either::Right(channel));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
    if !endless && transfer != Some(TransferFault::UnendedChunks) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    tokio::spawn(async move {
        // Sending fails when the client is gone.
        let _ = send(sender, body, transfer, endless).await;
    });
    response
}

async fn send(
    mut sender: Sender<Bytes, io::Error>,
    body: Bytes,
    transfer: Option<TransferFault>,
    endless: bool,
) -> Result<(), http_body_util::channel::SendError> {
    match transfer {
        Some(TransferFault::Drip) => {
            for byte in 0..body.len() {
                sender.send_data(body.slice(byte..=byte)).await?;
                sleep(DRIP).await;
            }
        }
        Some(TransferFault::CutShort | TransferFault::UnendedChunks) => {
            sender.send_data(body.slice(..body.len() / 2)).await?;
            // An aborted body discards what was not written yet.
            sleep(TIME_TO_WRITE).await;
            sender.abort(io::Error::other("the simulator was told to cut the page short"));
            return Ok(());
        }
        None => sender.send_data(body).await?,
    }
    if !endless {
        return Ok(());
    }
    let mut number = 0;
    loop {
        sender.send_data(endless_lines(&mut number)).await?;
    }
}

fn endless_lines(number: &mut u64) -> Bytes {
    let mut lines = String::with_capacity(ENDLESS_CHUNK + 64);
    while lines.len() < ENDLESS_CHUNK {
        // Writing to a String does not fail.
        let _ = writeln!(lines, "simulated_endless{{number=\"{number}\"}} 0.0");
        *number += 1;
    }
    Bytes::from(lines)
}

/// Returns random bytes, the same for each length.
fn garbage(length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    Bytes::from(bytes)
}

fn huge_line(page: &str) -> String {
    format!("{}{{model_name=\"{}\"}} 1\n", queue(page), "x".repeat(HUGE_LINE_BYTES))
}

fn many_labels(page: &str) -> String {
    let mut line = format!("{}{{", queue(page));
    for number in 0..MANY_LABELS {
        let _ = write!(line, "l{number}=\"v\",");
    }
    line + "} 1\n"
}

/// Returns a family that a reader of this page wants.
fn queue(page: &str) -> &'static str {
    QUEUES.into_iter().find(|queue| page.contains(queue)).unwrap_or(QUEUES[0])
}

/// Returns the page with another value of each label `model_name`.
fn renamed(page: &str, model: &str) -> String {
    const LABEL: &str = "model_name=\"";
    let model = escape(model);
    let mut renamed = String::with_capacity(page.len());
    let mut rest = page;
    while let Some(label) = rest.find(LABEL) {
        let (before, value) = rest.split_at(label + LABEL.len());
        renamed.push_str(before);
        renamed.push_str(&model);
        rest = &value[end_of_value(value)..];
    }
    renamed + rest
}

/// Returns where the label value that starts here ends.
fn end_of_value(text: &str) -> usize {
    let mut escaped = false;
    text.bytes()
        .position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        })
        .unwrap_or(text.len())
}

/// Returns the time of the pod's clock; `None` for the machine's own.
fn date(faults: &Faults) -> Option<HeaderValue> {
    let now = clock::wall();
    let shown = match (faults.clock_ahead, faults.clock_behind) {
        (Some(ahead), _) => now.checked_add(ahead)?,
        (None, Some(behind)) => now.checked_sub(behind).unwrap_or(SystemTime::UNIX_EPOCH),
        (None, None) => return None,
    };
    HeaderValue::from_str(&httpdate::fmt_http_date(shown)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_models_name_is_changed() {
        let page = "a{model_name=\"x\\\"}y\",other=\"model_name\"} 1\nb{model_name=\"\"} 2\n";
        assert_eq!(
            renamed(page, "n\"w"),
            "a{model_name=\"n\\\"w\",other=\"model_name\"} 1\nb{model_name=\"n\\\"w\"} 2\n"
        );
    }

    #[test]
    fn a_bad_line_belongs_to_a_family_of_the_server() {
        assert_eq!(queue("# TYPE trtllm_num_requests_waiting gauge\n"), QUEUES[2]);
        assert!(many_labels("").starts_with("vllm:num_requests_waiting{l0=\"v\",l1=\"v\","));
    }
}
