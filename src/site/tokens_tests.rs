use proptest::prelude::*;
use tally_core::id::{KeyHash, LogIndex};
use tally_core::raft::MemberRole::{Observer, Voter, Witness};

use super::*;
use crate::site::testing::{Driver, MINUTE, founding};
use crate::site::{
    Applied, ConfigurationRecord, JoinRefused, JoinRequest, Joined, Level, MemberChange, MemberRecord,
    MemberRefused, Part, Site, entry,
};

fn id(number: u64) -> TokenId {
    TokenId(number.to_be_bytes())
}

fn new(number: u64, uses: u32) -> NewToken {
    NewToken {
        id: id(number),
        site_key: SiteKey([number as u8; 32]),
        join_public: [3; 32],
        role: Voter,
        uses,
        ttl_ms: 10 * MINUTE,
        replaces: None,
        made_by: NodeId(1),
    }
}

fn replacing(number: u64, name: &str) -> NewToken {
    NewToken { replaces: Some(name.to_owned()), ..new(number, 1) }
}

fn record(number: u64, role: MemberRole) -> MemberRecord {
    MemberRecord {
        id: NodeId(number),
        name: format!("box{number}"),
        address: format!("10.0.0.{number}:7400"),
        role,
        key: KeyHash([number as u8; 32]),
    }
}

fn request(token: u64, number: u64) -> JoinRequest {
    let MemberRecord { name, address, key, .. } = record(number, Voter);
    JoinRequest { token: id(token), key, name, address }
}

fn site(members: &[MemberRecord]) -> Driver {
    let mut driver = Driver::new();
    driver.apply(&entry::bootstrap(members));
    driver
}

fn change(driver: &mut Driver, change: TokenChange) -> Result<(), TokenRefused> {
    let nonce = driver.log.len() as u64;
    match driver.apply(&entry::token(nonce, &change)) {
        Applied::Token { nonce: told, result } if told == nonce => result,
        other => panic!("{other:?}"),
    }
}

fn create(driver: &mut Driver, new: NewToken) {
    change(driver, TokenChange::Create(new)).unwrap();
}

fn join(driver: &mut Driver, request: &JoinRequest) -> Result<Joined, JoinRefused> {
    match driver.apply(&entry::join(request)) {
        Applied::Joined { key, result } if key == request.key => result,
        other => panic!("{other:?}"),
    }
}

fn joined(number: u64) -> Joined {
    Joined { id: NodeId(number), replaces: None, again: false }
}

fn assert_replicated(driver: &Driver) {
    let snapshot = driver.site.snapshot();
    let restored = Site::restore(&founding(), &snapshot).unwrap();
    assert!(restored.snapshot() == snapshot);
    let mut other = Site::new(&founding());
    for (at, payload) in (1..).zip(&driver.log) {
        other.apply(LogIndex(at), payload).unwrap();
    }
    assert_eq!(other.digest(), driver.site.digest());
    assert!(other.snapshot() == snapshot);
}

#[test]
fn of_twenty_boxes_with_a_token_for_three_three_join_and_asked_again_they_get_the_same_answer() {
    let mut driver = site(&[record(1, Voter)]);
    create(&mut driver, new(7, 3));
    let answers: Vec<_> = (2..22).map(|number| join(&mut driver, &request(7, number))).collect();
    assert_eq!(answers[..3], [2, 3, 4].map(|number| Ok(joined(number))));
    assert!(answers[3..].iter().all(|answer| *answer == Err(JoinRefused::UsedUp)));
    for number in 2..5 {
        let again = Joined { again: true, ..joined(number) };
        // Under another name even: its key is who it is.
        let named = JoinRequest { name: "another".to_owned(), ..request(7, number) };
        assert_eq!(join(&mut driver, &named), Ok(again));
    }
    assert_eq!(driver.site.members().len(), 4);
    let token = &driver.site.tokens()[0];
    assert_eq!((token.uses, &token.used_by[..]), (0, &[2, 3, 4].map(NodeId)[..]));
    assert_replicated(&driver);
}

