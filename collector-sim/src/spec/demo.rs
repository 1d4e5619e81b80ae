// SPDX-License-Identifier: Apache-2.0
//! The fleet of `collector demo`.

use std::time::Duration;

use super::{EngineSpec, FleetSpec, VariantSpec};
use crate::load::{Arrivals, Load, Variation};
use crate::shape::Shape;

impl FleetSpec {
    /// Three models on 24 pods under a load in waves: one with room, one busy, one that queues when its wave
    /// is high.
    pub fn demo() -> Self {
        let engine = |num_gpu_blocks, max_num_seqs| EngineSpec {
            max_num_seqs,
            num_gpu_blocks,
            ..EngineSpec::default()
        };
        // Different periods, so that no two models stay high at the same time.
        let wave = |seconds| Shape::Wave { period: Duration::from_secs(seconds), low: 0.35 };
        let load = |requests_per_minute, shape, prompt_tokens, output_tokens, ttft, itl| Load {
            requests_per_minute,
            shape,
            prompt_tokens,
            output_tokens,
            ttft: Duration::from_millis(ttft),
            itl: Duration::from_millis(itl),
            arrivals: Arrivals::Poisson,
            variation: Variation::Spread,
            ..Load::default()
        };
        let variant = |name, model, namespace, engine, load| VariantSpec {
            pods: 8,
            engine,
            load,
            ..VariantSpec::new(name, model, namespace)
        };
        Self {
            seed: 1,
            warm_up: Duration::from_secs(300),
            variants: vec![
                variant(
                    "llama-8b",
                    "meta-llama/Llama-3.1-8B-Instruct",
                    "chat",
                    engine(4_000, 64),
                    load(2_600.0, wave(90), 600, 200, 70, 18),
                ),
                variant(
                    "llama-70b",
                    "meta-llama/Llama-3.3-70B-Instruct",
                    "chat",
                    engine(3_000, 32),
                    load(800.0, wave(120), 1_500, 350, 350, 42),
                ),
                variant(
                    "qwen-coder",
                    "Qwen/Qwen3-Coder-30B-A3B-Instruct",
                    "code",
                    engine(6_000, 24),
                    load(720.0, wave(150), 3_500, 500, 450, 38),
                ),
            ],
            ..Self::default()
        }
    }
}
