//! Tokens become characters, and characters lines.

use core::fmt;

/// A line is broken at the first space from here on.
const WIDTH: usize = 76;
/// What every line begins with.
const MARGIN: &str = "  ";

/// Where the text stands. A token may end inside a character: its bytes wait for the next one.
#[derive(Debug, Default)]
pub struct Page {
    waiting: [u8; 4],
    count: usize,
    column: usize,
}

impl Page {
    /// An empty page.
    #[must_use]
    pub const fn new() -> Self {
        Self { waiting: [0; 4], count: 0, column: 0 }
    }

    /// Writes what these bytes complete; what can be part of no character becomes U+FFFD.
    ///
    /// # Errors
    /// The console's.
    pub fn put(&mut self, out: &mut impl fmt::Write, bytes: &[u8]) -> fmt::Result {
        for &byte in bytes {
            if let Some(slot) = self.waiting.get_mut(self.count) {
                *slot = byte;
                self.count += 1;
            }
            let waiting = self.waiting;
            match core::str::from_utf8(waiting.get(..self.count).unwrap_or(&[])) {
                Ok(whole) => {
                    self.count = 0;
                    whole.chars().try_for_each(|c| self.character(out, c))?;
                }
                // Begun, and so far sound.
                Err(error) if error.error_len().is_none() => {}
                Err(_) => {
                    let begun = self.count > 1;
                    self.count = 0;
                    self.character(out, char::REPLACEMENT_CHARACTER)?;
                    // What broke a character off may begin another.
                    if begun {
                        self.put(out, &[byte])?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Ends the last line.
    ///
    /// # Errors
    /// The console's.
    pub fn end(&mut self, out: &mut impl fmt::Write) -> fmt::Result {
        if self.count > 0 {
            self.count = 0;
            self.character(out, char::REPLACEMENT_CHARACTER)?;
        }
        if self.column > 0 { self.character(out, '\n') } else { Ok(()) }
    }

    fn character(&mut self, out: &mut impl fmt::Write, c: char) -> fmt::Result {
        if c == '\n' || (c == ' ' && self.column >= WIDTH) {
            self.column = 0;
            return out.write_char('\n');
        }
        if self.column == 0 {
            out.write_str(MARGIN)?;
        }
        self.column += 1;
        out.write_char(c)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::String;

    use super::Page;

    fn page(pieces: &[&[u8]]) -> String {
        let (mut page, mut text) = (Page::new(), String::new());
        pieces.iter().for_each(|bytes| page.put(&mut text, bytes).expect("a string takes it"));
        page.end(&mut text).expect("a string takes it");
        text
    }

    #[test]
    fn characters_are_put_together_from_tokens() {
        let text = "a한é😀".as_bytes();
        for n in 1..=text.len() {
            assert_eq!(page(&text.chunks(n).collect::<std::vec::Vec<_>>()), "  a한é😀\n");
        }
    }

    #[test]
    fn what_is_no_character_is_marked() {
        assert_eq!(page(&[b"\xed\x95", b"x", b"\xff"]), "  \u{fffd}x\u{fffd}\n");
        assert_eq!(page(&[b"a\xc3", b"\xc3\xa9"]), "  a\u{fffd}é\n");
        assert_eq!(page(&[b"\xf0\x9f"]), "  \u{fffd}\n");
    }

    #[test]
    fn lines_are_broken_at_spaces() {
        let word = "x".repeat(75);
        assert_eq!(page(&[word.as_bytes(), b" y z\nnew"]), std::format!("  {word} y\n  z\n  new\n"));
        assert_eq!(page(&[]), "");
    }
}
