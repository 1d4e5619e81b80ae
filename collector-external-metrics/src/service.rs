// SPDX-License-Identifier: Apache-2.0
//! Which path gets what.

use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use collector_core::Clock;
use collector_core::text::quote;
use collector_keda::{Refusal, Scaler, Trigger};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use percent_encoding::percent_decode_str;
use rustls::pki_types::CertificateDer;
use serde::Serialize;

use crate::access_control::{AccessControl, AccessRequest, Decision};
use crate::answer::{self, GROUP, GROUP_VERSION};
use crate::counters;
use crate::front_proxy::User;
use crate::models::model_of;
use crate::quantity::quantity;
use crate::question::{Question, Refused};
use crate::reviews::Reviews;
use crate::trust::{Trust, Untrusted};

/// The External Metrics API over a scaler.
pub struct ExternalMetrics {
    scaler: Arc<Scaler>,
    /// That of the collector.
    clock: Arc<dyn Clock>,
    pub(crate) trust: Trust,
    reviews: Reviews,
}

impl std::fmt::Debug for ExternalMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExternalMetrics").field("scaler", &self.scaler).finish_non_exhaustive()
    }
}

impl ExternalMetrics {
    /// The signals of a scaler, for the users of a cluster.
    pub fn new(
        scaler: Arc<Scaler>,
        clock: Arc<dyn Clock>,
        cluster: Arc<dyn AccessControl>,
    ) -> Self {
        let trust = Trust::new(Arc::clone(&cluster));
        Self { scaler, clock, trust, reviews: Reviews::new(cluster) }
    }

    /// Answers a request of a client that has shown these certificates, its own first, and has the key of that one.
    pub async fn answer<B>(
        &self,
        request: &Request<B>,
        certificates: &[CertificateDer<'_>],
    ) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if let Some(response) = self.health(path) {
            return response;
        }
        let answered = self.answered(request, certificates).await;
        let response = answered.unwrap_or_else(|Refused { code, message }| {
            json(code, &answer::status(code, &message))
        });
        counters::answered(response.status());
        response
    }

    /// The paths that anyone may read.
    fn health(&self, path: &str) -> Option<Response<Full<Bytes>>> {
        let is_ready = self.trust.is_known();
        let (code, text) = match path {
            "/healthz" | "/livez" => (StatusCode::OK, "ok"),
            "/readyz" if is_ready => (StatusCode::OK, "ok"),
            "/readyz" => {
                (StatusCode::SERVICE_UNAVAILABLE, "the front proxy's certificates are not known")
            }
            _ => return None,
        };
        Some(response(code, "text/plain; charset=utf-8", text.into()))
    }

