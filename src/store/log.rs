//! [`Log`]: records in a stretch of NOR flash, one behind the other. Of several with one key the newest counts.
//!
//! ```text
//!  head of the log, once the stretch has been erased            a record, at multiples of the unit
//!   0        4         8        12        16                     0        4          12       16         20        24
//!   +--------+---------+--------+---------+                      +--------+----------+--------+----------+---------+-------+-----
//!   | "RKLG" | kind    | turn   | CRC-32  |                      | "rec"0 | key      | length | CRC-32   | CRC-32  | bytes | 0xFF
//!   |        | u32     | u32    | *       |                      |        | u64      | u32    | of bytes | of 0-19 |       | …
//!   +--------+---------+--------+---------+                      +--------+----------+--------+----------+---------+-------+-----
//! ```
//!
//! Little-endian. *: of bytes 0 to 11, and of the stretch's length. The unit is what the flash reads and writes at once, at least 8 bytes; records may be longer than a page.
//!
//! Power may be lost at any moment. A record's head is written first, so that where the next one begins is known even if its
//! bytes were not written to their end; then they do not have their CRC, and the record counts as not there. A head that was cut short
//! has nothing behind it. Behind one that is damaged the next is looked for, and where there is none the log counts as full, since what
//! was written there cannot be told. (A head of which a bit has flipped, before bytes that are all ones, passes for one that was cut short. A bit that was programmed too weakly to be read twice alike is the flash's own matter.) What sequential-storage does for pages of small items; this is for few records of any length, and without an executor.

use core::ops::Range;
use embedded_storage::nor_flash::NorFlash;

use crate::image::layout::CRC;

/// Bytes that are read or written at a time, on the stack.
const CHUNK: usize = 64;
const MAGIC: [u8; 4] = *b"RKLG";
const MARK: [u8; 4] = *b"rec\0";
/// Bytes of the log's head, and of a record's.
const HEAD: usize = 16;
const RECORD: usize = 24;

/// What goes to the flash and comes from it: aligned for drivers that let a DMA do it.
#[repr(align(8))]
struct Piece([u8; CHUNK]);

impl Piece {
    /// The first `len` bytes.
    fn first(&mut self, len: usize) -> &mut [u8] {
        self.0.get_mut(..len).unwrap_or_default()
    }
}

/// Why something is not in a store, or cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum StoreError<E> {
    /// The flash failed.
    Flash(E),
    /// The stretch is not of whole pages inside the flash.
    Stretch {
        /// Its first byte, and the one behind its last.
        from: u32,
        /// See `from`.
        to: u32,
        /// Bytes of a page: what is erased together.
        page: usize,
        /// Bytes of the flash.
        capacity: usize,
    },
    /// It reads or writes more bytes at once, or another number, than can be dealt with: a power of two up to 64; or its pages are not of
    /// whole units.
    Unit(usize),
    /// There is no room.
    Full {
        /// Bytes that are needed, heads included.
        needed: usize,
        /// Bytes that there are.
        room: usize,
    },
    /// What is to be read is longer than where it is to go, or what is to be kept longer than what was planned.
    Length {
        /// Bytes it has.
        found: usize,
        /// Bytes there are for it.
        most: usize,
    },
}

impl<E: core::fmt::Debug> core::fmt::Display for StoreError<E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            StoreError::Flash(e) => write!(f, "the flash failed: {e:?}"),
            StoreError::Stretch { from, to, page, capacity } => write!(
                f,
                "{from:#x} to {to:#x} is not a stretch of whole pages ({page} bytes each) of a flash of {capacity} bytes"
            ),
            StoreError::Unit(unit) => {
                write!(
                    f,
                    "a flash that is read or written {unit} bytes at once; expected a power of two up to {CHUNK}, and pages of a multiple"
                )
            }
            StoreError::Full { needed, room } => write!(f, "{needed} bytes are needed, and there is room for {room}"),
            StoreError::Length { found, most } => write!(f, "{found} bytes, where there may be {most}"),
        }
    }
}

