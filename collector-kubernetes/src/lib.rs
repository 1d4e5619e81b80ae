// SPDX-License-Identifier: Apache-2.0
//! What a Kubernetes cluster knows of inference fleets, from watches: which pods belong to which workload, which of them
//! are ready, starting or leaving, which pools and Endpoint Pickers there are.

mod api_service;
mod extension;

pub use api_service::{ApiOwner, ApiServiceOwner, EXTERNAL_METRICS, api_owner};
pub use extension::{
    AccessAnswer, AccessQuestion, RequestHeaders, read_request_headers, review_access,
};
