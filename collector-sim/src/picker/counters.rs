// SPDX-License-Identifier: Apache-2.0
//! The picker's counters of requests, in its own buckets.

use std::time::Duration;

use crate::engine::Histogram;

/// A prompt or an answer on the wire: some four characters a token.
pub(crate) const BYTES_PER_TOKEN: u32 = 4;

/// The requests of one engine, as the picker in front of it counts them.
#[derive(Debug, Clone)]
pub(crate) struct PickerCounters {
    pub(crate) input_tokens: Histogram,
    pub(crate) output_tokens: Histogram,
    pub(crate) cached_tokens: Histogram,
    pub(crate) duration: Histogram,
    pub(crate) time_per_output_token: Histogram,
    pub(crate) time_to_first_token: Histogram,
    pub(crate) inter_token_latency: Histogram,
    pub(crate) request_bytes: Histogram,
    pub(crate) response_bytes: Histogram,
}

/// Counts a completely answered request.
pub(crate) struct Answered {
    pub(crate) prompt_tokens: u32,
    pub(crate) cached_tokens: u32,
    pub(crate) output_tokens: u32,
    pub(crate) duration: Duration,
    pub(crate) time_per_output_token: Duration,
}

impl PickerCounters {
    pub(crate) fn new() -> Self {
        Self {
            input_tokens: Histogram::of_tokens(TOKENS),
            output_tokens: Histogram::of_tokens(OUTPUT_TOKENS),
            cached_tokens: Histogram::of_tokens(TOKENS),
            duration: Histogram::of_times(DURATION),
            time_per_output_token: Histogram::of_times(TIME_PER_OUTPUT_TOKEN),
            time_to_first_token: Histogram::of_times(FIRST_TOKEN),
            inter_token_latency: Histogram::of_times(BETWEEN_TOKENS),
            request_bytes: Histogram::of_tokens(REQUEST_BYTES),
            response_bytes: Histogram::of_tokens(RESPONSE_BYTES),
        }
    }

    pub(crate) fn observe(&mut self, answered: &Answered) {
        let Answered { prompt_tokens, cached_tokens, output_tokens, .. } = *answered;
        self.input_tokens.observe(prompt_tokens);
        self.cached_tokens.observe(cached_tokens);
        self.output_tokens.observe(output_tokens);
        self.duration.observe(answered.duration);
        self.time_per_output_token.observe(answered.time_per_output_token);
        self.request_bytes.observe(prompt_tokens.saturating_mul(BYTES_PER_TOKEN));
        self.response_bytes.observe(output_tokens.saturating_mul(BYTES_PER_TOKEN));
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (histogram, others) in self.histograms().into_iter().zip(other.clone().histograms()) {
            histogram.add(others);
        }
    }

    fn histograms(&mut self) -> [&mut Histogram; 9] {
        [
            &mut self.input_tokens,
            &mut self.output_tokens,
            &mut self.cached_tokens,
            &mut self.duration,
            &mut self.time_per_output_token,
            &mut self.time_to_first_token,
            &mut self.inter_token_latency,
            &mut self.request_bytes,
            &mut self.response_bytes,
        ]
    }
}

const TOKENS: &[f64] = &[
    1.0,
    8.0,
    16.0,
    32.0,
    64.0,
    128.0,
    256.0,
    512.0,
    1024.0,
    2048.0,
    4096.0,
    8192.0,
    16384.0,
    // Sic.
    32778.0,
    65536.0,
    131_072.0,
    262_144.0,
    524_288.0,
    1_048_576.0,
];
const OUTPUT_TOKENS: &[f64] =
    &[1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0];
const RESPONSE_BYTES: &[f64] = TOKENS.split_at(15).0;
const DURATION: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0, 900.0,
    1200.0, 1800.0, 2700.0, 3600.0,
];
const FIRST_TOKEN: &[f64] = DURATION.split_at(24).0;
const TIME_PER_OUTPUT_TOKEN: &[f64] =
    &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
const BETWEEN_TOKENS: &[f64] =
    &[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0];
const REQUEST_BYTES: &[f64] = &[
    64.0,
    128.0,
    256.0,
    512.0,
    1024.0,
    2048.0,
    4096.0,
    8192.0,
    16384.0,
    32768.0,
    65536.0,
    131_072.0,
    262_144.0,
    524_288.0,
    1_048_576.0,
    2_097_152.0,
    4_194_304.0,
    8_388_608.0,
    16_777_216.0,
    33_554_432.0,
    67_108_864.0,
    134_217_728.0,
    268_435_456.0,
    536_870_912.0,
    1_073_741_824.0,
];