impl<E: core::fmt::Debug> core::error::Error for StoreError<E> {}

/// A record that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// As it was given.
    pub key: u64,
    /// Bytes it has.
    pub len: usize,
    /// Where its head is.
    at: u32,
    crc: u32,
}

/// Records in a stretch of flash. The flash itself is given to every call, so that several logs may share it.
#[derive(Clone, Debug)]
pub struct Log {
    from: u32,
    to: u32,
    kind: u32,
    unit: u32,
    /// Which of several logs is the newest: it counts up when one takes over from another. `None` before there is a head.
    turn: Option<u32>,
    /// Behind the last record.
    end: u32,
    /// Whether the flash has failed since, so that the end has to be looked for.
    unsure: bool,
}

impl Log {
    /// The log in a stretch of whole pages. A stretch that has no log of this length and `kind` (a number of the caller's, for what the
    /// records mean) counts as empty, whatever lies there: it is erased by the first [`append`](Log::append), and not before.
    ///
    /// # Errors
    /// [`StoreError::Stretch`], [`StoreError::Unit`], [`StoreError::Flash`].
    pub fn open<F: NorFlash>(flash: &mut F, stretch: Range<u32>, kind: u32) -> Result<Log, StoreError<F::Error>> {
        let (page, capacity) = (F::ERASE_SIZE, flash.capacity());
        let Range { start: from, end: to } = stretch;
        let whole = |at: u32| (at as usize).is_multiple_of(page.max(1));
        let fits = (to - from.min(to)) as usize >= HEAD.max(page) && to as usize <= capacity;
        if !(whole(from) && whole(to) && fits) {
            return Err(StoreError::Stretch { from, to, page, capacity });
        }
        for unit in [F::READ_SIZE, F::WRITE_SIZE] {
            if !unit.is_power_of_two() || unit > CHUNK {
                return Err(StoreError::Unit(unit));
            }
        }
        let unit = F::READ_SIZE.max(F::WRITE_SIZE).max(8) as u32;
        if !page.is_multiple_of(unit as usize) {
            return Err(StoreError::Unit(page));
        }
        let mut log = Log { from, to, kind, unit, turn: None, end: from, unsure: false };
        let mut piece = Piece([0; CHUNK]);
        fetch(flash, from, piece.first(log.up(HEAD)))?;
        let head = piece.first(HEAD);
        let [magic, found, turn, crc, _] = words(head);
        if magic == u32::from_le_bytes(MAGIC) && found == kind && crc == log.head_crc(head) {
            log.turn = Some(turn);
            log.end = log.walk(flash, log.to, |_| ())?;
        }
        Ok(log)
    }

    /// Bytes that a record of `len` bytes takes of a flash with this reading and writing size, at most.
    #[must_use]
    pub const fn bytes_of<F: NorFlash>(len: usize) -> usize {
        let unit = if F::READ_SIZE > F::WRITE_SIZE { F::READ_SIZE } else { F::WRITE_SIZE };
        let unit = if unit > 8 { unit } else { 8 };
        match len.checked_next_multiple_of(unit) {
            Some(len) => len.saturating_add(RECORD.next_multiple_of(unit)),
            None => usize::MAX,
        }
    }

