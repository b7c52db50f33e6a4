//! Building for other machines: rustup's library where it can be had, the distribution's sources else.
//!
//! The second way is for machines that rustup cannot serve. Debian packages the library's sources of
//! many compiler versions; one of exactly this compiler's version is fetched from a suite beside the
//! configured ones (with a package list of our own, so that the system's is not touched), unpacked
//! into a cache and linked to where cargo's `-Zbuild-std` looks.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{run, tools};

/// What the core is built for.
pub(crate) const CORE_TARGETS: [&str; 1] = ["thumbv7em-none-eabihf"];

/// Where Debian may have a newer compiler than the configured suites, nearest first.
const SUITES: [&str; 5] = ["bookworm-backports", "trixie", "trixie-backports", "forky", "sid"];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Build the standard library from the distribution's sources even if rustup has it.
    #[arg(long)]
    from_source: bool,
}

/// How a target's library comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Library {
    Installed,
    FromSource,
}

pub(crate) fn targets(arguments: &Arguments) -> Result<()> {
    for target in CORE_TARGETS {
        println!("{}", build_core(target, arguments.from_source)?);
    }
    Ok(())
}

/// Builds the core for a target; says how.
pub(crate) fn build_core(target: &str, from_source: bool) -> Result<String> {
    let mut command = run::cargo(&["build", "--locked", "--package", "tally-core"]);
    let how = for_target(&mut command, target, from_source, Path::new("target"))?;
    let outcome = run::collect(&mut command)?;
    if !outcome.ok {
        bail!("{} failed:\n{}", run::show(&command), outcome.text);
    }
    Ok(format!("tally-core builds for {target}, with {how}"))
}

/// Has a command of cargo build for a target, in a target folder of the workspace; says with which library.
pub(crate) fn for_target(
    command: &mut Command,
    target: &str,
    from_source: bool,
    folder: &Path,
) -> Result<&'static str> {
    let library = if from_source { sources().map(|()| Library::FromSource) } else { library(target) }?;
    let mut folder = run::root().join(folder);
    command.args(["--target", target]);
    let how = match library {
        Library::Installed => "rustup's library",
        Library::FromSource => {
            // The compiler is a stable one, whose build-std is behind this switch.
            command.env("RUSTC_BOOTSTRAP", "1").arg("-Zbuild-std=core");
            // What was built with the other library must not be taken for this one's.
            folder.push("from-source");
            "a library built from source"
        }
    };
    command.arg("--target-dir").arg(folder);
    Ok(how)
}

fn library(target: &str) -> Result<Library> {
    if has_library(target)? {
        return Ok(Library::Installed);
    }
    let mut reasons = Vec::new();
    if tools::find("rustup").is_some() {
        println!("fetching the standard library: rustup target add {target}");
        let outcome = run::collect(Command::new("rustup").args(["target", "add", target]))?;
        if outcome.ok && has_library(target)? {
            return Ok(Library::Installed);
        }
        reasons.push(format!(
            "rustup: {}",
            outcome.text.trim().lines().last().unwrap_or("rustup installed no library")
        ));
    } else {
        reasons.push("rustup: not installed".to_owned());
    }
    match sources() {
        Ok(()) => Ok(Library::FromSource),
        Err(error) => {
            reasons.push(format!("the distribution's sources: {error:#}"));
            bail!(
                "there is no standard library for {target}, and none can be fetched:\n  {}\nInstall rustup \
                 and run `rustup target add {target}`, or put the sources of rustc {} at {}",
                reasons.join("\n  "),
                rustc_release()?,
                sources_place()?.display()
            )
        }
    }
}

