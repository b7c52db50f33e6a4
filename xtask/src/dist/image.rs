//! A container image in OCI's layout, made without a container engine: the program, a user, a directory for its data.
//!
//! `skopeo`, `podman`, `docker load` and registries read the archive; it has one image for each architecture.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Built, Dist, VERSION, copy, make_folder, size, write};
use crate::run;

/// The user that the daemon runs as: a number of nobody else's.
const USER: &str = "7480";

/// Its data, below the root.
const DATA: &str = "var/lib/tallyd";

/// A file of the layout, named by its content.
struct Blob {
    digest: String,
    size: u64,
}

/// Makes the image of all targets that have one; none if none has.
pub(super) fn make(dist: &Dist, built: &[Built]) -> Result<()> {
    let layout = dist.stage.join("image");
    let blobs = layout.join("blobs/sha256");
    make_folder(&blobs)?;
    let mut manifests = Vec::new();
    for one in built {
        let Some((architecture, variant)) = one.target.image else { continue };
        let mut platform = json!({ "architecture": architecture, "os": "linux" });
        if let Some(variant) = variant {
            platform["variant"] = variant.into();
        }
        let manifest = manifest(dist, one, &platform, &blobs)?;
        let kind = "application/vnd.oci.image.manifest.v1+json";
        manifests.push(json!({ "mediaType": kind, "digest": manifest.digest, "size": manifest.size, "platform": platform }));
    }
    if manifests.is_empty() {
        return Ok(());
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    });
    write(&layout.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}")?;
    write(&layout.join("index.json"), &index.to_string())?;
    dist.tar(&layout, ".", &dist.out.join(format!("tallyd-{VERSION}-oci.tar")))
}

fn manifest(dist: &Dist, built: &Built, platform: &Value, blobs: &Path) -> Result<Blob> {
    let folder = dist.stage.join(built.target.name);
    let (tar, layer) = (folder.join("layer.tar"), folder.join("layer.tar.gz"));
    let root = root_file_system(&folder, built)?;
    dist.tar(&root, ".", &tar)?;
    // A volume that is mounted there for the first time takes over whose it is.
    make_folder(&root.join(DATA))?;
    dist.tar_of_user(&root, DATA, USER, &tar)?;
    dist.compress(&tar, &layer)?;
    let content = format!("sha256:{}", sha256(&tar)?);
    let layer = blob(&layer, blobs)?;
    let file = folder.join("config.json");
    write(&file, &config(dist, platform, &content)?.to_string())?;
    let config = blob(&file, blobs)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.digest, "size": config.size,
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": layer.digest, "size": layer.size,
        }],
    });
    let file = folder.join("manifest.json");
    write(&file, &manifest.to_string())?;
    blob(&file, blobs)
}

fn config(dist: &Dist, platform: &Value, content: &str) -> Result<Value> {
    let mut command = Command::new("date");
    let created =
        run::output(command.args(["--utc", "-d", &format!("@{}", dist.time), "+%Y-%m-%dT%H:%M:%SZ"]))?;
    let mut config = platform.clone();
    config["created"] = created.into();
    config["config"] = json!({
        "User": USER,
        "Entrypoint": ["/usr/bin/tallyd"],
        "Cmd": ["run", "--data-dir", "/var/lib/tallyd"],
        "Volumes": { "/var/lib/tallyd": {} },
        "ExposedPorts": { "7400/udp": {}, "7480/tcp": {}, "8125/udp": {} },
        "StopSignal": "SIGTERM",
        "Labels": {
            "org.opencontainers.image.title": "tallyd",
            "org.opencontainers.image.version": VERSION,
            "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
        },
    });
    config["rootfs"] = json!({ "type": "layers", "diff_ids": [content] });
    Ok(config)
}

/// Everything that is in the container.
fn root_file_system(folder: &Path, built: &Built) -> Result<PathBuf> {
    let root = folder.join("root");
    copy(&built.program, &root.join("usr/bin/tallyd"))?;
    make_folder(&root.join("etc"))?;
    write(
        &root.join("etc/passwd"),
        &format!("tallyd:x:{USER}:{USER}:Tallyd:/var/lib/tallyd:/sbin/nologin\n"),
    )?;
    write(&root.join("etc/group"), &format!("tallyd:x:{USER}:\n"))?;
    // To be mounted on: the authorities that brokers are checked against, and the configuration.
    for folder in ["var/lib", "etc/ssl/certs", "etc/tallyd"] {
        make_folder(&root.join(folder))?;
    }
    Ok(root)
}

/// Puts a file among the blobs.
fn blob(file: &Path, blobs: &Path) -> Result<Blob> {
    let sum = sha256(file)?;
    copy(file, &blobs.join(&sum))?;
    Ok(Blob { digest: format!("sha256:{sum}"), size: size(file)? })
}

pub(super) fn sha256(file: &Path) -> Result<String> {
    let said = run::output(Command::new("sha256sum").arg(file))?;
    let sum = said.split_whitespace().next().context("sha256sum said nothing")?;
    Ok(sum.trim_start_matches('\\').to_owned())
}
