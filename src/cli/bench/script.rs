//! The requests of one client, as bytes: made once, then copied and patched.

use std::ops::Range;
use std::sync::Arc;

/// What all clients share.
#[derive(Debug)]
pub struct Requests {
    /// Names of the series, all of the same length.
    pub series: Vec<String>,
    authority: String,
    keyed: bool,
    /// An add to each series, whole, its key still empty.
    adds: Vec<Vec<u8>>,
    /// Where in an add the key stands.
    key_at: Range<usize>,
    /// The cells of a report over all series, twice, so that any run of them is one slice.
    cells: Vec<u8>,
    cell_bytes: usize,
}

/// One client's requests, one after the other.
#[derive(Debug)]
pub struct Script {
    requests: Arc<Requests>,
    kind: StepKind,
    random: u64,
    bytes: Vec<u8>,
    /// The first series of the present request, and how many.
    first: usize,
    count: usize,
    sent: u64,
}

#[derive(Debug)]
enum StepKind {
    Add { nonce: u64, client: u32 },
    Report { source: String, epoch: String, number: u64 },
}

/// Hexadecimal digits of a key: nonce of the run, client, number.
const KEY_BYTES: usize = 16 + 8 + 8;

impl Requests {
    /// For `count` series named `PREFIX/0000` and so on.
    pub fn new(authority: &str, prefix: &str, count: usize, keyed: bool) -> Requests {
        let width = count.saturating_sub(1).to_string().len().max(4);
        let series: Vec<String> = (0..count).map(|number| format!("{prefix}/{number:0width$}")).collect();
        let body = r#"{"add":1}"#;
        let key =
            if keyed { format!("idempotency-key: {}\r\n", "0".repeat(KEY_BYTES)) } else { String::new() };
        let add = |name: &String| {
            let length = body.len();
            format!(
                "POST /v1/counters/{name} HTTP/1.1\r\nhost: {authority}\r\n{key}\
                 content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
            )
            .into_bytes()
        };
        let adds: Vec<Vec<u8>> = series.iter().map(add).collect();
        let key_at = adds.first().map_or(0, |add| position(add, b"key: ") + 5);
        let mut cells = Vec::new();
        for name in series.iter().chain(&series) {
            cells.extend_from_slice(format!("{{\"series\":\"{name}\",\"add\":1}},").as_bytes());
        }
        let cell_bytes = cells.len() / (2 * count.max(1));
        let key_at = key_at..key_at + KEY_BYTES;
        Requests { authority: authority.to_owned(), keyed, series, adds, key_at, cells, cell_bytes }
    }
}

fn position(bytes: &[u8], wanted: &[u8]) -> usize {
    bytes.windows(wanted.len()).position(|window| window == wanted).unwrap_or(0)
}

impl Script {
    /// Adds of 1 to series at random. `nonce`: of the run, so that keys are never used again.
    pub fn adds(requests: Arc<Requests>, nonce: u64, client: u32) -> Script {
        Script::new(requests, StepKind::Add { nonce, client }, u64::from(client), 1)
    }

    /// Numbered reports of `count` neighbouring series at random, add 1 each.
    pub fn reports(
        requests: Arc<Requests>,
        client: u32,
        count: usize,
        source: String,
        epoch: String,
    ) -> Script {
        Script::new(requests, StepKind::Report { source, epoch, number: 0 }, u64::from(client), count)
    }

    fn new(requests: Arc<Requests>, kind: StepKind, seed: u64, count: usize) -> Script {
        let random = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Script { requests, kind, random, bytes: Vec::new(), first: 0, count, sent: 0 }
    }

    /// Whether a request may be sent again when its outcome is not known.
    pub fn repeatable(&self) -> bool {
        self.requests.keyed || matches!(self.kind, StepKind::Report { .. })
    }

    /// Whether a request that was refused for good leaves nothing to go on with.
    pub fn is_sequence(&self) -> bool {
        matches!(self.kind, StepKind::Report { .. })
    }

