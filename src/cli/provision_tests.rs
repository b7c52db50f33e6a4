use std::os::unix::fs::PermissionsExt;

use clap::Parser;

use super::*;
use crate::identity::{Keys, NODE_KEY};

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: ProvisionArgs,
}

fn args(out: &Path, boxes: &[&str]) -> ProvisionArgs {
    ProvisionArgs {
        site: Some("plant7".into()),
        boxes: boxes.iter().map(|text| (*text).into()).collect(),
        out: Some(out.into()),
        window: "60s".into(),
        ..ProvisionArgs::default()
    }
}

fn usage_of(args: &ProvisionArgs) -> String {
    match provision(args) {
        Err(ProvisionError::Usage(text)) => text,
        other => panic!("not a usage error: {other:?}"),
    }
}

const THREE: [&str; 3] = ["box1=10.0.0.11:7400", "box2=10.0.0.12:7401", "box3=box3.lan:7400"];

#[test]
fn each_box_gets_a_directory_that_is_whole_and_agrees_with_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("made");
    let made = provision(&ProvisionArgs { window: "5m".into(), ..args(&out, &THREE) }).unwrap();
    let identities: Vec<Identity> =
        made.boxes.iter().map(|each| Identity::load(&each.directory).unwrap().unwrap()).collect();
    for ((identity, each), id) in identities.iter().zip(&made.boxes).zip(1..) {
        assert_eq!((identity.node, &identity.me().name), (id, &each.name));
        assert_eq!((identity.window_ms, identity.site_id), (300_000, made.site_id));
        assert_eq!(identity.members, identities[0].members);
        assert!(identity.matches(&Keys::load(&each.directory).unwrap()));
        let mode = fs::metadata(each.directory.join(NODE_KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let authority = fs::read(out.join("ca.crt")).unwrap();
        assert_eq!(fs::read(each.directory.join("ca.crt")).unwrap(), authority);
        assert!(!each.directory.join("ca.key").exists(), "a box cannot make members");
    }
    let mode = fs::metadata(out.join("ca.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let site: serde_json::Value = serde_json::from_slice(&fs::read(out.join("site.json")).unwrap()).unwrap();
    assert_eq!(site["boxes"][2]["address"], "box3.lan:7400");
}

#[test]
fn the_configuration_agrees_with_the_identity() {
    for (text, listen) in [
        ("box1=10.0.0.11:7400", "[::]:7400"),
        ("box1=box1.lan:7499", "[::]:7499"),
        ("box1=[fd00::1]:7400", "[::]:7400"),
        ("box1=127.0.0.1:7401", "127.0.0.1:7401"),
        ("box1=127.0.3.1:7401", "127.0.3.1:7401"),
        ("box1=[::1]:7401", "[::1]:7401"),
        ("box1=localhost:7401", "127.0.0.1:7401"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let made = provision(&args(dir.path(), &[text])).unwrap();
        let directory = &made.boxes[0].directory;
        let config = fs::read_to_string(directory.join("tallyd.toml")).unwrap();
        let config: toml::Table = config.parse().unwrap();
        let identity = Identity::load(directory).unwrap().unwrap();
        assert_eq!(config["node"]["name"].as_str(), Some(identity.me().name.as_str()));
        assert_eq!(config["cluster"]["advertise"].as_str(), Some(identity.me().address.as_str()));
        assert_eq!(config["cluster"]["listen"].as_str(), Some(listen));
        listen.parse::<std::net::SocketAddr>().unwrap();
    }
}

#[test]
fn what_is_not_a_site_is_refused_with_words_and_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("made");
    let ten: Vec<String> = (0..10).map(|n| format!("box{n}=10.0.0.{n}:7400")).collect();
    let ten: Vec<&str> = ten.iter().map(String::as_str).collect();
    for (boxes, reason) in [
        (&[][..], "1 to 9 boxes, not 0"),
        (&ten, "1 to 9 boxes, not 10"),
        (&["box1"], "NAME=HOST:PORT"),
        (&["Box1=10.0.0.1:7400"], "\"Box1\" is not a name"),
        (&["=10.0.0.1:7400"], "\"\" is not a name"),
        (&["../x=10.0.0.1:7400"], "\"../x\" is not a name"),
        (&["box1=10.0.0.1"], "HOST:PORT"),
        (&["box1=10.0.0.1:0"], "ports are 1 to 65535"),
        (&["box1=10.0.0.1:70000"], "ports are 1 to 65535"),
        (&["box1=10.0.0.256:7400"], "HOST:PORT"),
        (&["box1=0.0.0.0:7400"], "not an address that others can reach"),
        (&["box1=a\"b:7400"], "HOST:PORT"),
        (&["box1=10.0.0.1:7400", "box1=10.0.0.2:7400"], "name \"box1\" is given twice"),
        (&["box1=10.0.0.1:7400", "box2=10.0.0.1:7400"], "address 10.0.0.1:7400 is given twice"),
        (&["box1=a.lan:7400", "box2=A.LAN:7400"], "given twice"),
        (
            &["box1=127.0.0.1:7400", "box2=10.0.0.1:7400"],
            "127.0.0.1:7400 is on loopback and 10.0.0.1:7400 is not",
        ),
    ] {
        let text = usage_of(&args(&out, boxes));
        assert!(text.contains(reason), "{text}");
    }
    for (site, reason) in [("Plant", "\"Plant\""), ("", "is not a name"), (&"x".repeat(33), "is not a name")]
    {
        let text = usage_of(&ProvisionArgs { site: Some(site.into()), ..args(&out, &THREE) });
        assert!(text.contains("--site") && text.contains(reason), "{text}");
    }
    for window in ["", "60", "0s", "s", "-1s", "1.5s", "1w", "999ms", "32d", "99999999999999999999s", "1 s"] {
        let text = usage_of(&ProvisionArgs { window: window.into(), ..args(&out, &THREE) });
        assert!(text.contains("--window") && text.contains("1s to 31d"), "{text}");
    }
    assert!(!out.exists());
}

#[test]
fn a_directory_that_has_something_in_it_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    provision(&args(dir.path(), &THREE)).unwrap();
    let before = fs::read(dir.path().join("box1/node.key")).unwrap();
    assert!(usage_of(&args(dir.path(), &THREE)).contains("is not empty"));
    assert_eq!(fs::read(dir.path().join("box1/node.key")).unwrap(), before);
    assert!(usage_of(&args(&dir.path().join("site.json"), &THREE)).contains("is not a directory"));
}

#[test]
fn what_cannot_be_written_fails_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // A file stands where a directory of the path has to be.
    fs::write(dir.path().join("file"), "").unwrap();
    let out = dir.path().join("file/made");
    assert!(matches!(
        provision(&args(&out, &THREE)),
        Err(ProvisionError::Failed(_) | ProvisionError::Usage(_))
    ));
    // The name of the only box is that of a file made before: the directory cannot be made.
    let made = dir.path().join("made");
    let plan = Plan::new(&args(&made, &THREE)).unwrap();
    fs::create_dir(&made).unwrap();
    fs::write(made.join("box3"), "").unwrap();
    plan.make().unwrap_err();
    plan.remove(true);
    assert_eq!(fs::read_dir(&made).unwrap().count(), 0);
    plan.remove(false);
    assert!(!made.exists());
}

#[test]
fn a_further_box_has_the_next_number_the_sites_authority_and_follows_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("made");
    let path = out.to_str().unwrap();
    let line = ["x", "--site", "p", "--box", THREE[0], "--box", THREE[1], "--out", path];
    let made = provision(&Command::try_parse_from(line).unwrap().args).unwrap();
    let parsed = Command::try_parse_from(["x", "--extend", path, "--box", "box9=10.0.0.19:7400"]).unwrap();
    let mut printed = Vec::new();
    run(&parsed.args, &mut printed).unwrap();
    let printed = String::from_utf8(printed).unwrap();
    let identity = Identity::load(&out.join("box9")).unwrap().unwrap();
    assert_eq!((identity.node, identity.site_id), (3, made.site_id));
    assert_eq!((identity.me().role, identity.members.len()), (MemberRole::Observer, 3));
    assert!(identity.matches(&crate::identity::Keys::load(&out.join("box9")).unwrap()));
    let command = format!("tallyd member add box9=10.0.0.19:7400 --id 3 --key {}", identity.me().key);
    assert!(printed.contains(&command), "{printed}");
    let same = fs::read(out.join("ca.crt")).unwrap() == fs::read(out.join("box9/ca.crt")).unwrap();
    assert!(same, "the authority is the site's");
    // The next one counts on, and nothing is made twice.
    match run(&parsed.args, &mut Vec::new()) {
        Err(ProvisionError::Usage(text)) => {
            assert!(text.contains("name \"box9\" is taken, by number 3"), "{text}");
            assert!(text.contains("--replace"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    let next = Command::try_parse_from(["x", "--extend", path, "--box", "box10=10.0.0.20:7400"]).unwrap();
    assert_eq!(extend(&out, &next.args).unwrap().made.id, NodeId(4));
    match extend(dir.path(), &next.args) {
        Err(ProvisionError::Failed(text)) => assert!(text.contains("site.json"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_arguments_are_those_of_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("made");
    let line = ["x", "--site", "p", "--box", THREE[0], "--box", THREE[1], "--out", out.to_str().unwrap()];
    let parsed = Command::try_parse_from(line).unwrap().args;
    assert_eq!((parsed.boxes.len(), parsed.window.as_str(), parsed.json), (2, "60s", false));
    for missing in [1, 3, 7] {
        let mut line = line.to_vec();
        line.drain(missing..missing + if missing == 3 { 4 } else { 2 });
        assert_eq!(Command::try_parse_from(line).err().unwrap().exit_code(), 2);
    }
    let mut printed = Vec::new();
    run(&parsed, &mut printed).unwrap();
    let printed = String::from_utf8(printed).unwrap();
    assert!(printed.contains("box2") && printed.contains("tallyd run --data-dir"), "{printed}");
}

#[test]
fn with_json_what_was_made_is_printed_for_programs() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("made");
    let mut printed = Vec::new();
    run(&ProvisionArgs { json: true, ..args(&out, &THREE) }, &mut printed).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&printed).unwrap();
    assert_eq!((&value["site"], &value["window_ms"]), (&"plant7".into(), &60_000.into()));
    assert_eq!(value["site_id"].as_str().unwrap().len(), 16);
    assert_eq!(value["boxes"].as_array().unwrap().len(), 3);
    assert_eq!(printed, fs::read(out.join("site.json")).unwrap());
}

#[test]
fn a_witness_is_provisioned_beside_an_even_number_of_boxes_only() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("made");
    let with =
        |boxes: &[&str]| ProvisionArgs { witness: Some("w=10.0.0.5:7407".into()), ..args(&out, boxes) };
    let refused = usage_of(&with(&THREE));
    assert!(refused.contains("even number of boxes") && refused.contains("not 3"), "{refused}");
    assert!(!out.exists());
    let made = provision(&with(&THREE[..2])).unwrap();
    let roles: Vec<MemberRole> = made.boxes.iter().map(|each| each.role).collect();
    assert_eq!(roles, [MemberRole::Voter, MemberRole::Voter, MemberRole::Witness]);
    for each in &made.boxes {
        let identity = Identity::load(&each.directory).unwrap().unwrap();
        assert_eq!(identity.members.iter().map(|member| member.role).collect::<Vec<_>>(), roles);
    }
    let said = next_steps(&made);
    let (boxes, witness) = said.split_once("For the witness, w:").unwrap();
    assert!(boxes.contains("run --data-dir") && boxes.contains("/etc/tallyd/tallyd.toml"), "{said}");
    assert!(witness.contains("run --witness --data-dir") && !witness.contains("run --data-dir"), "{said}");
}

#[test]
fn a_site_is_extended_by_a_witness_or_by_a_box_and_by_one_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("made");
    provision(&args(&out, &THREE[..2])).unwrap();
    let extending = |text: &str| Command::try_parse_from(text.split(' ')).unwrap().args;
    let both = extending("p --extend x --box box3=box3.lan:7400 --witness w=10.0.0.5:7407");
    assert!(matches!(extend(&out, &both), Err(ProvisionError::Usage(_))));
    assert!(matches!(extend(&out, &extending("p --extend x")), Err(ProvisionError::Usage(_))));
    let extended = extend(&out, &extending("p --extend x --witness w=10.0.0.5:7407")).unwrap();
    let said = next_steps_of(&extended);
    let made = extended.made;
    assert_eq!((made.id, made.role), (NodeId(3), MemberRole::Witness));
    assert!(said.contains("tallyd run --witness") && !said.contains("tallyd run --data-dir"), "{said}");
    assert!(
        said.contains(&format!("tallyd member add w=10.0.0.5:7407 --id 3 --key {} --role witness", made.key))
    );
    let identity = Identity::load(&made.directory).unwrap().unwrap();
    assert_eq!((identity.members.len(), identity.me().role), (3, MemberRole::Witness));
    // A box that comes later begins without the witness, of which its site tells it.
    let made = extend(&out, &extending("p --extend x --box box3=box3.lan:7400")).unwrap().made;
    let identity = Identity::load(&made.directory).unwrap().unwrap();
    let known: Vec<(u64, MemberRole)> =
        identity.members.iter().map(|member| (member.id.0, member.role)).collect();
    assert_eq!(known, [(1, MemberRole::Voter), (2, MemberRole::Voter), (4, MemberRole::Observer)]);
}

fn extending(text: &str) -> ProvisionArgs {
    Command::try_parse_from(text.split(' ')).unwrap().args
}

fn refused(out: &Path, text: &str) -> String {
    match extend(out, &extending(text)) {
        Err(ProvisionError::Usage(text)) => text,
        other => panic!("not a usage error: {other:?}"),
    }
}

fn listed(out: &Path) -> Vec<(u64, String)> {
    let site: Provisioned = serde_json::from_slice(&fs::read(out.join(SITE_FILE)).unwrap()).unwrap();
    site.boxes.into_iter().map(|each| (each.id.0, each.address)).collect()
}

#[test]
fn a_box_that_is_replaced_keeps_its_name_and_gets_another_number_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path();
    let made = provision(&args(out, &THREE)).unwrap();
    let old_key = fs::read(out.join("box3").join(NODE_KEY)).unwrap();
    let extended = extend(out, &extending("p --extend x --replace --box box3=box3.lan:7400")).unwrap();
    assert_eq!((extended.made.id, &*extended.made.address), (NodeId(4), "box3.lan:7400"));
    assert_ne!(extended.made.key, made.boxes[2].key);
    assert_eq!(fs::read(out.join("box3.old-3").join(NODE_KEY)).unwrap(), old_key);
    let identity = Identity::load(&out.join("box3")).unwrap().unwrap();
    assert!(identity.matches(&Keys::load(&out.join("box3")).unwrap()));
    let known: Vec<u64> = identity.members.iter().map(|member| member.id.0).collect();
    assert_eq!((identity.node, known), (4, vec![1, 2, 4]));
    let said = next_steps_of(&extended);
    let steps = said.split_once("Next:\n").unwrap().1;
    assert!(steps.lines().nth(1).unwrap().contains("tallyd member remove box3"), "{said}");
    assert!(steps.contains(&format!("member add box3=box3.lan:7400 --id 4 --key {}", extended.made.key)));
    assert!(said.contains("Do not start the old box3 again") && said.contains("box3.old-3"), "{said}");
    // Once more, at another address: the number of the one that had the highest is not given again.
    let again = extend(out, &extending("p --extend x --replace --box box3=10.0.0.33:7400")).unwrap();
    assert_eq!(again.made.id, NodeId(5));
    assert!(out.join("box3.old-4").join(NODE_KEY).exists());
    let site = [(1, "10.0.0.11:7400"), (2, "10.0.0.12:7401"), (5, "10.0.0.33:7400")];
    assert_eq!(listed(out), site.map(|(id, address)| (id, address.to_owned())));
}

#[test]
fn numbers_are_not_given_again_where_the_one_that_had_the_highest_is_listed_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path();
    provision(&args(out, &THREE)).unwrap();
    let file = out.join(SITE_FILE);
    let mut site: Provisioned = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(site.last_id, 3);
    site.boxes.pop();
    fs::write(&file, json(&site)).unwrap();
    let made = extend(out, &extending("p --extend x --box box9=10.0.0.19:7400")).unwrap().made;
    assert_eq!(made.id, NodeId(4));
    // A file of before says no last number.
    let text = fs::read_to_string(&file).unwrap().replace("\"last_id\": 4", "\"other\": 0");
    fs::write(&file, text).unwrap();
    let made = extend(out, &extending("p --extend x --box box10=10.0.0.20:7400")).unwrap().made;
    assert_eq!(made.id, NodeId(5));
}

#[test]
fn a_replacement_that_broke_off_is_made_by_the_same_command() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path();
    provision(&args(out, &THREE)).unwrap();
    let old_key = fs::read(out.join("box3").join(NODE_KEY)).unwrap();
    // It was moved aside, and half of a new one is there.
    fs::rename(out.join("box3"), out.join("box3.old-3")).unwrap();
    fs::create_dir(out.join("box3")).unwrap();
    fs::write(out.join("box3").join(NODE_KEY), "half").unwrap();
    let again = extending("p --extend x --replace --box box3=box3.lan:7400");
    assert_eq!(extend(out, &again).unwrap().made.id, NodeId(4));
    assert_eq!(fs::read(out.join("box3.old-3").join(NODE_KEY)).unwrap(), old_key);
    assert_eq!(fs::read_to_string(out.join("box3.old-3-2").join(NODE_KEY)).unwrap(), "half");
    // A whole new one is there that the list does not have yet: it goes by its own number.
    let file = out.join(SITE_FILE);
    let mut site: Provisioned = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    site.boxes.last_mut().unwrap().id = NodeId(3);
    fs::write(&file, json(&site)).unwrap();
    assert_eq!(extend(out, &again).unwrap().made.id, NodeId(5));
    assert!(out.join("box3.old-4").join(NODE_KEY).exists());
    // Nothing is there: somebody has moved it to its machine.
    fs::remove_dir_all(out.join("box3")).unwrap();
    let extended = extend(out, &again).unwrap();
    assert_eq!(extended.replaces.unwrap().directory, None);
    assert_eq!(extended.made.id, NodeId(6));
    // What cannot be made leaves the list as it is, and the next try makes it.
    fs::rename(out.join("ca.key"), out.join("away")).unwrap();
    assert!(matches!(extend(out, &again), Err(ProvisionError::Failed(_))));
    assert!(out.join("box3").join(NODE_KEY).exists());
    fs::rename(out.join("away"), out.join("ca.key")).unwrap();
    assert_eq!(extend(out, &again).unwrap().made.id, NodeId(7));
    assert_eq!(listed(out).len(), 3);
}

