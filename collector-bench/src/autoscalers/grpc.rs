// SPDX-License-Identifier: Apache-2.0
//! Asks the external scaler as KEDA does: many calls at a time on one connection.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use collector_core::ModelRef;
use collector_keda::api::{GetMetricsRequest, GetMetricsResponse, ScaledObjectRef, path};
use http::uri::PathAndQuery;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Request;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

/// A connection to the scaler.
#[derive(Clone)]
pub(super) struct Scaler(Channel);

impl Scaler {
    pub(super) async fn connect(address: SocketAddr) -> Result<Self> {
        Ok(Self(Channel::from_shared(format!("http://{address}"))?.connect().await?))
    }

    /// The value of a trigger.
    pub(super) async fn get_metrics(&self, object: ScaledObjectRef) -> Result<f64> {
        let mut grpc = Grpc::new(self.0.clone());
        grpc.ready().await?;
        let request = GetMetricsRequest {
            scaled_object_ref: Some(object),
            metric_name: "collector-queue".to_owned(),
        };
        let codec = ProstCodec::<GetMetricsRequest, GetMetricsResponse>::default();
        let path = PathAndQuery::from_static(path::GET_METRICS);
        let answer = grpc.unary(Request::new(request), path, codec).await?;
        let values = answer.into_inner().metric_values;
        ensure!(values.len() == 1, "{} values", values.len());
        values.first().map(|value| value.metric_value_float).context("there is one")
    }

    /// Answers a second to so many callers, each with the triggers in turn.
    pub(super) async fn pace(
        &self,
        objects: &[ScaledObjectRef],
        callers: usize,
        time: Duration,
    ) -> Result<f64> {
        let until = Instant::now() + time;
        let mut asking = JoinSet::new();
        for caller in 0..callers {
            let (scaler, objects) = (self.clone(), objects.to_vec());
            asking.spawn(async move {
                let mut answers = 0_u32;
                for object in objects.iter().cycle().skip(caller) {
                    if Instant::now() >= until {
                        break;
                    }
                    scaler.get_metrics(object.clone()).await?;
                    answers += 1;
                }
                anyhow::Ok(answers)
            });
        }
        let mut answers = 0;
        while let Some(ended) = asking.join_next().await {
            answers += ended??;
        }
        Ok(f64::from(answers) / time.as_secs_f64())
    }
}

/// A trigger on one signal of a model.
pub(super) fn trigger(model: &ModelRef, signal: &str) -> ScaledObjectRef {
    let metadata = [
        ("scalerAddress", "collector.monitoring:9465"),
        ("model", model.model.as_str()),
        ("signal", signal),
    ];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned()));
    ScaledObjectRef {
        name: "object".to_owned(),
        namespace: model.namespace.to_string(),
        scaler_metadata: BTreeMap::from(metadata),
    }
}
