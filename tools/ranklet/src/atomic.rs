//! Nothing is written unless all of it could be.
//!
//! A file is written beside its destination, synced, and renamed over it; a directory is filled beside its
//! destination and renamed. Whatever fails on the way, the destination is what it was. A symbolic link stays, and
//! what it leads to is written; what exists and is no regular file (a device, a pipe) is never replaced.

use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The file that marks a directory as ours, so that a second export may replace the first.
pub const MARKER: &str = "ranklet.json";

/// Writes `bytes` to `path`, all or nothing.
///
/// # Errors
/// Where the directory is missing or cannot be written; `path` is then unchanged.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    write_file_with(path, |out| out.write_all(bytes).with_context(|| format!("cannot write {} bytes", bytes.len())))
}

/// Writes what `fill` writes to `path`, all or nothing; returns what it returns.
///
/// # Errors
/// Those of `fill`, and as [`write_file`]; `path` is then unchanged.
pub fn write_file_with<T>(path: &Path, fill: impl FnOnce(&mut File) -> Result<T>) -> Result<T> {
    let (path, parent) = file_destination(path)?;
    let mut temp = tempfile::Builder::new()
        .prefix(".ranklet-")
        .permissions_like(&path)
        .tempfile_in(&parent)
        .with_context(|| format!("cannot write into {}", parent.display()))?;
    let value = fill(temp.as_file_mut()).with_context(|| format!("cannot write {}", path.display()))?;
    temp.as_file().sync_all().with_context(|| format!("cannot sync {}", path.display()))?;
    temp.persist(&path)
        .map_err(|e| e.error)
        .with_context(|| format!("cannot move the finished file to {}", path.display()))?;
    sync_dir(&parent);
    Ok(value)
}

/// Refuses a file that cannot be written, before any work is done: a file is made beside it and taken away again.
///
/// # Errors
/// What stands in the way.
pub fn check_file(path: &Path) -> Result<()> {
    let (path, parent) = file_destination(path)?;
    let probe = tempfile::Builder::new().prefix(".ranklet-").tempfile_in(&parent);
    probe.with_context(|| format!("cannot write {}: nothing can be made in {}", path.display(), parent.display()))?;
    Ok(())
}

/// The one name of what `path` leads to, whether that exists yet or not; `None` where there cannot be such a file.
/// Two paths with the same identity are the same file.
#[must_use]
pub fn identity(path: &Path) -> Option<PathBuf> {
    let path = destination(path).ok()?;
    match path.canonicalize() {
        Ok(there) => Some(there),
        Err(_) => Some(parent_of(&path).ok()?.canonicalize().ok()?.join(path.file_name()?)),
    }
}

/// Where a file is to be written, and the directory around it.
fn file_destination(path: &Path) -> Result<(PathBuf, PathBuf)> {
    let shown = path.display();
    if path.as_os_str().as_encoded_bytes().last().is_some_and(|&b| std::path::is_separator(b.into())) {
        bail!("cannot write {shown}: the name of a directory; give the name of a file");
    }
    let path = destination(path)?;
    let parent = parent_of(&path)?;
    match fs::metadata(&path) {
        Ok(m) if m.is_dir() => bail!("cannot write {shown}: it is a directory; give the name of a file"),
        Ok(m) if !m.is_file() => {
            bail!("cannot write {shown}: it exists and is no regular file (a device, a pipe or a socket)")
        }
        Ok(m) if m.permissions().readonly() => {
            bail!("cannot write {shown}: it exists and is read-only; remove it first, or choose another name")
        }
        // A name that is too long, for one.
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).with_context(|| format!("cannot write {shown}")),
        _ => Ok((path, parent)),
    }
}

/// What `path` leads to through symbolic links, also where the last one leads to nothing yet.
fn destination(path: &Path) -> Result<PathBuf> {
    // Without separators at the end, which would hide that the last part is a link.
    let mut at: PathBuf = path.components().collect();
    for _ in 0..40 {
        match fs::symlink_metadata(&at) {
            Ok(m) if m.file_type().is_symlink() => {
                let target = fs::read_link(&at).with_context(|| format!("cannot read the link {}", at.display()))?;
                at = at.parent().unwrap_or(Path::new("")).join(target);
            }
            _ => return Ok(at),
        }
    }
    bail!("cannot write {}: a circle of symbolic links", path.display())
}

/// Refuses a destination directory before any work is done: one that exists, is not empty, and is not ours. Ours is
/// one that holds [`MARKER`], and nothing but files named in `ours`.
///
/// # Errors
/// With what was found, and what to do.
pub fn check_directory(path: &Path, force: bool, ours: &[&str]) -> Result<()> {
    let (path, parent) = directory_destination(path, force, ours)?;
    let probe = tempfile::Builder::new().prefix(".ranklet-").tempdir_in(&parent);
    probe.with_context(|| format!("cannot write {}: nothing can be made in {}", path.display(), parent.display()))?;
    Ok(())
}

