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
    // After a start it still holds them, and its estimate of how many came is a good one.
    let mut r = open(&mut flash);
    assert_eq!(held(&mut r, &mut flash), ram.iter().copied().collect());
    assert!((300..=800).contains(&r.offered()), "{}", r.offered());
}

/// However short the starts are, all samples have much the same chance: by eighths of what was offered, over many reservoirs.
#[test]
fn starts_neither_freeze_nor_forget() {
    type Wide = Mock<4096, 4>;
    for (samples, offers, reservoirs) in [(1, 256_u32, 1000), (2, 256, 700), (8, 512, 200), (32, 1024, 50)] {
        for each in [1, 4, 30, offers] {
            let places = Places { samples, bytes: 4, kind: 1 };
            let (mut eighths, mut held) = ([0_u32; 8], 0);
            for seed in 0..reservoirs {
                let mut flash = Wide::new(places.stretch::<Wide>() / 4096, false);
                let stretch = 0..flash.bytes.len() as u32;
                let mut r = FlashReservoir::open(&mut flash, stretch.clone(), places, Seed(seed)).unwrap();
                for n in 0..offers {
                    if n % each == 0 {
                        r = FlashReservoir::open(&mut flash, stretch.clone(), places, Seed(seed)).unwrap();
                    }
                    r.offer(&mut flash, &n.to_le_bytes()).unwrap();
                }
                for place in 0..samples as u32 {
                    let last = r.log().find(&mut flash, None, |k| super::place(k) == place).unwrap().unwrap();
                    let mut n = [0; 4];
                    assert!(r.read(&mut flash, &last, &mut n).unwrap());
                    eighths[(u32::from_le_bytes(n) * 8 / offers) as usize] += 1;
                    held += 1;
                }
            }
            // Each an eighth, within 15 % and four standard deviations.
            let mean = f64::from(held) / 8.0;
            for (n, &e) in eighths.iter().enumerate() {
                let off = (f64::from(e) - mean).abs();
                assert!(
                    off < 0.15 * mean + 4.0 * mean.sqrt(),
                    "{samples} of {offers}, {each} a start, {n}: {eighths:?}"
                );
            }
        }
    }
}

#[test]
fn no_start_replays_what_the_one_before_did() {
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
    // 6 records of 24 + 40 bytes in each half, and three of 24, beside its head.
    assert!(matches!(refused(0..512, PLACES), Some(StoreError::Full { needed: 456, .. })));
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

/// A sample whose bytes were cut short was not kept, also where another start has written its record behind it.
#[test]
fn a_torn_sample_does_not_count() {
    let mut flash = Flash::new(8, false);
    let mut r = open(&mut flash);
    (0..3).for_each(|n| assert_eq!(r.offer(&mut flash, &sample(n)), Ok(true)));
    flash.cut = Some(flash.done + 9);
    assert!(r.offer(&mut flash, &[0xA7; 40]).is_err());
    let mut flash = flash.again();
    let mut r = open(&mut flash);
    assert_eq!((r.len(), held(&mut r, &mut flash).len()), (3, 3));
    let mut r = open(&mut flash);
    assert_eq!(r.len(), 3, "behind the record of a start, too");
    (3..5).for_each(|n| assert_eq!(r.offer(&mut flash, &sample(n)), Ok(true)));
    assert_eq!(held(&mut r, &mut flash).len(), 5);
}

/// A sample counts until the flash has forgotten it.
#[test]
fn clearing_that_fails_forgets_nothing_by_halves() {
    for cut in 0..20 {
        let mut flash = Flash::new(8, false);
        let mut r = open(&mut flash);
        (0..5).for_each(|n| assert_eq!(r.offer(&mut flash, &sample(n)), Ok(true)));
        flash.cut = Some(flash.done + cut);
        let _ = r.clear(&mut flash);
        flash.cut = None;
        let mut all = held(&mut r, &mut flash);
        assert_eq!(all.len(), r.len(), "{cut}");
        if r.is_empty() {
            (10..13).for_each(|n| assert_eq!(r.offer(&mut flash, &sample(n)), Ok(true)));
            all = BTreeSet::from([10, 11, 12]);
        }
        let mut r = open(&mut flash);
        assert_eq!(held(&mut r, &mut flash), all, "{cut}");
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
