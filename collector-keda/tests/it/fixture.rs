// SPDX-License-Identifier: Apache-2.0
//! A server, its collector and a client.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use collector_core::{
    EndpointPicker, EndpointPickerLoad, ModelRef, ModelSample, ReplicaMetrics, Tick,
};
use collector_engine::{CachingCollector, StaticDirectory, VariantSpec};
use collector_keda::api::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec,
    MetricValue, ScaledObjectRef, path,
};
use collector_keda::{Scaler, Settings, serve};
use collector_testkit::{FakeBackend, TokioClock};
use collector_transport::server::{Listener, ServerTls};
use http::uri::PathAndQuery;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

pub(crate) const MODEL: &str = "org/chat";

pub(crate) struct Fixture {
    pub(crate) backend: FakeBackend,
    pub(crate) collector: Arc<CachingCollector>,
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        Self::with(None, Settings::default()).await
    }

    pub(crate) async fn with(tls: Option<Arc<ServerTls>>, settings: Settings) -> Self {
        let clock = Arc::new(TokioClock::new());
        let backend = FakeBackend::new(clock.clone());
        let pods = "small-*".to_owned();
        let variant = VariantSpec { pods, ..VariantSpec::new("small", &model()) };
        let directory = StaticDirectory::new(vec![variant]).unwrap();
        let collector = CachingCollector::builder(Arc::new(backend.clone()))
            .directory(Arc::new(directory))
            .clock(clock.clone())
            .build();
        let collector = Arc::new(collector.unwrap());
        let scaler = Scaler::new(Arc::clone(&collector), clock, settings);
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let listener = Listener { socket, tls, read_timeout: None };
        let server = tokio::spawn(serve(listener, scaler, async {
            let _ = stopped.await;
        }));
        Self { backend, collector, address, stop, server }
    }

    pub(crate) async fn client(&self) -> Client {
        let endpoint = Channel::from_shared(format!("http://{}", self.address)).unwrap();
        Client(endpoint.connect().await.unwrap())
    }

    /// Tells the server to stop; the task ends when it has.
    pub(crate) fn stop(self) -> JoinHandle<()> {
        self.stop.send(()).unwrap();
        self.server
    }

    /// From now on the model has these pods, whatever they say at each fetch.
    pub(crate) fn serve(&self, pods: impl Fn(Tick) -> ModelSample + Send + Sync + 'static) {
        self.backend.serve(&model(), pods);
    }

    /// The next read asks the backend.
    pub(crate) fn forget(&self) {
        self.collector.invalidate_cache(&model());
    }
}

pub(crate) fn model() -> ModelRef {
    ModelRef::new(MODEL, "prod")
}

/// A pod that is fully known.
pub(crate) fn pod(name: &str, as_of: Tick, queue: u64) -> ReplicaMetrics {
    let mut pod = ReplicaMetrics::new(name, as_of);
    pod.queue_length = Some(queue);
    pod.running_requests = Some(2);
    pod.kv_cache_usage = Some(0.3);
    pod
}

/// One pod with this queue.
pub(crate) fn queue_of(queue: u64) -> impl Fn(Tick) -> ModelSample + Send + Sync {
    move |as_of| ModelSample::new(as_of, vec![pod("chat-0", as_of, queue)])
}

/// No pod, and an endpoint picker that holds back so many requests.
pub(crate) fn held_back(queued: u64) -> impl Fn(Tick) -> ModelSample + Send + Sync {
    move |as_of| {
        let mut load = EndpointPickerLoad::new(as_of);
        load.flow_control = true;
        load.queued_requests = Some(queued);
        load.running_requests = Some(0);
        let mut sample = ModelSample::new(as_of, Vec::new());
        sample.endpoint_picker = EndpointPicker::Responding(Arc::new(load));
        sample
    }
}

/// A trigger on the model, with these keys besides.
pub(crate) fn trigger(metadata: &[(&str, &str)]) -> ScaledObjectRef {
    let pairs = [&[("model", MODEL), ("scalerAddress", "collector:9465")], metadata].concat();
    let pairs = pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
    ScaledObjectRef {
        name: "chat".to_owned(),
        namespace: "prod".to_owned(),
        scaler_metadata: pairs.collect::<BTreeMap<_, _>>(),
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Client(pub(crate) Channel);

impl Client {
    pub(crate) async fn unary<M, R>(&self, path: &'static str, message: M) -> Result<R, Status>
    where
        M: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.0.clone());
        grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let codec = ProstCodec::<M, R>::default();
        let path = PathAndQuery::from_static(path);
        Ok(grpc.unary(Request::new(message), path, codec).await?.into_inner())
    }

    pub(crate) async fn streaming<M, R>(
        &self,
        path: &'static str,
        message: M,
    ) -> Result<Streaming<R>, Status>
    where
        M: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.0.clone());
        grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let codec = ProstCodec::<M, R>::default();
        let path = PathAndQuery::from_static(path);
        Ok(grpc.server_streaming(Request::new(message), path, codec).await?.into_inner())
    }

    /// The one metric of a trigger: `GetMetricSpec` never fails.
    #[track_caller]
    pub(crate) fn spec(
        &self,
        trigger: ScaledObjectRef,
    ) -> impl Future<Output = MetricSpec> + use<> {
        let this = self.clone();
        async move {
            let response: GetMetricSpecResponse =
                this.unary(path::GET_METRIC_SPEC, trigger).await.unwrap();
            assert_eq!(response.metric_specs.len(), 1);
            response.metric_specs.into_iter().next().unwrap()
        }
    }

    pub(crate) async fn metric(&self, trigger: ScaledObjectRef) -> Result<MetricValue, Status> {
        let request = GetMetricsRequest {
            scaled_object_ref: Some(trigger),
            metric_name: "s0-collector-queue".to_owned(),
        };
        let response: GetMetricsResponse = self.unary(path::GET_METRICS, request).await?;
        assert_eq!(response.metric_values.len(), 1);
        Ok(response.metric_values.into_iter().next().unwrap())
    }

    /// The value of a trigger on which both calls agree, or the error that both give.
    pub(crate) async fn value(&self, metadata: &[(&str, &str)]) -> Result<f64, (Code, String)> {
        let activation = metadata.iter().find(|(key, _)| *key == "activation");
        let activation = activation.and_then(|(_, text)| text.parse().ok()).unwrap_or(0.0);
        let metric = self.metric(trigger(metadata)).await;
        let active = self.is_active(trigger(metadata)).await;
        match (metric, active) {
            (Ok(metric), Ok(active)) => {
                assert_eq!(active, metric.metric_value_float > activation);
                Ok(metric.metric_value_float)
            }
            (Err(metric), Err(active)) => {
                assert_eq!(metric.code(), active.code());
                Err((metric.code(), metric.message().to_owned()))
            }
            (metric, active) => panic!("{metric:?} and {active:?}"),
        }
    }

    pub(crate) async fn is_active(&self, trigger: ScaledObjectRef) -> Result<bool, Status> {
        let response: IsActiveResponse = self.unary(path::IS_ACTIVE, trigger).await?;
        Ok(response.result)
    }

    pub(crate) async fn stream(
        &self,
        trigger: ScaledObjectRef,
    ) -> Result<Streaming<IsActiveResponse>, Status> {
        self.streaming(path::STREAM_IS_ACTIVE, trigger).await
    }
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
