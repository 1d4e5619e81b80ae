//! Orders in which keys are wanted, made with fixed seeds.

use fastrand::Rng;

/// Keys of each trace.
pub(super) const KEYS: usize = 10_000;

/// Variants that the day is about; the rest are asked for in scans.
const ZIPF_KEYS: usize = 8000;
const ZIPF_LENGTH: usize = 500_000;
/// A scan of the rest comes after so many accesses.
const BETWEEN_SCANS: usize = 10_000;

const MINUTES: usize = 24 * 60;
/// Reads of a minute at noon.
const READS: usize = 1000;
/// Minutes between two walks of the autoscaler over all variants.
const RESYNC: usize = 30;

/// Each trace with its name; shorter ones where it has to be quick.
pub(super) fn all(quick: bool) -> [(&'static str, Vec<u32>); 4] {
    let part = if quick { 10 } else { 1 };
    [
        ("Zipf 0.8 with scans", zipf(0.8, ZIPF_LENGTH / part)),
        ("Zipf 1.0 with scans", zipf(1.0, ZIPF_LENGTH / part)),
        ("Zipf 1.2 with scans", zipf(1.2, ZIPF_LENGTH / part)),
        ("a day of reconciles", day(if quick { MINUTES / 6 } else { MINUTES })),
    ]
}

/// Popular keys often and others seldom, and now and then a walk over keys that nobody else wants.
fn zipf(exponent: f64, length: usize) -> Vec<u32> {
    let mut rng = Rng::with_seed(1);
    let popular = Popularity::new(ZIPF_KEYS, exponent, &mut rng);
    let mut trace = Vec::with_capacity(length + length / 4);
    for number in 1..=length {
        trace.push(popular.draw(&mut rng));
        if number % BETWEEN_SCANS == 0 {
            trace.extend((ZIPF_KEYS..KEYS).map(key));
        }
    }
    trace
}

/// An autoscaler that looks at variants as often as they have work: each has its own rush hour, popular ones
/// are looked at often, and every half hour all are walked over.
fn day(minutes: usize) -> Vec<u32> {
    let mut rng = Rng::with_seed(2);
    let popular = Popularity::new(KEYS, 0.9, &mut rng);
    let rush_hours: Vec<f64> = (0..KEYS).map(|_| rng.f64()).collect();
    let mut trace = Vec::new();
    for minute in 0..minutes {
        let time = minute as f64 / MINUTES as f64;
        for _ in 0..READS {
            let variant = popular.draw(&mut rng);
            // Busy around its rush hour, and asleep half a day later.
            let from_rush = (time - rush_hours[variant as usize]) * std::f64::consts::TAU;
            if rng.f64() * 2.0 < 1.0 + from_rush.cos() {
                trace.push(variant);
            }
        }
        if minute % RESYNC == 0 {
            trace.extend((0..KEYS).map(key));
        }
    }
    trace
}

/// The probabilities of Zipf's law, summed up, over keys in an order by chance.
struct Popularity {
    sums: Vec<f64>,
    keys: Vec<u32>,
}

impl Popularity {
    fn new(keys: usize, exponent: f64, rng: &mut Rng) -> Self {
        let mut sum = 0.0;
        let weight = |rank: usize| (rank as f64).powf(-exponent);
        let sums = (1..=keys)
            .map(|rank| {
                sum += weight(rank);
                sum
            })
            .collect();
        let mut keys: Vec<u32> = (0..keys).map(key).collect();
        rng.shuffle(&mut keys);
        Self { sums, keys }
    }

    fn draw(&self, rng: &mut Rng) -> u32 {
        let total = self.sums.last().copied().unwrap_or_default();
        let at = rng.f64() * total;
        let rank = self.sums.partition_point(|sum| *sum <= at);
        self.keys[rank.min(self.keys.len() - 1)]
    }
}

fn key(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_the_same_each_time() {
        assert_eq!(zipf(1.0, 20_000), zipf(1.0, 20_000));
        assert_eq!(day(60), day(60));
    }

    #[test]
    fn the_more_a_law_leans_the_more_the_first_keys_are_wanted() {
        let share_of_most_wanted = |exponent| {
            let mut counts = vec![0; KEYS];
            let trace = zipf(exponent, 9000);
            for key in &trace {
                counts[*key as usize] += 1;
            }
            f64::from(counts.into_iter().max().unwrap_or(0)) / trace.len() as f64
        };
        let (flat, steep) = (share_of_most_wanted(0.8), share_of_most_wanted(1.2));
        // 1 / sum(1/k^0.8) over 8000 keys is 0.04, with 1.2 it is 0.22.
        assert!((0.02..0.06).contains(&flat) && (0.18..0.26).contains(&steep), "{flat} {steep}");
    }

    #[test]
    fn each_half_hour_of_a_day_all_variants_are_wanted() {
        let trace = day(RESYNC + 1);
        let walks = trace.windows(2).filter(|pair| pair[1] == pair[0] + 1).count();
        assert!(walks >= 2 * (KEYS - 1), "{walks}");
    }
}
