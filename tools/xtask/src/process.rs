//! Running other programs.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// How a program ended.
pub(crate) struct Ended {
    /// Exit code; `None` if a signal or the time limit ended it.
    pub(crate) code: Option<i32>,
    /// Everything it printed, standard output and standard error in the order of arrival.
    pub(crate) text: String,
    /// Whether the time limit ended it.
    pub(crate) late: bool,
}

impl Ended {
    /// Whether it ended by itself with code 0.
    pub(crate) fn ok(&self) -> bool {
        self.code == Some(0)
    }

    /// How it ended, for a sentence that begins with its name.
    pub(crate) fn how(&self) -> String {
        match self.code {
            _ if self.late => "did not end in time and was stopped".into(),
            Some(code) => format!("ended with code {code}"),
            None => "was ended by a signal".into(),
        }
    }
}

/// The path of a program, or `None` if PATH has none of that name.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(program)).find(|path| is_executable(path))
}

fn is_executable(path: &std::path::Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// Standard output of a program that must succeed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        bail!("{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program to its end or to the time limit, handing every line to `each` as it comes.
pub(crate) fn follow(command: &mut Command, limit: Duration, mut each: impl FnMut(&str)) -> Result<Ended> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let (sender, lines) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        forward(stdout, sender.clone());
    }
    if let Some(stderr) = child.stderr.take() {
        forward(stderr, sender);
    }
    let (end, mut text, mut late) = (Instant::now() + limit, String::new(), false);
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                each(&line);
                text.push_str(&line);
                text.push('\n');
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                late = true;
                stop(&mut child);
                break;
            }
        }
    }
    let status = child.wait().with_context(|| format!("{name} was lost"))?;
    Ok(Ended { code: if late { None } else { status.code() }, text, late })
}

fn stop(child: &mut Child) {
    // It may have ended in this very moment: then there is nothing to stop.
    let _ = child.kill();
}

fn forward(pipe: impl Read + Send + 'static, sender: mpsc::Sender<String>) {
    thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
            if sender.send(text).is_err() {
                break;
            }
            line.clear();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn collects_lines_and_code() {
        let mut seen = Vec::new();
        let ended = follow(&mut shell("echo one; echo two; exit 3"), Duration::from_secs(20), |line| {
            seen.push(line.to_owned())
        })
        .expect("sh starts");
        assert_eq!((ended.code, ended.ok(), ended.late), (Some(3), false, false));
        assert_eq!(seen, ["one", "two"]);
    }

    #[test]
    fn a_program_that_hangs_is_stopped_and_fails() {
        let ended =
            follow(&mut shell("echo begun; exec sleep 60"), Duration::from_millis(300), |_| ()).expect("sh starts");
        assert!(ended.late && !ended.ok() && ended.text.contains("begun"));
    }

    #[test]
    fn finds_programs_in_path_only() {
        assert!(which("sh").is_some());
        assert!(which("no-such-program-anywhere").is_none());
    }
}
