// SPDX-License-Identifier: Apache-2.0
//! The vocabulary from outside: what its words, counts and arithmetic promise.

mod answers;
mod bytes;
mod durations;
mod keys;
mod latencies;
mod nearest;
mod readings;
mod records;
mod rows;
mod time;
mod words;