    /// Makes the next request; [`Script::bytes`] are it until the next call.
    pub fn advance(&mut self) {
        // Xorshift: which series come is to be spread, not secret.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let requests = &self.requests;
        self.first = (self.random % requests.series.len() as u64) as usize;
        self.sent += 1;
        self.bytes.clear();
        match &mut self.kind {
            StepKind::Add { nonce, client } => {
                self.bytes.extend_from_slice(&requests.adds[self.first]);
                if requests.keyed {
                    let key = &mut self.bytes[requests.key_at.clone()];
                    hex(*nonce, &mut key[..16]);
                    hex(u64::from(*client), &mut key[16..24]);
                    hex(self.sent, &mut key[24..]);
                }
            }
            StepKind::Report { source, epoch, number } => {
                *number += 1;
                let start = self.first * requests.cell_bytes;
                // Without the last comma.
                let cells = &requests.cells[start..start + self.count * requests.cell_bytes - 1];
                let head = format!(r#"{{"source":"{source}","epoch":"{epoch}","number":{number},"cells":["#);
                let length = head.len() + cells.len() + 2;
                let fields = format!(
                    "POST /v1/reports HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
                     content-length: {length}\r\n\r\n",
                    requests.authority
                );
                for part in [fields.as_bytes(), head.as_bytes(), cells, b"]}"] {
                    self.bytes.extend_from_slice(part);
                }
            }
        }
    }

    /// The present request.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The series that the present request adds 1 to.
    pub fn touched(&self) -> impl Iterator<Item = usize> + '_ {
        let all = self.requests.series.len();
        (self.first..self.first + self.count).map(move |place| place % all)
    }

    /// How many increments the present request brings.
    pub fn increments(&self) -> u64 {
        self.count as u64
    }
}

/// The lowest digits of a number, as many as there is room for.
fn hex(number: u64, digits: &mut [u8]) {
    let mut rest = number;
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(rest & 15) as usize];
        rest >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn body(request: &[u8]) -> &str {
        let text = std::str::from_utf8(request).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        body
    }

    #[test]
    fn an_add_is_a_whole_request_with_its_length() {
        let requests = Arc::new(Requests::new("h:1", "bench", 1_000, false));
        let mut script = Script::adds(requests, 7, 3);
        script.advance();
        let text = String::from_utf8(script.bytes().to_vec()).unwrap();
        let series = script.touched().next().unwrap();
        assert!(
            text.starts_with(&format!("POST /v1/counters/bench/{series:04} HTTP/1.1\r\nhost: h:1\r\n")),
            "{text}"
        );
        assert!(!text.contains("idempotency-key"));
        assert_eq!(body(script.bytes()), r#"{"add":1}"#);
    }

    #[test]
    fn each_add_of_each_client_has_a_key_of_its_own() {
        let requests = Arc::new(Requests::new("h:1", "bench", 10, true));
        let mut keys = HashSet::new();
        for client in 0..20 {
            let mut script = Script::adds(Arc::clone(&requests), 0xabc, client);
            for _ in 0..50 {
                script.advance();
                let text = String::from_utf8(script.bytes().to_vec()).unwrap();
                let key = text.split("idempotency-key: ").nth(1).unwrap().split("\r\n").next().unwrap();
                assert_eq!(key.len(), KEY_BYTES);
                assert!(keys.insert(key.to_owned()), "{key} twice");
                body(script.bytes());
            }
        }
    }

    #[test]
    fn a_report_names_different_series_and_the_next_number() {
        let requests = Arc::new(Requests::new("h:1", "bench", 1_000, false));
        let mut script = Script::reports(requests, 0, 100, "bench-0".to_owned(), "12".to_owned());
        let mut spread = HashSet::new();
        for number in 1..200 {
            script.advance();
            let report: serde_json::Value = serde_json::from_str(body(script.bytes())).unwrap();
            assert_eq!(report["number"], number);
            assert_eq!(report["epoch"], "12");
            let cells = report["cells"].as_array().unwrap();
            let named: Vec<&str> = cells.iter().map(|cell| cell["series"].as_str().unwrap()).collect();
            let touched: Vec<String> = script.touched().map(|place| format!("bench/{place:04}")).collect();
            assert_eq!(named, touched);
            assert_eq!(named.iter().collect::<HashSet<_>>().len(), 100);
            assert!(cells.iter().all(|cell| cell["add"] == 1));
            spread.extend(touched);
        }
        assert_eq!(spread.len(), 1_000);
    }
}
