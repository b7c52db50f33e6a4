//! `cargo xtask cross TARGET`: the daemon for another machine, by one command on any Linux with Python.
//!
//! The compiler is this machine's; the standard library is built with the program from its sources, so nothing of the
//! other machine is needed but a linker and a C library, and those are zig's (from PyPI, into a folder of our own).
//! docs/cross.md is for those who have their own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{run, targets};

/// A machine that there are binaries for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// As the compiler names it.
    pub(crate) triple: &'static str,
    /// In the names of archives.
    pub(crate) name: &'static str,
    /// Debian's architecture, where there is a package.
    pub(crate) debian: Option<&'static str>,
    /// Architecture and variant of a container image, where there is one.
    pub(crate) image: Option<(&'static str, Option<&'static str>)>,
    /// `opt-level` of the release profile: where programs have to be small they are built so.
    opt_level: &'static str,
    /// Whether the C library is in the program.
    pub(crate) is_static: bool,
}

/// What `cargo xtask dist` makes, if nothing else is said. Debian's armhf is ARMv7, Raspberry Pi OS's is ARMv6: the package
/// has the binary that runs on both.
pub(crate) const TARGETS: [Target; 5] = [
    Target {
        triple: "x86_64-unknown-linux-musl",
        name: "x86_64",
        debian: Some("amd64"),
        image: Some(("amd64", None)),
        opt_level: "3",
        is_static: true,
    },
    Target {
        triple: "aarch64-unknown-linux-musl",
        name: "aarch64",
        debian: Some("arm64"),
        image: Some(("arm64", None)),
        opt_level: "3",
        is_static: true,
    },
    Target {
        triple: "arm-unknown-linux-musleabihf",
        name: "armv6",
        debian: Some("armhf"),
        image: Some(("arm", Some("v6"))),
        opt_level: "s",
        is_static: true,
    },
    Target {
        triple: "armv7-unknown-linux-musleabihf",
        name: "armv7",
        debian: None,
        image: None,
        opt_level: "s",
        is_static: true,
    },
    Target {
        triple: "riscv64gc-unknown-linux-musl",
        name: "riscv64",
        debian: None,
        image: Some(("riscv64", None)),
        opt_level: "s",
        is_static: true,
    },
];

/// The machine that this compiler makes programs for by itself: built by cargo alone, to try out what `dist` makes.
pub(crate) const NATIVE: Target = Target {
    triple: "x86_64-unknown-linux-gnu",
    name: "x86_64-gnu",
    debian: Some("amd64"),
    image: None,
    opt_level: "3",
    is_static: false,
};

/// The release of what is installed from PyPI; cargo-zigbuild brings no zig of its own.
const PYPI: [&str; 2] = ["cargo-zigbuild==0.24.1", "ziglang==0.17.1"];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The compiler's name of the machine, or its short one: x86_64, aarch64, armv6, armv7, riscv64.
    target: String,
}

pub(crate) fn cross(arguments: &Arguments) -> Result<()> {
    let target = Target::find(&arguments.target)?;
    let program = build(&target)?;
    println!("{}", program.display());
    Ok(())
}

impl Target {
    pub(crate) fn find(name: &str) -> Result<Target> {
        let mut all = TARGETS.into_iter().chain([NATIVE]);
        let found = all.find(|target| [target.triple, target.name].contains(&name));
        found.with_context(|| {
            let names = TARGETS.map(|target| target.triple).join(", ");
            format!("there are no binaries for {name:?}; there are for {names}")
        })
    }
}

/// Where builds for other machines are, apart from those of every day, which have other flags.
fn folder() -> PathBuf {
    run::root().join("target/cross")
}

/// Builds the daemon for a target, with its symbols, and gives its file.
pub(crate) fn build(target: &Target) -> Result<PathBuf> {
    let is_native = *target == NATIVE;
    let mut command = if is_native { run::cargo(&["build"]) } else { zigbuild()? };
    command.args(["--release", "--locked", "--package", "tallyd", "--bin", "tallyd"]);
    command.args(["--target", target.triple]).arg("--target-dir").arg(folder());
    let mut flags = same_paths_everywhere()?;
    if !is_native {
        targets::sources()?;
        // The compiler is a stable one, whose build-std is behind this switch.
        command.env("RUSTC_BOOTSTRAP", "1").arg("-Zbuild-std=std,panic_abort");
        // zig has the C library's parts.
        flags.extend(["-C".to_owned(), "link-self-contained=no".to_owned()]);
    }
    command.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", target.opt_level);
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}")).env_remove("RUSTFLAGS");
    println!("building for {} (5 to 15 minutes the first time)", target.triple);
    let outcome = run::collect(&mut command)?;
    if !outcome.ok {
        bail!("{} failed:\n{}", run::show(&command), outcome.text);
    }
    let program = folder().join(target.triple).join("release/tallyd");
    check_processor(target, &program)?;
    Ok(program)
}

