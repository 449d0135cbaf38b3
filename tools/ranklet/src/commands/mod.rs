//! The command line: one file a command. Each takes its arguments and returns a [`Report`]; nothing here prints but
//! [`main`], and `generate`, which streams.

pub mod classify;
pub mod convert_adapter;
pub mod convert_base;
pub mod data;
pub mod eval;
pub mod export;
pub mod generate;
pub mod grad;
pub mod inspect;
pub mod merge;
pub mod plan;
pub mod run;
pub mod train;
pub mod verify;

use crate::atomic;
use crate::image::ImageFile;
use crate::report::{Report, chain};
use crate::tensor::printable;
use anyhow::{Context, Result, bail};
use clap::builder::{OsStringValueParser, TypedValueParser, ValueParser, ValueParserFactory};
use clap::{Parser, Subcommand};
use ranklet::image::layout::MAGIC;
use ranklet::model::Model;
use serde_json::json;
use std::ffi::OsStr;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Low-rank adapters (LoRA) that run and learn on microcontrollers: the host side.
#[derive(Debug, Parser)]
#[command(name = "ranklet", version, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    /// Print one JSON document on stdout instead of text (an error too), and no progress.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a flash image from a checkpoint.
    #[command(subcommand)]
    Convert(Convert),
    /// Make a PEFT directory from an adapter image.
    Export(export::Args),
    /// Add up adapters into one: exact weighted sums, whose ranks add up.
    Merge(merge::Args),
    /// Show what an image holds: header, tensors, memory plan, trainable %.
    Inspect(inspect::Args),
    /// Show flash, RAM and stack before flashing, and whether they fit a board.
    Plan(plan::Args),
    /// Hold an image against the floats it was made of, layer by layer.
    Verify(verify::Args),
    /// Run a model with the device's arithmetic.
    Run(run::Args),
    /// Write on from a prompt, with a language model.
    Generate(generate::Args),
    /// Label texts, or their tokens, with a classifier.
    Classify(classify::Args),
    /// Gradients of A and B for L = Σ output · cotangent.
    Grad(grad::Args),
    /// Train an adapter with the device's arithmetic.
    Train(Box<train::Args>),
    /// Loss and accuracy on data.
    Eval(eval::Args),
}

/// What to convert.
#[derive(Debug, Subcommand)]
pub enum Convert {
    /// A base: config.json and safetensors, to be quantized and frozen.
    Base(convert_base::Args),
    /// An adapter: a PEFT directory, or a plain LoRALayer state_dict.
    Adapter(convert_adapter::Args),
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Somebody who asked for JSON gets JSON, usage errors included; help and version are no errors.
        Err(e) if e.use_stderr() && std::env::args_os().any(|a| a == "--json") => {
            return say(&json!({"error": e.to_string().trim()}).to_string(), ExitCode::from(2));
        }
        Err(e) => e.exit(),
    };
    match execute(&cli) {
        Ok(report) => {
            let code = if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE };
            let text = if cli.json { report.json.to_string() } else { lines(&report.human) };
            say(&text, code)
        }
        Err(e) if cli.json => say(&json!({"error": chain(&e)}).to_string(), ExitCode::FAILURE),
        Err(e) => {
            complain(&lines(&chain(&e)));
            ExitCode::FAILURE
        }
    }
}

/// Text for a terminal: whatever name of a file's it repeats, nothing in it but line breaks steers one.
pub(crate) fn lines(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// Prints the one thing there is to say, if it has not been said yet, and returns `code`. A reader who has left (`| head`) is no failure; a full disk
/// is.
fn say(text: &str, code: ExitCode) -> ExitCode {
    if text.is_empty() {
        return code;
    }
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            complain(&format!("cannot write to stdout: {e}"));
            ExitCode::FAILURE
        }
        _ => code,
    }
}

/// An error on stderr; where that is closed too, the exit status has to do.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "error: {text}");
}

/// Does what a command line says.
///
/// # Errors
/// Why it could not, and what to do.
pub fn execute(cli: &Cli) -> Result<Report> {
    let json = cli.json;
    match &cli.command {
        Command::Convert(Convert::Base(args)) => convert_base::execute(args, json),
        Command::Convert(Convert::Adapter(args)) => convert_adapter::execute(args),
        Command::Export(args) => export::execute(args),
        Command::Merge(args) => merge::execute(args),
        Command::Inspect(args) => inspect::execute(args),
        Command::Plan(args) => plan::execute(args),
        Command::Verify(args) => verify::execute(args, json),
        Command::Run(args) => run::execute(args, json),
        Command::Generate(args) => generate::execute(args, json),
        Command::Classify(args) => classify::execute(args, json),
        Command::Grad(args) => grad::execute(args, json),
        Command::Train(args) => train::execute(args, json),
        Command::Eval(args) => eval::execute(args, json),
    }
}

/// `adapter.rkl`, or `adapter.rkl:0.5` to multiply its scaling.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterArg {
    /// The image.
    pub path: PathBuf,
    /// What its scaling is multiplied by.
    pub scale: f64,
}

