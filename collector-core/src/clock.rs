// SPDX-License-Identifier: Apache-2.0
//! Time, passed in: a monotonic clock that is cheap to read, and one that tests set by hand.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// A point on the collector's own monotonic clock, in nanoseconds.
///
/// Ticks of one [`Clock`] can be compared; they mean nothing outside the process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(u64);

/// Where clocks start counting. A sample may be older than the machine's last boot, and its tick
/// must still be expressible, so the origin lies some 146 years before the boot.
const ORIGIN: u64 = 1 << 62;

impl Tick {
    /// Before everything.
    pub const MIN: Self = Self(0);
    /// After everything: "never", as a deadline.
    pub const MAX: Self = Self(u64::MAX);

    /// How long before `now` this was; zero when it lies in the future.
    pub fn age(self, now: Self) -> Duration {
        Duration::from_nanos(self.age_in_nanos(now))
    }

    pub(crate) fn age_in_nanos(self, now: Self) -> u64 {
        now.0.saturating_sub(self.0)
    }

    /// How long after `now` this is; zero when it has passed.
    pub fn until(self, now: Self) -> Duration {
        now.age(self)
    }

    /// The nanoseconds, for a cache that keeps ticks in an atomic.
    pub const fn to_nanos(self) -> u64 {
        self.0
    }

    /// The tick that [`to_nanos`](Self::to_nanos) came from.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }
}

/// The nanoseconds of a duration, at most those of 584 years.
pub(crate) fn nanos(duration: Duration) -> u64 {
    let seconds = duration.as_secs().saturating_mul(1_000_000_000);
    seconds.saturating_add(u64::from(duration.subsec_nanos()))
}

impl Add<Duration> for Tick {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

impl Sub<Duration> for Tick {
    type Output = Self;
    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }
}

impl fmt::Debug for Tick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::MIN => f.write_str("Tick(min)"),
            Self::MAX => f.write_str("Tick(max)"),
            Self(nanos) => {
                write!(f, "Tick({:?})", Duration::from_nanos(nanos.saturating_sub(ORIGIN)))
            }
        }
    }
}

/// What time it is. Ages and deadlines come from [`now`](Self::now) alone; [`wall`](Self::wall) is
/// for showing.
pub trait Clock: Send + Sync + 'static {
    /// Now, monotonic: never goes back, whatever happens to the wall clock.
    fn now(&self) -> Tick;

    /// The wall clock, to show a time to people. Never stored, but by a snapshot, whose ages have to
    /// outlive the process, and with a published value, to show when it was sampled. Compared with the timestamps of
    /// servers alone.
    fn wall(&self) -> SystemTime;

    /// Moves the clock forward by the time the machine was suspended, which a monotonic clock does
    /// not count by itself. A collector calls it about once a second while it is read, and in each refresh cycle.
    fn catch_up(&self);
}

/// The machine's clock: `CLOCK_MONOTONIC_COARSE` where there is one.
///
/// A coarse read costs about 4 ns, a precise one 23 to 26 ns; its step of 1 to 10 ms is far below
/// every threshold that ages are compared with. [`catch_up`](Clock::catch_up) adds what
/// `CLOCK_BOOTTIME` counts as suspended, so that everything stored ages by it at once.
///
/// All of them are one clock: a tick of one means the same to another, also after a suspend that only one of
/// them has counted.
#[derive(Clone, Default, Debug)]
#[non_exhaustive]
pub struct SystemClock;

/// How long the machine was suspended, as far as any clock has counted it.
static SUSPENDED: AtomicU64 = AtomicU64::new(0);

/// Simulates a suspend of the machine: the next [`catch_up`](Clock::catch_up) of any `SystemClock` adds this time. For
/// tests of code that creates its own `SystemClock`.
#[cfg(feature = "test-util")]
pub fn simulate_suspend(by: Duration) {
    SIMULATED.fetch_add(nanos(by), Ordering::Relaxed);
}

#[cfg(feature = "test-util")]
static SIMULATED: AtomicU64 = AtomicU64::new(0);

