//! The convergence study in short: two seeds, the first steps, and where they end. In full:
//! `cargo run --release -p ranklet-host-tests --bin convergence -- --check`.

use ranklet_host_tests::convergence::chapter::{rows, style};
use ranklet_host_tests::convergence::digits::Digits;
use ranklet_host_tests::convergence::run::{Settings, Task, name};
use ranklet_host_tests::convergence::sequences::Sequences;
use ranklet_host_tests::convergence::study::{COMPARED, Trial, settings};

/// `least`: what must at least become of a loss, or too little is learned to compare anything.
fn the_first_steps_are_those_of_f32<K: Task>(task: &K, settings: [Settings; 2], steps: usize, least: f64) {
    for s in settings {
        let s = Settings { steps, ..s };
        for seed in 0..2 {
            let t = Trial::new(task, &s, seed, 1);
            let name = name(&s.rule);
            let mean = |l: &[f64]| l.iter().sum::<f64>() / l.len() as f64;
            let (first, last) = (mean(&t.fixed.losses[..3]), mean(&t.fixed.losses[steps - 3..]));
            assert!(last < least * first, "{name}: {first} became {last}");
            let difference = t.step_difference(&t.fixed);
            assert!(difference <= s.claim, "{name}, seed {seed}: {difference}");
            let [loss, held_out, ..] = t.fixed.finals;
            let [loss32, held_out32, ..] = t.floats[0].finals;
            assert!((loss / loss32 - 1.0).abs() < s.claim, "{name}, seed {seed}: {loss} beside {loss32}");
            assert!((held_out / held_out32 - 1.0).abs() < s.claim, "{name}: {held_out} beside {held_out32}");
            // The measure can see a difference: another start is another training.
            let other = Trial::new(task, &s, seed + 100, 0);
            assert!(t.step_difference(&other.fixed) > 5.0 * s.claim);
        }
    }
}

#[test]
fn a_perceptron_learns_as_in_f32() {
    the_first_steps_are_those_of_f32(&Digits::turned(), settings(), COMPARED, 1.0 / 3.0);
}

#[test]
fn an_encoder_learns_as_in_f32() {
    let mut task = Sequences::rows();
    task.held_out.truncate(40);
    the_first_steps_are_those_of_f32(&task, rows(), 20, 0.7);
}

#[test]
fn a_language_model_learns_as_in_f32() {
    let mut task = Sequences::style(32);
    task.train.truncate(16);
    task.held_out.truncate(8);
    the_first_steps_are_those_of_f32(&task, style(), 6, 0.998);
}