fn has_library(target: &str) -> Result<bool> {
    let folder = run::output(Command::new("rustc").args(["--print", "target-libdir", "--target", target]))?;
    let Ok(files) = std::fs::read_dir(folder) else { return Ok(false) };
    Ok(files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libcore-")))
}

fn rustc_release() -> Result<String> {
    let text = run::output(Command::new("rustc").arg("-vV"))?;
    let release = text.lines().find_map(|line| line.strip_prefix("release: "));
    Ok(release.context("`rustc -vV` names no release")?.to_owned())
}

/// Where cargo looks for the library's sources.
fn sources_place() -> Result<PathBuf> {
    let sysroot = run::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    Ok(Path::new(&sysroot).join("lib/rustlib/src/rust"))
}

/// Makes sure that the library's sources are there.
pub(crate) fn sources() -> Result<()> {
    let place = sources_place()?;
    if place.join("library/core").is_dir() {
        return Ok(());
    }
    let release = rustc_release()?;
    let unpacked = fetch_sources(&release)?;
    if let Some(parent) = place.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    // A link whose target is gone is in the way.
    let _ = std::fs::remove_file(&place);
    std::os::unix::fs::symlink(&unpacked, &place)
        .with_context(|| format!("cannot link {} to {}", place.display(), unpacked.display()))?;
    Ok(())
}

/// Fetches and unpacks the distribution's sources of a compiler; gives their folder.
fn fetch_sources(release: &str) -> Result<PathBuf> {
    let cache = cache_folder()?.join(format!("rust-src-{release}"));
    let unpacked = cache.join(format!("usr/src/rustc-{release}"));
    if unpacked.join("library/core").is_dir() {
        return Ok(unpacked);
    }
    if tools::find("apt-get").is_none() || tools::find("dpkg").is_none() {
        bail!("this system does not have apt and dpkg");
    }
    let archive = Archive::configured()?;
    println!("fetching the standard library's sources for rustc {release} from the distribution (45 MB)");
    let mut tried = Vec::new();
    for suite in SUITES {
        let lists = Lists::new(&cache.join("apt"), &archive, suite)?;
        match lists.version_of("rust-src", release)? {
            Some(version) => {
                lists.download("rust-src", &version, &cache)?;
                break;
            }
            None => tried.push(suite),
        }
    }
    // The added source is gone with its lists.
    let _ = std::fs::remove_dir_all(cache.join("apt"));
    let package = newest_package(&cache).with_context(|| {
        format!("none of the suites {} at {} has rust-src {release}", tried.join(", "), archive.uris)
    })?;
    let mut unpack = Command::new("dpkg");
    unpack.arg("-x").arg(&package).arg(&cache);
    run::output(&mut unpack)?;
    std::fs::remove_file(&package).with_context(|| format!("cannot remove {}", package.display()))?;
    if !unpacked.join("library/core").is_dir() {
        bail!("{} does not have the sources in the expected place", cache.display());
    }
    Ok(unpacked)
}

fn newest_package(folder: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(folder).ok()?.flatten().map(|file| file.path());
    files.filter(|file| file.extension().is_some_and(|end| end == "deb")).max()
}

pub(crate) fn cache_folder() -> Result<PathBuf> {
    let own = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    Ok(own.or(home).context("neither XDG_CACHE_HOME nor HOME is set")?.join("tallyd"))
}

/// Where the Debian archive is that this system's apt is configured with.
pub(crate) fn archive_uri() -> Result<String> {
    Archive::configured().map(|archive| archive.uris)
}

/// The Debian archive that this system's apt is configured with.
struct Archive {
    uris: String,
    signed_by: Option<String>,
}

impl Archive {
    fn configured() -> Result<Archive> {
        let folder = Path::new("/etc/apt/sources.list.d");
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(folder).into_iter().flatten().flatten().map(|file| file.path()).collect();
        files.sort();
        files.push(PathBuf::from("/etc/apt/sources.list"));
        let texts = files.iter().filter_map(|file| std::fs::read_to_string(file).ok());
        texts
            .filter_map(|text| Archive::parse(&text))
            .next()
            .context("apt is not configured with a Debian archive (no source with the component main)")
    }

    /// The first source of Debian's own archive in a sources file of either syntax.
    fn parse(text: &str) -> Option<Archive> {
        for stanza in text.split("\n\n") {
            let field = |name: &str| {
                let line = stanza.lines().find_map(|line| line.strip_prefix(name));
                line.map(|value| value.trim().to_owned())
            };
            let Some(uris) = field("URIs:") else { continue };
            if uris.trim_end_matches('/').ends_with("/debian") && field("Components:").is_some() {
                return Some(Archive { uris, signed_by: field("Signed-By:") });
            }
        }
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("deb "));
        lines.find_map(|line| {
            let signed_by = line.split_once("signed-by=").and_then(|(_, rest)| rest.split([']', ' ']).next());
            let uris = line.split_whitespace().find(|word| word.contains("://"))?;
            uris.trim_end_matches('/')
                .ends_with("/debian")
                .then(|| Archive { uris: uris.to_owned(), signed_by: signed_by.map(str::to_owned) })
        })
    }
}