impl AdapterArg {
    /// Parses an argument; a path may be any bytes.
    ///
    /// # Errors
    /// A scale that is no finite number.
    pub fn parse(text: &OsStr) -> Result<AdapterArg, String> {
        let whole = AdapterArg { path: text.into(), scale: 1.0 };
        // A file whose name ends in a colon and a number is itself.
        let Some((path, scale)) = split_scale(text).filter(|_| !Path::new(text).exists()) else {
            return Ok(whole);
        };
        match scale.parse::<f64>() {
            Ok(scale) if scale.is_finite() => Ok(AdapterArg { path, scale }),
            Ok(scale) => Err(format!("the scale {scale} is no finite number")),
            Err(_) => Ok(whole),
        }
    }
}

/// What stands before and behind the last colon.
#[cfg(unix)]
fn split_scale(text: &OsStr) -> Option<(PathBuf, &str)> {
    use std::os::unix::ffi::OsStrExt;
    let bytes = text.as_bytes();
    let colon = bytes.iter().rposition(|&b| b == b':')?;
    Some((OsStr::from_bytes(&bytes[..colon]).into(), std::str::from_utf8(&bytes[colon + 1..]).ok()?))
}

#[cfg(not(unix))]
fn split_scale(text: &OsStr) -> Option<(PathBuf, &str)> {
    let (path, scale) = text.to_str()?.rsplit_once(':')?;
    Some((path.into(), scale))
}

impl ValueParserFactory for AdapterArg {
    type Parser = ValueParser;

    fn value_parser() -> ValueParser {
        ValueParser::new(OsStringValueParser::new().try_map(|text| AdapterArg::parse(&text)))
    }
}

/// The files of adapters, opened.
pub(crate) fn open_adapters(args: &[AdapterArg]) -> Result<Vec<(ImageFile, f64)>> {
    args.iter().map(|a| Ok((ImageFile::open(&a.path)?, a.scale))).collect()
}

/// Their views on a model, and a note for each that was made with another quantization of the same checkpoint.
pub(crate) fn bind<'a>(
    files: &'a [(ImageFile, f64)],
    model: &Model<'_>,
) -> Result<(Vec<ranklet::model::Active<'a>>, Vec<String>)> {
    let (mut views, mut notes) = (Vec::new(), Vec::new());
    for (file, scale) in files {
        let adapter = file.adapter(model)?;
        views.push(adapter.scaled(ranklet::fixed::Real::from_f64(*scale)));
        if !adapter.same_image() {
            let path = file.path().display();
            notes.push(format!("{path} was made with another quantization of this base's checkpoint"));
        }
    }
    Ok((views, notes))
}

/// Refuses an output that would overwrite an input, or that cannot be written, before any work is done. Of an input
/// directory every file counts but earlier outputs (images).
pub(crate) fn check_output(output: &Path, inputs: &[&Path]) -> Result<()> {
    atomic::check_file(output)?;
    let Some(this) = atomic::identity(output) else { return Ok(()) };
    let same = |path: &Path| atomic::identity(path).as_ref() == Some(&this);
    if let Some(input) = inputs.iter().find(|i| same(i)) {
        bail!("the output {} is also an input; give it another name", input.display());
    }
    let mut directories = inputs.iter().filter(|i| i.is_dir());
    let holds = |dir: &Path| dir.read_dir().is_ok_and(|entries| entries.flatten().any(|e| same(&e.path())));
    if this.is_file()
        && !is_image(&this)
        && let Some(dir) = directories.find(|dir| holds(dir))
    {
        bail!("the output {} is a file of the input {}; give it another name", output.display(), dir.display());
    }
    Ok(())
}

/// Whether a file starts as an image does.
fn is_image(path: &Path) -> bool {
    use std::io::Read;
    let mut start = [0; MAGIC.len()];
    std::fs::File::open(path).and_then(|mut f| f.read_exact(&mut start)).is_ok() && start == MAGIC
}

/// A file that is read along with `path`: in a directory, or beside a file.
pub(crate) fn companion(path: &Path, name: &str) -> PathBuf {
    if path.is_dir() { path.join(name) } else { path.with_file_name(name) }
}

/// A note on values that f32 cannot hold, where there are any: the device computes beyond its range.
pub(crate) fn beyond_f32<'v>(what: &str, values: impl IntoIterator<Item = &'v f32>) -> Option<String> {
    let beyond = values.into_iter().filter(|v| !v.is_finite()).count();
    (beyond > 0).then(|| format!("{what} beyond f32, written as infinite: {beyond}"))
}

/// Notes as lines below a report.
pub(crate) fn with_notes(mut human: String, notes: &[String]) -> String {
    for note in notes {
        human += &format!("\nnote: {note}");
    }
    human
}

/// Writes a file and says how large it is, for reports.
pub(crate) fn save(path: &Path, bytes: &[u8]) -> Result<String> {
    atomic::write_file(path, bytes).with_context(|| format!("{} was not written", path.display()))?;
    Ok(crate::report::bytes(bytes.len() as u64))
}

/// A path in a JSON report, which is UTF-8: what cannot be said in it is replaced.
pub(crate) fn shown(path: &Path) -> String {
    path.display().to_string()
}
