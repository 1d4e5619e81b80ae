// SPDX-License-Identifier: Apache-2.0
//! The gRPC service: which method gets what, and the messages of its answers.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{self, Stream};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

use crate::activity::Activity;
use crate::api::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec,
    MetricValue, SERVICE, ScaledObjectRef, path,
};
use crate::counters::{self, OpenStream};
use crate::metadata::{Invalid, Spec, Trigger};
use crate::refusal::Refusal;
use crate::scaler::Scaler;

/// The largest request: no object of Kubernetes is larger.
const REQUEST_BYTES_MAX: usize = 2 << 20;
/// The time for a call to be received, and answered.
const CALL_WITHIN: Duration = Duration::from_secs(10);
/// How often a stream looks for a change. It costs a look into memory.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Open streams at a time.
const STREAMS_MAX: usize = 100_000;

/// The service, on all connections.
#[derive(Clone)]
pub(crate) struct ExternalScaler {
    scaler: Arc<Scaler>,
    /// Ends the streams.
    stop: CancellationToken,
    streams: Arc<AtomicUsize>,
}

impl ExternalScaler {
    pub(crate) fn new(scaler: Arc<Scaler>, stop: CancellationToken) -> Self {
        Self { scaler, stop, streams: Arc::default() }
    }

    /// Metadata alone decide, so that it never fails: without a metric, KEDA makes no HPA.
    fn metric_spec(&self, object: &ScaledObjectRef) -> GetMetricSpecResponse {
        self.scaler.name_unknown_keys(object);
        let Spec { metric_name, target } = Spec::of(object);
        let spec = MetricSpec {
            metric_name,
            target_size: whole(target.get().ceil()).max(1),
            target_size_float: target.get(),
        };
        GetMetricSpecResponse { metric_specs: vec![spec] }
    }

    async fn metrics(&self, request: &GetMetricsRequest) -> Result<GetMetricsResponse, Refusal> {
        let Some(object) = &request.scaled_object_ref else {
            return Err(Refusal::invalid(Invalid("there is no scaledObjectRef".to_owned())));
        };
        let trigger = Trigger::of(object).map_err(Refusal::invalid)?;
        let value = self.scaler.value(&trigger).await?.value;
        let value = MetricValue {
            metric_name: Spec::of(object).metric_name,
            metric_value: whole(value.round()),
            metric_value_float: value,
        };
        Ok(GetMetricsResponse { metric_values: vec![value] })
    }

    async fn is_active(&self, object: &ScaledObjectRef) -> Result<IsActiveResponse, Refusal> {
        let trigger = Trigger::of(object).map_err(Refusal::invalid)?;
        let result = self.scaler.is_active(&trigger).await?;
        Ok(IsActiveResponse { result })
    }

