//! The command as a process: streams that are closed or full, arguments that are no text.
#![cfg(unix)]

mod common;

use common::*;
use ranklet_cli::commands::{Cli, execute};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::{Command, Output, Stdio};

fn command(args: &[&OsStr]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ranklet"));
    command.args(args).stdin(Stdio::null());
    command
}

fn output(args: &[&OsStr], stdout: impl Into<Stdio>) -> Output {
    command(args).stdout(stdout).output().unwrap()
}

fn base() -> Place {
    let place = Place::new();
    Net::new(&[4, 6, 3], 1).save(&place, "base", "classification");
    ranklet(&["convert", "base", &place.str("base"), "-o", &place.str("base.rkl")]).unwrap();
    place
}

/// A place whose files have names that are no UTF-8.
fn odd(place: &Place, name: &[u8]) -> OsString {
    let path = place.0.path().as_os_str().as_bytes();
    OsString::from_vec([path, b"/", name].concat())
}

#[test]
fn a_reader_who_has_left_is_no_failure_and_a_full_disk_is() {
    let place = base();
    let (file, missing) = (place.path("base.rkl"), place.path("missing.rkl"));
    let inspect = [OsStr::new("inspect"), file.as_os_str()];
    let missing = ["--json".as_ref(), OsStr::new("inspect"), missing.as_os_str()];
    let usage = [OsStr::new("--json"), "inspect".as_ref()];
    let closed = || std::io::pipe().unwrap().1;
    for (args, code) in [(&inspect[..], 0), (&missing, 1), (&usage, 2)] {
        let done = output(args, closed());
        let stderr = String::from_utf8_lossy(&done.stderr);
        assert_eq!((done.status.code(), &*stderr), (Some(code), ""), "{args:?}");
        if cfg!(target_os = "linux") {
            let done = output(args, std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
            let stderr = String::from_utf8_lossy(&done.stderr);
            assert_eq!(done.status.code(), Some(1), "{args:?}");
            assert!(stderr.contains("cannot write to stdout") && !stderr.contains("panicked"), "{stderr}");
        }
    }
    let closed = command(&[OsStr::new("inspect"), OsStr::new("missing")]).stderr(closed()).status().unwrap();
    assert_eq!(closed.code(), Some(1));
}

#[test]
fn paths_may_be_any_bytes() {
    use clap::Parser;
    let place = base();
    let (image, log) = (odd(&place, b"x\xff.rkl"), odd(&place, b"\xfe.csv"));
    let run = |args: &[&OsStr]| {
        let args = std::iter::once(OsStr::new("ranklet")).chain(args.iter().copied());
        execute(&Cli::try_parse_from(args).unwrap()).unwrap()
    };
    let os = |text: &'static str| OsStr::new(text);
    let (base, dir, data, back) =
        (place.path("base.rkl"), place.path("base"), place.path("d.safetensors"), odd(&place, b"\xfd"));
    let (base, dir, data) = (base.as_os_str(), dir.as_os_str(), data.as_os_str());
    place.tensors(
        "d.safetensors",
        &[("inputs", &[1, 4], &[0.5; 4]), ("targets", &[1, 3], &[1.0; 3]), ("cotangent", &[1, 3], &[1.0; 3])],
    );
    run(&[os("convert"), os("base"), dir, os("-o"), &image]);
    let shown = run(&[os("inspect"), &image]).json["file"].as_str().unwrap().to_owned();
    assert!(shown.ends_with("x\u{FFFD}.rkl"), "{shown}");
    let more = [os("-o"), &image, os("--log"), &log, os("--loss"), os("mse")];
    run(&[&[os("train"), os("--base"), base, os("--data"), data], &more[..]].concat());
    let scaled = odd(&place, b"x\xff.rkl:0.5");
    for command in ["run", "grad"] {
        let files = [os("--base"), base, os("--adapter"), &scaled, os("--input"), data, os("--output"), &log];
        run(&[&[os(command)], &files[..]].concat());
    }
    run(&[os("export"), &image, os("--base"), base, os("-o"), &back]);
    run(&[os("convert"), os("adapter"), &back, os("--base"), base, os("-o"), &image]);
    run(&[os("eval"), os("--base"), base, os("--adapter"), &scaled, os("--data"), data, os("--loss"), os("mse")]);
}

#[test]
fn names_do_not_steer_the_terminal() {
    let place = base();
    place.write(
        "base/config.json",
        "{\"model_type\": \"mlp\", \"modules\": [\"0\"], \"head\": \"none\", \"\\u001b[2J\": 1}",
    );
    let (dir, out) = (place.path("base"), place.path("x.rkl"));
    let done =
        output(&["convert".as_ref(), "base".as_ref(), dir.as_os_str(), "-o".as_ref(), out.as_os_str()], Stdio::null());
    let stderr = String::from_utf8(done.stderr).unwrap();
    assert!(stderr.contains("\\u{1b}[2J") && !stderr.contains('\u{1b}'), "{stderr}");
}

#[test]
fn arguments_that_are_no_text_are_usage_errors() {
    let odd = OsString::from_vec(vec![0xFF]);
    let done = output(&[OsStr::new("--json"), OsStr::new("train"), &odd], Stdio::piped());
    assert_eq!(done.status.code(), Some(2), "{}", String::from_utf8_lossy(&done.stderr));
    let json: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert!(json["error"].is_string());
}
