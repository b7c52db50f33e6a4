//! `tallyd status` at a witness: its state in words.

use serde_json::Value;

use super::status::{of, text_line};
use super::text::{self, Side, Table};

pub(super) fn in_words(status: &Value) -> String {
    let sites = status["sites"].as_array().map_or(&[][..], Vec::as_slice);
    let ready = if status["ready"] == true { "ready" } else { "NOT READY" };
    let what = if sites.len() == 1 { "site" } else { "sites" };
    let mut lines = vec![format!("witness of {} {what}, {ready}", sites.len())];
    for site in sites {
        lines.push(String::new());
        lines.extend(of_site(site));
    }
    for refused in status["refused"].as_array().into_iter().flatten() {
        lines.push(String::new());
        let (slot, why) = (of(refused, "directory"), of(refused, "why"));
        let place = if why.contains(&slot) { String::new() } else { format!("{slot}: ") };
        lines.push(format!("NOT SERVED: {place}{why}"));
    }
    let up = text::seconds(status["uptime_s"].as_u64().unwrap_or_default());
    lines.push(format!("\nversion   {}, up {up}", of(status, "version")));
    lines.iter().map(|line| text_line(line)).collect()
}

fn of_site(site: &Value) -> Vec<String> {
    let voters: Vec<&str> =
        site["voters"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let counts = match voters.is_empty() {
        true => "for no box yet".to_owned(),
        false => format!(
            "for {} as of term {}, subterm {}",
            text::printable(&voters.join(", ")),
            of(site, "last_term"),
            of(site, "subterm")
        ),
    };
    let voted = match site["voted_for"].as_str() {
        Some(name) => format!("for {} in term {}", text::printable(name), of(site, "term")),
        None => format!("for no box in term {}", of(site, "term")),
    };
    let mut lines = vec![
        format!("{} of site {} ({})", of(site, "name"), of(site, "site"), of(site, "site_id")),
        format!("voted     {voted}"),
        format!("counted   {counts}"),
        format!(
            "record    {} writes, {} failed; {} messages answered, {} ignored, {} unreadable",
            of(site, "writes"),
            of(site, "failures"),
            of(site, "answers"),
            of(site, "ignored"),
            of(site, "malformed")
        ),
    ];
    if let Some(trouble) = site["trouble"].as_str() {
        lines.push(format!("TROUBLE   nothing is answered: {}", text::printable(trouble)));
    }
    let mut table = Table::new(&[
        ("BOX", Side::Left),
        ("ADDRESS", Side::Left),
        ("CONNECTED", Side::Left),
        ("ROUND TRIP", Side::Right),
    ]);
    for peer in site["peers"].as_array().into_iter().flatten() {
        let connected = if peer["connected"] == true { "yes" } else { "NO" };
        let rtt =
            peer["rtt_us"].as_f64().map_or(String::new(), |us| format!("{} ms", text::number(us / 1e3)));
        table.row([of(peer, "name"), of(peer, "address"), connected.to_owned(), rtt]);
    }
    lines.push(table.text());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_witness_tells_what_it_promised_and_whom_it_reaches() {
        let status = json!({
            "role": "witness", "ready": false, "uptime_s": 60, "version": "0.1.0",
            "sites": [{
                "site": "plant7", "site_id": "9f3c51d2a07be644", "name": "w", "term": 4, "voted_for": "box2",
                "last_term": 4, "subterm": 2, "voters": ["box2"], "writes": 3, "failures": 0, "answers": 9,
                "ignored": 1, "malformed": 0, "trouble": "the disk is full",
                "peers": [{"name": "box1", "address": "a:1", "connected": false},
                          {"name": "box2", "address": "b:1", "connected": true, "rtt_us": 250}],
            }],
            "refused": [{"directory": "/x", "why": "/x/witness.state: torn"},
                        {"directory": "/y", "why": "cluster.advertise is \"a:1\""}],
        });
        let text = in_words(&status);
        for line in [
            "witness of 1 site, NOT READY",
            "w of site plant7 (9f3c51d2a07be644)",
            "voted     for box2 in term 4",
            "counted   for box2 as of term 4, subterm 2",
            "record    3 writes, 0 failed; 9 messages answered, 1 ignored, 0 unreadable",
            "TROUBLE   nothing is answered: the disk is full",
            "box1  a:1      NO",
            "box2  b:1      yes           0.25 ms",
            "NOT SERVED: /x/witness.state: torn",
            "NOT SERVED: /y: cluster.advertise is \"a:1\"",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n---\n{text}");
        }
        assert!(in_words(&json!({})).contains("witness of 0 sites"));
    }
}