fn directory_destination(path: &Path, force: bool, ours: &[&str]) -> Result<(PathBuf, PathBuf)> {
    let shown = path.display();
    let path = destination(path)?;
    let parent = parent_of(&path)?;
    if !path.try_exists().with_context(|| format!("cannot write {shown}"))? {
        return Ok((path, parent));
    }
    if !path.is_dir() {
        bail!("cannot write the directory {shown}: a file of that name exists; choose another name");
    }
    let (mut empty, mut stranger) = (true, None);
    for entry in fs::read_dir(&path).with_context(|| format!("cannot read {shown}"))? {
        let entry = entry.with_context(|| format!("cannot read {shown}"))?;
        let known = ours.iter().any(|name| entry.file_name() == *name) && entry.file_type().is_ok_and(|t| t.is_file());
        empty = false;
        stranger = stranger.or_else(|| (!known).then(|| entry.file_name()));
    }
    let why = match stranger {
        _ if empty || force => return Ok((path, parent)),
        Some(name) => format!("it holds {name:?}"),
        None if path.join(MARKER).exists() => return Ok((path, parent)),
        None => format!("it holds no {MARKER}"),
    };
    bail!(
        "{shown} exists, is not empty, and was not written by ranklet ({why}); choose another directory, or give \
         --force to replace it with everything in it"
    )
}

/// Fills a new directory with `fill` and moves it to `path`, all or nothing. A directory that may be replaced (see
/// [`check_directory`]) is replaced whole.
///
/// # Errors
/// Those of `fill` and of the file system; `path` is then unchanged, or the message says where its content is.
pub fn write_directory(path: &Path, force: bool, ours: &[&str], fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let (path, parent) = directory_destination(path, force, ours)?;
    let temp = tempfile::Builder::new()
        .prefix(".ranklet-")
        .tempdir_in(&parent)
        .with_context(|| format!("cannot write into {}", parent.display()))?;
    let filled = temp.path().join("new");
    fs::create_dir(&filled).with_context(|| format!("cannot write into {}", parent.display()))?;
    fill(&filled)?;
    let sync = |entry: io::Result<fs::DirEntry>| File::open(entry?.path())?.sync_all();
    let mut entries = fs::read_dir(&filled).with_context(|| format!("cannot read {} back", path.display()))?;
    entries.try_for_each(sync).with_context(|| format!("cannot sync what was written for {}", path.display()))?;
    replace(&path, temp, |from, to| fs::rename(from, to))?;
    sync_dir(&parent);
    Ok(())
}

/// Moves `new` in the directory `temp` to `path`; what stands there is kept until that has succeeded.
fn replace(path: &Path, temp: TempDir, mut rename: impl FnMut(&Path, &Path) -> io::Result<()>) -> Result<()> {
    let (new, old) = (temp.path().join("new"), temp.path().join("old"));
    if !path.exists() {
        return rename(&new, path).with_context(|| format!("cannot move the finished directory to {}", path.display()));
    }
    rename(path, &old).with_context(|| format!("cannot replace {}", path.display()))?;
    let Err(e) = rename(&new, path) else { return Ok(()) };
    // Put back what was there before reporting.
    if let Err(back) = rename(&old, path) {
        let kept = temp.keep().join("old"); // Dropped, it would take the only copy along.
        return Err(back).with_context(|| {
            let (path, kept) = (path.display(), kept.display());
            format!("cannot put {path} back after a failed replacement ({e}); what it held is kept in {kept}")
        });
    }
    Err(e).with_context(|| format!("cannot replace {}", path.display()))
}

/// The directory `path` stands in, which has to exist.
fn parent_of(path: &Path) -> Result<PathBuf> {
    let parent = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p.to_owned(),
        _ => PathBuf::from("."),
    };
    if path.file_name().is_none() {
        bail!("{} names no file or directory to write", path.display());
    }
    if !parent.is_dir() {
        bail!("cannot write {}: the directory {} does not exist; create it first", path.display(), parent.display());
    }
    Ok(parent)
}

/// Makes the rename itself durable. Not every file system can; the data are synced in any case.
fn sync_dir(dir: &Path) {
    let _ = File::open(dir).and_then(|d| d.sync_all());
}

/// Temporary files are private (0600); a finished one gets what the file it replaces had, or what the umask leaves.
trait PermissionsLike {
    fn permissions_like(&mut self, path: &Path) -> &mut Self;
}

impl PermissionsLike for tempfile::Builder<'_, '_> {
    #[cfg(unix)]
    fn permissions_like(&mut self, path: &Path) -> &mut Self {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(path).map_or(0o666, |m| m.permissions().mode());
        self.permissions(fs::Permissions::from_mode(mode))
    }

    #[cfg(not(unix))]
    fn permissions_like(&mut self, _: &Path) -> &mut Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.rkl");
        write_file(&path, b"one").unwrap();
        write_file(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a temporary file was left behind");
    }

