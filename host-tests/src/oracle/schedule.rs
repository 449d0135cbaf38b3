//! The learning rate over time, as `transformers.get_*_schedule*` has it.

/// What the learning rate is multiplied by.
#[derive(Clone, Copy, Debug, Default)]
pub enum Schedule {
    /// 1.
    #[default]
    Constant,
    /// `get_constant_schedule_with_warmup`.
    Warmup(u32),
    /// `get_linear_schedule_with_warmup`: (warm-up, total).
    Linear(u32, u32),
}

impl Schedule {
    /// At step `number`, 1 for the first.
    #[must_use]
    pub fn factor(self, number: u32) -> f64 {
        let current = f64::from(number - 1);
        let up = |warmup: u32| current / f64::from(warmup.max(1));
        match self {
            Schedule::Warmup(warmup) | Schedule::Linear(warmup, _) if current < f64::from(warmup) => up(warmup),
            Schedule::Constant | Schedule::Warmup(_) => 1.0,
            Schedule::Linear(warmup, total) => {
                ((f64::from(total) - current) / f64::from(total.saturating_sub(warmup).max(1))).max(0.0)
            }
        }
    }
}
