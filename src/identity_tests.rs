use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use tally_core::id::KeyHash;
use tally_core::raft::MemberRole;

fn founded() -> (tempfile::TempDir, Identity) {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::found_single(dir.path(), "plant7", "box1", "").unwrap();
    (dir, identity)
}

fn member(id: u64) -> MemberRecord {
    MemberRecord {
        id: NodeId(id),
        name: format!("box{id}"),
        address: format!("10.0.0.{id}:7400"),
        role: MemberRole::Voter,
        key: KeyHash([id as u8; 32]),
    }
}

fn identity_of_two() -> Identity {
    let members = vec![member(1), member(2)];
    Identity { site: "plant7".into(), site_id: SiteId(7), node: 1, window_ms: 60_000, level: 1, members }
}

#[test]
fn a_founded_site_of_one_loads_as_it_was_made() {
    let (dir, identity) = founded();
    assert_eq!(Identity::load(dir.path()).unwrap(), Some(identity.clone()));
    assert_eq!(identity.me().name, "box1");
    let keys = Keys::load(dir.path()).unwrap();
    assert!(identity.matches(&keys));
    let mode = fs::metadata(dir.path().join(NODE_KEY)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!dir.path().join(CA_KEY).exists(), "nobody certifies anything");
    let (_, other) = founded();
    assert_ne!(identity.site_id, other.site_id);
    assert_ne!(identity.me().key, other.me().key);
}

#[test]
fn an_empty_directory_has_no_identity() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Identity::load(dir.path()).unwrap(), None);
    assert_eq!(Identity::load(&dir.path().join("none")).unwrap(), None);
}

#[test]
fn a_name_that_cannot_be_one_founds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for (site, node) in [("Plant", "box1"), ("plant", "box 1"), ("", "box1"), ("plant", &"x".repeat(33))] {
        Identity::found_single(dir.path(), site, node, "").unwrap_err();
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn what_is_saved_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    identity_of_two().save(dir.path()).unwrap();
    identity_of_two().save(dir.path()).unwrap();
    assert_eq!(Identity::load(dir.path()).unwrap(), Some(identity_of_two()));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
}

/// Makes an identity wrong.
type Spoil = fn(&mut Identity);

#[test]
fn an_identity_that_contradicts_itself_is_refused_with_file_reason_and_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [(&str, Spoil); 13] = [
        ("number 3, is not among", |identity| identity.node = 3),
        ("1 to 9 members, not 0", |identity| identity.members.clear()),
        ("1 to 9 members, not 10", |identity| identity.members = (1..=10).map(member).collect()),
        ("none of the members is a voter", |identity| {
            identity.members.iter_mut().for_each(|each| each.role = MemberRole::Observer);
        }),
        ("have the same number 1", |identity| identity.members[1].id = NodeId(1)),
        ("numbers begin at 1", |identity| identity.members[1].id = NodeId(0)),
        ("two members have the name \"box1\"", |identity| identity.members[1].name = "box1".into()),
        ("\"Box\"", |identity| identity.members[1].name = "Box".into()),
        ("same key", |identity| identity.members[1].key = identity.members[0].key),
        ("same address", |identity| identity.members[1].address = identity.members[0].address.clone()),
        ("has no address", |identity| identity.members[1].address = String::new()),
        ("not a port", |identity| identity.members[1].address = "10.0.0.2:0".into()),
        ("window_ms must be from 1 ms to 31 days, not 0", |identity| identity.window_ms = 0),
    ];
    for (reason, spoil) in cases {
        let mut identity = identity_of_two();
        spoil(&mut identity);
        identity.save(dir.path()).unwrap();
        let text = Identity::load(dir.path()).unwrap_err().to_string();
        assert!(text.contains(reason), "{text}");
        assert!(text.contains("identity.json") && text.contains("copy the box's files again"), "{text}");
    }
}

