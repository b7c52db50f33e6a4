//! Both ends of the exchange against each other, frame by frame.

use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair};
use tally_core::id::{KeyHash, NodeId};
use tally_core::raft::MemberRole;

use super::frames::{FromJoiner, FromSite, Reason, Welcome, decode, encode};
use super::joiner::{Applicant, Joiner, JoinerError, JoinerStep};
use super::proof::hash_of_ed25519;
use super::site_side::{Asked, KnownToken, SiteFacts, SiteSide, SiteStep};
use super::*;
use crate::identity::{Issued, Keys, MemberRecord, SiteId};
use crate::site::Level;

const SITE_KEY: KeyHash = KeyHash([1; 32]);

fn token() -> Token {
    Token::of_secret([9; 16])
}

fn pair(seed: u8) -> (Ed25519KeyPair, [u8; 32]) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let public = pair.public_key().as_ref().try_into().unwrap();
    (pair, public)
}

fn applicant(key: [u8; 32]) -> Applicant {
    Applicant {
        token: token(),
        key,
        name: "box2".to_owned(),
        is_name_chosen: false,
        address: Some("10.0.0.12:7400".to_owned()),
    }
}

fn side(exporter: u8) -> SiteSide {
    let facts = SiteFacts {
        site: "plant7".to_owned(),
        site_id: SiteId(7),
        level: Level::MAX,
        key: SITE_KEY,
        node: "box1".to_owned(),
    };
    SiteSide::new(facts, [exporter; EXPORTER_BYTES])
}

fn known(token: &Token, name: Option<&str>) -> KnownToken {
    KnownToken { site_key: token.site_key(), join_public: token.join_public(), name: name.map(str::to_owned) }
}

/// Gives a frame to the site, which knows the token.
fn give(side: &mut SiteSide, frame: &[u8]) -> SiteStep {
    side.on_frame(frame, |id, _| (id == token().id()).then(|| known(&token(), None)))
}

fn sent(step: SiteStep) -> Vec<u8> {
    match step {
        SiteStep::Send(frame) => frame,
        other => panic!("{other:?}"),
    }
}

fn refused(step: &SiteStep) -> Reason {
    match step {
        SiteStep::Refuse(_, reason) => *reason,
        other => panic!("{other:?}"),
    }
}

fn send(step: Result<JoinerStep, JoinerError>) -> Vec<u8> {
    match step.unwrap() {
        JoinerStep::Send(frame) => frame,
        other => panic!("{other:?}"),
    }
}

fn welcome(key: [u8; 32]) -> FromSite {
    let record = |id: u64, key: KeyHash, role| MemberRecord {
        id: NodeId(id),
        name: format!("box{id}"),
        address: format!("10.0.0.1{id}:7400"),
        role,
        key,
    };
    let members = vec![
        record(1, SITE_KEY, MemberRole::Voter),
        record(2, hash_of_ed25519(&key), MemberRole::Voter),
        record(9, KeyHash([9; 32]), MemberRole::Witness),
    ];
    FromSite::Welcome(Welcome { number: 2, replaces: None, members, window_ms: 60_000, level: 3 })
}

