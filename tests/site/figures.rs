//! The list of metrics in the documents and the queries of the dashboard, against what real boxes serve.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::boxes::{Site, TestBox};
use crate::harness::until;

/// Kind and help of each family, by name.
type Families = BTreeMap<String, (String, String)>;

fn served(by: &TestBox) -> Families {
    let text = until(&format!("{} serves metrics", by.name), || {
        let answer = by.client().get("/metrics").ok()?;
        (answer.status == 200).then(|| answer.text())
    });
    let mut families = Families::new();
    for line in text.lines() {
        let mut words = line.splitn(4, ' ').skip(1);
        let (Some(kind), Some(name), Some(rest)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let family = families.entry(name.to_owned());
        match kind {
            "TYPE" => family.or_default().0 = rest.to_owned(),
            "HELP" => family.or_default().1 = rest.to_owned(),
            _ => {}
        }
    }
    families
}

fn repository(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// The rows of the tables in a section of docs/metrics.md.
fn documented(section: &str) -> Families {
    let text = repository("docs/metrics.md");
    let (_, section) = text.split_once(&format!("\n## {section}\n")).expect("the section is there");
    let rows =
        section.split("\n## ").next().unwrap_or_default().lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect::<Vec<_>>());
    let of = |cells: Vec<&str>| {
        let name = cells[0].trim_matches('`').to_owned();
        (name, (cells[1].to_owned(), cells[2].to_owned()))
    };
    cells.map(of).collect()
}

fn table(families: &Families) -> String {
    families.iter().map(|(name, (kind, help))| format!("| `{name}` | {kind} | {help} |\n")).collect()
}

/// A box with all ways in and out, and a witness.
fn everything() -> (Site, TestBox) {
    let (mut site, mut witness) = Site::provision_with_witness();
    let file = site.boxes[0].directory.join("tallyd.toml");
    let mut text = std::fs::read_to_string(&file).unwrap();
    // A port that nobody listens on: the families are there from the start.
    text.push_str(
        "\n[upstream]\nurl = \"mqtt://127.0.0.1:1\"\n\n[[ingest.poll]]\nfile = \"/proc/stat\"\n\
         series = \"machine/ctxt\"\npattern = 'ctxt (\\d+)'\nkind = \"counter\"\nevery = \"1s\"\n",
    );
    std::fs::write(&file, text).unwrap();
    witness.start();
    site.start_all();
    (site, witness)
}

#[test]
fn the_documented_metrics_are_those_that_a_box_and_a_witness_serve_and_the_dashboard_asks_for_no_others() {
    let (site, witness) = everything();
    let of_box = served(&site.boxes[0]);
    let of_witness = served(&witness);
    for (section, served) in [("A box", &of_box), ("A witness", &of_witness)] {
        assert!(
            documented(section) == *served,
            "docs/metrics.md, \"{section}\", is to have this table:\n{}",
            table(served)
        );
    }
    let dashboard: Value = serde_json::from_str(&repository("packaging/grafana/tallyd.json")).unwrap();
    let queries: Vec<&str> = dashboard["panels"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten())
        .map(|target| target["expr"].as_str().unwrap())
        .collect();
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = queries.iter().flat_map(|query| query.split(|c| !is_part(c)));
    let asked: BTreeSet<&str> = words.filter(|word| word.starts_with("tallyd_")).collect();
    assert!(queries.len() > 20 && asked.len() > 20, "{asked:?}");
    for name in asked {
        assert!(of_box.contains_key(name), "the dashboard asks for {name}, which no box serves");
    }
}
