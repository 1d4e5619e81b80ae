// SPDX-License-Identifier: Apache-2.0
//! What is counted of the scaler.

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use tonic::Code;

/// Calls that ended, by method and code.
const CALLS: &str = "collector_keda_calls_total";
/// Open push streams.
const STREAMS: &str = "collector_keda_streams";

/// The methods, as the label `rpc` has them.
pub(crate) const METHODS: [&str; 5] =
    ["GetMetricSpec", "GetMetrics", "IsActive", "StreamIsActive", "StreamMetricSpec"];
/// Calls of anything else.
pub(crate) const OTHER: &str = "other";

/// Shows the families before there are any calls.
pub(crate) fn announce() {
    describe_counter!(CALLS, Unit::Count, "Calls of the external scaler, by method and gRPC code");
    describe_gauge!(STREAMS, Unit::Count, "Push streams that KEDA has open");
    for method in &METHODS[..4] {
        counter!(CALLS, "rpc" => *method, "code" => name(Code::Ok)).increment(0);
    }
    gauge!(STREAMS).set(0.0);
}

pub(crate) fn called(method: &'static str, code: Code) {
    counter!(CALLS, "rpc" => method, "code" => name(code)).increment(1);
}

/// Counts as an open stream until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenStream(());

impl OpenStream {
    pub(crate) fn begin() -> Self {
        gauge!(STREAMS).increment(1.0);
        Self(())
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        gauge!(STREAMS).decrement(1.0);
    }
}

/// The code as gRPC writes it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
