use super::*;
use crate::store::mock::{Mock, PowerLoss};
use crate::train::Reservoir;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::vec;
use std::vec::Vec;

type Flash = Mock<256, 4>;
const PLACES: Places = Places { samples: 5, bytes: 40, kind: 3 };

fn open(flash: &mut Flash) -> FlashReservoir {
    FlashReservoir::open(flash, 0..2048, PLACES, Seed(11)).unwrap()
}

/// Sample number n: of another length each.
fn sample(n: u32) -> Vec<u8> {
    let mut bytes = vec![n as u8; 4 + n as usize % 30];
    bytes[..4].copy_from_slice(&n.to_le_bytes());
    bytes
}

fn held(r: &mut FlashReservoir, flash: &mut Flash) -> BTreeSet<u32> {
    let mut all = BTreeSet::new();
    for _ in 0..200 {
        let mut to = [0; 40];
        let Some(len) = r.replay(flash, &mut to).unwrap() else { break };
        let n = u32::from_le_bytes(*to.first_chunk().unwrap());
        assert_eq!(to[..len], sample(n), "whole and unchanged");
        all.insert(n);
    }
    all
}

/// In its first start, the same samples as in RAM, with the same seed; and wears as little as is said.
#[test]
fn holds_what_a_reservoir_in_ram_holds() {
    let mut flash = Flash::new(8, true);
    let mut r = open(&mut flash);
    let mut ram: Reservoir<u32, 5> = Reservoir::new(Seed(11));
    assert_eq!((held(&mut r, &mut flash), flash.done), (BTreeSet::new(), 0));
    let mut kept = 0;
    for n in 0..500 {
        ram.offer(n);
        kept += usize::from(r.offer(&mut flash, &sample(n)).unwrap());
    }
    assert_eq!(held(&mut r, &mut flash), ram.iter().copied().collect());
    assert!((20..=45).contains(&kept), "5 (1 + ln 100) = 28: {kept}");
    assert!(flash.erased < 40);
    // After a start it still holds them, and its estimate of how many came is within a factor.
    let mut r = open(&mut flash);
    assert_eq!(held(&mut r, &mut flash), ram.iter().copied().collect());
    assert!((200..=500).contains(&r.offered()), "{}", r.offered());
}

/// However short the starts are, all samples have much the same chance: early and late ones, over many reservoirs. And no start
/// replays what the one before did.
#[test]
fn starts_neither_freeze_nor_forget() {
    let (mut early, mut late, mut kept) = (0, 0, 0);
    for seed in 0..150 {
        let mut flash = Flash::new(8, false);
        let reopened = |flash: &mut Flash| FlashReservoir::open(flash, 0..2048, PLACES, Seed(seed)).unwrap();
        let mut n = 0;
        for _ in 0..40 {
            let mut r = reopened(&mut flash);
            for _ in 0..10 {
                kept += usize::from(r.offer(&mut flash, &sample(n)).unwrap());
                n += 1;
            }
        }
        let mut r = reopened(&mut flash);
        for held in held(&mut r, &mut flash) {
            early += i32::from(held < 200);
            late += i32::from(held >= 200);
        }
    }
    // 750 samples, halved: 375, and a deviation of 14 were they independent; estimated counts make it some more.
    assert_eq!(early + late, 750);
    assert!((280..470).contains(&late), "{early} early, {late} late");
    // 150 * 5 (1 + ln 80) = 4036.
    assert!((3400..4800).contains(&kept), "{kept}");

    let mut flash = Flash::new(8, false);
    let mut r = open(&mut flash);
    (0..5).for_each(|n| assert_eq!(r.offer(&mut flash, &sample(n)), Ok(true)));
    let mut first = vec![];
    for _ in 0..20 {
        let (mut r, mut to) = (open(&mut flash), [0; 40]);
        r.replay(&mut flash, &mut to).unwrap();
        first.push(to[0]);
    }
    assert!(BTreeSet::from_iter(first).len() > 3, "every start begins elsewhere");
}

#[test]
fn what_does_not_fit_is_refused() {
    let refused = |range, places| FlashReservoir::open(&mut Flash::new(8, false), range, places, Seed(1)).err();
    // 6 records of 24 + 40 bytes in each half, and two of 24, beside its head.
    assert!(matches!(refused(0..512, PLACES), Some(StoreError::Full { needed: 432, .. })));
    assert!(matches!(refused(0..4096, PLACES), Some(StoreError::Stretch { .. })));
    assert!(matches!(refused(256..256, PLACES), Some(StoreError::Stretch { .. })));
    for huge in [Places { samples: usize::MAX, ..PLACES }, Places { bytes: usize::MAX, ..PLACES }] {
        assert!(matches!(refused(0..2048, huge), Some(StoreError::Full { .. })));
    }
    // What is said to be enough is.
    for samples in [0, 1, 5, 30] {
        let places = Places { samples, ..PLACES };
        let mut flash = Flash::new(places.stretch::<Flash>() / 256, false);
        let stretch = 0..places.stretch::<Flash>() as u32;
        let mut r = FlashReservoir::open(&mut flash, stretch, places, Seed(1)).unwrap();
        (0..200).for_each(|n| assert!(r.offer(&mut flash, &[n as u8; 40]).is_ok()));
    }
    let mut flash = Flash::new(8, false);
    let mut r = open(&mut flash);
    assert_eq!(r.offer(&mut flash, &[0; 41]), Err(StoreError::Length { found: 41, most: 40 }));
    assert_eq!((r.offered(), r.replay(&mut flash, &mut [])), (0, Ok(None)));
    r.offer(&mut flash, &sample(9)).unwrap();
    assert_eq!(r.replay(&mut flash, &mut [0; 3]), Err(StoreError::Length { found: 13, most: 3 }));
    r.clear(&mut flash).unwrap();
    assert_eq!((r.len(), held(&mut r, &mut flash)), (0, BTreeSet::new()));
    // With other places: as if there were nothing.
    r.offer(&mut flash, &sample(9)).unwrap();
    for other in [Places { kind: 4, ..PLACES }, Places { samples: 6, ..PLACES }, Places { bytes: 39, ..PLACES }] {
        assert!(FlashReservoir::open(&mut flash, 0..2048, other, Seed(1)).unwrap().is_empty());
    }
    assert_eq!(open(&mut flash).len(), 1);
}

