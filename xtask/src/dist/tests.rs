use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Built, Dist, VERSION, archive, image, make_folder, size, write};
use crate::cross::Target;
use crate::run;

/// A folder that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let folder = std::env::temp_dir().join(format!("tallyd-dist-{name}-{}", std::process::id()));
        make_folder(&folder).unwrap();
        Scratch(folder)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Of programs that are none: what is around them is looked at.
fn dist(folder: &Path, targets: &[&str]) -> (Dist, Vec<Built>) {
    let dist = Dist { out: folder.join("out"), stage: folder.join("stage"), time: 1_700_000_000 };
    make_folder(&dist.out).unwrap();
    let built = targets.iter().map(|name| {
        let folder = dist.stage.join(name);
        make_folder(&folder).unwrap();
        let one = Built {
            target: Target::find(name).unwrap(),
            program: folder.join("tallyd"),
            symbols: folder.join("tallyd.debug"),
        };
        write(&one.program, &format!("the program for {name}")).unwrap();
        write(&one.symbols, "its symbols").unwrap();
        run::output(Command::new("chmod").arg("700").arg(&one.program)).unwrap();
        one
    });
    let built = built.collect();
    (dist, built)
}

fn json(file: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// The blob that a descriptor names, whose size and sum have to fit.
fn blob(layout: &Path, descriptor: &Value) -> PathBuf {
    let sum = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let file = layout.join("blobs/sha256").join(sum);
    assert_eq!(size(&file).unwrap(), descriptor["size"].as_u64().unwrap());
    assert_eq!(image::sha256(&file).unwrap(), sum);
    file
}

#[test]
fn the_image_has_one_manifest_a_machine_and_every_sum_fits() {
    let scratch = Scratch::new("image");
    let (dist, built) = dist(&scratch.0, &["x86_64", "armv6", "armv7"]);
    image::make(&dist, &built).unwrap();
    let layout = scratch.0.join("unpacked");
    make_folder(&layout).unwrap();
    let archive = dist.out.join(format!("tallyd-{VERSION}-oci.tar"));
    run::output(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&layout)).unwrap();
    assert_eq!(json(&layout.join("oci-layout"))["imageLayoutVersion"], "1.0.0");
    let index = json(&layout.join("index.json"));
    let manifests = index["manifests"].as_array().unwrap();
    assert_eq!(manifests.len(), 2, "none of ARMv7, which runs that of ARMv6");
    assert_eq!(manifests[1]["platform"]["variant"], "v6");
    for descriptor in manifests {
        let manifest = json(&blob(&layout, descriptor));
        let config = json(&blob(&layout, &manifest["config"]));
        assert_eq!(config["architecture"], descriptor["platform"]["architecture"]);
        let layer = blob(&layout, &manifest["layers"][0]);
        let tar = scratch.0.join("layer.tar");
        let file = std::fs::File::create(&tar).unwrap();
        assert!(Command::new("gzip").arg("-dc").arg(&layer).stdout(file).status().unwrap().success());
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", image::sha256(&tar).unwrap()));
        let files = run::output(Command::new("tar").args(["--numeric-owner", "-tvf"]).arg(&tar)).unwrap();
        let line = |name: &str| {
            files.lines().find(|line| line.ends_with(name)).unwrap_or_else(|| panic!("{name}: {files}"))
        };
        assert!(line("./usr/bin/tallyd").starts_with("-rwxr-xr-x 0/0"), "{files}");
        assert!(line("var/lib/tallyd/").starts_with("drwx------ 7480/7480"), "{files}");
    }
}

#[test]
fn the_same_files_make_the_same_bytes_wherever_and_whenever() {
    let sums = |name: &str, mode: &str| {
        let scratch = Scratch::new(name);
        let (dist, built) = dist(&scratch.0, &["x86_64"]);
        let share = super::share::Share { folder: scratch.0.join("share") };
        make_folder(&share.folder.join("man")).unwrap();
        write(&share.folder.join("man/tallyd.1"), "a page").unwrap();
        write(&share.folder.join("README.md"), "read").unwrap();
        // Another umask.
        run::output(Command::new("chmod").args(["-R", mode]).arg(&share.folder)).unwrap();
        let archive = archive::make(&dist, &built[0], &share).unwrap();
        let mut list = Command::new("tar");
        let files = run::output(list.args(["--utc", "--full-time", "-tvzf"]).arg(archive)).unwrap();
        assert!(
            files.lines().all(|line| line.contains(" 0/0 ") && line.contains("2023-11-14 22:13:20")),
            "{files}"
        );
        image::make(&dist, &built).unwrap();
        dist.checksums().unwrap()
    };
    let first = sums("first", "u=rwX,go=");
    assert_eq!(first.lines().count(), 3, "{first}");
    assert_eq!(first, sums("second", "a=rX,u=rwX"));
}
