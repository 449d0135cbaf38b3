//! [`FlashReservoir`]: a reservoir whose samples lie in flash, and outlast a power loss.
//!
//! Samples are bytes, as the application writes them down. Two logs share the stretch: one takes what is kept, a record a sample; when
//! it is full, what still counts is copied to the other. Of n samples that are offered to N places N (1 + ln (n / N)) are written, so
//! that flash wears out slowly: 64 places and 100,000 samples make some 540 records, and about three times as many of no bytes.
//!
//! Those are of two kinds. Every start that offers or replays anything writes one, so that it draws otherwise than those before. And
//! how many samples came is written down now and then, by chance: one offer in n / 4N, which then counts for so many (R. Morris,
//! "Counting large numbers of events in small registers", 1978), so that it is right on average however short the starts are.

use super::draw::Draw;
use crate::fixed::hash::Seed;
use crate::store::{Log, Record, StoreError};
use core::ops::Range;
use embedded_storage::nor_flash::NorFlash;

/// What a [`FlashReservoir`] is for. Whatever was left with other ones does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Places {
    /// Samples that are held.
    pub samples: usize,
    /// Bytes of the longest.
    pub bytes: usize,
    /// A number of the application's for what its bytes mean.
    pub kind: u32,
}

/// As [`Reservoir`](super::Reservoir), in flash, which is given to every call: several things may lie in one.
///
/// ```
/// use ranklet::{Seed, store::Ram, train::{FlashReservoir, Places}};
///
/// let mut memory = [0; 1024];
/// let mut flash = Ram::new(&mut memory); // in firmware: the board's driver
/// let places = Places { samples: 4, bytes: 8, kind: 1 };
/// let mut seen = FlashReservoir::open(&mut flash, 0..1024, places, Seed(7))?;
/// for n in 0..100_u8 {
///     seen.offer(&mut flash, &[n, n % 3])?;
/// }
/// assert_eq!((seen.len(), seen.offered()), (4, 100));
/// let mut sample = [0; 8];
/// for _ in 0..3 {
///     let len = seen.replay(&mut flash, &mut sample)?.expect("it holds four");
///     assert_eq!((len, sample[0] % 3), (2, sample[1]));
/// }
/// # Ok::<(), ranklet::store::StoreError<ranklet::store::ram::Outside>>(())
/// ```
#[derive(Clone, Debug)]
pub struct FlashReservoir {
    logs: [Log; 2],
    /// Which of the two holds what counts.
    now: usize,
    places: Places,
    seed: Seed,
    draw: Draw,
    /// The number of this start, once it has been written down.
    started: bool,
    session: u32,
    /// Samples that were offered, as the flash has it.
    counted: u32,
    /// Whether the other log may have taken over in flash, though that was told to have failed.
    doubtful: bool,
}

/// The places of what is no sample: a start, and a count.
const START: u32 = u32::MAX;
const COUNT: u32 = u32::MAX - 1;

