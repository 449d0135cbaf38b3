use super::*;
use crate::store::mock::{Mock, PowerLoss};
use crate::store::ram::Ram;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

const KIND: u32 = 7;

fn bytes_of(key: u64, len: usize) -> Vec<u8> {
    (0..len).map(|i| (key as usize).wrapping_mul(31).wrapping_add(i * 7) as u8).collect()
}

fn append<F: NorFlash>(log: &mut Log, flash: &mut F, key: u64, len: usize) -> Result<(), StoreError<F::Error>> {
    let bytes = bytes_of(key, len);
    log.append(flash, key, len, |at, piece| piece.copy_from_slice(&bytes[at..at + piece.len()]))
}

fn append_of<F: NorFlash>(log: &mut Log, flash: &mut F, len: usize) -> Result<(), StoreError<F::Error>> {
    log.append(flash, 1, len, |_, piece| piece.fill(0))
}

fn read<F: NorFlash>(log: &Log, flash: &mut F, record: &Record) -> Result<Option<Vec<u8>>, StoreError<F::Error>> {
    let mut bytes = vec![0; record.len];
    let sound = log.read(flash, record, |at, piece| bytes[at..at + piece.len()].copy_from_slice(piece))?;
    Ok(sound.then_some(bytes))
}

fn keys<F: NorFlash>(log: &Log, flash: &mut F) -> Vec<u64> {
    let mut records = vec![];
    log.each(flash, |r| records.push(r)).unwrap();
    records.retain(|r| read(log, flash, r).unwrap().is_some_and(|b| b == bytes_of(r.key, r.len)));
    records.iter().map(|r| r.key).collect()
}

fn works<const PAGE: usize, const WRITE: usize>(dirty: bool) {
    let mut flash = Mock::<PAGE, WRITE>::new(4, dirty);
    let mut log = Log::open(&mut flash, 0..4 * PAGE as u32, KIND).unwrap();
    assert_eq!(keys(&log, &mut flash), []);
    // Lengths that fill units, and do not; longer than a page; none.
    for (key, len) in [(1, 8), (2, 13), (3, 64), (4, 65), (5, 0), (6, PAGE + 1)] {
        append(&mut log, &mut flash, key, len).unwrap();
    }
    append(&mut log, &mut flash, 2, 20).unwrap();
    let log = Log::open(&mut flash, 0..4 * PAGE as u32, KIND).unwrap();
    assert_eq!(keys(&log, &mut flash), [1, 2, 3, 4, 5, 6, 2]);
    let newest = log.find(&mut flash, None, |k| k == 2).unwrap().unwrap();
    assert_eq!(newest.len, 20);
    assert_eq!(log.find(&mut flash, Some(&newest), |k| k == 2).unwrap().unwrap().len, 13);
    assert_eq!(log.find(&mut flash, None, |k| k == 9).unwrap(), None);
    // Of another kind it is empty, until something is written.
    let mut other = Log::open(&mut flash, 0..4 * PAGE as u32, KIND + 1).unwrap();
    assert_eq!((keys(&other, &mut flash), other.turn()), (vec![], None));
    append(&mut other, &mut flash, 8, 3).unwrap();
    assert_eq!(keys(&other, &mut flash), [8]);
    assert_eq!(Log::open(&mut flash, 0..4 * PAGE as u32, KIND).unwrap().turn(), None);
}

#[test]
fn keeps_what_it_is_given() {
    works::<256, 1>(false);
    works::<256, 4>(true);
    works::<512, 8>(true);
    works::<512, 32>(false);
    works::<1024, 64>(true);
}

/// Power may go in one head after the other: each takes its place, and the log goes on.
#[test]
fn heads_cut_short_in_a_row() {
    for cuts in [[0, 0], [1, 2], [3, 5], [5, 1], [2, 4]] {
        let mut flash = Mock::<256, 4>::new(8, false);
        let mut log = Log::open(&mut flash, 0..2048, KIND).unwrap();
        append(&mut log, &mut flash, 1, 20).unwrap();
        for cut in cuts {
            flash.cut = Some(flash.done + cut);
            assert!(append(&mut log, &mut flash, 2, 60).is_err());
            flash = flash.again();
            log = Log::open(&mut flash, 0..2048, KIND).unwrap();
        }
        (3..6).for_each(|key| append(&mut log, &mut flash, key, 60).unwrap());
        let log = Log::open(&mut flash, 0..2048, KIND).unwrap();
        assert_eq!(keys(&log, &mut flash), [1, 3, 4, 5], "{cuts:?}");
    }
}

