//! `ranklet plan --base base.rkl [--train …] [--board NAME]`

use super::train::ROLES;
use crate::boards::{BOARDS, Board, find};
use crate::image::ImageFile;
use crate::report::{Report, bytes, table};
use crate::tensor::{name_list, thousands};
use anyhow::{Result, anyhow, bail, ensure};
use ranklet::image::MAX_RANK;
use ranklet::model::{CacheType, Model, Plan, Roles, Train};
use serde_json::{Value, json};
use std::path::PathBuf;

/// What room training takes, by its optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Room {
    /// Two moments a parameter.
    Adamw,
    /// One moment a parameter: SGD with momentum.
    Momentum,
    /// None: plain SGD.
    Sgd,
}

/// How a decoder keeps keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum CacheName {
    /// As they were computed.
    I16,
    /// In half the memory, rounded.
    I8,
}

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The base image.
    #[arg(long)]
    pub base: PathBuf,
    /// Adapter images that lie in flash beside it.
    #[arg(long, num_args = 1..)]
    pub adapter: Vec<PathBuf>,
    /// Transformers: tokens that one call is given, at most.
    #[arg(long)]
    pub tokens: Option<usize>,
    /// Transformers with encoder and decoder: tokens of the encoder's input. Default as --tokens.
    #[arg(long)]
    pub source: Option<usize>,
    /// Transformers: tokens that a decoder remembers. Default as --tokens.
    #[arg(long)]
    pub context: Option<usize>,
    /// Transformers: how a decoder remembers.
    #[arg(long, value_enum)]
    pub cache: Option<CacheName>,
    /// Plan for training too, with room for this optimizer.
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "adamw")]
    pub train: Option<Room>,
    /// Rank of the adapter that is trained, 1 to 64.
    #[arg(long, default_value_t = 8, requires = "train")]
    pub rank: u16,
    /// Layers that are trained, by their roles, separated by commas: all, head, hidden; q, k, v, o, up, gate, down, pooler, input.
    #[arg(long, default_value = "all", requires = "train")]
    pub on: String,
    /// B alone is trained: no gradient and no moments of A.
    #[arg(long, requires = "train")]
    pub only_b: bool,
    /// Transformers: every sample makes a step, block by block; accumulators for one block alone.
    #[arg(long, requires = "train")]
    pub immediate: bool,
    /// Transformers: the inputs of every second block are kept, the others computed again.
    #[arg(long, requires = "train")]
    pub lean: bool,
    /// Room for dropout.
    #[arg(long, requires = "train")]
    pub dropout: bool,
    /// Compare with this board; the exit status is 1 where it does not fit.
    #[arg(long)]
    pub board: Option<String>,
    /// Bytes of flash allowed for the firmware itself.
    #[arg(long, default_value_t = 64 * 1024)]
    pub firmware: u64,
    /// Bytes of RAM allowed for the stack and the firmware's own variables [default: 6144, for a transformer 10240].
    #[arg(long)]
    pub stack: Option<u64>,
}

