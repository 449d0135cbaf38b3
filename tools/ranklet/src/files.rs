//! Reading what somebody named: regular files alone, and no more of one than it held when it was opened. A pipe would
//! keep a command waiting, and a device may never end.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// Opens a regular file; says how long it is.
///
/// # Errors
/// Those of the file system; [`found`] for what is no regular file.
pub fn open(path: &Path) -> io::Result<(File, u64)> {
    // Before it is opened: opening a pipe waits for its other end.
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        let kind = if metadata.is_dir() { ErrorKind::IsADirectory } else { ErrorKind::InvalidInput };
        return Err(io::Error::new(kind, found(path)));
    }
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

/// The whole of a regular file.
///
/// # Errors
/// As [`open`].
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_aligned(path, 1).map(|(bytes, _)| bytes)
}

/// The whole of a regular file, from an address on that is a multiple of `align`: the second value is where it begins in
/// the first. The bytes are read to their place, not moved there: a large file is in memory once.
///
/// # Errors
/// As [`open`].
pub fn read_aligned(path: &Path, align: usize) -> io::Result<(Vec<u8>, usize)> {
    let (file, length) = open(path)?;
    let mut bytes = Vec::<u8>::new();
    // A file with holes may claim more than there is memory.
    let room = usize::try_from(length).ok().and_then(|length| length.checked_add(align - 1));
    bytes.try_reserve_exact(room.ok_or(ErrorKind::OutOfMemory)?).map_err(|_| ErrorKind::OutOfMemory)?;
    let start = bytes.as_ptr().align_offset(align);
    bytes.resize(start, 0);
    file.take(length).read_to_end(&mut bytes)?; // There is room: nothing moves.
    Ok((bytes, start))
}

/// The same, as UTF-8.
///
/// # Errors
/// As [`read`], and for bytes that are no UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|e| io::Error::new(ErrorKind::InvalidData, e.utf8_error()))
}

/// What stands where a regular file is needed, for messages.
#[must_use]
pub fn found(path: &Path) -> &'static str {
    match fs::metadata(path) {
        Ok(m) if m.is_file() => "a file",
        Ok(m) if m.is_dir() => "a directory",
        Ok(_) => "a pipe or a device, and only regular files are read; save it to one first",
        Err(_) => "no such file",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_and_the_rest_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        assert_eq!(read(&path).unwrap_err().kind(), ErrorKind::NotFound);
        fs::write(&path, b"one\xFF").unwrap();
        assert_eq!(read(&path).unwrap(), b"one\xFF");
        assert_eq!(read_text(&path).unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(read(dir.path()).unwrap_err().to_string(), "a directory");
        for (length, align) in [(0, 16), (1, 16), (100_000, 4096)] {
            fs::write(&path, vec![7; length]).unwrap();
            let (bytes, start) = read_aligned(&path, align).unwrap();
            assert_eq!(bytes[start..], vec![7; length]);
            assert!(bytes[start..].as_ptr().addr().is_multiple_of(align));
        }
    }

    #[cfg(unix)]
    #[test]
    fn nothing_waits_for_a_pipe() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for special in [&pipe, Path::new("/dev/zero")] {
            assert!(read(special).unwrap_err().to_string().contains("regular files"));
        }
    }
}