/// What lies behind a shorter one's end may be anything: a longer stretch is another log.
#[test]
fn a_longer_stretch_is_another_log() {
    let mut flash = Mock::<256, 4>::new(4, true);
    let mut short = Log::open(&mut flash, 0..512, KIND).unwrap();
    append(&mut short, &mut flash, 1, 400).unwrap();
    let mut long = Log::open(&mut flash, 0..1024, KIND).unwrap();
    assert_eq!(keys(&long, &mut flash), []);
    (2..5).for_each(|key| append(&mut long, &mut flash, key, 200).unwrap());
    assert_eq!(keys(&Log::open(&mut flash, 0..1024, KIND).unwrap(), &mut flash), [2, 3, 4]);
}

#[test]
fn ram_is_a_flash() {
    let mut bytes = [0_u8; 200];
    let mut ram = Ram::new(&mut bytes);
    let mut log = Log::open(&mut ram, 0..192, KIND).unwrap();
    append(&mut log, &mut ram, 1, 30).unwrap();
    append(&mut log, &mut ram, 2, 30).unwrap();
    assert_eq!(append(&mut log, &mut ram, 3, 100), Err(StoreError::Full { needed: 128, room: 64 }));
    assert_eq!(keys(&log, &mut ram), [1, 2]);
    log.clear(&mut ram).unwrap();
    append(&mut log, &mut ram, 3, 100).unwrap();
    assert_eq!(keys(&log, &mut ram), [3]);
}

#[test]
fn stretches_that_do_not_fit_are_refused() {
    let mut flash = Mock::<256, 4>::new(4, true);
    for (start, end) in [(0, 1025), (1, 256), (256, 256), (512, 256), (768, 1280), (0, u32::MAX)] {
        let range = Range { start, end };
        assert!(matches!(Log::open(&mut flash, range, KIND), Err(StoreError::Stretch { .. })));
    }
    let mut log = Log::open(&mut flash, 0..1024, KIND).unwrap();
    for len in [1000, usize::MAX - 9, usize::MAX] {
        assert!(matches!(append_of(&mut log, &mut flash, len), Err(StoreError::Full { .. })));
    }
    assert_eq!(Log::bytes_of::<Mock<256, 4>>(usize::MAX), usize::MAX);
    let mut wide = Mock::<256, 128>::new(4, true);
    assert_eq!(Log::open(&mut wide, 0..1024, KIND).unwrap_err(), StoreError::Unit(128));
    assert_eq!((flash.done, wide.done), (0, 0), "opening writes nothing");
}

fn power_loss<const WRITE: usize>(lens: &[usize], cut: usize, dirty: bool, ones: bool) -> Result<(), TestCaseError> {
    let key = |n: usize| if ones { u64::MAX - n as u64 } else { n as u64 };
    let mut flash = Mock::<256, WRITE>::new(12, dirty);
    flash.cut = Some(cut);
    let mut done = vec![];
    let mut log = Log::open(&mut flash, 0..3072, KIND).unwrap();
    let mut lost = false;
    for (n, &len) in lens.iter().enumerate() {
        match append(&mut log, &mut flash, key(n), len) {
            Ok(()) => done.push(key(n)),
            Err(e) => {
                prop_assert_eq!(e, StoreError::Flash(PowerLoss));
                lost = true;
                break;
            }
        }
    }
    let mut flash = flash.again();
    let mut log = Log::open(&mut flash, 0..3072, KIND).unwrap();
    let mut found = keys(&log, &mut flash);
    if lost && found.len() == done.len() + 1 {
        // Its last bits were those that were there anyway.
        done.push(key(done.len()));
    }
    prop_assert_eq!(&found, &done);
    for more in [99, 100] {
        append(&mut log, &mut flash, more, 40).unwrap();
        found.push(more);
        log = Log::open(&mut flash, 0..3072, KIND).unwrap();
    }
    prop_assert_eq!(keys(&log, &mut flash), found);
    Ok(())
}

