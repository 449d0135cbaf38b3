//! Figures that the documents quote and a plan tells: `docs/training.md`, and the memory in `docs/experiments.md`.

use ranklet::model::{Plan, Roles, Train};

fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|g| std::str::from_utf8(g).expect("digits")).collect();
    groups.join(",")
}

/// The table of memory is what plans say; the rows behind it add up.
#[test]
fn the_memory_of_training_is_what_the_plan_says() {
    static BASE: ranklet::Image = ranklet::include_image!("../../models/story/story.rkl");
    let document = include_str!("../../docs/training.md");
    let base = Train::adamw().rank(4).on(Roles::Q | Roles::V);
    let rows = [
        ("| batches by accumulation", base),
        ("| … the inputs of every second block kept", base.lean()),
        ("| a step after every sample, block by block", base.immediate()),
        ("| … lean", base.immediate().lean()),
        ("| … and B alone learns", base.immediate().lean().only_b()),
    ];
    let bytes = |train, tokens| Plan::new(&BASE).expect("a plan").tokens(tokens).train(train).bytes();
    for (begins, train) in rows {
        let ends = format!("| {} | {} |", thousands(bytes(train, 32)), thousands(bytes(train, 64)));
        let found = document.lines().find(|line| line.starts_with(begins)).expect("a row");
        assert!(found.ends_with(&ends), "{found}\nthe plan says {ends}");
    }
    let behind = document.split("| bytes | of |").nth(1).expect("what each byte holds");
    let number = |line: &str| line.split('|').nth(1)?.trim().replace(',', "").parse::<usize>().ok();
    let sum: usize = behind.lines().skip(2).map_while(number).sum();
    assert_eq!(sum, bytes(base.immediate().lean(), 32), "what each byte holds adds up to the plan");
}

/// Experiments take minutes; the memory they tell of is known at once.
#[test]
fn the_memory_of_experiments_is_what_the_plan_says() {
    static STORY: ranklet::Image = ranklet::include_image!("../../models/story/story.rkl");
    let document = include_str!("../../docs/experiments.md");
    let style = |train| Plan::new(&STORY).expect("a plan").tokens(32).train(train).bytes();
    let rows = [
        format!(
            "| pairs of rank 4 on queries and values | 4480 | {} |",
            style(Train::adamw().rank(4).on(Roles::Q | Roles::V))
        ),
        format!("| pairs of rank 8 on all linear layers | 50848 | {} |", style(Train::adamw().rank(8))),
    ];
    for row in rows {
        assert!(document.lines().any(|line| line.starts_with(&row)), "{row}: run `cargo xtask experiment style`");
    }
}
