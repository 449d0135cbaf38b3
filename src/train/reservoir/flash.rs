//! [`FlashReservoir`]: a reservoir whose samples lie in flash, and outlast a power loss.
//!
//! Samples are bytes, as the application writes them down. Two logs share the stretch: one takes what is kept, a record a sample; when
//! it is full, what still counts is copied to the other. Of n samples that are offered to N places N (1 + ln (n / N)) are written, so
//! that flash wears out slowly: 64 places and 100,000 samples make some 540 records.

use super::draw::Draw;
use crate::fixed::hash::Seed;
use crate::store::{Log, Record, StoreError};
use core::ops::Range;
use embedded_storage::nor_flash::NorFlash;

/// What a [`FlashReservoir`] is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Places {
    /// Samples that are held.
    pub samples: usize,
    /// Bytes of the longest.
    pub bytes: usize,
    /// A number of the application's for what its bytes mean: what another one has left does not count.
    pub kind: u32,
}

/// As [`Reservoir`](super::Reservoir), in flash.
///
/// ```
/// use ranklet::{Seed, store::Ram, train::reservoir::flash::{FlashReservoir, Places}};
///
/// // In firmware: the flash of the board, or `&mut` of it.
/// let mut memory = [0; 1024];
/// let flash: Ram<'_> = Ram::new(&mut memory);
/// let mut seen = FlashReservoir::open(flash, 0..1024, Places { samples: 4, bytes: 8, kind: 1 }, Seed(7))?;
/// for n in 0..100_u8 {
///     seen.offer(&[n, n % 3])?;
/// }
/// assert_eq!((seen.len(), seen.offered()), (4, 100));
/// let mut sample = [0; 8];
/// for _ in 0..3 {
///     let len = seen.replay(&mut sample)?.expect("it holds four");
///     assert_eq!((len, sample[0] % 3), (2, sample[1]));
/// }
/// # Ok::<(), ranklet::store::StoreError<ranklet::store::ram::Outside>>(())
/// ```
#[derive(Debug)]
pub struct FlashReservoir<F> {
    flash: F,
    logs: [Log; 2],
    /// Which of the two holds what counts.
    now: usize,
    places: Places,
    draw: Draw,
}

impl<F: NorFlash> FlashReservoir<F> {
    /// Goes on with what lies in the stretch; whatever else lies there is erased with the first sample that is offered.
    ///
    /// Each half of the stretch must have room for all samples and one more, each as long as the longest
    /// ([`Log::bytes_of`]), and be of whole pages. How many were offered before is known by the last that was kept: it may have
    /// been a few more, of N places about one in N.
    ///
    /// # Errors
    /// [`StoreError::Stretch`], [`StoreError::Unit`]; [`StoreError::Full`] where the stretch is too short; [`StoreError::Flash`].
    pub fn open(
        mut flash: F,
        stretch: Range<u32>,
        places: Places,
        seed: Seed,
    ) -> Result<FlashReservoir<F>, StoreError<F::Error>> {
        let half = stretch.end.saturating_sub(stretch.start) / 2;
        let half = (half as usize / F::ERASE_SIZE.max(1) * F::ERASE_SIZE) as u32;
        let middle = stretch.start.saturating_add(half);
        let logs = [
            Log::open(&mut flash, stretch.start..middle, places.kind)?,
            Log::open(&mut flash, middle..middle.saturating_add(half), places.kind)?,
        ];
        let needed = places.samples.saturating_add(1).saturating_mul(Log::bytes_of::<F>(places.bytes));
        let room = logs.iter().map(Log::capacity).min().unwrap_or(0);
        if needed > room {
            return Err(StoreError::Full { needed, room });
        }
        let [first, second] = logs.each_ref().map(Log::turn);
        let now = match (first, second) {
            // Turns count up, and may begin anew.
            (Some(first), Some(second)) => usize::from((second.wrapping_sub(first) as i32) > 0),
            (None, Some(_)) => 1,
            _ => 0,
        };
        let mut this = FlashReservoir { flash, logs, now, places, draw: Draw::new(seed) };
        let mut offered = 0;
        let (log, flash) = this.log();
        log.each(flash, |r| offered = offered.max(number(r.key).saturating_add(1)))?;
        this.draw.offered = offered;
        Ok(this)
    }