#[test]
fn what_clashes_with_a_member_is_said_and_whose_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path();
    provision(&ProvisionArgs { witness: Some("w=10.0.0.5:7407".into()), ..args(out, &THREE[..2]) }).unwrap();
    let before = fs::read(out.join(SITE_FILE)).unwrap();
    for (line, parts) in [
        ("--box box1=10.0.0.9:7400", ["name \"box1\" is taken, by number 1 at 10.0.0.11:7400", "--replace"]),
        (
            "--box box9=10.0.0.11:7400",
            ["address 10.0.0.11:7400 is taken, by \"box1\"", "--replace --box box1=10.0.0.11:7400"],
        ),
        ("--replace --box box9=10.0.0.9:7400", ["has no \"box9\"", "box1, box2, w"]),
        ("--replace --box box1=10.0.0.12:7401", ["address 10.0.0.12:7401 is taken", "by \"box2\""]),
        ("--replace --box w=10.0.0.5:7407", ["--witness w=10.0.0.5:7407", "--box"]),
        ("--replace --witness box1=10.0.0.11:7400", ["--box box1=10.0.0.11:7400", "--witness"]),
    ] {
        let text = refused(out, &format!("p --extend x {line}"));
        assert!(parts.iter().all(|part| text.contains(part)), "{line}: {text}");
    }
    assert_eq!(fs::read(out.join(SITE_FILE)).unwrap(), before);
    let made = extend(out, &extending("p --extend x --replace --witness w=10.0.0.5:7407")).unwrap().made;
    assert_eq!((made.id, made.role), (NodeId(4), MemberRole::Witness));
    assert!(out.join("w.old-3").exists());
    assert!(Command::try_parse_from(["p", "--replace", "--site", "p", "--box", THREE[0]]).is_err());
}
