//! Bytes become characters, as they come: a token may end inside a character.

/// Holds back what is no whole character yet.
#[derive(Clone, Debug, Default)]
pub struct Characters(Vec<u8>);

impl Characters {
    /// The characters that these bytes complete; what can be part of none becomes U+FFFD.
    #[must_use]
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.0.extend_from_slice(bytes);
        let mut text = String::new();
        let mut chunks = self.0.utf8_chunks().peekable();
        let mut rest = vec![];
        while let Some(chunk) = chunks.next() {
            text += chunk.valid();
            let last = chunks.peek().is_none();
            match chunk.invalid() {
                [] => {}
                begun if last && is_begun(begun) => rest = begun.to_vec(),
                _ => text.push(char::REPLACEMENT_CHARACTER),
            }
        }
        self.0 = rest;
        text
    }

    /// What is left: U+FFFD for a character that was never completed.
    #[must_use]
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.0)).into_owned()
    }
}

/// Whether more bytes could make a character of these.
fn is_begun(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|e| e.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_character_appears_when_it_is_whole() {
        let mut c = Characters::default();
        let bytes = "a한b".as_bytes();
        let shown: Vec<String> = bytes.iter().map(|&b| c.push(&[b])).collect();
        assert_eq!(shown, ["a", "", "", "한", "b"]);
        assert_eq!(c.finish(), "");
    }

    #[test]
    fn broken_bytes_are_marked_once() {
        let mut c = Characters::default();
        assert_eq!(c.push(b"\xED\x95"), "");
        assert_eq!(c.push(b"x"), "\u{FFFD}x");
        assert_eq!(c.push(b"\xFF"), "\u{FFFD}");
        assert_eq!(c.push(b"\xF0\x9F"), "");
        assert_eq!(c.finish(), "\u{FFFD}");
    }

    proptest! {
        /// However the bytes are cut, the text is that of all of them.
        #[test]
        fn cuts_do_not_matter(text in "[a한😀é]{0,12}", broken in prop::collection::vec(any::<u8>(), 0..6), cut in 1usize..5) {
            let bytes = [text.as_bytes(), &broken].concat();
            let mut c = Characters::default();
            let shown: String = bytes.chunks(cut).map(|part| c.push(part)).collect();
            prop_assert_eq!(shown + &c.finish(), String::from_utf8_lossy(&bytes));
        }
    }
}