/// A head whose bits have flipped takes what it told of with it, and nothing else; nothing is written over what is there.
#[test]
fn a_damaged_head_loses_one_record() {
    for bit in 0..24 * 8 {
        let mut flash = Mock::<256, 8>::new(4, false);
        let mut log = Log::open(&mut flash, 0..1024, KIND).unwrap();
        (1..5).for_each(|key| append(&mut log, &mut flash, key, 50).unwrap());
        // The second record's.
        let at = 16 + 24 + 56;
        flash.bytes[at + bit / 8] ^= 1 << (bit % 8);
        let mut log = Log::open(&mut flash, 0..1024, KIND).unwrap();
        assert_eq!(keys(&log, &mut flash), [1, 3, 4], "{bit}");
        append(&mut log, &mut flash, 5, 50).unwrap();
        assert_eq!(keys(&log, &mut flash), [1, 3, 4, 5], "{bit}");
    }
    // Of the last record: nobody knows how far it was written, so there is no more room.
    let mut flash = Mock::<256, 8>::new(4, false);
    let mut log = Log::open(&mut flash, 0..1024, KIND).unwrap();
    (1..3).for_each(|key| append(&mut log, &mut flash, key, 50).unwrap());
    flash.bytes[16 + 24 + 56 + 5] ^= 1;
    let mut log = Log::open(&mut flash, 0..1024, KIND).unwrap();
    assert_eq!((keys(&log, &mut flash), log.room()), (vec![1], 0));
    assert!(matches!(append(&mut log, &mut flash, 3, 1), Err(StoreError::Full { room: 0, .. })));
    log.clear(&mut flash).unwrap();
    append(&mut log, &mut flash, 3, 1).unwrap();
}

proptest! {
    /// Power goes anywhere: what was written before is there, in its order; what was being written is there whole or not at all; and it goes
    /// on. Whatever is written at once, and whatever keys look like.
    #[test]
    fn a_power_loss_takes_only_the_last(
        lens in prop::collection::vec(0_usize..150, 1..12), cut in 0_usize..400, dirty: bool, ones: bool, write in 0..4
    ) {
        match write {
            0 => power_loss::<4>(&lens, cut, dirty, ones)?,
            1 => power_loss::<8>(&lens, cut, dirty, ones)?,
            2 => power_loss::<32>(&lens, cut % 100, dirty, ones)?,
            _ => power_loss::<64>(&lens, cut % 50, dirty, ones)?,
        }
    }

    /// Whatever lies in the flash, opening and walking end, and hand out nothing beyond the stretch.
    #[test]
    fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 512), head: bool, at in 0_usize..400, len: u32) {
        let mut first: Mock<256, 4> = Mock::new(2, false);
        let mut log = Log::open(&mut first, 0..512, KIND).unwrap();
        log.clear(&mut first).unwrap();
        if head {
            bytes[..16].copy_from_slice(&first.bytes[..16]);
        }
        // A record's head that is sound, with any length.
        let record = head_of(0, len as usize, 0);
        let at = 16 + at / 8 * 8;
        bytes[at..at + RECORD].copy_from_slice(&record);
        let mut ram: Ram<'_, 256> = Ram::with_pages(&mut bytes);
        let log = Log::open(&mut ram, 0..512, KIND).unwrap();
        let mut records = vec![];
        log.each(&mut ram, |r| records.push(r)).unwrap();
        for r in records {
            read(&log, &mut ram, &r).unwrap();
        }
    }
}

/// After an error of the flash that was no power loss, the same log goes on: nothing is written twice, nothing before is lost.
#[test]
fn goes_on_after_an_error() {
    for cut in 0..30 {
        let mut flash = Mock::<256, 4>::new(4, false);
        let mut log = Log::open(&mut flash, 0..1024, KIND).unwrap();
        append(&mut log, &mut flash, 1, 20).unwrap();
        flash.cut = Some(flash.done + cut);
        let failed = append(&mut log, &mut flash, 2, 60).is_err();
        if failed {
            // While it cannot be read nothing is written.
            assert!(append(&mut log, &mut flash, 4, 1).is_err());
        }
        flash.cut = None;
        append(&mut log, &mut flash, 3, 9).unwrap();
        let mut found = keys(&log, &mut flash);
        // Of a record whose last bits were missing, these may have been 1 anyway.
        assert!(failed || found.contains(&2), "{cut}");
        found.retain(|&key| key != 2);
        assert_eq!(found, [1, 3], "{cut}");
    }
}