impl FlashReservoir {
    /// Goes on with what lies in the stretch; whatever else lies there is erased with the first sample that is offered. Writes nothing.
    ///
    /// Each half of the stretch must have room for all samples and one more, each as long as the longest, and for two records
    /// of no bytes ([`Log::bytes_of`]); and be of whole pages. [`Places::stretch`] is the least there may be; more wears it out later.
    ///
    /// # Errors
    /// [`StoreError::Stretch`], [`StoreError::Unit`]; [`StoreError::Full`] where half of the stretch is too short; [`StoreError::Flash`].
    pub fn open<F: NorFlash>(
        flash: &mut F,
        stretch: Range<u32>,
        places: Places,
        seed: Seed,
    ) -> Result<FlashReservoir, StoreError<F::Error>> {
        let half = stretch.end.saturating_sub(stretch.start) / 2;
        let half = (half as usize / F::ERASE_SIZE.max(1) * F::ERASE_SIZE) as u32;
        let middle = stretch.start.saturating_add(half);
        let logs = [
            Log::open(flash, stretch.start..middle, places.tag())?,
            Log::open(flash, middle..middle.saturating_add(half), places.tag())?,
        ];
        let needed = places.half::<F>();
        let room = logs.iter().map(Log::capacity).min().unwrap_or(0);
        if needed > room || places.samples >= COUNT as usize {
            return Err(StoreError::Full { needed, room });
        }
        let [first, second] = logs.each_ref().map(Log::turn);
        let now = match (first, second) {
            // Turns count up, and may begin anew.
            (Some(first), Some(second)) => usize::from((second.wrapping_sub(first) as i32) > 0),
            (None, Some(_)) => 1,
            _ => 0,
        };
        let [first, second] = &logs;
        let log = if now == 0 { first } else { second };
        let (mut counted, mut kept, mut session) = (0_u32, 0_u32, 0_u32); // the first start has number 0
        log.each(flash, |r| match place(r.key) {
            START => session = session.max(number(r.key).wrapping_add(1)),
            COUNT => counted = counted.max(number(r.key)),
            _ => kept = kept.max(number(r.key).saturating_add(1)),
        })?;
        // While places are free every sample is kept: the last whose bytes were not cut short tells how many came.
        while counted == 0 && kept > 0 && kept as usize <= places.samples {
            let mut before = None;
            let last = kept - 1;
            let sound = loop {
                let found = log.find(flash, before.as_ref(), |k| place(k) < COUNT && number(k) == last)?;
                let Some(record) = found else { break false };
                if log.read(flash, &record, |_, _| ())? {
                    break true;
                }
                before = Some(record);
            };
            if sound {
                break;
            }
            kept = last;
        }
        let counted = counted.max(kept.min(places.samples as u32));
        let draw = Draw::new(seed, session, counted);
        Ok(FlashReservoir { logs, now, places, seed, draw, started: false, session, counted, doubtful: false })
    }

    /// Offers a sample; returns whether it is kept.
    ///
    /// # Errors
    /// [`StoreError::Length`] for one that is longer than was said; [`StoreError::Flash`]. The sample does not count then, and those that
    /// are held, are.
    pub fn offer<F: NorFlash>(&mut self, flash: &mut F, sample: &[u8]) -> Result<bool, StoreError<F::Error>> {
        if sample.len() > self.places.bytes {
            return Err(StoreError::Length { found: sample.len(), most: self.places.bytes });
        }
        self.start(flash)?;
        if self.draw.offered as usize >= self.places.samples
            && let Some(events) = self.draw.event(self.counted, 4 * self.places.samples.min(1 << 24) as u32)
        {
            let counted = self.counted.saturating_add(events);
            self.write(flash, key(COUNT, counted), &[])?;
            self.counted = counted;
        }
        let place = self.draw.place(self.places.samples);
        if let Some(place) = place {
            self.write(flash, key(place as u32, self.draw.offered), sample)?;
        }
        self.draw.counted();
        self.counted = self.counted.max(self.draw.offered.min(self.places.samples as u32));
        Ok(place.is_some())
    }

    /// One of those that are held, drawn anew at every call: its bytes into the first of `to`; returns how many there are. `None` where
    /// none is held.
    ///
    /// # Errors
    /// [`StoreError::Length`] where `to` is too short; [`StoreError::Flash`].
    pub fn replay<F: NorFlash>(&mut self, flash: &mut F, to: &mut [u8]) -> Result<Option<usize>, StoreError<F::Error>> {
        if self.is_empty() {
            return Ok(None);
        }
        self.start(flash)?;
        let held = self.len();
        let drawn = self.draw.replay().at(0, held);
        // The next one where that one has been damaged.
        for at in (drawn..held).chain(0..drawn) {
            let mut before = None;
            while let Some(record) = self.log().find(flash, before.as_ref(), |k| place(k) as usize == at)? {
                if self.read(flash, &record, to)? {
                    return Ok(Some(record.len));
                }
                before = Some(record);
            }
        }
        Ok(None)
    }

    /// Samples that are held; of those, whose flash has been damaged since are not handed out.
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

    /// Samples that were offered; in a later start an estimate, which is right on average.
    #[must_use]
    pub const fn offered(&self) -> u32 {
        self.draw.offered
    }