    /// The messages of a push stream, which only the end of the server ends. Nothing is sent of a trigger that cannot be
    /// used: KEDA opens streams again with delays that grow, and the other calls say what is wrong.
    fn activity(
        &self,
        object: &ScaledObjectRef,
    ) -> Result<impl Stream<Item = Result<IsActiveResponse, Status>> + use<>, Status> {
        let place = Place::take(&self.streams)?;
        let opened_at = Instant::now();
        let mut looks = interval_at(opened_at, LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let pushed = Pushed {
            scaler: Arc::clone(&self.scaler),
            trigger: Trigger::of(object).ok(),
            stop: self.stop.clone(),
            looks,
            opened_at,
            activity: Activity::default(),
            _place: place,
            _open: OpenStream::begin(),
        };
        Ok(stream::unfold(pushed, |mut pushed| async {
            let result = pushed.next().await?;
            Some((Ok(IsActiveResponse { result }), pushed))
        }))
    }

    async fn answer(self, request: http::Request<Body>) -> http::Response<Body> {
        let path = request.uri().path();
        let method = path.rsplit('/').next().unwrap_or_default();
        let known = counters::METHODS.iter().find(|known| **known == method);
        let method = known.copied().unwrap_or(counters::OTHER);
        let answered = match path {
            path::GET_METRIC_SPEC => {
                let call = move |request: Request<ScaledObjectRef>| {
                    let spec = self.metric_spec(request.get_ref());
                    async { Ok(Response::new(spec)) }
                };
                timeout(CALL_WITHIN, grpc().unary(service_fn(call), request)).await
            }
            path::GET_METRICS => {
                let call = move |request: Request<GetMetricsRequest>| {
                    let this = self.clone();
                    async move { Ok(Response::new(this.metrics(request.get_ref()).await?)) }
                };
                timeout(CALL_WITHIN, grpc().unary(service_fn(call), request)).await
            }
            path::IS_ACTIVE => {
                let call = move |request: Request<ScaledObjectRef>| {
                    let this = self.clone();
                    async move { Ok(Response::new(this.is_active(request.get_ref()).await?)) }
                };
                timeout(CALL_WITHIN, grpc().unary(service_fn(call), request)).await
            }
            path::STREAM_IS_ACTIVE => {
                let call = move |request: Request<ScaledObjectRef>| {
                    let stream = self.activity(request.get_ref()).map(Response::new);
                    async { stream }
                };
                timeout(CALL_WITHIN, grpc().server_streaming(service_fn(call), request)).await
            }
            // An empty list would scale to 0.
            path::STREAM_METRIC_SPEC => {
                Ok(Status::unimplemented("targets do not change: ask GetMetricSpec").into_http())
            }
            _ => Ok(Status::unimplemented("there is no such method").into_http()),
        };
        let response = answered.unwrap_or_else(|_| {
            let text = format!("the call took longer than {} s", CALL_WITHIN.as_secs());
            Status::deadline_exceeded(text).into_http()
        });
        let refused = Status::from_header_map(response.headers());
        counters::called(method, refused.map_or(Code::Ok, |status| status.code()));
        response
    }
}

impl NamedService for ExternalScaler {
    const NAME: &'static str = SERVICE;
}

impl Service<http::Request<Body>> for ExternalScaler {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = self.clone().answer(request);
        Box::pin(async { Ok(answer.await) })
    }
}

/// An open push stream.
struct Pushed {
    scaler: Arc<Scaler>,
    /// `None`: its metadata cannot be used.
    trigger: Option<Trigger>,
    stop: CancellationToken,
    looks: Interval,
    opened_at: Instant,
    activity: Activity,
    _place: Place,
    _open: OpenStream,
}

impl Pushed {
    /// The next message; `None` when the server stops.
    async fn next(&mut self) -> Option<bool> {
        let stop = self.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            message = self.next_change() => Some(message),
        }
    }

    async fn next_change(&mut self) -> bool {
        let Some(trigger) = &self.trigger else { return std::future::pending().await };
        loop {
            // When the look was due, not when it ended: else each repetition would come a look later.
            let at = self.looks.tick().await.duration_since(self.opened_at);
            let active = self.scaler.is_active(trigger).await.ok();
            if let Some(message) = self.activity.next(active, at) {
                return message;
            }
        }
    }
}

/// A place among the open streams.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(streams: &Arc<AtomicUsize>) -> Result<Self, Status> {
        let place = Self(Arc::clone(streams));
        if streams.fetch_add(1, Ordering::Relaxed) >= STREAMS_MAX {
            return Err(Status::resource_exhausted(format!(
                "{STREAMS_MAX} streams are open already"
            )));
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn grpc<T, U>() -> Grpc<ProstCodec<T, U>>
where
    T: prost::Message + Send + 'static,
    U: prost::Message + Default + Send + 'static,
{
    Grpc::new(ProstCodec::default()).max_decoding_message_size(REQUEST_BYTES_MAX)
}

/// A whole number from 0 to 1e12.
#[expect(clippy::cast_possible_truncation, reason = "values are from 0 to 1e12")]
fn whole(number: f64) -> i64 {
    number as i64
}
