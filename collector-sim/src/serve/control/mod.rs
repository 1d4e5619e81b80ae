// SPDX-License-Identifier: Apache-2.0
//! The control endpoint: reads and changes a running fleet over HTTP.

mod routes;
mod state;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, ORIGIN};
use hyper::{Request, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::answer::{Body, plain};
use super::listener::{Listener, Service};
use super::{Faults, FleetServer, PodLabel, ServeError, targets};
use crate::fleet::FleetError;
use crate::load::Load;
use routes::{Name, NoRoute, Route};

/// Largest request body.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// Time limit for a request body on loopback.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A fleet's control endpoint. Dropping it stops it; the fleet continues.
#[derive(Debug)]
pub struct ControlServer {
    listener: Listener,
}

impl ControlServer {
    /// Listens on `address`, port 0 for any free one. Any client can change everything in the fleet, so it
    /// must be a loopback address.
    ///
    /// # Errors
    /// `InvalidInput` for another address; otherwise the system's error.
    pub async fn open(fleet: Arc<FleetServer>, address: SocketAddr) -> io::Result<Self> {
        if !address.ip().is_loopback() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the control endpoint has no authentication: use a loopback address",
            ));
        }
        Ok(Self { listener: Listener::open(Arc::new(Control { fleet }), address).await? })
    }

    /// Returns its address.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Stops it, and returns when its connections have ended.
    pub async fn stop(self) {
        let _ = self.listener.stop().await;
    }
}

#[derive(Debug)]
struct Control {
    fleet: Arc<FleetServer>,
}

/// An action on a pod.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PodOrder {
    action: PodAction,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PodAction {
    Kill,
    Restart,
}

/// Why a request failed.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    message: String,
    /// The allowed methods.
    allow: Option<&'static str>,
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), allow: None }
    }

    fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

impl From<ServeError> for Refusal {
    fn from(error: ServeError) -> Self {
        let status = match &error {
            ServeError::Fleet(FleetError::BadLoad(_)) | ServeError::BadFaults(_) => {
                StatusCode::BAD_REQUEST
            }
            ServeError::Fleet(FleetError::TooManyPods) => StatusCode::CONFLICT,
            ServeError::Fleet(_) => StatusCode::NOT_FOUND,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

impl From<FleetError> for Refusal {
    fn from(error: FleetError) -> Self {
        ServeError::from(error).into()
    }
}

impl From<NoRoute> for Refusal {
    fn from(error: NoRoute) -> Self {
        match error {
            NoRoute::Path => Self::new(StatusCode::NOT_FOUND, "no such path; GET / lists them"),
            NoRoute::Method(allow) => {
                let message = format!("use {allow}");
                Self { allow: Some(allow), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, message) }
            }
        }
    }
}

impl Service for Control {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        self.act(request).await.unwrap_or_else(|Refusal { status, message, allow }| {
            let mut response = document(status, &json!({ "error": { "message": message } }));
            if let Some(allow) = allow {
                response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
            }
            response
        })
    }
}

impl Control {
    async fn act(&self, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        // Browsers send it with requests that another origin's page made.
        if request.headers().contains_key(ORIGIN) {
            return Err(Refusal::new(StatusCode::FORBIDDEN, "requests of web pages are refused"));
        }
        let fleet = &self.fleet;
        match Route::of(request.method(), request.uri().path())? {
            Route::Index => Ok(found(&json!({ "paths": routes::PATHS }))),
            Route::State => Ok(found(&state::of(fleet))),
            Route::Targets => Ok(found(&targets::groups(PodLabel::Pod, &fleet.targets()))),
            Route::SetLoad(Name { namespace, name }) => {
                let load = merged(fleet.load(&namespace, &name)?, body(request).await?)?;
                fleet.set_load(&namespace, &name, load.clone())?;
                Ok(found(&load))
            }
            Route::AddPod(Name { namespace, name }) => {
                let target = fleet.add_pod(&namespace, &name).await?;
                Ok(document(StatusCode::CREATED, &target))
            }
            Route::Order(Name { namespace, name }) => {
                match body::<PodOrder>(request).await?.action {
                    PodAction::Kill => fleet.kill_pod(&namespace, &name).await?,
                    PodAction::Restart => fleet.restart_pod(&namespace, &name).await?,
                }
                Ok(done())
            }
            Route::DeletePod(Name { namespace, name }) => {
                fleet.delete_pod(&namespace, &name).await?;
                Ok(done())
            }
            Route::SetFaults(Name { namespace, name }) => {
                fleet.set_faults(&namespace, &name, body(request).await?).await?;
                Ok(done())
            }
            Route::ClearFaults(Name { namespace, name }) => {
                fleet.set_faults(&namespace, &name, Faults::default()).await?;
                Ok(done())
            }
            Route::SetAllFaults => {
                fleet.set_all_faults(&body(request).await?).await?;
                Ok(done())
            }
            Route::ClearAllFaults => {
                fleet.set_all_faults(&Faults::default()).await?;
                Ok(done())
            }
        }
    }
}

/// Reads the request's body.
async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Refusal> {
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect();
    let body = timeout(BODY_TIMEOUT, body)
        .await
        .map_err(|_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body does not end"))?
        .map_err(|error| {
            if error.is::<LengthLimitError>() {
                let message = format!("the body has more than {MAX_BODY_BYTES} bytes");
                Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message)
            } else {
                Refusal::bad_request(format!("the body cannot be read: {error}"))
            }
        })?;
    serde_json::from_slice(&body.to_bytes())
        .map_err(|error| Refusal::bad_request(format!("invalid body: {error}")))
}

/// Returns the load with the changes of `change`.
fn merged(load: Load, change: serde_json::Map<String, Value>) -> Result<Load, Refusal> {
    let mut load =
        serde_json::to_value(load).map_err(|error| Refusal::bad_request(error.to_string()))?;
    if let Some(fields) = load.as_object_mut() {
        fields.extend(change);
    }
    serde_json::from_value(load)
        .map_err(|error| Refusal::bad_request(format!("invalid load: {error}")))
}

fn found(body: &impl Serialize) -> Response<Body> {
    document(StatusCode::OK, body)
}

fn done() -> Response<Body> {
    let mut response = plain(StatusCode::NO_CONTENT, Bytes::new());
    response.headers_mut().remove(CONTENT_TYPE);
    response
}

fn document(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    let (status, text) = match serde_json::to_string(body) {
        Ok(text) => (status, text + "\n"),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{{\"error\":\"{error}\"}}\n")),
    };
    let mut response = plain(status, text);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