/// Checks that a program for ARMv6 has nothing of ARMv7 in it, on which alone it may have been tried.
fn check_processor(target: &Target, program: &Path) -> Result<()> {
    if target.name != "armv6" {
        return Ok(());
    }
    let said = run::output(Command::new("readelf").arg("-A").arg(program))?;
    let wrong = wrong_for_armv6(&said);
    if !wrong.is_empty() {
        bail!("{} does not run on ARMv6 ({})", program.display(), wrong.join(", "));
    }
    Ok(())
}

/// What in a program's attributes, as readelf tells them, is not of ARMv6 with its floating point unit.
fn wrong_for_armv6(attributes: &str) -> Vec<String> {
    const MUST: [(&str, &[&str]); 2] =
        [("Tag_CPU_arch", &["v6", "v6K", "v6KZ"]), ("Tag_FP_arch", &["VFPv2"])];
    let value = |tag: &str| {
        let mut values = attributes.lines().filter_map(|line| line.trim().split_once(": "));
        values.find(|(name, _)| *name == tag).map_or("absent", |(_, value)| value.trim())
    };
    let mut wrong: Vec<String> = MUST
        .iter()
        .filter(|(tag, allowed)| !allowed.contains(&value(tag)))
        .map(|(tag, _)| format!("{tag}: {}", value(tag)))
        .collect();
    wrong.extend((value("Tag_Advanced_SIMD_arch") != "absent").then(|| "it uses NEON everywhere".to_owned()));
    wrong
}

/// Has every path in the program begin alike, so that two builds of a commit are the same bytes wherever they are made.
fn same_paths_everywhere() -> Result<Vec<String>> {
    let sysroot = run::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo =
        cargo.or(home.map(|home| home.join(".cargo"))).context("neither CARGO_HOME nor HOME is set")?;
    // The last that fits counts.
    let places = [
        (run::root(), "/tallyd"),
        (folder(), "/target"),
        (cargo, "/cargo"),
        (PathBuf::from(sysroot), "/rust"),
        (targets::cache_folder()?, "/cache"),
    ];
    Ok(places.map(|(place, name)| format!("--remap-path-prefix={}={name}", place.display())).to_vec())
}

/// `cargo zigbuild`, installed into a folder of its own if need be.
fn zigbuild() -> Result<Command> {
    let programs = ensure_zig()?;
    let mut command = run::cargo(&[]);
    let cargo = command.get_program().to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([programs.clone()].into_iter().chain(std::env::split_paths(&path)))
        .context("PATH has a colon in it")?;
    command = Command::new(programs.join("cargo-zigbuild"));
    command.arg("zigbuild").current_dir(run::root()).env("PATH", path).env("CARGO", cargo);
    Ok(command)
}

/// The folder with zig and cargo-zigbuild.
fn ensure_zig() -> Result<PathBuf> {
    let folder = targets::cache_folder()?.join(format!("cross-{}", PYPI.join("-").replace("==", "-")));
    let programs = folder.join("bin");
    if programs.join("cargo-zigbuild").is_file() {
        return Ok(programs);
    }
    println!("installing what is missing: {} from PyPI, into {}", PYPI.join(" and "), folder.display());
    let python = |arguments: &[&str], program: &Path| -> Result<()> {
        let mut command = Command::new(program);
        let outcome = run::collect(command.args(arguments))?;
        if !outcome.ok {
            bail!("{} failed (Python with venv and pip is needed):\n{}", run::show(&command), outcome.text);
        }
        Ok(())
    };
    let place = folder.to_str().context("the cache's path is not UTF-8")?;
    python(&["-m", "venv", place], Path::new("python3"))?;
    let install = [&["-m", "pip", "install", "--quiet"][..], &PYPI].concat();
    python(&install, &programs.join("python3"))?;
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_for_armv7_is_not_taken_for_one_of_armv6() {
        let armv6 = "Attribute Section: aeabi\nFile Attributes\n  Tag_CPU_name: \"arm1176jzf-s\"\n  Tag_CPU_arch: v6KZ\n  \
                     Tag_FP_arch: VFPv2\n";
        assert_eq!(wrong_for_armv6(armv6), Vec::<String>::new());
        let armv7 =
            armv6.replace("v6KZ", "v7").replace("VFPv2", "VFPv3") + "  Tag_Advanced_SIMD_arch: NEONv1\n";
        assert_eq!(wrong_for_armv6(&armv7).len(), 3);
        assert_eq!(wrong_for_armv6("").len(), 2);
    }

    #[test]
    fn every_target_is_found_by_both_names_and_the_package_for_armhf_runs_on_every_pi() {
        for target in TARGETS.into_iter().chain([NATIVE]) {
            assert_eq!(Target::find(target.triple).unwrap(), target);
            assert_eq!(Target::find(target.name).unwrap(), target);
        }
        let armhf: Vec<_> = TARGETS.iter().filter(|target| target.debian == Some("armhf")).collect();
        assert_eq!(armhf.len(), 1);
        assert!(armhf[0].triple.starts_with("arm-"), "ARMv7 does not run on a Pi Zero");
        assert!(Target::find("mips").unwrap_err().to_string().contains("riscv64gc-unknown-linux-musl"));
    }
}
