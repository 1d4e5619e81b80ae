// SPDX-License-Identifier: Apache-2.0
//! KEDA's external-scaler API on the wire: its messages, and their description for gRPC reflection.
//!
//! Written by hand: five methods and seven messages are shorter than what a generator makes of them, and need no
//! generator in the build. Field numbers are those of the package `externalscaler` that KEDA's operator has.

use std::collections::BTreeMap;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, MessageOptions,
    MethodDescriptorProto, ServiceDescriptorProto,
};

/// The full name of the service.
pub const SERVICE: &str = "externalscaler.ExternalScaler";

/// The paths of the methods.
pub mod path {
    /// Whether the ScaledObject needs a replica.
    pub const IS_ACTIVE: &str = "/externalscaler.ExternalScaler/IsActive";
    /// The same whenever it changes.
    pub const STREAM_IS_ACTIVE: &str = "/externalscaler.ExternalScaler/StreamIsActive";
    /// The name and the target of the metric.
    pub const GET_METRIC_SPEC: &str = "/externalscaler.ExternalScaler/GetMetricSpec";
    /// The value of the metric.
    pub const GET_METRICS: &str = "/externalscaler.ExternalScaler/GetMetrics";
    /// Targets that change; not implemented.
    pub const STREAM_METRIC_SPEC: &str = "/externalscaler.ExternalScaler/StreamMetricSpec";
}

/// A ScaledObject with the metadata of one of its triggers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ScaledObjectRef {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its namespace.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// The metadata of the trigger.
    #[prost(btree_map = "string, string", tag = "3")]
    pub scaler_metadata: BTreeMap<String, String>,
}

/// Whether a ScaledObject needs a replica.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct IsActiveResponse {
    /// True: it does.
    #[prost(bool, tag = "1")]
    pub result: bool,
}

/// The metrics of a trigger.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetMetricSpecResponse {
    /// The metrics.
    #[prost(message, repeated, tag = "1")]
    pub metric_specs: Vec<MetricSpec>,
}

/// The name and the target of a metric.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MetricSpec {
    /// Its name.
    #[prost(string, tag = "1")]
    pub metric_name: String,
    /// Its target, for clients that do not know the next field.
    #[prost(int64, tag = "2")]
    pub target_size: i64,
    /// Its target; used if it is greater than 0.
    #[prost(double, tag = "3")]
    pub target_size_float: f64,
}

/// The metric that is asked for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetMetricsRequest {
    /// The ScaledObject.
    #[prost(message, optional, tag = "1")]
    pub scaled_object_ref: Option<ScaledObjectRef>,
    /// The name of the metric.
    #[prost(string, tag = "2")]
    pub metric_name: String,
}

/// Values of metrics.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetMetricsResponse {
    /// The values.
    #[prost(message, repeated, tag = "1")]
    pub metric_values: Vec<MetricValue>,
}

/// The value of a metric.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MetricValue {
    /// The metric's name.
    #[prost(string, tag = "1")]
    pub metric_name: String,
    /// The value, for clients that do not know the next field.
    #[prost(int64, tag = "2")]
    pub metric_value: i64,
    /// The value; used if it is greater than 0.
    #[prost(double, tag = "3")]
    pub metric_value_float: f64,
}

/// The description of the service that reflection returns.
pub(crate) fn description() -> FileDescriptorSet {
    let metadata = ".externalscaler.ScaledObjectRef.ScalerMetadataEntry";
    let mut object = message(
        "ScaledObjectRef",
        &[
            ("name", Type::String, ""),
            ("namespace", Type::String, ""),
            ("scalerMetadata[]", Type::Message, metadata),
        ],
    );
    let entry = [("key", Type::String, ""), ("value", Type::String, "")];
    let mut entry = message("ScalerMetadataEntry", &entry);
    entry.options = Some(MessageOptions { map_entry: Some(true), ..MessageOptions::default() });
    object.nested_type.push(entry);
    let messages = vec![
        object,
        message("IsActiveResponse", &[("result", Type::Bool, "")]),
        message(
            "GetMetricSpecResponse",
            &[("metricSpecs[]", Type::Message, ".externalscaler.MetricSpec")],
        ),
        message(
            "MetricSpec",
            &[
                ("metricName", Type::String, ""),
                ("targetSize", Type::Int64, ""),
                ("targetSizeFloat", Type::Double, ""),
            ],
        ),
        message(
            "GetMetricsRequest",
            &[
                ("scaledObjectRef", Type::Message, ".externalscaler.ScaledObjectRef"),
                ("metricName", Type::String, ""),
            ],
        ),
        message(
            "GetMetricsResponse",
            &[("metricValues[]", Type::Message, ".externalscaler.MetricValue")],
        ),
        message(
            "MetricValue",
            &[
                ("metricName", Type::String, ""),
                ("metricValue", Type::Int64, ""),
                ("metricValueFloat", Type::Double, ""),
            ],
        ),
    ];
    let methods = [
        ("IsActive", "ScaledObjectRef", "IsActiveResponse", false),
        ("StreamIsActive", "ScaledObjectRef", "IsActiveResponse", true),
        ("GetMetricSpec", "ScaledObjectRef", "GetMetricSpecResponse", false),
        ("GetMetrics", "GetMetricsRequest", "GetMetricsResponse", false),
        ("StreamMetricSpec", "ScaledObjectRef", "GetMetricSpecResponse", true),
    ];
    let methods = methods.map(|(name, input, output, streams)| MethodDescriptorProto {
        name: Some(name.to_owned()),
        input_type: Some(format!(".externalscaler.{input}")),
        output_type: Some(format!(".externalscaler.{output}")),
        server_streaming: Some(streams),
        ..MethodDescriptorProto::default()
    });
    let service = ServiceDescriptorProto {
        name: Some("ExternalScaler".to_owned()),
        method: methods.into(),
        ..ServiceDescriptorProto::default()
    };
    let file = FileDescriptorProto {
        name: Some("externalscaler.proto".to_owned()),
        package: Some("externalscaler".to_owned()),
        message_type: messages,
        service: vec![service],
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    };
    FileDescriptorSet { file: vec![file] }
}

