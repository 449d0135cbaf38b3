//! One safetensors file, open: its header in memory, the bytes of its tensors read where and when they are asked for, so
//! that a model may be larger than memory.
//!
//! Reads are positioned, not mapped: a mapped file that another program cuts short ends this one with a signal, a read
//! of it is an error like any other.

use super::CheckpointError;
use crate::files;
use safetensors::tensor::{Metadata, SafeTensorError, SafeTensors, TensorInfo};
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The length of a header, in front of it.
const LENGTH: usize = 8;
/// The longest header that the safetensors library takes.
const LONGEST: u64 = 100_000_000;
/// Bytes that are read at a time. A multiple of every element.
const PIECE: usize = 1 << 18;

/// An open file.
pub(super) struct Shard {
    path: PathBuf,
    /// One read at a time: a file has one position.
    file: Mutex<File>,
    /// Where the tensors' bytes begin.
    start: u64,
    metadata: Metadata,
}

impl Shard {
    /// Opens a file and reads its header.
    pub(super) fn open(path: &Path) -> Result<Shard, CheckpointError> {
        let io = |source| CheckpointError::Io { path: path.to_owned(), source };
        let (mut file, size) = files::open(path).map_err(io)?;
        let format = |source| CheckpointError::Format { path: path.to_owned(), size, source };
        let mut head = vec![];
        read_up_to(&mut file, LENGTH as u64, &mut head).map_err(io)?;
        if let Some(length) = head.first_chunk().map(|b| u64::from_le_bytes(*b))
            && length <= LONGEST
        {
            read_up_to(&mut file, length, &mut head).map_err(io)?;
        }
        // The library wants the whole file. Given the header alone, it checks all of that, and misses the rest last.
        match SafeTensors::read_metadata(&head) {
            Ok(_) | Err(SafeTensorError::MetadataIncompleteBuffer) => {}
            Err(source) => return Err(format(source)),
        }
        let header = head.get(LENGTH..).unwrap_or_default();
        let metadata: Metadata =
            serde_json::from_slice(header).map_err(|e| format(SafeTensorError::InvalidHeaderDeserialization(e)))?;
        let start = head.len() as u64;
        if start.checked_add(metadata.data_len() as u64) != Some(size) {
            return Err(format(SafeTensorError::MetadataIncompleteBuffer));
        }
        if let Err(e) = serde_json::from_slice::<UniqueKeys>(header) {
            let problem = format!("its header cannot be relied on: {e}");
            return Err(CheckpointError::Header { path: path.to_owned(), problem });
        }
        Ok(Shard { path: path.to_owned(), file: Mutex::new(file), start, metadata })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.metadata.tensors().into_keys()
    }

    pub(super) fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.metadata.info(name)
    }

    /// Gives a tensor's bytes to `each`, front to back, in pieces of whole elements.
    pub(super) fn read(&self, info: &TensorInfo, mut each: impl FnMut(&[u8])) -> Result<(), CheckpointError> {
        let (from, to) = info.data_offsets;
        let mut read = || -> io::Result<()> {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            file.seek(SeekFrom::Start(self.start + from as u64))?;
            let mut left = to - from;
            let mut piece = vec![0; left.min(PIECE)];
            while left > 0 {
                let part = &mut piece[..left.min(PIECE)];
                file.read_exact(part).map_err(|e| match e.kind() {
                    ErrorKind::UnexpectedEof => io::Error::new(e.kind(), "it became shorter while it was being read"),
                    _ => e,
                })?;
                each(part);
                left -= part.len();
            }
            Ok(())
        };
        read().map_err(|source| CheckpointError::Io { path: self.path.clone(), source })
    }
}

/// Appends the next `count` bytes, or as many as there are.
fn read_up_to(file: &mut File, count: u64, to: &mut Vec<u8>) -> io::Result<()> {
    file.take(count).read_to_end(to).map(|_| ())
}

/// A JSON object in which no key stands twice. The safetensors parser takes the last one, whoever wrote the first.
struct UniqueKeys;

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<UniqueKeys, D::Error> {
        deserializer.deserialize_map(UniqueKeys)
    }
}

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = UniqueKeys;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<UniqueKeys, M::Error> {
        let mut seen = HashSet::new();
        while let Some((key, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
            if let Some(twice) = seen.replace(key) {
                return Err(M::Error::custom(format!("it describes `{twice}` twice")));
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
    }

    const TWO: &str = r#"{"a":{"dtype":"U8","shape":[300000],"data_offsets":[0,300000]},"b":{"dtype":"U8","shape":[2],"data_offsets":[300000,300002]}}"#;

    #[test]
    fn tensors_are_read_in_pieces_from_their_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let data: Vec<u8> = (0..300_002_u32).map(|i| (i % 251) as u8).collect();
        fs::write(&path, file(TWO, &data)).unwrap();
        let shard = Shard::open(&path).unwrap();
        for (name, range) in [("b", 300_000..300_002), ("a", 0..300_000)] {
            let mut read = vec![];
            shard.read(shard.info(name).unwrap(), |piece| read.extend_from_slice(piece)).unwrap();
            assert_eq!(read, data[range]);
        }
        assert!(shard.info("c").is_none());
    }

    #[test]
    fn a_file_that_becomes_shorter_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        fs::write(&path, file(TWO, &[0; 300_002])).unwrap();
        let shard = Shard::open(&path).unwrap();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(200_000).unwrap();
        let error = shard.read(shard.info("a").unwrap(), |_| ()).unwrap_err();
        let CheckpointError::Io { source, .. } = error else { panic!("{error}") };
        assert!(source.to_string().contains("shorter"), "{source}");
    }

    /// What the library says of a whole file, this says of one whose header alone is read.
    #[test]
    fn headers_are_judged_as_the_library_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let good = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let cases = [
            file(good, &[0; 8]),
            file("{}", &[]),
            file("{}", &[0]),
            file(good, &[0; 7]),
            file(good, &[0; 9]),
            file("[]", &[]),
            file("{\"a\"", &[0; 8]),
            file(&good.replace("F32", "F33"), &[0; 8]),
            file(&good.replace("[0,8]", "[4,12]"), &[0; 12]),
            file(&good.replace("[0,8]", "[8,0]"), &[0; 8]),
            file(&good.replace("[2]", "[3]"), &[0; 8]),
            file(&good.replace("[2]", "[18446744073709551615,2]"), &[0; 8]),
            // Two that overlap.
            file(
                r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#,
                &[0; 3],
            ),
            vec![],
            vec![1; 7],
            1_u64.to_le_bytes().to_vec(),
            [&100_000_001_u64.to_le_bytes()[..], b"{}"].concat(),
            u64::MAX.to_le_bytes().to_vec(),
            file("\u{1F600}", &[]),
            file(good, &[0; 8])[..20].to_vec(),
        ];
        for (i, bytes) in cases.iter().enumerate() {
            fs::write(&path, bytes).unwrap();
            let expected = SafeTensors::read_metadata(bytes).map(|(n, _)| n as u64 + 8).map_err(|e| e.to_string());
            let found = Shard::open(&path).map(|s| s.start).map_err(|e| match e {
                CheckpointError::Format { source, .. } => source.to_string(),
                other => panic!("{other}"),
            });
            assert_eq!(found, expected, "case {i}");
        }
    }
}
