// SPDX-License-Identifier: Apache-2.0
//! The upper bounds of the servers' histogram buckets, without `+Inf`.

use crate::spec::{EngineKind, EngineSpec, MetricNames};

/// Bounds of the histograms that every kind of engine has. A server without a histogram has no bounds for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) lengths: &'static [f64],
    pub(crate) first_token: &'static [f64],
    pub(crate) between_tokens: &'static [f64],
    /// For a whole request, its inference and its decode.
    pub(crate) full_request: &'static [f64],
    pub(crate) queue: &'static [f64],
    pub(crate) prefill: &'static [f64],
    pub(crate) decode: &'static [f64],
    pub(crate) step_tokens: &'static [f64],
    /// The queue again, as one of SGLang's stages.
    pub(crate) stage: &'static [f64],
    pub(crate) cached_tokens: &'static [f64],
}

impl Bounds {
    pub(crate) fn of(spec: &EngineSpec) -> Self {
        match (spec.kind, spec.names) {
            (EngineKind::Vllm, MetricNames::V1) => VLLM,
            (EngineKind::Vllm, MetricNames::V0) => Self { lengths: LENGTHS_V0, ..VLLM },
            (EngineKind::Sglang, _) => SGLANG,
            (EngineKind::TrtllmServe, _) => TRTLLM,
            // Triton has no histograms.
            (EngineKind::TritonTensorrtLlm, _) => NONE,
        }
    }
}

const VLLM: Bounds = Bounds {
    lengths: LENGTHS,
    first_token: FIRST_TOKEN,
    between_tokens: BETWEEN_TOKENS,
    full_request: FULL_REQUEST,
    queue: FULL_REQUEST,
    prefill: FULL_REQUEST,
    decode: FULL_REQUEST,
    step_tokens: STEP_TOKENS,
    stage: &[],
    cached_tokens: &[],
};

const SGLANG: Bounds = Bounds {
    lengths: SGLANG_LENGTHS,
    first_token: SGLANG_FIRST_TOKEN,
    between_tokens: SGLANG_BETWEEN_TOKENS,
    full_request: SGLANG_FULL_REQUEST,
    queue: SGLANG_QUEUE,
    prefill: SGLANG_STAGE,
    decode: SGLANG_STAGE,
    stage: SGLANG_STAGE,
    ..NONE
};

const TRTLLM: Bounds = Bounds {
    first_token: FIRST_TOKEN,
    between_tokens: BETWEEN_TOKENS,
    full_request: FULL_REQUEST,
    queue: FULL_REQUEST,
    prefill: TRTLLM_PREFILL,
    decode: FULL_REQUEST,
    step_tokens: TRTLLM_STEP_TOKENS,
    cached_tokens: TRTLLM_CACHED_TOKENS,
    ..NONE
};

const NONE: Bounds = Bounds {
    lengths: &[],
    first_token: &[],
    between_tokens: &[],
    full_request: &[],
    queue: &[],
    prefill: &[],
    decode: &[],
    step_tokens: &[],
    stage: &[],
    cached_tokens: &[],
};

/// vLLM's request lengths, up to its context length.
const LENGTHS: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5];
/// Request lengths of the shorter contexts of the older generation.
const LENGTHS_V0: &[f64] = LENGTHS.split_at(14).0;
const STEP_TOKENS: &[f64] =
    &[1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0];
/// vLLM's request parameter `n`.
pub(crate) const PARAMETER_N: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0];
const FIRST_TOKEN: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];
const BETWEEN_TOKENS: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
];
const FULL_REQUEST: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
];

const SGLANG_LENGTHS: &[f64] = &[
    100.0, 300.0, 500.0, 700.0, 1e3, 1.5e3, 2e3, 3e3, 4e3, 5e3, 6e3, 7e3, 8e3, 9e3, 1e4, 1.2e4,
    1.5e4, 2e4, 2.2e4, 2.5e4, 3e4, 3.5e4, 4e4, 6.6e4, 9.9e4, 1.32e5, 3e5, 6e5, 9e5, 1.1e6,
];
const SGLANG_FIRST_TOKEN: &[f64] = &[
    0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 200.0,
    400.0,
];
const SGLANG_BETWEEN_TOKENS: &[f64] = &[
    0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.06, 0.08, 0.1, 0.2,
    0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0,
];
const SGLANG_FULL_REQUEST: &[f64] = &[
    0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 200.0,
    400.0, 600.0, 1200.0, 1800.0, 2400.0,
];
const SGLANG_QUEUE: &[f64] = &[
    0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0,
    80.0, 90.0, 100.0, 200.0, 300.0, 400.0, 500.0, 600.0, 700.0, 800.0, 900.0, 1000.0, 1200.0,
    1400.0, 1600.0, 1800.0, 2000.0, 2500.0, 3000.0,
];
/// 0.001 times the powers of 1.62, as the server's floats have them.
#[expect(clippy::unreadable_literal, reason = "to be compared with a page")]
pub(crate) const SGLANG_STAGE: &[f64] = &[
    0.001,
    0.0016200000000000001,
    0.0026244000000000007,
    0.004251528,
    0.006887475360000002,
    0.011157710083200004,
    0.018075490334784006,
    0.029282294342350097,
    0.047437316834607154,
    0.07684845327206359,
    0.12449449430074302,
    0.20168108076720373,
    0.3267233508428701,
    0.5292918283654495,
    0.8574527619520282,
    1.389073474362286,
    2.2502990284669036,
    3.6454844261163837,
    5.905684770308542,
    9.567209327899839,
    15.49887911119774,
    25.10818416014034,
    40.67525833942735,
    65.89391850987231,
    106.74814798599316,
    172.93199973730896,
    280.1498395744405,
    453.84274011059364,
    735.2252389791618,
    1191.064887146242,
];
/// Number of retractions of a request by SGLang.
pub(crate) const SGLANG_RETRACTIONS: &[f64] = &[
    0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0,
    75.0, 100.0,
];

const TRTLLM_PREFILL: &[f64] = &[
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0,
    640.0, 2560.0,
];
const TRTLLM_CACHED_TOKENS: &[f64] =
    &[0.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0];
const TRTLLM_STEP_TOKENS: &[f64] =
    &[64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0];

/// Bounds of vLLM's web framework.
pub(crate) const HTTP_DURATION: &[f64] = &[0.1, 0.5, 1.0];
pub(crate) const HTTP_DURATION_FINE: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0,
    7.5, 10.0, 30.0, 60.0,
];
