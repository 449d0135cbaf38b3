//! Nothing is written unless all of it could be.
//!
//! A file is written beside its destination, synced, and renamed over it; a directory is filled beside its
//! destination and renamed. Whatever fails on the way, the destination is what it was. A symbolic link stays, and
//! what it leads to is written; what exists and is no regular file (a device, a pipe) is never replaced.

use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The file that marks a directory as ours, so that a second export may replace the first.
pub const MARKER: &str = "ranklet.json";

/// Writes `bytes` to `path`, all or nothing.
///
/// # Errors
/// Where the directory is missing or cannot be written; `path` is then unchanged.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let (path, parent) = file_destination(path)?;
    let mut temp = tempfile::Builder::new()
        .prefix(".ranklet-")
        .permissions_like(&path)
        .tempfile_in(&parent)
        .with_context(|| format!("cannot write into {}", parent.display()))?;
    temp.write_all(bytes).with_context(|| format!("cannot write {} bytes for {}", bytes.len(), path.display()))?;
    temp.as_file().sync_all().with_context(|| format!("cannot sync {}", path.display()))?;
    temp.persist(&path).with_context(|| format!("cannot move the finished file to {}", path.display()))?;
    sync_dir(&parent);
    Ok(())
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

/// Refuses a destination directory before any work is done: one that exists, is not empty, and is not ours.
///
/// # Errors
/// With what was found, and what to do.
pub fn check_directory(path: &Path, force: bool) -> Result<()> {
    parent_of(path)?;
    if !path.exists() {
        return Ok(());
    }
    if !path.is_dir() {
        bail!("cannot write the directory {}: a file of that name exists; choose another name", path.display());
    }
    let mut entries = fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
    if entries.next().is_some() && !path.join(MARKER).exists() && !force {
        bail!(
            "{} exists, is not empty, and was not written by ranklet (it holds no {MARKER}); choose another \
             directory, or give --force to replace it with everything in it",
            path.display()
        );
    }
    Ok(())
}

/// Fills a new directory with `fill` and moves it to `path`, all or nothing. A directory that may be replaced (see
/// [`check_directory`]) is replaced whole.
///
/// # Errors
/// Those of `fill` and of the file system; `path` is then unchanged.
pub fn write_directory(path: &Path, force: bool, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    check_directory(path, force)?;
    let parent = parent_of(path)?;
    let temp = tempfile::Builder::new()
        .prefix(".ranklet-")
        .tempdir_in(&parent)
        .with_context(|| format!("cannot write into {}", parent.display()))?;
    let filled = temp.path().join("new");
    fs::create_dir(&filled).with_context(|| format!("cannot write into {}", parent.display()))?;
    fill(&filled)?;
    for entry in fs::read_dir(&filled)? {
        File::open(entry?.path()).and_then(|f| f.sync_all()).context("cannot sync what was written")?;
    }
    if path.exists() {
        let old = temp.path().join("old");
        fs::rename(path, &old).with_context(|| format!("cannot replace {}", path.display()))?;
        if let Err(e) = fs::rename(&filled, path) {
            // Put back what was there before reporting.
            fs::rename(&old, path).with_context(|| {
                let kept = temp.path().display();
                format!("cannot put {} back after a failed replacement; it is kept in {kept}", path.display())
            })?;
            return Err(e).with_context(|| format!("cannot replace {}", path.display()));
        }
    } else {
        fs::rename(&filled, path)
            .with_context(|| format!("cannot move the finished directory to {}", path.display()))?;
    }
    sync_dir(&parent);
    Ok(())
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
        let e = write_directory(&out, false, |d| {
            fs::write(d.join("half"), b"half")?;
            bail!("no more")
        });
        assert_eq!(e.unwrap_err().to_string(), "no more");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_strangers_directory_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let fill = |name: &'static str| move |d: &Path| Ok(fs::write(d.join(name), b"x")?);
        fs::create_dir(&out).unwrap();
        write_directory(&out, false, fill("a")).unwrap(); // An empty one may be used.
        let e = write_directory(&out, false, fill("b")).unwrap_err();
        assert!(e.to_string().contains("--force"), "{e}");
        assert!(out.join("a").exists());
        write_directory(&out, true, fill(MARKER)).unwrap();
        assert!(!out.join("a").exists());
        write_directory(&out, false, fill("c")).unwrap(); // Ours.
        assert!(out.join("c").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
