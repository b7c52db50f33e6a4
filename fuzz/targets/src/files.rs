//! The small files of a data directory, and the certificate that a peer shows.

use rustls_pki_types::CertificateDer;
use tally_core::id::{KeyHash, NodeId};
use tally_core::raft::MemberRole;
use tallyd::cli::provision::Provisioned;
use tallyd::identity::{Identity, MemberRecord, SiteId, key_hash};
use tallyd::transport::{Incarnation, read_seen, seen_text};

/// The first byte says which file the rest is.
pub(crate) fn run(bytes: &[u8]) {
    let Some((what, rest)) = bytes.split_first() else { return };
    match what % 4 {
        0 => {
            let Ok(identity) = Identity::read(rest) else { return };
            let again = serde_json::to_vec(&identity).expect("texts and numbers");
            assert_eq!(Identity::read(&again), Ok(identity));
        }
        1 => {
            let Ok(site) = serde_json::from_slice::<Provisioned>(rest) else { return };
            let again = serde_json::to_vec(&site).expect("texts and numbers");
            let back: Provisioned = serde_json::from_slice(&again).expect("what it writes it reads");
            assert_eq!(back, site);
        }
        2 => {
            let text = String::from_utf8_lossy(rest).into_owned();
            let _ = read_seen(&text);
            // Behind the checksum.
            let lines = format!("{text}\n");
            if let Some(seen) = read_seen(&format!("{lines}crc {:08x}\n", crc32c::crc32c(lines.as_bytes()))) {
                assert_eq!(read_seen(&seen_text(&seen)), Some(seen));
            }
        }
        _ => {
            let certificate = CertificateDer::from(rest);
            assert_eq!(key_hash(&certificate), key_hash(&certificate));
        }
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let member = |id: u64, role| MemberRecord {
        id: NodeId(id),
        name: format!("box{id}"),
        address: format!("10.0.0.{id}:7400"),
        role,
        key: KeyHash([id as u8; 32]),
    };
    let members =
        vec![member(1, MemberRole::Voter), member(2, MemberRole::Voter), member(3, MemberRole::Witness)];
    let identity = Identity {
        site: "plant7".to_owned(),
        site_id: SiteId(77),
        node: 2,
        window_ms: 60_000,
        level: 1,
        members,
    };
    let site = br#"{"site":"plant7","site_id":"000000000000004d","window_ms":60000,"boxes":[{"id":1,"name":"box1","address":"a:1","key":"0000000000000000000000000000000000000000000000000000000000000001","directory":"/x/box1"},{"id":2,"name":"w","address":"b:1","key":"0000000000000000000000000000000000000000000000000000000000000002","role":"witness","directory":"w"}]}"#;
    let seen = [(1, Incarnation { boot: 3, nonce: 7 }), (2, Incarnation { boot: u64::MAX, nonce: 0 })]
        .into_iter()
        .collect();
    let seen = seen_text(&seen);
    let lines = seen.rsplit_once("\ncrc").map_or("", |(lines, _)| lines);
    let of = |what: u8, rest: &[u8]| [&[what], rest].concat();
    vec![
        of(0, &serde_json::to_vec(&identity).expect("texts and numbers")),
        of(1, site),
        of(2, seen.as_bytes()),
        of(2, lines.as_bytes()),
        of(3, include_bytes!("../certificate.der")),
    ]
}
