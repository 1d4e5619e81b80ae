//! Ttls for all models within one budget of looks.
//!
//! A model of volatility c (see [`Volatility`](super::Volatility)) with the ttl T is off by c * sqrt(T) at
//! its end and by 2/3 of that on average. The sum over the models, under a fixed sum of looks 1/T, is least
//! where one look more would save as much at each (Lagrange): where c * T^1.5 is the same, looks in
//! proportion to c^(2/3). Ttls come in steps that double, so that models still share batches. Halving one
//! saves in proportion to c * sqrt(T) and costs 1/T looks a second, so the best halving is that with the
//! greatest c * T^1.5; they are made in this order until the budget is used up, which is the optimum,
//! because each halving of a model is worth less than the one before.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

/// An error that no decision depends on, as a share: what would be off by less at the end of its ttl is
/// not looked at sooner, however much of the budget is left.
const NEGLIGIBLE: f64 = 0.01;

/// What a ttl that a model has now counts for more than one it would be new to: without it, two models
/// of nearly the same volatility would change places at every look. A step
/// is a factor of 2^1.5; this is a little more.
const HELD: f64 = 3.0;

/// The ttls that there are: `base`, doubled and halved as often as lies between two bounds.
#[derive(Clone, PartialEq, Debug)]
pub struct Steps(Vec<Duration>);

/// What is asked for one model.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Need {
    /// A share per root of a second.
    pub volatility: f64,
    /// The ttl that the model has; `None` for one that is new.
    pub held: Option<Duration>,
}

impl Steps {
    /// The steps around `base` from `min` to `max`; `base` alone is always one.
    pub fn new(base: Duration, min: Duration, max: Duration) -> Self {
        let mut steps = vec![base];
        let mut shorter = base / 2;
        while shorter >= min && !shorter.is_zero() {
            steps.insert(0, shorter);
            shorter /= 2;
        }
        let mut longer = base.saturating_mul(2);
        while longer <= max && longer > base {
            steps.push(longer);
            longer = longer.saturating_mul(2);
        }
        Self(steps)
    }

    /// The shortest ttl: how often it is looked which models are due.
    pub fn shortest(&self) -> Duration {
        self.0[0]
    }

    /// The longest ttl.
    pub fn longest(&self) -> Duration {
        self.0[self.0.len() - 1]
    }

    /// The ttl of each model, in their order, such that all of them together make at most `budget` looks
    /// a second, or as few as there can be.
    pub fn allocate(&self, needs: &[Need], budget: f64) -> Vec<Duration> {
        let longest = self.0.len() - 1;
        let mut places = vec![longest; needs.len()];
        let mut spent = needs.len() as f64 / self.longest().as_secs_f64();
        let mut halvings: BinaryHeap<Halving> = (0..needs.len())
            .filter_map(|model| self.halving(model, &needs[model], longest))
            .collect();
        // The first that does not fit ends it: a smaller one behind it would jump the queue.
        while let Some(Halving { model, .. }) = halvings.pop() {
            let place = places[model];
            let more = 1.0 / self.0[place - 1].as_secs_f64() - 1.0 / self.0[place].as_secs_f64();
            // Sums of quotients are a little off.
            if spent + more > budget * (1.0 + 1e-9) {
                break;
            }
            spent += more;
            places[model] = place - 1;
            halvings.extend(self.halving(model, &needs[model], place - 1));
        }
        places.into_iter().map(|place| self.0[place]).collect()
    }

    /// What going from a step to the next shorter one is worth; `None` when it is worth nothing.
    fn halving(&self, model: usize, need: &Need, place: usize) -> Option<Halving> {
        let ttl = self.0[place].as_secs_f64();
        let shorter = self.0[place.checked_sub(1)?];
        let held = if need.held.is_some_and(|held| held <= shorter) { HELD } else { 1.0 };
        let error = need.volatility * ttl.sqrt() * held;
        (error > NEGLIGIBLE).then_some(Halving { worth: error * ttl, model })
    }
}

struct Halving {
    worth: f64,
    model: usize,
}

impl Ord for Halving {
    fn cmp(&self, other: &Self) -> Ordering {
        self.worth.total_cmp(&other.worth).then_with(|| other.model.cmp(&self.model))
    }
}

impl PartialOrd for Halving {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Halving {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Halving {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn steps() -> Steps {
        Steps::new(secs(32), secs(8), secs(128))
    }