    /// Offers a sample; returns whether it is kept.
    ///
    /// # Errors
    /// [`StoreError::Length`] for one that is longer than was said: nothing changes then. [`StoreError::Flash`]: it is not kept; those
    /// that are, are.
    pub fn offer(&mut self, sample: &[u8]) -> Result<bool, StoreError<F::Error>> {
        if sample.len() > self.places.bytes {
            return Err(StoreError::Length { found: sample.len(), most: self.places.bytes });
        }
        let number = self.draw.offered;
        let Some(place) = self.draw.offer(self.places.samples) else { return Ok(false) };
        let key = place as u64 | u64::from(number) << 32;
        let fill = |at: usize, piece: &mut [u8]| {
            piece.iter_mut().zip(sample.get(at..).unwrap_or(&[])).for_each(|(to, &b)| *to = b);
        };
        let (log, flash) = self.log();
        match log.append(flash, key, sample.len(), fill) {
            Err(StoreError::Full { .. }) => {
                self.move_over()?;
                let (log, flash) = self.log();
                log.append(flash, key, sample.len(), fill)?;
            }
            other => other?,
        }
        Ok(true)
    }

    /// One of those that are held, drawn anew at every call: its bytes into the first of `to`; returns how many there are. `None` where
    /// none is held.
    ///
    /// # Errors
    /// [`StoreError::Length`] where `to` is too short; [`StoreError::Flash`].
    pub fn replay(&mut self, to: &mut [u8]) -> Result<Option<usize>, StoreError<F::Error>> {
        let held = self.len();
        let drawn = self.draw.replay().at(0, held);
        // The next one where that one has been damaged.
        for place in (drawn..held).chain(0..drawn) {
            let mut before = None;
            while let Some(record) = self.newest(place, before.as_ref())? {
                if self.read(&record, to)? {
                    return Ok(Some(record.len));
                }
                before = Some(record);
            }
        }
        Ok(None)
    }

    /// Samples that are held.
    #[must_use]
    pub const fn len(&self) -> usize {
        let offered = self.draw.offered as usize;
        if offered < self.places.samples { offered } else { self.places.samples }
    }

    /// Whether none is.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Samples that were offered.
    #[must_use]
    pub const fn offered(&self) -> u32 {
        self.draw.offered
    }

    /// Forgets all samples.
    ///
    /// # Errors
    /// [`StoreError::Flash`].
    pub fn clear(&mut self) -> Result<(), StoreError<F::Error>> {
        self.draw.offered = 0;
        // The old one first: while there is a newer one, it does not count.
        let [first, second] = &mut self.logs;
        let (old, now) = if self.now == 0 { (second, first) } else { (first, second) };
        old.erase(&mut self.flash)?;
        now.clear(&mut self.flash)
    }

    /// Gives the flash back.
    #[must_use]
    pub fn free(self) -> F {
        self.flash
    }

    fn log(&mut self) -> (&mut Log, &mut F) {
        let [first, second] = &mut self.logs;
        (if self.now == 0 { first } else { second }, &mut self.flash)
    }

    fn newest(&mut self, place: usize, before: Option<&Record>) -> Result<Option<Record>, StoreError<F::Error>> {
        let (log, flash) = self.log();
        log.find(flash, before, |key| key as u32 as usize == place)
    }

    fn read(&mut self, record: &Record, to: &mut [u8]) -> Result<bool, StoreError<F::Error>> {
        let (found, most) = (record.len, to.len());
        let Some(to) = to.get_mut(..found) else { return Err(StoreError::Length { found, most }) };
        let (log, flash) = self.log();
        log.read(flash, record, |at, piece| {
            to.get_mut(at..).unwrap_or_default().iter_mut().zip(piece).for_each(|(to, &b)| *to = b);
        })
    }

    /// Copies what counts to the other log, which takes over.
    fn move_over(&mut self) -> Result<(), StoreError<F::Error>> {
        let [first, second] = &mut self.logs;
        let (old, new) = if self.now == 0 { (first, second) } else { (second, first) };
        new.erase(&mut self.flash)?;
        for place in 0..self.places.samples {
            // The newest that is sound.
            let mut before: Option<Record> = None;
            while let Some(record) = old.find(&mut self.flash, before.as_ref(), |key| key as u32 as usize == place)? {
                if new.copy(&mut self.flash, old, &record)? {
                    break;
                }
                before = Some(record);
            }
        }
        new.commit(&mut self.flash, old.turn().map_or(1, |turn| turn.wrapping_add(1)))?;
        self.now = 1 - self.now;
        Ok(())
    }
}

/// Which of all that were offered a record holds.
const fn number(key: u64) -> u32 {
    (key >> 32) as u32
}

#[cfg(test)]
mod tests;
