// SPDX-License-Identifier: Apache-2.0
//! Why a model cannot be refreshed as often, or as rarely, as a caller wants.

use std::time::Duration;

use crate::duration;

/// An interval of a model's own that cannot work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IntervalError {
    /// A fetch may take longer than that, so that cycles would overrun all the time.
    #[error(
        "a fetch interval of {} is too short, because one request may take {}: set it to {} or more",
        duration::format(*.interval), duration::format(*.timeout),
        duration::format((*.timeout * 2).max(Duration::from_secs(1)))
    )]
    TooShort {
        /// The interval.
        interval: Duration,
        /// The greatest time-out of the backends that are asked; it must be above that.
        timeout: Duration,
    },
    /// The value would be unavailable before it is refreshed.
    #[error(
        "a fetch interval of {} is too long, because a reading is unavailable after {}: set it to {} or less",
        duration::format(*.interval), duration::format(*.unavailable_threshold),
        duration::format(*.unavailable_threshold / 2)
    )]
    TooLong {
        /// The interval.
        interval: Duration,
        /// It must be below that.
        unavailable_threshold: Duration,
    },
    /// As many models have an interval of their own as may be tracked.
    #[error(
        "{limit} models have a fetch interval of their own already, which is the limit: take some \
         back, or raise server.max_tracked"
    )]
    TooMany {
        /// The limit.
        limit: usize,
    },
}