    fn need(volatility: f64) -> Need {
        Need { volatility, held: None }
    }

    fn looks(ttls: &[Duration]) -> f64 {
        ttls.iter().map(|ttl| 1.0 / ttl.as_secs_f64()).sum()
    }

    #[test]
    fn steps_double_and_halve_the_base_within_the_bounds() {
        assert_eq!(steps(), Steps([8, 16, 32, 64, 128].map(secs).to_vec()));
        let odd = Steps::new(secs(30), secs(10), secs(90));
        assert_eq!(odd, Steps([15, 30, 60].map(secs).to_vec()));
        assert_eq!(Steps::new(secs(30), secs(30), secs(30)), Steps(vec![secs(30)]));
    }

    #[test]
    fn idle_models_leave_their_looks_to_the_one_that_moves() {
        let ttls = steps().allocate(&[need(0.0), need(0.0), need(0.02), need(0.0)], 4.0 / 32.0);
        assert_eq!(ttls, [128, 128, 16, 128].map(secs));
    }

    #[test]
    fn models_that_move_alike_get_what_all_had_before() {
        assert_eq!(steps().allocate(&[need(0.02); 5], 5.0 / 32.0), [secs(32); 5]);
    }

    #[test]
    fn what_hardly_moves_is_not_looked_at_because_there_is_time() {
        assert_eq!(steps().allocate(&[need(0.0005)], 10.0), [secs(128)]);
    }

    #[test]
    fn without_a_budget_everything_is_looked_at_as_rarely_as_may_be() {
        assert_eq!(steps().allocate(&[need(1.0), need(0.1)], 0.0), [secs(128); 2]);
    }

    #[test]
    fn a_little_more_volatility_does_not_take_a_ttl_away() {
        let held = |volatility, ttl| Need { volatility, held: Some(secs(ttl)) };
        let budget = 1.0 / 16.0 + 1.0 / 32.0;
        assert_eq!(steps().allocate(&[need(0.01), need(0.02)], budget), [32, 16].map(secs));
        let kept = steps().allocate(&[held(0.01, 16), held(0.02, 32)], budget);
        assert_eq!(kept, [16, 32].map(secs));
        let taken = steps().allocate(&[held(0.01, 16), held(0.04, 32)], budget);
        assert_eq!(taken, [32, 16].map(secs));
    }

    proptest! {
        #[test]
        fn ttls_are_steps_within_the_budget_and_shorter_for_what_moves_more(
            volatilities in proptest::collection::vec(0.0_f64..1.0, 1..60),
            interval in 8_u64..128,
        ) {
            let steps = steps();
            let needs: Vec<Need> = volatilities.iter().map(|volatility| need(*volatility)).collect();
            let budget = needs.len() as f64 / secs(interval).as_secs_f64();
            let ttls = steps.allocate(&needs, budget);

            prop_assert_eq!(ttls.len(), needs.len());
            prop_assert!(ttls.iter().all(|ttl| steps.0.contains(ttl)));
            prop_assert!(looks(&ttls) <= budget * 1.000_001, "{} of {budget}", looks(&ttls));
            for (need, ttl) in needs.iter().zip(&ttls) {
                for (other, other_ttl) in needs.iter().zip(&ttls) {
                    prop_assert!(need.volatility <= other.volatility || ttl <= other_ttl);
                }
            }
        }

        #[test]
        fn no_other_ttls_within_the_budget_are_less_wrong(
            volatilities in proptest::array::uniform3(0.01_f64..0.2),
            interval in 8_u64..128,
        ) {
            let steps = steps();
            let needs = volatilities.map(need);
            let wrong = |ttls: &[Duration]| -> f64 {
                let each = volatilities.iter().zip(ttls);
                each.map(|(volatility, ttl)| volatility * ttl.as_secs_f64().sqrt()).sum()
            };
            let given = steps.allocate(&needs, 3.0 / interval as f64);
            // Within what was given out: a budget that no step fits into is left over.
            let spent = looks(&given) + 1e-9;
            for a in &steps.0 {
                for b in &steps.0 {
                    for c in &steps.0 {
                        let others = [*a, *b, *c];
                        prop_assert!(looks(&others) > spent || wrong(&others) >= wrong(&given) - 1e-9);
                    }
                }
            }
        }
    }
}
