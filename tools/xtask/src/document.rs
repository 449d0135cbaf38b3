//! Documents with a generated part: what stands between two marker lines is a command's, the rest is written by hand.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use crate::tree;

/// A document, and the command whose part it has.
pub(crate) struct Document {
    /// In the root of the project.
    pub(crate) path: &'static str,
    /// As it is typed.
    pub(crate) command: &'static str,
}

impl Document {
    fn file(&self) -> PathBuf {
        tree::root().join(self.path)
    }

    /// The document as it stands, and as it would be with another generated part.
    fn with(&self, generated: &str) -> Result<(String, String)> {
        let file = self.file();
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", tree::shown(&file)))?;
        let (begin, end) = self.markers();
        let new = between(&text, generated, &begin, &end).with_context(|| {
            format!("{} has lost its markers, two lines of their own:\n{begin}\n{end}", tree::shown(&file))
        })?;
        Ok((text, new))
    }

    fn markers(&self) -> (String, String) {
        (format!("<!-- begin: {} -->", self.command), format!("<!-- end: {} -->", self.command))
    }

    /// Replaces the generated part.
    pub(crate) fn write(&self, generated: &str) -> Result<()> {
        let (_, new) = self.with(generated)?;
        fs::write(self.file(), new).with_context(|| format!("cannot write {}", self.path))
    }

    /// Whether the generated part is this.
    pub(crate) fn is(&self, generated: &str) -> Result<bool> {
        let (old, new) = self.with(generated)?;
        Ok(old == new)
    }
}

/// `text` with everything between the markers replaced.
fn between(text: &str, generated: &str, begin: &str, end: &str) -> Option<String> {
    let (before, rest) = text.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some(format!("{before}{begin}\n\n{generated}\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::{accuracy, bench, experiment::Experiment};
    use clap::ValueEnum;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let text = "before\n<b>\nold\n<e>\nafter\n";
        let new = between(text, "new\n", "<b>", "<e>").expect("markers");
        assert_eq!(new, "before\n<b>\n\nnew\n\n<e>\nafter\n");
        assert_eq!(between(&new, "new\n", "<b>", "<e>").as_deref(), Some(new.as_str()), "twice is once");
        assert_eq!(between("no markers", "new", "<b>", "<e>"), None);
    }

    #[test]
    fn the_documents_have_their_markers() {
        let experiments = Experiment::value_variants().iter().map(|e| e.document());
        for document in experiments.chain([accuracy::DOCUMENT, bench::DOCUMENT]) {
            assert!(document.with("").is_ok(), "{}", document.path);
        }
    }
}