impl SystemClock {
    /// The clock.
    pub fn new() -> Self {
        let clock = Self;
        clock.catch_up();
        clock
    }
}

#[cfg(target_os = "linux")]
mod machine {
    use rustix::time::{ClockId, Timespec, clock_gettime};

    fn nanos(time: Timespec) -> u64 {
        // The kernel gives neither negative seconds nor nanoseconds for these clocks.
        u64::try_from(time.tv_sec).unwrap_or(0).saturating_mul(1_000_000_000)
            + u64::try_from(time.tv_nsec).unwrap_or(0)
    }

    pub(super) fn monotonic() -> u64 {
        nanos(clock_gettime(ClockId::MonotonicCoarse))
    }

    pub(super) fn suspended() -> u64 {
        nanos(clock_gettime(ClockId::Boottime))
            .saturating_sub(nanos(clock_gettime(ClockId::Monotonic)))
    }
}

#[cfg(not(target_os = "linux"))]
mod machine {
    use std::sync::LazyLock;
    use std::time::Instant;

    #[expect(clippy::disallowed_methods, reason = "this is the clock that others are given")]
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);

    pub(super) fn monotonic() -> u64 {
        u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn suspended() -> u64 {
        0
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Tick {
        Tick(ORIGIN + machine::monotonic() + SUSPENDED.load(Ordering::Relaxed))
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock that others are given")]
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn catch_up(&self) {
        // `fetch_max`, because two readings of two clocks jitter by some nanoseconds and the sum
        // must never go back.
        let suspended = machine::suspended();
        #[cfg(feature = "test-util")]
        let suspended = suspended + SIMULATED.load(Ordering::Relaxed);
        SUSPENDED.fetch_max(suspended, Ordering::Relaxed);
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock {
    elapsed: AtomicU64,
}

impl ManualClock {
    /// A clock that stands at its origin.
    pub const fn new() -> Self {
        Self { elapsed: AtomicU64::new(0) }
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.elapsed.fetch_add(nanos(by), Ordering::SeqCst);
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Tick {
        Tick(ORIGIN + self.elapsed.load(Ordering::SeqCst))
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.elapsed.load(Ordering::SeqCst))
    }

    fn catch_up(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_never_goes_back() {
        let clock = SystemClock::new();
        let mut before = clock.now();
        for _ in 0..1000 {
            clock.catch_up();
            let now = clock.now();
            assert!(now >= before);
            before = now;
        }
    }

    #[test]
    fn clocks_agree_after_a_suspend_that_one_has_counted() {
        let (of_backend, of_engine) = (SystemClock::new(), SystemClock::new());
        let sampled = of_backend.now();
        let hour = Duration::from_secs(3600);
        // What `catch_up` of the one finds after an hour of sleep.
        SUSPENDED.fetch_add(nanos(hour), Ordering::Relaxed);
        assert!(sampled.age(of_engine.now()) >= hour);
        let after = of_backend.now();
        assert!(after.age(of_engine.now()) < Duration::from_secs(60));
    }

    #[cfg(feature = "test-util")]
    #[test]
    fn a_simulated_suspend_counts_from_the_next_catch_up() {
        let hour = Duration::from_secs(3600);
        let clock = SystemClock::new();
        let sampled = clock.now();
        simulate_suspend(hour);
        assert!(sampled.age(clock.now()) < hour);
        clock.catch_up();
        assert!(sampled.age(clock.now()) >= hour);
    }

    #[test]
    fn a_sample_older_than_the_clock_keeps_its_age() {
        let clock = ManualClock::new();
        let sampled = clock.now() - Duration::from_secs(3600);
        assert_eq!(sampled.age(clock.now()), Duration::from_secs(3600));
    }

    #[test]
    fn a_tick_in_the_future_has_age_zero() {
        let clock = ManualClock::new();
        let later = clock.now() + Duration::from_secs(1);
        assert_eq!(later.age(clock.now()), Duration::ZERO);
        assert_eq!(later.until(clock.now()), Duration::from_secs(1));
    }
}