    /// Bytes that there are for records in all.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.to.saturating_sub(self.first()) as usize
    }

    /// Bytes that are left for records.
    #[must_use]
    pub const fn room(&self) -> usize {
        let behind = if self.turn.is_some() { self.end } else { self.first() };
        self.to.saturating_sub(behind) as usize
    }

    /// Which of several logs is newest; `None` where there is none.
    #[must_use]
    pub const fn turn(&self) -> Option<u32> {
        self.turn
    }

    /// Erases the stretch. Without a head it counts as empty until `commit`: who fills it from another log begins so.
    pub(crate) fn erase<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), StoreError<F::Error>> {
        // The page with the head goes first: what was is over as soon as anything is.
        self.turn = None;
        flash.erase(self.from, self.to).map_err(StoreError::Flash)?;
        (self.end, self.unsure) = (self.first(), false);
        Ok(())
    }

    /// Writes the head of a stretch that was erased: from now on the records count.
    pub(crate) fn commit<F: NorFlash>(&mut self, flash: &mut F, turn: u32) -> Result<(), StoreError<F::Error>> {
        let mut head = [0; HEAD];
        set(&mut head, 0, u32::from_le_bytes(MAGIC));
        set(&mut head, 4, self.kind);
        set(&mut head, 8, turn);
        let crc = self.head_crc(&head);
        set(&mut head, 12, crc);
        self.put(flash, self.from, &head)?;
        self.turn = Some(turn);
        Ok(())
    }

    /// Forgets all records.
    ///
    /// # Errors
    /// [`StoreError::Flash`].
    pub fn clear<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), StoreError<F::Error>> {
        let turn = self.turn.map_or(1, |turn| turn.wrapping_add(1));
        self.erase(flash)?;
        self.commit(flash, turn)
    }

    /// Writes a record of `len` bytes behind the others; `fill` is asked for all of them twice, in pieces: `(offset, piece)`.
    ///
    /// # Errors
    /// [`StoreError::Full`]: nothing was written. [`StoreError::Flash`]: the record is not there; those before it are.
    pub fn append<F: NorFlash>(
        &mut self,
        flash: &mut F,
        key: u64,
        len: usize,
        mut fill: impl FnMut(usize, &mut [u8]),
    ) -> Result<(), StoreError<F::Error>> {
        self.find_end(flash)?;
        let needed = self.up(RECORD).saturating_add(self.up(len));
        if needed > self.room() {
            return Err(StoreError::Full { needed, room: self.room() });
        }
        if self.turn.is_none() {
            self.clear(flash)?;
        }
        self.write(flash, key, len, &mut fill)
    }

    /// Copies a record of another log behind those of this one, which was erased and has no head yet; returns whether its bytes were
    /// sound: it is not there otherwise.
    #[cfg(feature = "train")]
    pub(crate) fn copy<F: NorFlash>(
        &mut self,
        flash: &mut F,
        of: &Log,
        record: &Record,
    ) -> Result<bool, StoreError<F::Error>> {
        let needed = self.up(RECORD).saturating_add(self.up(record.len));
        let room = (self.to - self.end) as usize;
        if needed > room {
            return Err(StoreError::Full { needed, room });
        }
        if !of.read(flash, record, |_, _| ())? {
            return Ok(false);
        }
        self.put(flash, self.end, &head_of(record.key, record.len, record.crc))?;
        let (from, to) = (record.at + of.up(RECORD) as u32, self.end + self.up(RECORD) as u32);
        let mut piece = Piece([0; CHUNK]);
        for offset in (0..record.len).step_by(CHUNK) {
            let piece = piece.first(self.up(CHUNK.min(record.len - offset)));
            fetch(flash, from + offset as u32, piece)?;
            self.put(flash, to + offset as u32, piece)?;
        }
        self.end += needed as u32;
        Ok(true)
    }

    fn write<F: NorFlash>(
        &mut self,
        flash: &mut F,
        key: u64,
        len: usize,
        fill: &mut dyn FnMut(usize, &mut [u8]),
    ) -> Result<(), StoreError<F::Error>> {
        let mut piece = [0; CHUNK];
        let mut crc = CRC.digest();
        for at in (0..len).step_by(CHUNK) {
            let piece = piece.get_mut(..CHUNK.min(len - at)).unwrap_or_default();
            fill(at, piece);
            crc.update(piece);
        }
        let head = head_of(key, len, crc.finalize());
        let written = self.write_record(flash, &head, len, fill);
        if written.is_ok() {
            self.end += (self.up(RECORD) + self.up(len)) as u32;
        } else {
            // The next record begins behind what has come of it, which the flash knows best.
            self.unsure = true;
        }
        written
    }

    /// Looks for the end where it is not known.
    fn find_end<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), StoreError<F::Error>> {
        if self.unsure && self.turn.is_some() {
            self.end = self.walk(flash, self.to, |_| ())?;
            self.unsure = false;
        }
        Ok(())
    }

    fn write_record<F: NorFlash>(
        &self,
        flash: &mut F,
        head: &[u8; RECORD],
        len: usize,
        fill: &mut dyn FnMut(usize, &mut [u8]),
    ) -> Result<(), StoreError<F::Error>> {
        self.put(flash, self.end, head)?;
        let at = self.end + self.up(RECORD) as u32;
        let mut piece = [0; CHUNK];
        for offset in (0..len).step_by(CHUNK) {
            let piece = piece.get_mut(..CHUNK.min(len - offset)).unwrap_or_default();
            fill(offset, piece);
            self.put(flash, at + offset as u32, piece)?;
        }
        Ok(())
    }

    /// The newest record whose key `is`, of those that begin before `before` (the newest of all: `None`).
    ///
    /// # Errors
    /// [`StoreError::Flash`].
    pub fn find<F: NorFlash>(
        &self,
        flash: &mut F,
        before: Option<&Record>,
        is: impl Fn(u64) -> bool,
    ) -> Result<Option<Record>, StoreError<F::Error>> {
        let limit = before.map_or(u32::MAX, |r| r.at);
        let mut newest = None;
        self.each(flash, |r| {
            if r.at < limit && is(r.key) {
                newest = Some(r);
            }
        })?;
        Ok(newest)
    }

    /// All records, the oldest first; whether their bytes are sound only [`read`](Log::read) tells.
    ///
    /// # Errors
    /// [`StoreError::Flash`].
    pub fn each<F: NorFlash>(&self, flash: &mut F, each: impl FnMut(Record)) -> Result<(), StoreError<F::Error>> {
        if self.turn.is_some() {
            self.walk(flash, if self.unsure { self.to } else { self.end }, each)?;
        }
        Ok(())
    }

    /// Gives `take` the bytes of a record in pieces, `(offset, piece)`; returns whether they are those that were written. What was
    /// taken means nothing otherwise.
    ///
    /// # Errors
    /// [`StoreError::Flash`].
    pub fn read<F: NorFlash>(
        &self,
        flash: &mut F,
        record: &Record,
        mut take: impl FnMut(usize, &[u8]),
    ) -> Result<bool, StoreError<F::Error>> {
        let at = record.at + self.up(RECORD) as u32;
        let mut crc = CRC.digest();
        let mut piece = Piece([0; CHUNK]);
        for offset in (0..record.len).step_by(CHUNK) {
            let len = CHUNK.min(record.len - offset);
            fetch(flash, at + offset as u32, piece.first(self.up(len)))?;
            let piece = piece.first(len);
            crc.update(piece);
            take(offset, piece);
        }
        Ok(crc.finalize() == record.crc)
    }

    /// Goes over the heads of all records that begin before `limit`; returns where the next one would be.
    fn walk<F: NorFlash>(
        &self,
        flash: &mut F,
        limit: u32,
        mut each: impl FnMut(Record),
    ) -> Result<u32, StoreError<F::Error>> {
        let step = self.up(RECORD) as u32;
        let mut piece = Piece([0; CHUNK]);
        let mut at = self.first();
        // Behind a head that is damaged, while no other has been found; or right behind one that was cut short.
        let (mut lost, mut cut) = (false, false);
        while limit.saturating_sub(at) >= step {
            let head = piece.first(step as usize);
            fetch(flash, at, head)?;
            if let Some((key, len, crc)) = parsed(head).filter(|&(_, len, _)| len <= (self.to - at - step) as usize) {
                each(Record { key, len, at, crc });
                at += step + self.up(len) as u32;
                (lost, cut) = (false, false);
            } else if lost {
                at += self.unit;
            } else if is_blank(head) && (!cut || self.is_blank_from(flash, at, limit)?) {
                return Ok(at);
            } else if is_cut(head) {
                at += step;
                cut = true;
            } else {
                lost = true;
                at += self.unit;
            }
        }
        Ok(if lost { self.to } else { at })
    }

    /// Whether nothing was written from `at` to `limit`.
    fn is_blank_from<F: NorFlash>(&self, flash: &mut F, at: u32, limit: u32) -> Result<bool, StoreError<F::Error>> {
        let mut piece = Piece([0; CHUNK]);
        for at in (at..limit).step_by(CHUNK) {
            let piece = piece.first(CHUNK.min((limit - at) as usize));
            fetch(flash, at, piece)?;
            if !is_blank(piece) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The CRC of the log's head, and of how long it is: what lies behind a shorter one's end is not known to be erased.
    fn head_crc(&self, head: &[u8]) -> u32 {
        let mut crc = CRC.digest();
        crc.update(head.get(..12).unwrap_or(&[]));
        crc.update(&(self.to - self.from).to_le_bytes());
        crc.finalize()
    }

    /// Where the first record is.
    const fn first(&self) -> u32 {
        self.from + HEAD.next_multiple_of(self.unit as usize) as u32
    }

    const fn up(&self, len: usize) -> usize {
        match len.checked_next_multiple_of(self.unit as usize) {
            Some(len) => len,
            None => usize::MAX,
        }
    }

    /// Writes up to [`CHUNK`] bytes, and 0xFF behind them to the end of a unit.
    fn put<F: NorFlash>(&self, flash: &mut F, at: u32, bytes: &[u8]) -> Result<(), StoreError<F::Error>> {
        let mut whole = Piece([0xFF; CHUNK]);
        whole.0.iter_mut().zip(bytes).for_each(|(to, &b)| *to = b);
        flash.write(at, whole.first(self.up(bytes.len()))).map_err(StoreError::Flash)
    }
}

/// Reads whole units.
fn fetch<F: NorFlash>(flash: &mut F, at: u32, to: &mut [u8]) -> Result<(), StoreError<F::Error>> {
    flash.read(at, to).map_err(StoreError::Flash)
}

fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|&b| b == 0xFF)
}

