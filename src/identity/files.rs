//! Reads, checks and writes the identity's files. A power cut leaves either the old or the new file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use tally_core::id::NodeId;
use tally_core::raft::MemberRole;
use tally_core::window::Span;

use super::authority::Issued;
use super::{Identity, IdentityError, Keys, MEMBERS_MAX, MemberRecord, SiteId, is_name};
use crate::random;
use crate::site::{ADDRESS_BYTES_MAX, Level};

/// The file with the identity of this box and the other members.
pub const IDENTITY: &str = "identity.json";
/// The box's private key, PKCS#8 in PEM; only its owner may read it.
pub const NODE_KEY: &str = "node.key";
/// The box's certificate in PEM.
pub const NODE_CERTIFICATE: &str = "node.crt";
/// The certificate of the site's authority in PEM.
pub const CA_CERTIFICATE: &str = "ca.crt";
/// The private key of the site's authority: only where the site was founded.
pub const CA_KEY: &str = "ca.key";

const REMEDY: &str = "copy the box's files again from the directory that `tallyd provision` made";
const REMEDY_IO: &str = "check that the disk works and that this user has access to the data directory";

impl Identity {
    /// Reads and checks `identity.json` of a data directory; `None` if there is none.
    ///
    /// # Errors
    /// The file cannot be read, or is not what it has to be.
    pub fn load(dir: &Path) -> Result<Option<Identity>, IdentityError> {
        let path = dir.join(IDENTITY);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(IdentityError::Io { doing: "read", path, source, remedy: REMEDY_IO }),
        };
        Identity::read(&bytes).map(Some).map_err(|what| invalid(&path, &what, REMEDY))
    }

    /// Parses and checks the content of an `identity.json`; the error says what is wrong.
    ///
    /// # Errors
    /// Checks the identity; the error says what is wrong.
    pub fn read(bytes: &[u8]) -> Result<Identity, String> {
        let identity: Identity =
            serde_json::from_slice(bytes).map_err(|error| format!("cannot be parsed: {error}"))?;
        identity.check()?;
        Ok(identity)
    }

    /// Writes `identity.json` into a data directory, durably.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        let mut text = serde_json::to_vec_pretty(self).expect("an identity has only texts and numbers");
        text.push(b'\n');
        write_file(&dir.join(IDENTITY), &text, 0o644)
    }

    /// Founds a site of one box in a data directory: its key, its certificate and, last, `identity.json`,
    /// so that a power cut in the middle leaves an unfounded directory. The base span of windows is 60 s.
    ///
    /// # Errors
    /// A name cannot be one, keys cannot be made, or a file cannot be written.
    pub fn found_single(
        dir: &Path,
        site: &str,
        node: &str,
        address: &str,
    ) -> Result<Identity, IdentityError> {
        let path = dir.join(IDENTITY);
        for (what, name) in [("site", site), ("box", node)] {
            if !is_name(name) {
                let what = format!("{name:?} is not a {what} name (1 to 32 of a-z 0-9 -)");
                return Err(invalid(&path, &what, "choose another name"));
            }
        }
        create_directory(dir)?;
        let site_id = SiteId::random()?;
        let issued = Issued::self_signed(node)?;
        issued.save(dir)?;
        let me = MemberRecord {
            id: NodeId(1),
            name: node.into(),
            address: address.into(),
            role: MemberRole::Voter,
            key: issued.key_hash,
        };
        let window_ms = Span::DEFAULT.as_millis();
        let identity = Identity {
            site: site.into(),
            site_id,
            node: 1,
            window_ms,
            level: Level::MAX.get(),
            members: vec![me],
        };
        identity.save(dir)?;
        Ok(identity)
    }

    /// Whether these keys are the ones that the list of members has for this box.
    pub fn matches(&self, keys: &Keys) -> bool {
        self.member(self.node_id()).is_some_and(|me| me.key == keys.key_hash())
    }

    /// Checks the identity; the error says what is wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !is_name(&self.site) {
            return Err(format!("the site's name {:?} is not a name (1 to 32 of a-z 0-9 -)", self.site));
        }
        if Span::from_millis(self.window_ms).is_none() {
            return Err(format!("window_ms must be from 1 ms to 31 days, not {}", self.window_ms));
        }
        if self.level == 0 || self.level > Level::MAX.get() {
            return Err(format!(
                "the site was founded at feature level {}, and this program supports levels 1 to {}: it is \
                 older than the one that made the site",
                self.level,
                Level::MAX
            ));
        }
        if !(1..=MEMBERS_MAX).contains(&self.members.len()) {
            return Err(format!("the site must have 1 to {MEMBERS_MAX} members, not {}", self.members.len()));
        }
        if self.member(self.node_id()).is_none() {
            return Err(format!("this box, number {}, is not among the members", self.node));
        }
        if !self.members.iter().any(|member| member.role == MemberRole::Voter) {
            return Err("none of the members is a voter".into());
        }
        for (at, member) in self.members.iter().enumerate() {
            self.check_member(at, member)?;
        }
        Ok(())
    }

    fn check_member(&self, at: usize, member: &MemberRecord) -> Result<(), String> {
        let MemberRecord { id, name, address, key, role: _ } = member;
        if id.0 == 0 {
            return Err(format!("the member {name:?} has the number 0; numbers begin at 1"));
        }
        if !is_name(name) {
            return Err(format!("the name {name:?} of member {id} is not a name (1 to 32 of a-z 0-9 -)"));
        }
        if address.is_empty() && self.members.len() > 1 {
            return Err(format!("member {name:?} has no address, which only a site of one box may lack"));
        }
        if !address.is_empty() {
            check_address(address).map_err(|why| format!("the address of member {name:?}: {why}"))?;
        }
        for other in &self.members[..at] {
            if other.id == *id {
                return Err(format!("{:?} and {name:?} have the same number {id}", other.name));
            }
            if other.name == *name {
                return Err(format!("two members have the name {name:?}"));
            }
            if other.key == *key {
                return Err(format!("{:?} and {name:?} have the same key", other.name));
            }
            if !address.is_empty() && other.address == *address {
                return Err(format!("{:?} and {name:?} have the same address {address}", other.name));
            }
        }
        Ok(())
    }
}