/// A package list of our own: one suite of an archive, for this machine's architecture.
struct Lists {
    options: Vec<String>,
}

impl Lists {
    fn new(folder: &Path, archive: &Archive, suite: &str) -> Result<Lists> {
        let folder = folder.join(suite);
        for part in ["lists/partial", "cache/archives/partial", "sources"] {
            let part = folder.join(part);
            std::fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
        }
        let architecture = run::output(Command::new("dpkg").arg("--print-architecture"))?;
        let key = archive.signed_by.as_ref().map(|key| format!("Signed-By: {key}\n")).unwrap_or_default();
        let source = format!(
            "Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\nArchitectures: {architecture}\n{key}",
            archive.uris
        );
        let file = folder.join("sources/beside.sources");
        std::fs::write(&file, source).with_context(|| format!("cannot write {}", file.display()))?;
        let place = |name: &str, part: &str| format!("{name}={}", folder.join(part).display());
        let options = vec![
            "Dir::Etc::SourceList=/dev/null".to_owned(),
            place("Dir::Etc::SourceParts", "sources"),
            place("Dir::State::Lists", "lists"),
            place("Dir::Cache", "cache"),
            format!("APT::Architectures={architecture}"),
            "Acquire::Languages=none".to_owned(),
            // The sandbox user could not write here.
            "APT::Sandbox::User=root".to_owned(),
        ];
        let lists = Lists { options };
        // A suite that this archive does not have is one to pass over.
        run::collect(&mut lists.apt("apt-get", &["update"]))?;
        Ok(lists)
    }

    fn apt(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.arg("-o").arg(option);
        }
        command.args(arguments);
        command
    }

    /// The package's version that packages that very release.
    fn version_of(&self, package: &str, release: &str) -> Result<Option<String>> {
        let text = run::output(&mut self.apt("apt-cache", &["madison", package]))?;
        let mut versions = text.lines().filter_map(|line| line.split('|').nth(1)).map(str::trim);
        let found = versions.find(|version| {
            version.strip_prefix(release).is_some_and(|rest| rest.starts_with(['+', '-', '~']))
        });
        Ok(found.map(str::to_owned))
    }

    fn download(&self, package: &str, version: &str, into: &Path) -> Result<()> {
        let mut command = self.apt("apt-get", &["download", &format!("{package}={version}")]);
        run::output(command.current_dir(into)).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configured_archive_is_found_in_both_syntaxes() {
        let deb822 = "Types: deb\nURIs: http://mirror.example/debian-security\nSuites: x-security\nComponents: main\n\n\
                      Types: deb\nURIs: http://mirror.example/debian\nSuites: x x-updates\nComponents: main\n\
                      Signed-By: /usr/share/keyrings/key.gpg\n";
        let archive = Archive::parse(deb822).unwrap();
        assert_eq!(archive.uris, "http://mirror.example/debian");
        assert_eq!(archive.signed_by.as_deref(), Some("/usr/share/keyrings/key.gpg"));
        let line = "# comment\ndeb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian/ x main\n";
        let archive = Archive::parse(line).unwrap();
        assert_eq!(archive.uris, "http://mirror.example/debian/");
        assert_eq!(archive.signed_by.as_deref(), Some("/k.gpg"));
        assert!(Archive::parse("Types: deb\nURIs: https://other.example/node\nComponents: main\n").is_none());
    }
}
