//! How large the core is on a microcontroller: programs that call everything it has (`firmware/size`) are linked for
//! one, without what they do not reach, and the file is measured.
//!
//! Counted is all code and all constants, the copying of memory that the compiler brings among them; not the program's
//! start, nor the tables for unwinding, which firmware discards.

use std::path::Path;

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSection, ObjectSymbol, SectionKind};

use crate::{run, targets};

const TARGET: &str = "thumbv7em-none-eabihf";

/// What may not be exceeded: a program of `firmware/size`, a symbol of it (its code if there is none), bytes.
const BOUNDS: [(&str, Option<&str>, &str, u64); 4] = [
    ("raft", None, "raft for 5 nodes, code", 24 * 1024),
    ("raft", Some("RAFT_STATE"), "raft for 5 nodes, state", 4 * 1024),
    ("witness", None, "witness, code", 4 * 1024),
    ("witness", Some("WITNESS_RECORD"), "witness, durable state", 128),
];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Also list this many of the largest functions.
    #[arg(long, default_value_t = 0)]
    functions: usize,

    /// Build the standard library from the distribution's sources even if rustup has it.
    #[arg(long)]
    from_source: bool,
}

/// A linked program's code and symbols, in bytes.
struct Program {
    code: u64,
    /// Functions and states by name, the largest first.
    symbols: Vec<(String, u64)>,
}

pub(crate) fn size(arguments: &Arguments) -> Result<()> {
    let plain = Programs::build(false, arguments.from_source)?;
    let checked = Programs::build(true, arguments.from_source)?;
    let mut exceeded = Vec::new();
    for (program, symbol, name, most) in BOUNDS {
        let bytes = plain.bytes(program, symbol)?;
        print!("{name:26}{bytes:>7} of {most:>5} bytes");
        match symbol {
            None => println!(" ({} with overflow checks)", checked.bytes(program, None)?),
            Some(_) => println!(),
        }
        if bytes > most {
            exceeded.push(name);
        }
    }
    for program in [&plain.raft, &plain.witness] {
        program
            .symbols
            .iter()
            .take(arguments.functions)
            .for_each(|(name, bytes)| println!("{bytes:>8} {name}"));
    }
    if !exceeded.is_empty() {
        bail!("too large: {}", exceeded.join("; "));
    }
    Ok(())
}

/// The same in a line, for `verify`.
pub(crate) fn check() -> Result<String> {
    let programs = Programs::build(false, false)?;
    let mut line = Vec::new();
    for (program, symbol, name, most) in BOUNDS {
        let bytes = programs.bytes(program, symbol)?;
        if bytes > most {
            bail!("{name}: {bytes} bytes, more than {most}");
        }
        line.push(format!("{name}: {bytes} of {most} bytes"));
    }
    Ok(line.join("; "))
}

struct Programs {
    raft: Program,
    witness: Program,
}

impl Programs {
    fn build(overflow_checks: bool, from_source: bool) -> Result<Programs> {
        let folder = Path::new(if overflow_checks { "target/size-checked" } else { "target/size" });
        let mut command = run::cargo(&["build", "--locked", "--release"]);
        command.current_dir(run::root().join("firmware"));
        command.env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", overflow_checks.to_string());
        let how = targets::for_target(&mut command, TARGET, from_source, folder)?;
        let outcome = run::collect(&mut command)?;
        if !outcome.ok {
            bail!("{} with {how} failed:\n{}", run::show(&command), outcome.text);
        }
        let words: Vec<_> = command.get_args().collect();
        let built = words.last().map_or(folder, Path::new).join(TARGET).join("release");
        Ok(Programs {
            raft: Program::read(&built.join("raft"))?,
            witness: Program::read(&built.join("witness"))?,
        })
    }

    fn bytes(&self, program: &str, symbol: Option<&str>) -> Result<u64> {
        let program = if program == "raft" { &self.raft } else { &self.witness };
        let Some(symbol) = symbol else { return Ok(program.code) };
        program.symbol(symbol).with_context(|| format!("the measured program has no symbol {symbol}"))
    }
}

impl Program {
    fn read(path: &Path) -> Result<Program> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let file = object::File::parse(bytes.as_slice())
            .with_context(|| format!("{} is not a program", path.display()))?;
        let named = file.symbols().filter(|symbol| symbol.size() > 0);
        let mut symbols: Vec<_> =
            named.map(|symbol| (symbol.name().unwrap_or("?").to_owned(), symbol.size())).collect();
        symbols.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let counted = |kind| matches!(kind, SectionKind::Text | SectionKind::ReadOnlyData);
        let sections = file.sections().filter(|section| counted(section.kind()));
        // The states are constants of the program, so that they can be measured.
        let uncounted =
            |name: &str| name == "_start" || name.ends_with("_STATE") || name.ends_with("_RECORD");
        let rest: u64 = symbols.iter().filter(|(name, _)| uncounted(name)).map(|(_, bytes)| bytes).sum();
        let all: u64 = sections.map(|section| section.size()).sum();
        let code = all.checked_sub(rest).context("the program's symbols are larger than its sections")?;
        Ok(Program { code, symbols })
    }

    fn symbol(&self, name: &str) -> Option<u64> {
        self.symbols.iter().find(|(other, _)| other == name).map(|(_, bytes)| *bytes)
    }
}