    #[test]
    fn a_failed_fill_leaves_the_file_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.rkl");
        fs::write(&path, b"one").unwrap();
        let e = write_file_with(&path, |out| -> Result<()> {
            out.write_all(b"half")?;
            bail!("no more")
        });
        assert!(format!("{:#}", e.unwrap_err()).ends_with("no more"));
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let e = write_file(&dir.path().join("no/x.rkl"), b"").unwrap_err();
        assert!(e.to_string().contains("does not exist"), "{e}");
    }

    #[test]
    fn what_cannot_be_written_is_said_before_any_work() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let fails = |path: &Path, part: &str| {
            for e in [check_file(path).unwrap_err(), write_file(path, b"x").unwrap_err()] {
                assert!(e.to_string().contains(part), "{e}");
            }
        };
        fails(dir.path(), "directory");
        fails(&at("x.rkl/"), "directory");
        fails(&at("no/x.rkl"), "does not exist");
        fails(&at(&"x".repeat(300)), "cannot write");
        assert!(check_directory(&at(&"x".repeat(300)), true, &[]).is_err());
        fs::write(at("kept"), b"kept").unwrap();
        let mut mode = fs::metadata(at("kept")).unwrap().permissions();
        mode.set_readonly(true);
        fs::set_permissions(at("kept"), mode).unwrap();
        fails(&at("kept"), "read-only");
        assert_eq!(fs::read(at("kept")).unwrap(), b"kept");
        check_file(&at("new")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the probe was left behind");
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_special_files_stay() {
        use std::os::unix::fs::{FileTypeExt, symlink};
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("deep")).unwrap();
        symlink("deep/new", at("link")).unwrap();
        symlink("link", at("link2")).unwrap();
        assert_eq!(identity(&at("link2")), identity(&at("deep/new")), "also while there is no such file");
        write_file(&at("link2"), b"one").unwrap();
        write_file(&at("link"), b"two").unwrap();
        assert_eq!(fs::read(at("deep/new")).unwrap(), b"two");
        assert!(at("link").is_symlink() && at("link2").is_symlink());
        symlink("loop", at("loop")).unwrap();
        assert!(write_file(&at("loop"), b"").unwrap_err().to_string().contains("circle"));
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        assert!(write_file(&at("socket"), b"").unwrap_err().to_string().contains("no regular file"));
        assert!(fs::metadata(at("socket")).unwrap().file_type().is_socket());
    }

    #[test]
    fn a_failed_fill_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let e = write_directory(&out, false, &OURS, |d| {
            fs::write(d.join("half"), b"half")?;
            bail!("no more")
        });
        assert_eq!(e.unwrap_err().to_string(), "no more");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    const OURS: [&str; 2] = [MARKER, "a"];

    fn fill(names: &'static [&'static str]) -> impl Fn(&Path) -> Result<()> {
        move |d: &Path| names.iter().try_for_each(|name| Ok(fs::write(d.join(name), name)?))
    }

    #[test]
    fn a_strangers_directory_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let refused = |part: &str| {
            for e in [check_directory(&out, false, &OURS), write_directory(&out, false, &OURS, fill(&["b"]))] {
                let e = e.unwrap_err().to_string();
                assert!(e.contains("--force") && e.contains(part), "{e}");
            }
        };
        fs::create_dir(&out).unwrap();
        write_directory(&out, false, &OURS, fill(&["a"])).unwrap(); // An empty one may be used.
        refused(MARKER);
        assert!(out.join("a").exists());
        write_directory(&out, true, &OURS, fill(&[MARKER])).unwrap();
        assert!(!out.join("a").exists());
        write_directory(&out, false, &OURS, fill(&[MARKER, "a"])).unwrap(); // Ours.
        assert!(out.join("a").exists());
        // Ours, but for what somebody has put into it.
        fs::write(out.join("notes.txt"), b"keep").unwrap();
        refused("notes.txt");
        fs::remove_file(out.join("notes.txt")).unwrap();
        fs::remove_file(out.join("a")).unwrap();
        fs::create_dir(out.join("a")).unwrap();
        refused("\"a\"");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn nothing_is_lost_where_replacing_fails() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let failing = |from_call: usize| {
            fs::create_dir_all(&out).unwrap();
            fs::write(out.join("precious"), b"x").unwrap();
            let temp = tempfile::Builder::new().prefix("kept").tempdir_in(dir.path()).unwrap();
            fs::create_dir(temp.path().join("new")).unwrap();
            let mut calls = 0;
            let rename = |from: &Path, to: &Path| {
                calls += 1;
                if calls < from_call { fs::rename(from, to) } else { Err(io::Error::other("no")) }
            };
            (temp.path().join("old"), replace(&out, temp, rename).unwrap_err().to_string())
        };
        let (_, e) = failing(1);
        assert!(e.contains("cannot replace") && out.join("precious").exists(), "{e}");
        // The second rename and the one that puts back fail.
        let (old, e) = failing(2);
        assert!(e.contains("is kept in") && e.contains(&old.display().to_string()), "{e}");
        assert!(old.join("precious").exists() && !out.exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_linked_directory_is_replaced_where_it_stands() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("deep")).unwrap();
        std::os::unix::fs::symlink("deep/new", at("link")).unwrap();
        write_directory(&at("link"), false, &OURS, fill(&[MARKER])).unwrap();
        write_directory(&at("link/"), false, &OURS, fill(&[MARKER, "a"])).unwrap();
        assert!(at("link").is_symlink() && at("deep/new/a").exists());
    }
}
