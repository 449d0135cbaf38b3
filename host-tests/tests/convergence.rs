//! The convergence study in short: two seeds, the first steps, and where they end. In full:
//! `cargo run --release -p ranklet-host-tests --bin convergence -- --check`.

use ranklet_host_tests::convergence::digits::Digits;
use ranklet_host_tests::convergence::run::{Settings, name};
use ranklet_host_tests::convergence::study::{COMPARED, STEP_CLAIM, Trial, settings};

#[test]
fn the_first_steps_are_those_of_f32() {
    let task = Digits::turned();
    for s in settings() {
        let s = Settings { steps: COMPARED, ..s };
        for seed in 0..2 {
            let t = Trial::new(&task, &s, seed, 1);
            let name = name(&s.rule);
            let (first, last) = (t.fixed.losses[0], t.fixed.losses[COMPARED - 1]);
            assert!(last < first / 3.0, "{name}: {first} became {last}: too little is learned to compare anything");
            let difference = t.step_difference(&t.fixed);
            assert!(difference <= STEP_CLAIM, "{name}, seed {seed}: {difference}");
            let [loss, held_out, ..] = t.fixed.finals;
            let [loss32, held_out32, ..] = t.floats[0].finals;
            assert!((loss / loss32 - 1.0).abs() < STEP_CLAIM, "{name}, seed {seed}: {loss} beside {loss32}");
            assert!((held_out / held_out32 - 1.0).abs() < STEP_CLAIM, "{name}: {held_out} beside {held_out32}");
            // The measure can see a difference: another start is another training.
            let other = Trial::new(&task, &s, seed + 100, 0);
            assert!(t.step_difference(&other.fixed) > 20.0 * STEP_CLAIM);
        }
    }
}