impl SiteId {
    /// Makes a random id.
    pub(crate) fn random() -> Result<SiteId, IdentityError> {
        Ok(SiteId(u64::from_be_bytes(random::bytes()?)))
    }
}

/// Splits and checks HOST:PORT: a host name, an IPv4 address or an IPv6 one in brackets, and a port
/// from 1 to 65535.
pub(crate) fn check_address(text: &str) -> Result<(&str, u16), String> {
    let shape =
        || format!("{text:?} is not HOST:PORT, such as 10.0.0.11:7400, box1.lan:7400 or [fd00::1]:7400");
    // The bound of those who read it from the log, whatever it is made of: a port with zeros before it, say.
    if text.len() > ADDRESS_BYTES_MAX {
        return Err(format!("an address has at most {ADDRESS_BYTES_MAX} bytes; this one has {}", text.len()));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(shape)?;
    let port = match port.parse::<u16>() {
        Ok(port) if port > 0 && text.ends_with(|last: char| last.is_ascii_digit()) && !text.contains('+') => {
            port
        }
        _ => return Err(format!("{port:?} in {text:?} is not a port (1 to 65535)")),
    };
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return match inner.parse::<std::net::Ipv6Addr>() {
            Ok(_) => Ok((host, port)),
            Err(_) => Err(format!("{inner:?} in {text:?} is not an IPv6 address")),
        };
    }
    if !is_host(host) {
        return Err(shape());
    }
    Ok((host, port))
}

fn is_host(host: &str) -> bool {
    // Digits and dots only is meant as an IPv4 address, and has to be one.
    if host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return host.parse::<std::net::Ipv4Addr>().is_ok();
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    host.len() <= 253 && host.strip_suffix('.').unwrap_or(host).split('.').all(is_label)
}

/// Writes a file durably: beside, synced, renamed, and the directory synced.
pub(crate) fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), IdentityError> {
    let fail = |source| IdentityError::Io { doing: "write", path: path.into(), source, remedy: REMEDY_IO };
    let beside = path.with_added_extension("new");
    // A leftover of a power cut may have another mode.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(fail)
}

/// Makes a directory that only its owner may enter, unless it is there.
pub(crate) fn create_directory(dir: &Path) -> Result<(), IdentityError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|source| IdentityError::Io {
        doing: "make the directory",
        path: dir.into(),
        source,
        remedy: REMEDY_IO,
    })
}

pub(super) fn read(path: &Path, remedy_missing: &'static str) -> Result<Vec<u8>, IdentityError> {
    fs::read(path).map_err(|source| {
        let remedy = if source.kind() == io::ErrorKind::NotFound { remedy_missing } else { REMEDY_IO };
        IdentityError::Io { doing: "read", path: path.into(), source, remedy }
    })
}

pub(super) fn invalid(path: &Path, what: &str, remedy: &'static str) -> IdentityError {
    IdentityError::Invalid { path: path.into(), what: what.into(), remedy }
}