/// Plans.
///
/// # Errors
/// What is wrong with the files or the options.
pub fn execute(args: &Args) -> Result<Report> {
    let board = args.board.as_deref().map(|name| {
        let known = || name_list(BOARDS.map(|b| b.name), BOARDS.len());
        find(name).ok_or_else(|| anyhow!("--board {name}: unknown; known are {}", known()))
    });
    let board = board.transpose()?;
    let base = ImageFile::open(&args.base)?;
    let model = base.model()?;
    let plan = sequences(args, &model)?;
    let plan = match training(args)? {
        Some(train) => plan.train(train),
        None => plan,
    };
    if plan.learn_lengths().is_some_and(|l| l.records == 0) {
        bail!("--on {}: this base has no such layer", args.on);
    }
    let mut adapters = 0;
    for path in &args.adapter {
        let file = ImageFile::open(path)?;
        file.adapter(&model)?;
        adapters += file.bytes().len() as u64;
    }
    let base_bytes = model.bytes().len() as u64;
    let (mut scratch, mut cache, learn) =
        (plan.scratch_bytes() as u64, plan.cache_bytes() as u64, plan.learn_bytes() as u64);
    if model.spec().transformer().is_none_or(|t| t.decoder == 0) {
        // What is carved for nobody still takes its alignment.
        (scratch, cache) = (scratch + cache, 0);
    }
    let flash = (base_bytes + adapters).checked_add(args.firmware);
    let flash = flash.ok_or_else(|| anyhow!("--firmware {}: more than can be counted", args.firmware))?;
    // What the project's own firmware needs, rounded up.
    let stack = args.stack.unwrap_or(if model.spec().transformer().is_some() { 10 * 1024 } else { 6 * 1024 });
    let ram = (scratch + cache + learn).checked_add(stack);
    let ram = ram.ok_or_else(|| anyhow!("--stack {stack}: more than can be counted"))?;

    let row = |what: &str, n: u64, note: &str| vec![what.to_owned(), n.to_string(), bytes(n), note.to_owned()];
    let mut rows = vec![
        ["", "bytes", "", ""].map(str::to_owned).to_vec(),
        row("flash: base image", base_bytes, ""),
        row("flash: adapter images", adapters, ""),
        row("flash: firmware", args.firmware, "an allowance (--firmware); `cargo xtask size` measures"),
        row("flash in all", flash, ""),
        row("RAM: scratch", scratch, "the arena, for inference"),
        row("RAM: learner", learn, "the arena, for training: A, B, gradients, moments, activations"),
        row("RAM: stack", stack, "an allowance (--stack); `cargo xtask size` measures"),
        row("RAM in all", ram, ""),
    ];
    if cache > 0 {
        rows.insert(6, row("RAM: cache", cache, "the arena: keys and values that a decoder looks back at"));
    }
    let macs = plan.longest_unit_macs() as u64;
    let unit = if model.spec().transformer().is_some() { "a block on a tile of tokens" } else { "a layer" };
    let mut human = format!("{}\nlongest unit of work: {unit}, {} MACs", table(&rows), thousands(macs));
    let (update, largest) = (plan.longest_update() as u64, plan.largest_tensor() as u64);
    if update > 0 {
        human += &format!("; or {} elements of an update, of {}", thousands(update), thousands(largest));
    }
    let mut fits = true;
    let mut on_board = Value::Null;
    if let Some(board) = board {
        fits = flash <= board.flash && ram <= board.ram;
        human += &verdict(&board, flash, ram);
        on_board = json!({
            "name": board.name, "core": board.core, "flash": board.flash, "ram": board.ram,
            "flash_short": flash.saturating_sub(board.flash), "ram_short": ram.saturating_sub(board.ram),
        });
    }
    let json = json!({
        "flash": {"base": base_bytes, "adapters": adapters, "firmware": args.firmware, "total": flash},
        "ram": {"scratch": scratch, "cache": cache, "learner": learn, "arena": plan.bytes(), "stack": stack, "total": ram},
        "longest_unit_macs": macs,
        "longest_update_elements": update,
        "largest_tensor": largest,
        "board": on_board,
        "fits": fits,
    });
    Ok(Report { human, json, ok: fits })
}

/// The plan of a transformer of these lengths; of a perceptron, where none are given.
fn sequences<'a>(args: &Args, model: &Model<'a>) -> Result<Plan<'a>> {
    let mut plan = Plan::new(model.bytes())?;
    let lengths = [("--tokens", args.tokens), ("--source", args.source), ("--context", args.context)];
    let Some(t) = model.spec().transformer() else {
        let cache = args.cache.map(|_| "--cache");
        match lengths.iter().find_map(|(name, n)| n.map(|_| *name)).or(cache) {
            Some(name) => bail!("{name}: {} is no transformer", args.base.display()),
            None => return Ok(plan),
        }
    };
    for (name, n) in lengths {
        let within = n.is_none_or(|n| (1..=t.positions).contains(&n));
        ensure!(within, "{name} {}: expected 1 to {}, the longest text of this base", n.unwrap_or(0), t.positions);
    }
    if let Some(n) = args.tokens {
        plan = plan.tokens(n).source(n).context(n);
    }
    if let Some(n) = args.source {
        plan = plan.source(n);
    }
    if let Some(n) = args.context {
        plan = plan.context(n);
    }
    Ok(match args.cache {
        Some(CacheName::I8) => plan.cache(CacheType::I8),
        _ => plan,
    })
}

fn training(args: &Args) -> Result<Option<Train>> {
    let train = match args.train {
        None => return Ok(None),
        Some(Room::Adamw) => Train::adamw(),
        Some(Room::Momentum) => Train::momentum(),
        Some(Room::Sgd) => Train::sgd(),
    };
    ensure!((1..=MAX_RANK).contains(&usize::from(args.rank)), "--rank {}: expected 1 to {MAX_RANK}", args.rank);
    let mut roles = Roles(0);
    for word in args.on.split(',') {
        match ROLES.iter().find(|(name, _)| *name == word) {
            Some((_, role)) => roles = roles | *role,
            None => {
                let known = name_list(ROLES.iter().map(|r| r.0), ROLES.len());
                bail!("--on {word}: expected {known} (a plan goes by the layers' roles)")
            }
        }
    }
    let train = train.rank(args.rank).on(roles);
    let train = if args.only_b { train.only_b() } else { train };
    let train = if args.immediate { train.immediate() } else { train };
    let train = if args.lean { train.lean() } else { train };
    Ok(Some(if args.dropout { train.dropout() } else { train }))
}

fn verdict(board: &Board, flash: u64, ram: u64) -> String {
    let part = |what: &str, needed: u64, there: u64| {
        if needed > there {
            let short = needed - there;
            format!("{what}: does NOT fit, {short} bytes ({}) too many of {}", bytes(short), bytes(there))
        } else {
            format!("{what}: fits, {} free of {}", bytes(there - needed), bytes(there))
        }
    };
    let Board { name, core, .. } = board;
    format!("\n\n{name}, {core}\n{}\n{}", part("flash", flash, board.flash), part("RAM", ram, board.ram))
}
