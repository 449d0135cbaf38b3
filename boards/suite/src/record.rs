//! Records: lines that `cargo xtask` reads. Each is one JSON object on a line of its own; all other lines are for people.

use core::fmt;

use crate::{Board, Failure};

/// One row of the benchmark.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// Kernel leaf that ran.
    pub leaf: &'a str,
    /// Operation, e.g. `gemv-w8a16-requant`.
    pub op: fmt::Arguments<'a>,
    /// Shape, e.g. `64x64` (inputs × outputs), or `32x64x64` with tokens first.
    pub shape: fmt::Arguments<'a>,
    /// Instructions of the whole call.
    pub instructions: u64,
    /// What the instructions are divided by.
    pub work: Work,
}

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Multiply-accumulates.
    Macs(u64),
    /// So many of something else: an element, a parameter, a sample.
    Units(u64, &'static str),
}

/// Prints a benchmark row.
///
/// # Errors
/// [`Failure::Console`].
pub fn row<B: Board>(board: &mut B, row: &Row<'_>) -> Result<(), Failure> {
    write!(
        board,
        "{{\"record\":\"bench\",\"board\":\"{}\",\"leaf\":\"{}\",\"op\":\"{}\",\"shape\":\"{}\",\"instructions\":{},\"macs\":{},\"per_mac\":",
        B::NAME,
        row.leaf,
        row.op,
        row.shape,
        row.instructions,
        if let Work::Macs(macs) = row.work { macs } else { 0 }
    )?;
    match row.work {
        Work::Macs(macs) => quotient(board, row.instructions, macs)?,
        Work::Units(units, unit) => {
            write!(board, "null,\"unit\":\"{unit}\",\"units\":{units},\"per_unit\":")?;
            quotient(board, row.instructions, units)?;
        }
    }
    writeln!(board, "}}")?;
    Ok(())
}

/// Three decimals, from integers only: one float here would pull soft float into firmware that must not have it.
fn quotient<B: Board>(board: &mut B, instructions: u64, count: u64) -> Result<(), Failure> {
    match instructions.saturating_mul(1000).checked_div(count) {
        Some(milli) => write!(board, "{}.{:03}", milli / 1000, milli % 1000)?,
        None => write!(board, "null")?,
    }
    Ok(())
}

/// Prints the digest of everything computed under `name`.
///
/// # Errors
/// [`Failure::Console`].
pub fn digest<B: Board>(board: &mut B, leaf: &str, name: &str, value: u64) -> Result<(), Failure> {
    writeln!(
        board,
        "{{\"record\":\"digest\",\"board\":\"{}\",\"leaf\":\"{leaf}\",\"name\":\"{name}\",\"value\":\"{value:016x}\"}}",
        B::NAME
    )?;
    Ok(())
}

/// What the demo read right of its test images.
#[derive(Debug, Clone, Copy)]
pub struct Readings {
    /// Test images.
    pub images: usize,
    /// By the base, upright.
    pub upright: usize,
    /// By the base, turned.
    pub turned: usize,
    /// With the trained adapter, turned.
    pub adapted: usize,
    /// By the base again, upright, the adapter switched off.
    pub off: usize,
}

/// Prints what the demo came to.
///
/// # Errors
/// [`Failure::Console`].
pub fn demo<B: Board>(board: &mut B, readings: &Readings) -> Result<(), Failure> {
    let Readings { images, upright, turned, adapted, off } = readings;
    writeln!(
        board,
        "{{\"record\":\"demo\",\"board\":\"{}\",\"images\":{images},\"upright\":{upright},\"turned\":{turned},\"adapted\":{adapted},\"off\":{off}}}",
        B::NAME
    )?;
    Ok(())
}

/// Prints the deepest stack use of the run so far. Boards without a stack of their own print nothing.
///
/// # Errors
/// [`Failure::Console`].
pub fn stack<B: Board>(board: &mut B) -> Result<(), Failure> {
    if let Some(bytes) = board.stack_used() {
        writeln!(board, "{{\"record\":\"stack\",\"board\":\"{}\",\"bytes\":{bytes}}}", B::NAME)?;
    }
    Ok(())
}
