//! What is to be done with what `tallyd provision` made, in words.

use tally_core::raft::MemberRole;

use super::extend::{Extended, Replaced};
use super::{Provisioned, ProvisionedBox};

/// Why a box's configuration is not left in its data directory.
const MOVE_CONFIG: &str = concat!(
    "     move tallyd.toml out of it to /etc/tallyd/tallyd.toml: then a box whose data disk is not mounted does\n",
    "     not start, where without any configuration it would found a rival site\n",
);

/// Where the files go.
fn copy(directory: &str, whose: &str) -> String {
    format!(
        "copy the files in {directory} to the data directory of {whose} (/var/lib/tallyd for root), by a safe \
         way:\n     node.key is its secret\n"
    )
}

/// After a further member was made.
pub(super) fn next_steps_of(extended: &Extended) -> String {
    let Extended { made, replaces } = extended;
    let ProvisionedBox { id, name, address, key, role, directory } = made;
    let is_witness = *role == MemberRole::Witness;
    let mut steps = Vec::new();
    if replaces.is_some() {
        steps.push(format!(
            "if {name} is still a member (tallyd members), tell the site, at any of its boxes:\n     \
             tallyd member remove {name}\n"
        ));
    }
    let (flag, role, config, note) = match is_witness {
        true => (
            " --witness",
            " --role witness",
            "",
            "\nA site has one witness, beside an even number of voting boxes: with an odd number it waits until that \
             changes.\n",
        ),
        false => ("", "", MOVE_CONFIG, ""),
    };
    let whose = if is_witness { "the witness" } else { "the box" };
    steps.push(format!("{}{config}", copy("this directory", whose)));
    steps.push(format!("start it: tallyd run{flag} --data-dir DATA-DIRECTORY\n"));
    steps.push(format!(
        "tell the site, at any of its boxes:\n     \
         tallyd member add {name}={address} --id {id} --key {key}{role}\n"
    ));
    let steps: String = (1..).zip(steps).map(|(number, step)| format!("  {number}. {step}")).collect();
    let old = replaces.as_ref().map(|old| of_the_old(old, name)).unwrap_or_default();
    format!("Made {name} ({address}) in {}\n{old}\nNext:\n{steps}{note}", directory.display())
}

fn of_the_old(old: &Replaced, name: &str) -> String {
    let place = match &old.directory {
        Some(directory) => format!("The one before, number {}, is in {}", old.id, directory.display()),
        None => format!("The one before had number {}", old.id),
    };
    format!(
        "{place}.\nDo not start the old {name} again with its old disk: empty its data directory before it gets the \
         new files.\n"
    )
}

/// After a site was made.
pub(super) fn next_steps(made: &Provisioned) -> String {
    let mut text = format!("Made site {} ({}):\n", made.site, made.site_id);
    for each in &made.boxes {
        let role = if each.role == MemberRole::Witness { "  the witness" } else { "" };
        let directory = each.directory.display();
        text.push_str(&format!("  {:<12} {:<24} {directory}{role}\n", each.name, each.address));
    }
    text.push_str(&format!(
        "\nNext, for each box:\n  1. {}{MOVE_CONFIG}  2. start it: tallyd run --data-dir DATA-DIRECTORY\n  \
         3. look: tallyd status\n",
        copy("its directory", "the box")
    ));
    if let Some(witness) = made.boxes.iter().find(|each| each.role == MemberRole::Witness) {
        text.push_str(&format!(
            "For the witness, {}:\n  1. {}  2. start it: tallyd run --witness --data-dir DATA-DIRECTORY\n",
            witness.name,
            copy("its directory", "the witness")
        ));
    }
    text.push_str("Keep ca.key safe and off the boxes.\n");
    text
}
