//! A matrix of `f32`, row-major: what a checkpoint gives and what quantization takes.

/// `(rows, cols)`, row-major. `data.len() == rows * cols`; every value is finite.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// First dimension: outputs of a weight, rank of an A, outputs of a B.
    pub rows: usize,
    /// Second dimension.
    pub cols: usize,
    /// `(rows, cols)`, row-major.
    pub data: Vec<f32>,
}

impl Matrix {
    /// From its parts.
    ///
    /// # Panics
    /// Where `data` has another length than `rows * cols`: a mistake of the caller, never of a file.
    #[must_use]
    pub fn new(rows: usize, cols: usize, data: Vec<f32>) -> Matrix {
        assert_eq!(data.len(), rows * cols, "a ({rows}, {cols}) matrix");
        Matrix { rows, cols, data }
    }

    /// The rows, in order. A matrix without columns has no rows to show.
    pub fn iter_rows(&self) -> impl Iterator<Item = &[f32]> {
        self.data.chunks_exact(self.cols.max(1))
    }
}

impl Matrix {
    /// Columns as rows.
    #[must_use]
    pub fn transposed(&self) -> Matrix {
        let column = |c: usize| self.data.iter().skip(c).step_by(self.cols.max(1)).copied();
        Matrix::new(self.cols, self.rows, (0..self.cols).flat_map(column).collect())
    }
}

/// `[2, 3]` as `(2, 3)`: how shapes are written in every message.
#[must_use]
pub fn shape(dims: &[usize]) -> String {
    let dims: Vec<String> = dims.iter().map(usize::to_string).collect();
    format!("({})", dims.join(", "))
}

/// `1234567` as `1,234,567`: how counts are written for people (and in PEFT's line).
#[must_use]
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// Text from a file as it can be shown: what would steer a terminal (control characters, and those that change the
/// direction of writing) is escaped.
#[must_use]
pub fn printable(text: &str) -> String {
    let steers = |c: char| {
        c.is_control() || matches!(c, '\u{200E}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) { out.extend(c.escape_debug()) } else { out.push(c) }
    }
    out
}

/// The beginning of a text that a message quotes.
#[must_use]
pub fn excerpt(text: String) -> String {
    const LIMIT: usize = 200;
    match text.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text,
    }
}

/// At most `limit` names, quoted; the rest is counted.
#[must_use]
pub fn name_list<'a>(names: impl IntoIterator<Item = &'a str>, limit: usize) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let mut out: Vec<String> =
        names.iter().take(limit).map(|n| format!("`{}`", printable(&excerpt((*n).to_owned())))).collect();
    if names.len() > limit {
        out.push(format!("and {} more", names.len() - limit));
    }
    if out.is_empty() { "none".to_owned() } else { out.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_these() {
        let m = Matrix::new(2, 3, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(m.transposed(), Matrix::new(3, 2, vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0]));
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(270_336), "270,336");
        assert_eq!(thousands(1_000_000), "1,000,000");
        assert_eq!(shape(&[2, 3]), "(2, 3)");
        assert_eq!(name_list(["a", "b", "c"], 2), "`a`, `b`, and 1 more");
        assert_eq!(name_list([], 2), "none");
        assert_eq!(excerpt("é".repeat(200)), "é".repeat(200));
        assert_eq!(excerpt("é".repeat(201)), "é".repeat(200) + "… (402 bytes)");
        assert_eq!(name_list(["\u{1b}[2J", r"a\d", "Größe\u{301}"], 3), "`\\u{1b}[2J`, `a\\d`, `Größe\u{301}`");
        assert!(name_list(["x".repeat(70_000).as_str()], 1).len() < 300);
        assert_eq!(printable("a\u{202E}b\u{9b}"), "a\\u{202e}b\\u{9b}");
    }
}