/// A message whose fields are numbered from 1. A field's name ends in `[]` if it is repeated.
fn message(name: &str, fields: &[(&str, Type, &str)]) -> DescriptorProto {
    let fields = fields.iter().zip(1..).map(|((name, kind, of), number)| {
        let (name, label) = match name.strip_suffix("[]") {
            Some(name) => (name, Label::Repeated),
            None => (*name, Label::Optional),
        };
        FieldDescriptorProto {
            name: Some(name.to_owned()),
            number: Some(number),
            label: Some(label.into()),
            r#type: Some((*kind).into()),
            type_name: (!of.is_empty()).then(|| (*of).to_owned()),
            json_name: Some(name.to_owned()),
            ..FieldDescriptorProto::default()
        }
    });
    DescriptorProto {
        name: Some(name.to_owned()),
        field: fields.collect(),
        ..DescriptorProto::default()
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    /// What a client writes, byte by byte: a tag is the field's number times 8, plus 0 for a number, 1 for a double
    /// and 2 for text and messages.
    #[test]
    fn messages_have_the_bytes_of_kedas_api() {
        let object = b"\x0a\x01o\x12\x01n\x1a\x06\x0a\x01k\x12\x01v";
        let read = ScaledObjectRef::decode(&object[..]).unwrap();
        assert_eq!((read.name.as_str(), read.namespace.as_str()), ("o", "n"));
        assert_eq!(read.scaler_metadata["k"], "v");
        assert_eq!(read.encode_to_vec(), object);

        let mut request = vec![0x0a, 14];
        request.extend_from_slice(object);
        request.extend_from_slice(b"\x12\x04s0-m");
        let read = GetMetricsRequest::decode(&request[..]).unwrap();
        assert_eq!(read.metric_name, "s0-m");
        assert_eq!(read.scaled_object_ref.unwrap().encode_to_vec(), object);

        let one = 1.5_f64.to_le_bytes();
        let mut metric = b"\x0a\x01m\x10\x02\x19".to_vec();
        metric.extend_from_slice(&one);
        let mut list = vec![0x0a, u8::try_from(metric.len()).unwrap()];
        list.extend_from_slice(&metric);
        let spec =
            MetricSpec { metric_name: "m".to_owned(), target_size: 2, target_size_float: 1.5 };
        assert_eq!(GetMetricSpecResponse { metric_specs: vec![spec] }.encode_to_vec(), list);
        let value =
            MetricValue { metric_name: "m".to_owned(), metric_value: 2, metric_value_float: 1.5 };
        assert_eq!(GetMetricsResponse { metric_values: vec![value] }.encode_to_vec(), list);
        assert_eq!(IsActiveResponse { result: true }.encode_to_vec(), b"\x08\x01");
    }

    #[test]
    fn every_path_is_a_method_of_the_description() {
        let description = description();
        let service = &description.file[0].service[0];
        let methods = service.method.iter().map(|method| format!("/{SERVICE}/{}", method.name()));
        let paths = [
            path::IS_ACTIVE,
            path::STREAM_IS_ACTIVE,
            path::GET_METRIC_SPEC,
            path::GET_METRICS,
            path::STREAM_METRIC_SPEC,
        ];
        assert!(methods.eq(paths.map(str::to_owned)));
    }
}