#[test]
fn two_honest_ends_come_to_a_membership() {
    let (pair, key) = pair(5);
    let (mut joiner, hello) = Joiner::new(applicant(key), &pair, [7; 32], SITE_KEY);
    let mut side = side(7);
    let site = sent(give(&mut side, &hello));
    assert!(!joiner.has_asked());
    let ask = send(joiner.on_frame(&site));
    assert!(joiner.has_asked());
    let asked = give(&mut side, &ask);
    let expected = Asked {
        token: token().id(),
        key: hash_of_ed25519(&key),
        name: "box2".to_owned(),
        address: Some("10.0.0.12:7400".to_owned()),
    };
    assert_eq!(asked, SiteStep::Asked(expected));
    match joiner.on_frame(&encode(&welcome(key))).unwrap() {
        JoinerStep::Joined(identity, None) => {
            assert_eq!((identity.node, &*identity.site, identity.site_id), (2, "plant7", SiteId(7)));
            let roles: Vec<_> = identity.members.iter().map(|member| (member.id.0, member.role)).collect();
            assert_eq!(roles, [(1, MemberRole::Voter), (2, MemberRole::Observer)], "it follows in silence");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn somebody_between_two_honest_ends_passes_on_nothing_that_helps() {
    // A relay has a connection with each: their exporters differ, and the joiner sees the relay's key.
    for (exporter, key_seen) in [(8, SITE_KEY), (7, KeyHash([66; 32])), (8, KeyHash([66; 32]))] {
        let (pair, key) = pair(5);
        let (mut joiner, hello) = Joiner::new(applicant(key), &pair, [7; 32], key_seen);
        let site = sent(give(&mut side(exporter), &hello));
        assert_eq!(joiner.on_frame(&site).unwrap_err(), JoinerError::NotTheSite);
        assert!(!joiner.has_asked());
    }
}

#[test]
fn what_was_said_in_one_connection_is_of_no_use_in_another() {
    let (pair, key) = pair(5);
    let (mut joiner, hello) = Joiner::new(applicant(key), &pair, [7; 32], SITE_KEY);
    let ask = send(joiner.on_frame(&sent(give(&mut side(7), &hello))));
    let mut other = side(8);
    sent(give(&mut other, &hello));
    assert_eq!(refused(&give(&mut other, &ask)), Reason::BadProof);
}

#[test]
fn a_box_that_knows_the_name_of_a_token_only_gets_nowhere() {
    let (pair, key) = pair(5);
    let (mut joiner, hello) = Joiner::new(applicant(key), &pair, [7; 32], SITE_KEY);
    // The false site has another secret under that name.
    let false_site = sent(side(7).on_frame(&hello, |_, _| Some(known(&Token::of_secret([8; 16]), None))));
    assert_eq!(joiner.on_frame(&false_site).unwrap_err(), JoinerError::NotTheSite);
    // The false joiner signs with another.
    let mut honest = side(7);
    let site = sent(give(&mut honest, &hello));
    let (mut other, _) = Joiner::new(applicant(key), &pair, [7; 32], SITE_KEY);
    let ask = send(other.on_frame(&site));
    let FromJoiner::Ask(mut ask) = decode::<FromJoiner>(&ask).unwrap() else { panic!() };
    ask.name = "box3".to_owned();
    assert_eq!(refused(&give(&mut honest, &encode(&FromJoiner::Ask(ask)))), Reason::BadProof);
}

#[test]
fn a_key_that_is_another_s_proves_nothing() {
    let ((_, key), (other, _)) = (pair(5), pair(6));
    let (mut joiner, hello) = Joiner::new(applicant(key), &other, [7; 32], SITE_KEY);
    let mut side = side(7);
    let ask = send(joiner.on_frame(&sent(give(&mut side, &hello))));
    assert_eq!(refused(&give(&mut side, &ask)), Reason::BadProof);
}

#[test]
fn frames_that_are_doubled_or_out_of_order_end_the_exchange() {
    let (pair, key) = pair(5);
    let (mut joiner, hello) = Joiner::new(applicant(key), &pair, [7; 32], SITE_KEY);
    let mut first = side(7);
    let site = sent(give(&mut first, &hello));
    assert_eq!(refused(&give(&mut first, &hello)), Reason::Malformed);
    let ask = send(joiner.on_frame(&site));
    assert_eq!(refused(&give(&mut first, &ask)), Reason::Malformed, "it is over");
    assert_eq!(refused(&give(&mut side(7), &ask)), Reason::Malformed);
    assert!(matches!(joiner.on_frame(&site), Err(JoinerError::Malformed(_))));
    let (mut fresh, _) = Joiner::new(applicant(key), &pair, [7; 32], SITE_KEY);
    assert!(matches!(fresh.on_frame(&encode(&welcome(key))), Err(JoinerError::Malformed(_))));
}

#[test]
fn a_frame_that_is_cut_anywhere_is_refused() {
    let (pair, key) = pair(5);
    let (mut joiner, hello) = Joiner::new(applicant(key), &pair, [7; 32], SITE_KEY);
    let site = sent(give(&mut side(7), &hello));
    let ask = send(joiner.on_frame(&site));
    for frame in [&hello, &ask] {
        for end in 0..frame.len() {
            assert_eq!(refused(&give(&mut side(7), &frame[..end])), Reason::Malformed);
        }
    }
    for frame in [site, encode(&welcome(key))] {
        for end in 0..frame.len() {
            assert!(decode::<FromSite>(&frame[..end]).is_err());
        }
    }
}

#[test]
fn a_welcome_without_the_box_that_answered_or_this_one_is_not_believed() {
    let (pair, key) = pair(5);
    for spoil in [
        (|welcome: &mut Welcome| welcome.members[0].key = KeyHash([3; 32])) as fn(&mut Welcome),
        |welcome| welcome.members[1].key = KeyHash([3; 32]),
        |welcome| welcome.number = 3,
        |welcome| welcome.level = 99,
        |welcome| welcome.window_ms = 0,
    ] {
        let (mut joiner, hello) = Joiner::new(applicant(key), &pair, [7; 32], SITE_KEY);
        send(joiner.on_frame(&sent(give(&mut side(7), &hello))));
        let FromSite::Welcome(mut welcome) = welcome(key) else { panic!() };
        spoil(&mut welcome);
        let said = joiner.on_frame(&encode(&FromSite::Welcome(welcome)));
        assert!(matches!(said, Err(JoinerError::Malformed(_))), "{said:?}");
    }
}

#[test]
fn a_token_for_a_place_gives_its_name_unless_another_one_was_chosen() {
    let (pair, key) = pair(5);
    for (is_name_chosen, name) in [(false, "box2"), (true, "box3")] {
        let applicant = Applicant { is_name_chosen, name: name.to_owned(), ..applicant(key) };
        let (mut joiner, hello) = Joiner::new(applicant, &pair, [7; 32], SITE_KEY);
        let mut side = side(7);
        let for_box3 = |_, _| Some(known(&token(), Some("box3")));
        let ask = send(joiner.on_frame(&sent(side.on_frame(&hello, for_box3))));
        assert!(matches!(give(&mut side, &ask), SiteStep::Asked(asked) if asked.name == "box3"));
    }
    let chosen = Applicant { is_name_chosen: true, ..applicant(key) };
    let (mut joiner, hello) = Joiner::new(chosen, &pair, [7; 32], SITE_KEY);
    let site = sent(side(7).on_frame(&hello, |_, _| Some(known(&token(), Some("box3")))));
    assert_eq!(joiner.on_frame(&site).unwrap_err(), JoinerError::OtherName("box3".to_owned()));
}

#[test]
fn a_box_that_cannot_apply_what_the_site_writes_is_refused() {
    let (pair, key) = pair(5);
    let (_, hello) = Joiner::new(applicant(key), &pair, [7; 32], SITE_KEY);
    let FromJoiner::Hello(hello) = decode::<FromJoiner>(&hello).unwrap() else { panic!() };
    for spoil in [(|hello: &mut frames::Hello| hello.level = 2) as fn(&mut frames::Hello), |hello| {
        hello.protocols = (2, 9)
    }] {
        let mut hello = hello.clone();
        spoil(&mut hello);
        let step = give(&mut side(7), &encode(&FromJoiner::Hello(hello)));
        assert_eq!(refused(&step), Reason::Release);
    }
    let unknown = side(7).on_frame(&encode(&FromJoiner::Hello(hello)), |_, _| None);
    assert_eq!(refused(&unknown), Reason::UnknownToken);
}

#[test]
fn the_hash_of_a_raw_key_is_the_one_that_members_list() {
    let dir = tempfile::tempdir().unwrap();
    let issued = Issued::self_signed("box1").unwrap();
    issued.save(dir.path()).unwrap();
    let keys = Keys::load(dir.path()).unwrap();
    let (_, public) = keys.ed25519().unwrap();
    assert_eq!(hash_of_ed25519(&public), keys.key_hash());
}

proptest! {
    #[test]
    fn any_bytes_end_an_exchange_or_are_a_frame(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (pair, key) = pair(5);
        assert!(matches!(give(&mut side(7), &bytes), SiteStep::Refuse(..)));
        let (mut joiner, _) = Joiner::new(applicant(key), &pair, [7; 32], SITE_KEY);
        prop_assert!(joiner.on_frame(&bytes).is_err());
    }
}
