//! The steps that follow `tallyd provision`, in words.

use tally_core::raft::MemberRole;

use super::extend::{Extended, Replaced};
use super::{Provisioned, ProvisionedBox};

/// The step that moves a box's configuration out of its data directory, and why.
const MOVE_CONFIG: &str = concat!(
    "     move tallyd.toml from it to /etc/tallyd/tallyd.toml: a box whose data disk is not mounted then does not\n",
    "     start; without any configuration it would found a rival site\n",
);

/// The step that copies the files.
fn copy(directory: &str, whose: &str) -> String {
    format!(
        "copy the files in {directory} to the data directory of {whose} (/var/lib/tallyd for root) over a \
         secure channel:\n     node.key is its secret\n"
    )
}

/// The steps after another member was made.
pub(super) fn next_steps_of(extended: &Extended) -> String {
    let Extended { made, replaces } = extended;
    let ProvisionedBox { id, name, address, key, role, directory } = made;
    let is_witness = *role == MemberRole::Witness;
    let mut steps = Vec::new();
    if replaces.is_some() {
        steps.push(format!(
            "if {name} is still a member (see tallyd members), remove it, at any box of the site:\n     \
             tallyd member remove {name}\n"
        ));
    }
    let (flag, role, config, note) = match is_witness {
        true => (
            " --witness",
            " --role witness",
            "",
            "\nA site has at most one witness, beside an even number of voting boxes. With an odd number it waits until \
             that changes.\n",
        ),
        false => ("", "", MOVE_CONFIG, ""),
    };
    let whose = if is_witness { "the witness" } else { "the box" };
    steps.push(format!("{}{config}", copy("this directory", whose)));
    steps.push(format!("start it: tallyd run{flag} --data-dir DATA-DIRECTORY\n"));
    steps.push(format!(
        "add it to the site, at any box:\n     \
         tallyd member add {name}={address} --id {id} --key {key}{role}\n"
    ));
    let steps: String = (1..).zip(steps).map(|(number, step)| format!("  {number}. {step}")).collect();
    let old = replaces.as_ref().map(|old| of_the_old(old, name)).unwrap_or_default();
    format!("Made {name} ({address}) in {}\n{old}\nNext:\n{steps}{note}", directory.display())
}

fn of_the_old(old: &Replaced, name: &str) -> String {
    let place = match &old.directory {
        Some(directory) => format!("The old directory, of number {}, is now {}", old.id, directory.display()),
        None => format!("The old one had number {}", old.id),
    };
    format!(
        "{place}.\nDo not start the old {name} on its old disk again: empty its data directory before you copy the new \
         files to it.\n"
    )
}

/// The steps after a site was made.
pub(super) fn next_steps(made: &Provisioned) -> String {
    let mut text = format!("Made site {} ({}):\n", made.site, made.site_id);
    for each in &made.boxes {
        let role = if each.role == MemberRole::Witness { "  the witness" } else { "" };
        let directory = each.directory.display();
        text.push_str(&format!("  {:<12} {:<24} {directory}{role}\n", each.name, each.address));
    }
    text.push_str(&format!(
        "\nNext, for each box:\n  1. {}{MOVE_CONFIG}  2. start it: tallyd run --data-dir DATA-DIRECTORY\n  \
         3. check: tallyd status\n",
        copy("its directory", "the box")
    ));
    if let Some(witness) = made.boxes.iter().find(|each| each.role == MemberRole::Witness) {
        text.push_str(&format!(
            "For the witness, {}:\n  1. {}  2. start it: tallyd run --witness --data-dir DATA-DIRECTORY\n",
            witness.name,
            copy("its directory", "the witness")
        ));
    }
    text.push_str("Keep ca.key in a safe place, and not on the boxes.\n");
    text
}
