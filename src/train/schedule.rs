//! The learning rate over time.

use crate::fixed::Real;

/// What the base learning rate is multiplied by at each step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Schedule {
    /// 1 throughout.
    #[default]
    Constant,
    /// From 0 up to 1 over `warmup` steps, then 1: `get_constant_schedule_with_warmup`.
    Warmup {
        /// Steps until the full rate.
        warmup: u32,
    },
    /// From 0 up to 1 over `warmup` steps, then down to 0 at step `total`: `get_linear_schedule_with_warmup`.
    Linear {
        /// Steps until the full rate.
        warmup: u32,
        /// Steps in all.
        total: u32,
    },
}

impl Schedule {
    /// The factor at step `number`, 1 for the first (as in PyTorch, where the first step sees the factor of step 0).
    #[must_use]
    pub fn factor(self, number: u32) -> Real {
        let done = number.saturating_sub(1);
        let part = |n: u32, d: u32| Real::ratio(n.min(i32::MAX as u32) as i32, d.max(1));
        match self {
            Schedule::Constant => Real::ONE,
            Schedule::Warmup { warmup } | Schedule::Linear { warmup, .. } if done < warmup => part(done, warmup),
            Schedule::Warmup { .. } => Real::ONE,
            Schedule::Linear { warmup, total } => part(total.saturating_sub(done), total.saturating_sub(warmup)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_transformers() {
        let linear = Schedule::Linear { warmup: 2, total: 6 };
        let factors: std::vec::Vec<i32> = (1..=8).map(|n| linear.factor(n).to_q(8)).collect();
        assert_eq!(factors, [0, 128, 256, 192, 128, 64, 0, 0]);
        assert_eq!(Schedule::Warmup { warmup: 4 }.factor(2).to_q(8), 64);
        assert_eq!(Schedule::Warmup { warmup: 4 }.factor(9), Real::ONE);
        assert_eq!(Schedule::Constant.factor(1), Real::ONE);
    }
}
