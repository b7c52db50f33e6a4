//! What a box of the site hears from somebody who wants to join, and what a joiner hears from somebody who says that it
//! is such a box.

use ring::signature::{Ed25519KeyPair, KeyPair};
use tally_core::id::{KeyHash, NodeId};
use tally_core::raft::MemberRole;
use tallyd::identity::{MemberRecord, SiteId};
use tallyd::join::Token;
use tallyd::join::frames::{FromJoiner, FromSite, Reason, Refused, Welcome, decode, encode};
use tallyd::join::joiner::{Applicant, Joiner, JoinerStep};
use tallyd::join::site_side::{KnownToken, SiteFacts, SiteSide, SiteStep};
use tallyd::site::Level;

use crate::input::{Input, put_part};

const EXPORTER: [u8; 32] = [7; 32];
const SITE: KeyHash = KeyHash([1; 32]);

fn token() -> Token {
    Token::of_secret([9; 16])
}

fn pair() -> (Ed25519KeyPair, [u8; 32]) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[5; 32]).expect("every 32 bytes are a seed");
    let public = pair.public_key().as_ref().try_into().expect("a public key has 32 bytes");
    (pair, public)
}

fn side() -> SiteSide {
    let site_id = SiteId(7);
    let (site, node) = ("plant7".to_owned(), "box1".to_owned());
    SiteSide::new(SiteFacts { site, site_id, level: Level::MAX, key: SITE, node }, EXPORTER)
}

fn give(side: &mut SiteSide, frame: &[u8]) -> SiteStep {
    side.on_frame(frame, |id, _| {
        let (token, name) = (token(), None);
        (id == token.id()).then(|| KnownToken {
            site_key: token.site_key(),
            join_public: token.join_public(),
            name,
        })
    })
}

fn joiner(pair: &Ed25519KeyPair, key: [u8; 32]) -> (Joiner<'_>, Vec<u8>) {
    let address = Some("10.0.0.12:7400".to_owned());
    let applicant =
        Applicant { token: token(), key, name: "box2".to_owned(), is_name_chosen: false, address };
    Joiner::new(applicant, pair, EXPORTER, SITE)
}

/// The same frames go to both ends, and to texts that may be tokens.
pub(crate) fn run(bytes: &[u8]) {
    if let Ok(token) =
        std::str::from_utf8(bytes).map_err(|_| ()).and_then(|text| Token::parse(text).map_err(|_| ()))
    {
        assert_eq!(Token::parse(&token.reveal()).as_ref(), Ok(&token));
    }
    let (pair, key) = pair();
    let (mut side, (mut joiner, _)) = (side(), joiner(&pair, key));
    let (mut is_over, mut input) = (false, Input::new(bytes));
    while !input.is_empty() {
        let frame = input.part();
        if let Ok(said) = decode::<FromJoiner>(frame) {
            assert_eq!(decode::<FromJoiner>(&encode(&said)).as_ref(), Ok(&said));
        }
        if let Ok(said) = decode::<FromSite>(frame) {
            assert_eq!(decode::<FromSite>(&encode(&said)).as_ref(), Ok(&said));
        }
        match give(&mut side, frame) {
            SiteStep::Send(answer) => {
                assert!(!is_over, "a frame is taken after the end");
                let (mut other, _) = self::joiner(&pair, key);
                let _ = other.on_frame(&answer);
            }
            SiteStep::Asked(_) => assert!(!std::mem::replace(&mut is_over, true), "twice"),
            SiteStep::Refuse(..) => is_over = true,
        }
        if let Ok(JoinerStep::Joined(identity, _)) = joiner.on_frame(frame) {
            assert!(identity.members.iter().any(|member| member.key == SITE));
        }
    }
}

/// An exchange of two honest ends, as each of them hears it.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let (pair, key) = pair();
    let (mut joiner, hello) = joiner(&pair, key);
    let mut side = side();
    let SiteStep::Send(site) = give(&mut side, &hello) else { panic!("it is a hello") };
    let JoinerStep::Send(ask) = joiner.on_frame(&site).expect("the site has proved itself") else {
        panic!("it asks")
    };
    let SiteStep::Asked(asked) = give(&mut side, &ask) else { panic!("it has proved all") };
    let record = |id: u64, key: KeyHash| MemberRecord {
        id: NodeId(id),
        name: format!("box{id}"),
        address: format!("10.0.0.1{id}:7400"),
        role: MemberRole::Voter,
        key,
    };
    let members = vec![record(1, SITE), record(2, asked.key)];
    let welcome = encode(&FromSite::Welcome(Welcome {
        number: 2,
        replaces: None,
        members,
        window_ms: 60_000,
        level: 3,
    }));
    let refused = encode(&FromSite::Refused(Refused { reason: Reason::Taken, text: "why".to_owned() }));
    let parts = |frames: &[&[u8]]| {
        let mut seed = Vec::new();
        frames.iter().for_each(|frame| put_part(&mut seed, frame));
        seed
    };
    vec![
        parts(&[&hello]),
        parts(&[&hello, &ask]),
        parts(&[&site]),
        parts(&[&site, &welcome]),
        parts(&[&refused]),
        token().reveal().into_bytes(),
    ]
}