    /// Forgets all samples.
    ///
    /// # Errors
    /// [`StoreError::Flash`]: they are held as before, or forgotten, as [`len`](FlashReservoir::len) tells; what was not erased of them is with
    /// the next sample.
    pub fn clear<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), StoreError<F::Error>> {
        // The old one first: while there is a newer one, it does not count.
        let [first, second] = &mut self.logs;
        let (old, now) = if self.now == 0 { (second, first) } else { (first, second) };
        old.erase(flash)?;
        // From here on they are forgotten: what is left of them is erased with the next sample, if not now.
        (self.draw, self.started, self.counted) = (Draw::new(self.seed, self.session, 0), false, 0);
        now.clear(flash)
    }

    const fn log(&self) -> &Log {
        let [first, second] = &self.logs;
        if self.now == 0 { first } else { second }
    }

    /// Writes down that there was one more start, with the first that is done in it.
    fn start<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), StoreError<F::Error>> {
        if !self.started {
            self.write(flash, key(START, self.session), &[])?;
            self.started = true;
        }
        Ok(())
    }

    /// Appends a record; where there is no room, moves over first.
    fn write<F: NorFlash>(&mut self, flash: &mut F, key: u64, bytes: &[u8]) -> Result<(), StoreError<F::Error>> {
        let fill = |at: usize, piece: &mut [u8]| {
            piece.iter_mut().zip(bytes.get(at..).unwrap_or(&[])).for_each(|(to, &b)| *to = b);
        };
        if self.doubtful {
            let [first, second] = &mut self.logs;
            (if self.now == 0 { second } else { first }).erase(flash)?;
            self.doubtful = false;
        }
        match self.log_mut().append(flash, key, bytes.len(), fill) {
            Err(StoreError::Full { .. }) => {
                self.move_over(flash)?;
                self.log_mut().append(flash, key, bytes.len(), fill)
            }
            other => other,
        }
    }

    const fn log_mut(&mut self) -> &mut Log {
        let [first, second] = &mut self.logs;
        if self.now == 0 { first } else { second }
    }

    fn read<F: NorFlash>(&self, flash: &mut F, record: &Record, to: &mut [u8]) -> Result<bool, StoreError<F::Error>> {
        let (found, most) = (record.len, to.len());
        let Some(to) = to.get_mut(..found) else { return Err(StoreError::Length { found, most }) };
        self.log().read(flash, record, |at, piece| {
            to.get_mut(at..).unwrap_or_default().iter_mut().zip(piece).for_each(|(to, &b)| *to = b);
        })
    }

    /// Copies what counts to the other log, which takes over.
    fn move_over<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), StoreError<F::Error>> {
        let [first, second] = &mut self.logs;
        let (old, new) = if self.now == 0 { (first, second) } else { (second, first) };
        new.erase(flash)?;
        let samples = 0..self.places.samples as u32;
        for at in samples.chain([COUNT, START]) {
            // The newest that is sound.
            let mut before: Option<Record> = None;
            while let Some(record) = old.find(flash, before.as_ref(), |k| place(k) == at)? {
                if new.copy(flash, old, &record)? {
                    break;
                }
                before = Some(record);
            }
        }
        self.doubtful = true;
        new.commit(flash, old.turn().map_or(1, |turn| turn.wrapping_add(1)))?;
        (self.now, self.doubtful) = (1 - self.now, false);
        Ok(())
    }
}

impl Places {
    /// Bytes of the shortest stretch of such a flash.
    #[must_use]
    pub const fn stretch<F: NorFlash>(&self) -> usize {
        let half = self.half::<F>().saturating_add(Log::bytes_of::<F>(0));
        match half.checked_next_multiple_of(F::ERASE_SIZE) {
            Some(half) => half.saturating_mul(2),
            None => usize::MAX,
        }
    }

    /// Bytes of records that each log may hold.
    const fn half<F: NorFlash>(&self) -> usize {
        let samples = self.samples.saturating_add(1).saturating_mul(Log::bytes_of::<F>(self.bytes));
        samples.saturating_add(3 * Log::bytes_of::<F>(0))
    }

    /// What tells them from others.
    const fn tag(&self) -> u32 {
        crate::fixed::hash::join([self.kind, self.samples as u32, self.bytes as u32])
    }
}

const fn key(place: u32, number: u32) -> u64 {
    place as u64 | (number as u64) << 32
}

const fn place(key: u64) -> u32 {
    key as u32
}

/// Which of all that were offered a record holds; or which start it tells of.
const fn number(key: u64) -> u32 {
    (key >> 32) as u32
}

#[cfg(test)]
mod tests;