#[test]
fn an_identity_that_is_no_json_or_has_unknown_keys_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for text in ["", "{}", "not json", "{\"site\": 1}", "\u{0}"] {
        fs::write(dir.path().join(IDENTITY), text).unwrap();
        let error = Identity::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("identity.json"), "{error}");
    }
    identity_of_two().save(dir.path()).unwrap();
    let text = fs::read_to_string(dir.path().join(IDENTITY)).unwrap().replacen('{', "{\"colour\": 1,", 1);
    fs::write(dir.path().join(IDENTITY), text).unwrap();
    let error = Identity::load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("colour"), "{error}");
}

#[test]
fn a_key_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    identity_of_two().save(dir.path()).unwrap();
    let text = fs::read_to_string(dir.path().join(IDENTITY)).unwrap();
    fs::write(dir.path().join(IDENTITY), text.replace(&"02".repeat(32), "12")).unwrap();
    let error = Identity::load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("identity.json") && error.contains("\"12\", expected a key as 64"), "{error}");
}

#[test]
fn keys_that_are_missing_or_do_not_belong_together_are_named() {
    let ((one, _), (two, _)) = (founded(), founded());
    fs::copy(two.path().join(NODE_CERTIFICATE), one.path().join(NODE_CERTIFICATE)).unwrap();
    let error = Keys::load(one.path()).unwrap_err().to_string();
    assert!(error.contains("node.crt") && error.contains("does not certify"), "{error}");
    fs::write(one.path().join(NODE_CERTIFICATE), "nothing").unwrap();
    let error = Keys::load(one.path()).unwrap_err().to_string();
    assert!(error.contains("node.crt") && error.contains("not a certificate"), "{error}");
    fs::write(one.path().join(NODE_KEY), "nothing").unwrap();
    let error = Keys::load(one.path()).unwrap_err().to_string();
    assert!(error.contains("node.key") && error.contains("not a private key"), "{error}");
    fs::remove_file(one.path().join(NODE_KEY)).unwrap();
    let error = Keys::load(one.path()).unwrap_err().to_string();
    assert!(error.contains("node.key") && error.contains("copy"), "{error}");
    assert!(!Identity::load(one.path()).unwrap().unwrap().matches(&Keys::load(two.path()).unwrap()));
}

#[test]
fn debug_shows_no_secret() {
    let (dir, _) = founded();
    let pem = fs::read_to_string(dir.path().join(NODE_KEY)).unwrap();
    let secret = pem.lines().nth(1).unwrap();
    let keys = Keys::load(dir.path()).unwrap();
    let issued = Authority::found("a", SiteId(1)).unwrap().issue("b", SiteId(1)).unwrap();
    assert!(!format!("{keys:?}").contains(secret));
    assert!(!format!("{issued:?}").contains("PRIVATE"));
}

#[test]
fn derived_secrets_last_and_differ_by_purpose_and_box() {
    let ((one, _), (two, _)) = (founded(), founded());
    let keys = Keys::load(one.path()).unwrap();
    assert_eq!(keys.derive("a"), Keys::load(one.path()).unwrap().derive("a"));
    assert_ne!(keys.derive("a"), keys.derive("b"));
    assert_ne!(keys.derive("a"), Keys::load(two.path()).unwrap().derive("a"));
}

#[test]
fn addresses_are_a_host_and_a_port() {
    for good in ["10.0.0.1:7400", "box1:1", "box-1.lan.:65535", "[fd00::1]:7400", "localhost:7400"] {
        check_address(good).unwrap();
    }
    for bad in [
        "",
        ":",
        "box",
        "box:",
        ":7400",
        "box:0",
        "box:65536",
        "box:-1",
        "box:+1",
        "box: 1",
        "300.0.0.1:1",
        "1.2.3:1",
        "fd00::1:7400",
        "[fd00:7400",
        "[box]:1",
        "-box:1",
        "box-:1",
        "a..b:1",
        "a b:1",
        "a/b:1",
        "\"box\":1",
        "bö:1",
    ] {
        check_address(bad).unwrap_err();
    }
}
