// SPDX-License-Identifier: Apache-2.0
//! `POST /api/v1/read`: many readings in one request, in the order of the request.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use collector_core::{Allocation, MetricsCollector as _, ModelRef, Reading, Replicas, VariantName};
use futures_util::future::join_all;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::app::App;
use super::query::check_name;
use super::respond::{Answered, Refusal, list};
use crate::output::{
    AllocationDocument, ErrorBody, ErrorDocument, ReadingItem, ReplicasDocument, to_json,
};

/// The path, on which alone requests have bodies.
pub(super) const PATH: &str = "/api/v1/read";

/// The greatest body.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Readings of one request.
const MAX_READINGS: usize = 10_000;

/// A body has to be there within this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a request waits for a place.
const PLACE_TIMEOUT: Duration = Duration::from_secs(1);

/// What bounds the requests of a server that run at once.
pub(crate) struct ReadPlaces {
    /// Requests that are read: each may hold a large body, and wait for as many readings as there may be.
    requests: Semaphore,
    /// KiB of bodies that are received. One without a length counts as the greatest.
    bodies: Semaphore,
}

impl Default for ReadPlaces {
    fn default() -> Self {
        Self { requests: Semaphore::new(16), bodies: Semaphore::new(32 * 1024) }
    }
}

/// Which readings are wanted.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct ReadRequest {
    /// At most 10 000. They are answered in this order.
    #[cfg_attr(test, schemars(length(max = 10_000)))]
    readings: Vec<Wanted>,
}

/// One of them: the replicas of a model, or the allocation of one of its variants.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Wanted {
    #[cfg_attr(test, schemars(length(min = 1, max = 4096)))]
    model: String,
    #[cfg_attr(test, schemars(length(min = 1, max = 4096)))]
    namespace: String,
    #[cfg_attr(test, schemars(length(min = 1, max = 4096)))]
    variant: Option<String>,
}

/// One answer.
struct Answer {
    model: ModelRef,
    variant: Option<VariantName>,
    reading: Result<Either, ErrorBody>,
}

enum Either {
    Replicas(Reading<Replicas>),
    Allocation(Reading<Allocation>),
}

/// Reads many readings. A reading that there is not is an error in its place, and the others are answered all the same.
pub(super) async fn read(State(app): State<Arc<App>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let wanted = match wanted(&app.reads, &parts.headers, body).await {
        Ok(wanted) => wanted,
        Err(refusal) => {
            let mut response = refusal.into_response();
            // What follows on the connection may be the rest of the body.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            return response;
        }
    };
    answers(&app, &parts.headers, wanted).await.unwrap_or_else(Refusal::into_response)
}

async fn answers(app: &App, headers: &HeaderMap, wanted: Vec<Wanted>) -> Answered {
    let Ok(place) = timeout(PLACE_TIMEOUT, app.reads.requests.acquire()).await else {
        return Err(too_many());
    };
    let answers = tokio::select! {
        biased;
        answers = join_all(wanted.into_iter().map(|wanted| wanted.answer(app))) => answers,
        () = app.leaving() => return Err(Refusal::leaving()),
    };
    drop(place);
    let wall = app.clock.wall();
    let parts = answers.into_iter().map(move |answer| answer.json(wall));
    Ok(list(parts, None, headers))
}

fn too_many() -> Refusal {
    let document = ErrorDocument::new("TooManyReads", "too many of these requests are running");
    Refusal::later(StatusCode::TOO_MANY_REQUESTS, document)
}

/// The body of a request.
async fn wanted(
    places: &ReadPlaces,
    headers: &HeaderMap,
    body: Body,
) -> Result<Vec<Wanted>, Refusal> {
    let refuse = |status, reason: &str, message: String| {
        Err(Refusal::new(status, ErrorDocument::new(reason, message)))
    };
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json")
        || headers.contains_key(header::CONTENT_ENCODING)
    {
        let message = "the body must be JSON, not compressed, with Content-Type: application/json";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return refuse(status, "UnsupportedMediaType", message.to_owned());
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
    let kibibytes = length.unwrap_or(MAX_BODY_BYTES).min(MAX_BODY_BYTES).div_ceil(1024).max(1);
    let room = places.bodies.acquire_many(u32::try_from(kibibytes).unwrap_or(u32::MAX));
    let Ok(_room) = timeout(PLACE_TIMEOUT, room).await else { return Err(too_many()) };
    let read = timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect()).await;
    let body = match read {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let message = format!("the body is larger than {MAX_BODY_BYTES} bytes");
            return refuse(StatusCode::PAYLOAD_TOO_LARGE, "TooLarge", message);
        }
        Ok(Err(error)) => {
            return Err(Refusal::bad_request(format!("the body cannot be read: {error}")));
        }
        Err(_elapsed) => {
            let seconds = BODY_TIMEOUT.as_secs();
            let message = format!("the body did not arrive within {seconds} s");
            return refuse(StatusCode::REQUEST_TIMEOUT, "Timeout", message);
        }
    };
    let request: ReadRequest = serde_json::from_slice(&body).map_err(|error| {
        Refusal::bad_request(format!("the body is not what is wanted: {error}"))
    })?;
    if request.readings.len() > MAX_READINGS {
        let message = format!("there are more than {MAX_READINGS} readings");
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "TooLarge", message);
    }
    for (index, wanted) in request.readings.iter().enumerate() {
        let names = [("model", Some(&wanted.model)), ("namespace", Some(&wanted.namespace))];
        for (name, value) in names.into_iter().chain([("variant", wanted.variant.as_ref())]) {
            let Some(value) = value else { continue };
            check_name(format_args!("readings[{index}].{name}"), value)
                .map_err(Refusal::bad_request)?;
        }
    }
    Ok(request.readings)
}

impl Wanted {
    async fn answer(self, app: &App) -> Answer {
        let model = ModelRef::new(self.model, self.namespace);
        let variant = self.variant.map(VariantName::from);
        let reading = match (app.reads_namespace_of(&model), &variant) {
            (Err(refusal), _) => Err(refusal.into_body()),
            (Ok(()), None) => {
                let reading = app.collector.collect_replica_metrics(&model).await;
                reading.map(Either::Replicas).map_err(|error| ErrorBody::of(&error))
            }
            (Ok(()), Some(variant)) => {
                let reading = app.collector.collect_allocation(&model, variant).await;
                reading.map(Either::Allocation).map_err(|error| ErrorBody::of(&error))
            }
        };
        Answer { model, variant, reading }
    }
}

impl Answer {
    fn json(self, wall: SystemTime) -> String {
        match self.reading {
            Ok(Either::Replicas(reading)) => to_json(&ReplicasDocument::new(&reading, wall)),
            Ok(Either::Allocation(reading)) => to_json(&AllocationDocument::new(&reading, wall)),
            Err(error) => {
                let item: ReadingItem<'_, ()> = ReadingItem::Error {
                    model: self.model.model.as_str(),
                    namespace: self.model.namespace.as_str(),
                    variant: self.variant.as_ref().map(VariantName::as_str),
                    error,
                };
                to_json(&item)
            }
        }
    }
}
