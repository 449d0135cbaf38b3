use super::*;
use crate::store::mock::Mock;
use crate::train::Reservoir;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::vec;
use std::vec::Vec;

type Flash = Mock<256, 4>;
const PLACES: Places = Places { samples: 5, bytes: 40, kind: 3 };

fn open(flash: Flash) -> FlashReservoir<Flash> {
    FlashReservoir::open(flash, 0..2048, PLACES, Seed(11)).unwrap()
}

/// Sample number n: of another length each.
fn sample(n: u32) -> Vec<u8> {
    let mut bytes = vec![n as u8; 4 + n as usize % 30];
    bytes[..4].copy_from_slice(&n.to_le_bytes());
    bytes
}

fn held(r: &mut FlashReservoir<Flash>) -> BTreeSet<u32> {
    let mut all = BTreeSet::new();
    for _ in 0..200 {
        let mut to = [0; 40];
        let Some(len) = r.replay(&mut to).unwrap() else { break };
        let n = u32::from_le_bytes(*to.first_chunk().unwrap());
        assert_eq!(to[..len], sample(n), "whole and unchanged");
        all.insert(n);
    }
    all
}

/// The same samples as in RAM, with the same seed; and wear as little as is said.
#[test]
fn holds_what_a_reservoir_in_ram_holds() {
    let mut flash = open(Flash::new(8, true));
    let mut ram: Reservoir<u32, 5> = Reservoir::new(Seed(11));
    assert_eq!(held(&mut flash), BTreeSet::new());
    let mut kept = 0;
    for n in 0..500 {
        ram.offer(n);
        kept += usize::from(flash.offer(&sample(n)).unwrap());
        // Now and then the power goes between two samples.
        if n % 37 == 0 {
            let offered = flash.offered();
            flash = open(flash.free());
            assert!(flash.offered() <= offered);
            flash.draw.offered = offered;
        }
    }
    assert_eq!(held(&mut flash), ram.iter().copied().collect());
    assert!((20..=45).contains(&kept), "5 (1 + ln 100) = 28: {kept}");
    assert!(flash.free().erased < 60);
}

#[test]
fn what_does_not_fit_is_refused() {
    let refused = |range, places| FlashReservoir::open(Flash::new(8, false), range, places, Seed(1)).err();
    // 6 records of 24 + 40 bytes in each half, beside its head.
    assert!(matches!(refused(0..512, PLACES), Some(StoreError::Full { needed: 384, .. })));
    assert!(matches!(refused(0..4096, PLACES), Some(StoreError::Stretch { .. })));
    assert!(matches!(refused(256..256, PLACES), Some(StoreError::Stretch { .. })));
    assert!(matches!(refused(0..2048, Places { samples: usize::MAX, ..PLACES }), Some(StoreError::Full { .. })));
    let mut r = open(Flash::new(8, false));
    assert_eq!(r.offer(&[0; 41]), Err(StoreError::Length { found: 41, most: 40 }));
    assert_eq!((r.offered(), r.replay(&mut [])), (0, Ok(None)));
    r.offer(&sample(9)).unwrap();
    assert_eq!(r.replay(&mut [0; 3]), Err(StoreError::Length { found: 13, most: 3 }));
    r.clear().unwrap();
    assert_eq!((r.len(), held(&mut r)), (0, BTreeSet::new()));
    // Of another kind: as if there were nothing.
    r.offer(&sample(9)).unwrap();
    let other = FlashReservoir::open(r.free(), 0..2048, Places { kind: 4, ..PLACES }, Seed(1)).unwrap();
    assert!(other.is_empty());
}

#[test]
fn what_is_damaged_is_passed_over() {
    let mut r = open(Flash::new(8, false));
    (0..5).for_each(|n| assert_eq!(r.offer(&sample(n)), Ok(true)));
    let mut flash = r.free();
    // A bit of the second sample.
    let at = flash.bytes.windows(5).position(|w| w == [1, 0, 0, 0, 1]).unwrap();
    flash.bytes[at] ^= 0x10;
    let mut r = open(flash);
    assert_eq!(held(&mut r), BTreeSet::from([0, 2, 3, 4]));
}

proptest! {
    /// Power goes anywhere, in the midst of moving over, too: what is held then is what was held before or after, and it goes on.
    #[test]
    fn a_power_loss_loses_nothing(cut in 0_usize..2500, dirty: bool) {
        let mut r = open(Flash::new(8, dirty));
        r.flash.cut = Some(cut);
        let (mut before, mut after) = (BTreeSet::new(), BTreeSet::new());
        let mut ram: Reservoir<u32, 5> = Reservoir::new(Seed(11));
        for n in 0..500 {
            let lost = r.offer(&sample(n)).is_err();
            ram.offer(n);
            after = ram.iter().copied().collect();
            if lost {
                break;
            }
            before.clone_from(&after);
        }
        let mut r = open(r.free().again());
        let found = held(&mut r);
        prop_assert!(found == before || found == after, "{found:?} {before:?} {after:?}");
        for n in 1000..1100 {
            r.offer(&sample(n)).unwrap();
        }
        prop_assert_eq!(held(&mut r).len(), 5);
    }
}
