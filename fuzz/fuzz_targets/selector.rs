// SPDX-License-Identifier: Apache-2.0
//! Label selectors: any text is read or refused at once, and what is read has the same meaning in the words of its
//! requirements.

#![no_main]

use collector_external_metrics::{label_of, parse_selector};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    match parse_selector(&text) {
        Ok(requirements) => {
            let again: Vec<_> = requirements.iter().map(ToString::to_string).collect();
            assert_eq!(parse_selector(&again.join(",")), Ok(requirements));
        }
        Err(text) => assert!(!text.is_empty() && text.len() < 4096),
    }
    let label = label_of(&text);
    assert!(label.len() <= 63 && label_of(&label) == label);
});