#[test]
fn numbers_are_never_given_twice() {
    let mut driver = site(&[record(1, Voter), record(2, Voter)]);
    create(&mut driver, new(7, 3));
    assert_eq!(join(&mut driver, &request(7, 9)), Ok(joined(3)));
    driver.apply(&entry::member(90, &MemberChange::Remove { name: "box9".to_owned() }));
    assert_eq!(join(&mut driver, &JoinRequest { key: KeyHash([10; 32]), ..request(7, 9) }), Ok(joined(4)));
    assert_replicated(&driver);
}

#[test]
fn a_token_is_good_for_the_site_s_elapsed_time_and_forgotten_with_the_next_tick() {
    let mut driver = site(&[record(1, Voter)]);
    create(&mut driver, new(7, 3));
    driver.pass(10 * MINUTE - 1);
    join(&mut driver, &request(7, 2)).unwrap();
    driver.pass(1);
    assert_eq!(join(&mut driver, &request(7, 3)), Err(JoinRefused::UnknownToken));
    assert_eq!(driver.site.token(id(7)), None);
    assert_eq!(driver.site.tokens().len(), 1);
    driver.apply(&entry::tick());
    assert_eq!(driver.site.tokens().len(), 0);
    create(&mut driver, new(8, 1));
    change(&mut driver, TokenChange::Revoke(id(8))).unwrap();
    assert_eq!(change(&mut driver, TokenChange::Revoke(id(8))), Err(TokenRefused::NoSuchToken));
    assert_eq!(join(&mut driver, &request(8, 3)), Err(JoinRefused::UnknownToken));
    assert_replicated(&driver);
}

#[test]
fn a_site_keeps_so_many_tokens_and_those_that_are_used_up_make_room() {
    let mut driver = site(&[record(1, Voter)]);
    for number in 1..=TOKENS_MAX as u64 {
        create(&mut driver, new(number, 1));
    }
    assert_eq!(change(&mut driver, TokenChange::Create(new(100, 1))), Err(TokenRefused::TooMany));
    assert_eq!(change(&mut driver, TokenChange::Create(new(5, 1))), Err(TokenRefused::Known));
    join(&mut driver, &request(9, 2)).unwrap();
    create(&mut driver, new(100, 1));
    assert_eq!((driver.site.tokens().len(), driver.site.token(id(9))), (TOKENS_MAX, None));
    assert_replicated(&driver);
}

#[test]
fn names_addresses_and_keys_of_members_are_taken() {
    let mut driver = site(&[record(1, Voter)]);
    create(&mut driver, new(7, 3));
    let other = request(7, 2);
    for (request, why) in [
        (JoinRequest { name: "box1".to_owned(), ..other.clone() }, MemberRefused::NameTaken),
        (JoinRequest { address: "10.0.0.1:7400".to_owned(), ..other }, MemberRefused::AddressTaken),
    ] {
        assert_eq!(join(&mut driver, &request), Err(JoinRefused::Member(why)));
    }
    assert_eq!(driver.site.tokens()[0].uses, 3, "a refusal takes no use");
    assert_eq!(driver.site.members().len(), 1);
}

#[test]
fn the_vote_of_who_joins_waits_until_an_operator_promotes_it() {
    let mut driver = site(&[record(1, Voter)]);
    create(&mut driver, new(7, 1));
    create(&mut driver, NewToken { role: Observer, ..new(8, 1) });
    join(&mut driver, &request(7, 2)).unwrap();
    join(&mut driver, &request(8, 3)).unwrap();
    let patient = |driver: &Driver| driver.site.patient_members().collect::<Vec<_>>();
    assert_eq!(patient(&driver), [NodeId(2)]);
    assert_replicated(&driver);
    let role = MemberChange::Role { name: "box2".to_owned(), role: Voter };
    driver.apply(&entry::member(90, &role));
    assert_eq!(patient(&driver), []);
    assert_replicated(&driver);
}

