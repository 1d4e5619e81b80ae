// SPDX-License-Identifier: Apache-2.0
//! What a push stream sends, and when.

use std::time::Duration;

/// How often a stream repeats that the ScaledObject is active: KEDA drops a message if the metric is not in the
/// object's status yet.
const REPEAT_AFTER: Duration = Duration::from_secs(30);

/// The activity of one ScaledObject as its stream has reported it.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Activity {
    /// The last message, and the time since the stream was opened.
    sent: Option<(bool, Duration)>,
}

impl Activity {
    /// Returns the message to send, given the activity at a time since the stream was opened; `None` if it is
    /// unknown.
    ///
    /// Unknown is silence, not `false`: what was sent last still holds.
    pub(crate) fn next(&mut self, active: Option<bool>, at: Duration) -> Option<bool> {
        let active = active?;
        let due = match self.sent {
            None => active,
            Some((before, _)) if before != active => true,
            Some((_, since)) => active && at.saturating_sub(since) >= REPEAT_AFTER,
        };
        due.then(|| {
            self.sent = Some((active, at));
            active
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is sent at each second, given the activity in turn.
    fn sent(known: &[(u64, Option<bool>)]) -> Vec<(u64, bool)> {
        let mut activity = Activity::default();
        let step = |(second, active): &(u64, Option<bool>)| {
            Some((*second, activity.next(*active, Duration::from_secs(*second))?))
        };
        known.iter().filter_map(step).collect()
    }

    #[test]
    fn only_active_is_sent_at_the_opening() {
        assert_eq!(sent(&[(0, Some(true))]), [(0, true)]);
        assert_eq!(sent(&[(0, Some(false)), (60, Some(false))]), []);
        assert_eq!(sent(&[(0, None), (1, None), (2, Some(true))]), [(2, true)]);
    }

    #[test]
    fn a_change_is_sent_at_once_and_active_again_after_30_seconds() {
        let known: Vec<_> = (0..=61).map(|second| (second, Some(true))).collect();
        assert_eq!(sent(&known), [(0, true), (30, true), (60, true)]);
        let known = [(0, Some(true)), (1, Some(false)), (2, Some(false)), (3, Some(true))];
        assert_eq!(sent(&known), [(0, true), (1, false), (3, true)]);
    }

    #[test]
    fn nothing_is_sent_while_the_activity_is_unknown() {
        let known = [(0, Some(true)), (31, None), (32, Some(true)), (33, None), (34, Some(false))];
        assert_eq!(sent(&known), [(0, true), (32, true), (34, false)]);
    }
}
