//! Records: the lines of a firmware's console that are for `cargo xtask`. See `boards/suite/src/record.rs`.

use serde_json::{Map, Value};

/// One record.
#[derive(Debug, Clone)]
pub(crate) struct Record(Map<String, Value>);

impl Record {
    /// Reads a line; `None` if it is for people.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        if !line.starts_with("{\"record\":") {
            return None;
        }
        match serde_json::from_str(line) {
            Ok(Value::Object(fields)) => Some(Self(fields)),
            _ => None,
        }
    }

    /// What it is a record of.
    pub(crate) fn kind(&self) -> &str {
        self.text("record").unwrap_or_default()
    }

    /// A field that holds text.
    pub(crate) fn text(&self, field: &str) -> Option<&str> {
        self.0.get(field)?.as_str()
    }

    /// A field that holds a whole number.
    pub(crate) fn number(&self, field: &str) -> Option<u64> {
        self.0.get(field)?.as_u64()
    }

    /// All fields but the kind, in the firmware's order.
    pub(crate) fn row(&self) -> Value {
        let mut fields = self.0.clone();
        fields.shift_remove("record");
        Value::Object(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::Record;

    #[test]
    fn a_record_is_a_whole_line() {
        let record = Record::parse(r#"{"record":"stack","board":"x","bytes":12}"#).expect("a record");
        assert_eq!((record.kind(), record.number("bytes"), record.text("board")), ("stack", Some(12), Some("x")));
        assert_eq!(record.row().to_string(), r#"{"board":"x","bytes":12}"#);
        for line in ["", "loss 0.3", r#" {"record":"stack"}"#, r#"{"record":"stack""#] {
            assert!(Record::parse(line).is_none(), "{line}");
        }
    }
}