fn in_force(ids: &[u64]) -> ConfigurationRecord {
    let part =
        |id: &u64| Part { id: NodeId(*id), voter: true, outgoing: false, observer: false, witness: false };
    ConfigurationRecord { parts: ids.iter().map(part).collect(), leaves_by_itself: false }
}

#[test]
fn who_replaces_another_gets_its_name_and_role_and_the_old_number_is_retired() {
    let mut driver = site(&[record(1, Voter), record(2, Voter), record(3, Voter), record(9, Witness)]);
    driver.apply(&entry::configuration(&in_force(&[1, 2, 3])));
    let refused = [("box9", TokenRefused::Witness), ("nobody", TokenRefused::NoSuchMember)];
    for (name, why) in refused {
        assert_eq!(change(&mut driver, TokenChange::Create(replacing(6, name))), Err(why));
    }
    create(&mut driver, replacing(7, "box3"));
    // It comes under the address of the old one.
    let fresh = JoinRequest { name: "fresh".to_owned(), key: KeyHash([30; 32]), ..request(7, 3) };
    let answer = Joined { id: NodeId(10), replaces: Some(NodeId(3)), again: false };
    assert_eq!(join(&mut driver, &fresh), Ok(answer.clone()));
    assert_eq!(join(&mut driver, &fresh), Ok(Joined { again: true, ..answer }));
    let new = driver.site.members().last().unwrap();
    assert_eq!((&*new.name, new.id, new.role), ("box3", NodeId(10), Voter));
    assert_eq!(driver.site.replacements().collect::<Vec<_>>(), [(NodeId(10), NodeId(3))]);
    assert_eq!(driver.site.patient_members().count(), 0, "the old one's vote did not wait");
    assert_eq!(driver.site.members_leaving()[0].id, NodeId(3));
    assert_replicated(&driver);
    driver.apply(&entry::configuration(&in_force(&[1, 2, 10])));
    assert_eq!(driver.site.replacements().count(), 0);
    assert_replicated(&driver);
}

#[test]
fn a_token_for_a_place_whose_owner_is_gone_is_for_the_name() {
    let mut driver = site(&[record(1, Voter), record(2, Voter)]);
    create(&mut driver, replacing(7, "box2"));
    driver.apply(&entry::member(90, &MemberChange::Remove { name: "box2".to_owned() }));
    let fresh = JoinRequest { name: "fresh".to_owned(), key: KeyHash([30; 32]), ..request(7, 2) };
    assert_eq!(join(&mut driver, &fresh), Ok(joined(3)));
    assert_eq!(driver.site.members()[1].name, "box2");
}

#[test]
fn below_level_three_there_are_no_tokens() {
    let mut driver = Driver::new();
    driver.site = Site::new(&crate::site::BootstrapSettings { level: Level::TWO, ..founding() });
    driver.apply(&entry::bootstrap(&[record(1, Voter)]));
    assert_eq!(driver.apply(&entry::token(1, &TokenChange::Create(new(7, 1)))), Applied::Nothing);
    assert_eq!(driver.apply(&entry::join(&request(7, 2))), Applied::Nothing);
    assert_eq!((driver.site.tokens().len(), driver.site.members().len()), (0, 1));
    let snapshot = driver.site.snapshot();
    assert_eq!(snapshot[8..12], 4u32.to_le_bytes(), "a box of the release before can read it");
    driver.apply(&entry::level(Level::THREE));
    create(&mut driver, new(7, 1));
    join(&mut driver, &request(7, 2)).unwrap();
}

/// What operators and boxes may ask for, in any order.
#[derive(Clone, Debug)]
enum Asked {
    Create { token: u64, uses: u32, replaces: Option<u64> },
    Revoke { token: u64 },
    Join { token: u64, key: u64, name: u64 },
    Remove { name: u64 },
    Promote { name: u64 },
    Enforce,
    Pass { minutes: u64 },
}