#[test]
fn what_is_damaged_is_passed_over() {
    let mut flash = Flash::new(8, false);
    let mut r = open(&mut flash);
    (0..5).for_each(|n| assert_eq!(r.offer(&mut flash, &sample(n)), Ok(true)));
    // A bit of the second sample's bytes.
    let at = flash.bytes.windows(5).position(|w| w == [1, 0, 0, 0, 1]).unwrap();
    let at = at + flash.bytes[at + 5..].windows(5).position(|w| w == [1, 0, 0, 0, 1]).map_or(0, |n| n + 5);
    flash.bytes[at] ^= 0x10;
    let mut r = open(&mut flash);
    assert_eq!(held(&mut r, &mut flash), BTreeSet::from([0, 2, 3, 4]));
}

/// A flash that fails once and works again: the sample does not count, and nothing that was held is lost.
#[test]
fn an_error_costs_one_sample() {
    for cut in 0..40 {
        let mut flash = Flash::new(8, false);
        let mut r = open(&mut flash);
        (0..3).for_each(|n| assert_eq!(r.offer(&mut flash, &sample(n)), Ok(true)));
        flash.cut = Some(flash.done + cut);
        let failed = r.offer(&mut flash, &sample(3));
        flash.cut = None;
        if failed.is_ok() {
            break;
        }
        assert_eq!((failed, r.offered()), (Err(StoreError::Flash(PowerLoss)), 3));
        (4..6).for_each(|n| assert_eq!(r.offer(&mut flash, &sample(n)), Ok(true), "{cut}"));
        assert_eq!(held(&mut r, &mut flash), BTreeSet::from([0, 1, 2, 4, 5]), "{cut}");
    }
}

/// An error at any moment, in the midst of moving over, too: whatever is acknowledged afterwards is there after a start.
#[test]
fn errors_lose_nothing_that_was_acknowledged() {
    for cut in 0..700 {
        let mut flash = Flash::new(8, false);
        let mut r = open(&mut flash);
        flash.cut = Some(cut);
        let mut held_now = [None; 5];
        for n in 0..150 {
            let before = r.draw;
            match r.offer(&mut flash, &sample(n)) {
                Ok(true) => held_now[before.place(5).unwrap()] = Some(n),
                Ok(false) => {}
                Err(_) => flash.cut = None,
            }
        }
        flash.cut = None;
        let found = held(&mut open(&mut flash), &mut flash);
        assert_eq!(found, held_now.iter().flatten().copied().collect(), "{cut}");
    }
}

/// A sample counts until the flash has forgotten it.
#[test]
fn clearing_that_fails_forgets_nothing_by_halves() {
    for cut in 0..20 {
        let mut flash = Flash::new(8, false);
        let mut r = open(&mut flash);
        (0..5).for_each(|n| assert_eq!(r.offer(&mut flash, &sample(n)), Ok(true)));
        flash.cut = Some(flash.done + cut);
        let cleared = r.clear(&mut flash).is_ok();
        flash.cut = None;
        assert_eq!(r.is_empty(), cleared);
        let found = held(&mut open(&mut flash), &mut flash);
        assert!(found.is_empty() || !cleared && found.len() == 5, "{cut} {found:?}");
    }
}

proptest! {
    /// Power goes anywhere, in the midst of moving over, too: what is held then is what was held before or after, and it goes on.
    #[test]
    fn a_power_loss_loses_nothing(cut in 0_usize..2500, dirty: bool) {
        let mut flash = Flash::new(8, dirty);
        let mut r = open(&mut flash);
        flash.cut = Some(cut);
        let (mut before, mut after) = (BTreeSet::new(), BTreeSet::new());
        let mut ram: Reservoir<u32, 5> = Reservoir::new(Seed(11));
        for n in 0..500 {
            let lost = r.offer(&mut flash, &sample(n)).is_err();
            ram.offer(n);
            after = ram.iter().copied().collect();
            if lost {
                break;
            }
            before.clone_from(&after);
        }
        let mut flash = flash.again();
        let mut r = open(&mut flash);
        let found = held(&mut r, &mut flash);
        prop_assert!(found == before || found == after, "{found:?} {before:?} {after:?}");
        for n in 1000..1100 {
            r.offer(&mut flash, &sample(n)).unwrap();
        }
        prop_assert_eq!(held(&mut r, &mut flash).len(), 5);
    }

    /// Several in a row: it always goes on, with what it held.
    #[test]
    fn power_losses_in_a_row(cuts in prop::collection::vec(0_usize..300, 1..8)) {
        let mut flash = Flash::new(8, true);
        let mut n = 0;
        let mut last = BTreeSet::new();
        for cut in cuts {
            let mut r = open(&mut flash);
            flash.cut = Some(flash.done + cut);
            while r.offer(&mut flash, &sample(n)).is_ok() && n < 5000 {
                n += 1;
            }
            n += 1;
            flash = flash.again();
            let found = held(&mut open(&mut flash), &mut flash);
            prop_assert!(found.len() >= last.len().min(5), "{found:?} {last:?}");
            last = found;
        }
    }
}