/// Whether it may be a head that was cut short: it has every bit of the mark that is to stay 1, or nothing behind its first unit.
fn is_cut(head: &[u8]) -> bool {
    head.iter().zip(MARK).all(|(&b, mark)| b & mark == mark) || head.get(8..).is_some_and(is_blank)
}

/// Key, length and CRC of a record whose head is sound.
fn parsed(head: &[u8]) -> Option<(u64, usize, u32)> {
    let [mark, low, high, len, crc] = words(head);
    let own = head.get(20..24).and_then(<[u8]>::first_chunk).map_or(0, |b| u32::from_le_bytes(*b));
    let sound = mark == u32::from_le_bytes(MARK) && own == checksum(head.get(..20).unwrap_or(&[]));
    sound.then_some((u64::from(low) | u64::from(high) << 32, len as usize, crc))
}

/// The head of a record.
fn head_of(key: u64, len: usize, crc: u32) -> [u8; RECORD] {
    let mut head = [0; RECORD];
    set(&mut head, 0, u32::from_le_bytes(MARK));
    set(&mut head, 4, key as u32);
    set(&mut head, 8, (key >> 32) as u32);
    set(&mut head, 12, len as u32);
    set(&mut head, 16, crc);
    let own = checksum(head.get(..20).unwrap_or(&[]));
    set(&mut head, 20, own);
    head
}

fn checksum(bytes: &[u8]) -> u32 {
    CRC.checksum(bytes)
}

/// The first five words.
fn words(bytes: &[u8]) -> [u32; 5] {
    let mut words = [0; 5];
    words
        .iter_mut()
        .zip(bytes.chunks_exact(4))
        .for_each(|(w, b)| *w = b.first_chunk().map_or(0, |b| u32::from_le_bytes(*b)));
    words
}

fn set(bytes: &mut [u8], at: usize, word: u32) {
    if let Some(to) = bytes.get_mut(at..at + 4) {
        to.copy_from_slice(&word.to_le_bytes());
    }
}

#[cfg(test)]
mod tests;