fn asked() -> impl Strategy<Value = Asked> {
    let (token, name) = (0u64..4, 1u64..7);
    prop_oneof![
        (token.clone(), 1u32..4, prop::option::of(name.clone()))
            .prop_map(|(token, uses, replaces)| Asked::Create { token, uses, replaces }),
        token.clone().prop_map(|token| Asked::Revoke { token }),
        (token, 10u64..20, name.clone()).prop_map(|(token, key, name)| Asked::Join { token, key, name }),
        name.clone().prop_map(|name| Asked::Remove { name }),
        name.prop_map(|name| Asked::Promote { name }),
        Just(Asked::Enforce),
        (0u64..8).prop_map(|minutes| Asked::Pass { minutes }),
    ]
}

impl Asked {
    fn apply(self, driver: &mut Driver) -> Applied {
        let nonce = driver.log.len() as u64;
        let named = |name: u64| format!("box{name}");
        let body = match self {
            Asked::Create { token, uses, replaces } => {
                let new = NewToken { replaces: replaces.map(named), ..new(token, uses) };
                entry::token(nonce, &TokenChange::Create(new))
            }
            Asked::Revoke { token } => entry::token(nonce, &TokenChange::Revoke(id(token))),
            Asked::Join { token, key, name } => entry::join(&JoinRequest {
                token: id(token),
                key: KeyHash([key as u8; 32]),
                name: named(name),
                address: format!("10.0.1.{key}:7400"),
            }),
            Asked::Remove { name } => entry::member(nonce, &MemberChange::Remove { name: named(name) }),
            Asked::Promote { name } => {
                entry::member(nonce, &MemberChange::Role { name: named(name), role: Voter })
            }
            Asked::Enforce => {
                let ids: Vec<u64> = driver.site.members().iter().map(|member| member.id.0).collect();
                entry::configuration(&in_force(&ids))
            }
            Asked::Pass { minutes } => {
                driver.pass(minutes * MINUTE);
                entry::tick()
            }
        };
        driver.apply(&body)
    }
}

proptest! {
    #[test]
    fn whatever_is_asked_no_number_name_or_use_is_given_twice(
        all in proptest::collection::vec(asked(), 0..60),
    ) {
        let mut driver = site(&[record(1, Voter), record(2, Voter)]);
        driver.apply(&entry::configuration(&in_force(&[1, 2])));
        let mut given = std::collections::BTreeSet::from([1, 2]);
        for asked in all {
            let before: Vec<(TokenId, u32)> = driver.site.tokens().iter().map(|one| (one.id, one.uses)).collect();
            match asked.apply(&mut driver) {
                Applied::Joined { key, result: Ok(joined) } => {
                    prop_assert_eq!(joined.again, !given.insert(joined.id.0), "number {} again", joined.id);
                    prop_assert_eq!(driver.site.member_of_key(key).map(|member| member.id), Some(joined.id));
                    let uses = |list: &[(TokenId, u32)]| list.iter().map(|(_, uses)| uses).sum::<u32>();
                    let now: Vec<_> = driver.site.tokens().iter().map(|one| (one.id, one.uses)).collect();
                    prop_assert_eq!(uses(&now) + u32::from(!joined.again), uses(&before));
                }
                Applied::Joined { result: Err(_), .. } => {
                    let now: Vec<_> = driver.site.tokens().iter().map(|one| (one.id, one.uses)).collect();
                    prop_assert_eq!(now, before);
                }
                _ => {}
            }
            let members = driver.site.members();
            let names: std::collections::BTreeSet<_> = members.iter().map(|member| &member.name).collect();
            prop_assert_eq!(names.len(), members.len());
            prop_assert!(members.iter().any(|member| member.role == Voter));
            for token in driver.site.tokens() {
                prop_assert!(token.used_by.len() as u32 + token.uses <= 3);
            }
        }
        assert_replicated(&driver);
    }
}