    async fn answered<B>(
        &self,
        request: &Request<B>,
        certificates: &[CertificateDer<'_>],
    ) -> Result<Response<Full<Bytes>>, Refused> {
        let user = self.trust.user(certificates, request.headers()).await;
        let user = user.map_err(|untrusted| match untrusted {
            Untrusted::Stranger(stranger) => {
                Refused::new(StatusCode::UNAUTHORIZED, stranger.text())
            }
            Untrusted::Unknown(error) => Refused::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("the front proxy's certificates are not known: {error}"),
            ),
        })?;
        if request.method() != Method::GET {
            let message = "metrics can only be read: use GET";
            return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, message));
        }
        let path = request.uri().path().trim_end_matches('/');
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let ok = StatusCode::OK;
        // These say the same to everyone, and the API server reads them for itself.
        match segments[..] {
            ["apis"] => return Ok(json(ok, &answer::groups())),
            ["apis", GROUP] => return Ok(json(ok, &answer::group())),
            ["apis", GROUP, version]
                if GROUP_VERSION.ends_with(version) && version.starts_with('v') =>
            {
                return Ok(json(ok, &answer::resources()));
            }
            ["apis", GROUP, "v1beta1", "namespaces", namespace, metric] => {
                let (namespace, metric) = (decoded(namespace)?, decoded(metric)?);
                let query = request.uri().query().unwrap_or_default();
                return self.value(&user, &namespace, &metric, query).await;
            }
            _ => {}
        }
        let message = format!("there is nothing at {}", quote(path));
        Err(Refused::new(StatusCode::NOT_FOUND, message))
    }

    async fn value(
        &self,
        user: &User,
        namespace: &str,
        metric: &str,
        query: &str,
    ) -> Result<Response<Full<Bytes>>, Refused> {
        self.authorize(user, namespace, metric).await?;
        let selector = selector_of(query)?;
        let question = Question::of(namespace, metric, &selector)?;
        let of_model = question.model_namespace();
        if of_model != namespace {
            // The label must not be a way around the rules of the other namespace.
            self.authorize(user, of_model, metric).await?;
        }
        let model = model_of(&question, &self.scaler.collector(), self.scaler.wait()).await?;
        let trigger = Trigger::of(&question.into_metadata(model.as_deref()))
            .map_err(|invalid| Refused::bad(invalid.0))?;
        let measured = match self.scaler.value(&trigger).await {
            Ok(measured) => measured,
            Err(refusal) => return Err(self.refused(refusal, user, metric).await),
        };
        let Some(quantity) = quantity(measured.value) else {
            let message = format!("{} is not a quantity", measured.value);
            return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, message));
        };
        let age = measured.sampled_at.age(self.clock.now());
        let wall = self.clock.wall();
        let sampled_at = wall.checked_sub(age).unwrap_or(wall);
        Ok(json(StatusCode::OK, &answer::value(metric, quantity, sampled_at)))
    }

    /// A refusal in the words of the scaler, without namespaces that the user may not read.
    async fn refused(&self, mut refusal: Refusal, user: &User, metric: &str) -> Refused {
        for namespace in mem::take(&mut refusal.elsewhere) {
            if self.authorize(user, namespace.as_str(), metric).await.is_ok() {
                refusal.elsewhere.push(namespace);
            }
        }
        Refused::new(refusal.http_status(), refusal.text())
    }

    async fn authorize(&self, user: &User, namespace: &str, metric: &str) -> Result<(), Refused> {
        let request = AccessRequest {
            user: user.clone(),
            namespace: namespace.to_owned(),
            metric: metric.to_owned(),
        };
        match self.reviews.decision(request).await {
            Ok(Decision { is_allowed: true, .. }) => Ok(()),
            Ok(Decision { reason, .. }) => {
                let mut message = format!(
                    "user \"{}\" cannot list resource \"{}\" in API group \"{GROUP}\" in the namespace \"{}\"",
                    quote(&user.name),
                    quote(metric),
                    quote(namespace)
                );
                if !reason.is_empty() {
                    message = format!("{message}: {}", quote(&reason));
                }
                Err(Refused::new(StatusCode::FORBIDDEN, message))
            }
            Err(error) => Err(Refused::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("it is not known whether the user may read this: {error}"),
            )),
        }
    }
}

/// The label selector of a query.
fn selector_of(query: &str) -> Result<String, Refused> {
    let mut selector = None;
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        match &*decoded(key)? {
            "labelSelector" if selector.is_some() => {
                return Err(Refused::bad("labelSelector is set twice"));
            }
            "labelSelector" => selector = Some(decoded(&value.replace('+', " "))?),
            // What would select less, or answer something else, is not left out.
            key @ ("fieldSelector" | "watch") if !["", "0", "false"].contains(&value) => {
                return Err(Refused::bad(format!("{key} cannot be used")));
            }
            _ => {}
        }
    }
    Ok(selector.unwrap_or_default())
}

fn decoded(text: &str) -> Result<String, Refused> {
    let decoded = percent_decode_str(text).decode_utf8();
    let decoded = decoded.map_err(|_| Refused::bad("the address is not UTF-8"))?;
    Ok(decoded.into_owned())
}

fn json(code: StatusCode, document: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(document) {
        Ok(text) => response(code, "application/json", text.into()),
        // Texts and numbers can always be written.
        Err(error) => {
            response(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error.to_string().into())
        }
    }
}

fn response(code: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
