//! The configuration file, what the environment puts over it, and the texts that polled files hold.

use tallyd::config::Config;
use tallyd::ingest::poll::checked;

/// The text of the file, and after zeros: a variable's value, and the text of a polled file.
pub(crate) fn run(bytes: &[u8]) {
    let mut parts = bytes.splitn(3, |byte| *byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let (file, value, polled) = (part(), part(), part());
    let (Ok(file), Ok(value)) = (str::from_utf8(file), str::from_utf8(value)) else { return };
    // The first character chooses the variable.
    let overridden = value.split_at_checked(1);
    let environment = |name: &str| {
        let (first, rest) = overridden?;
        name.ends_with(&first.to_uppercase()).then(|| rest.to_owned())
    };
    match Config::read(file, "tallyd.toml", environment) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(config) => {
            let polls = checked(&config.ingest.poll).expect("it was checked");
            for poll in polls {
                for is_whole in [true, false] {
                    let _ = poll.read(polled, is_whole);
                }
            }
        }
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let example = include_str!("../../../packaging/examples/tallyd.toml");
    let uncommented: String =
        example.lines().map(|line| line.strip_prefix("#= ").unwrap_or(line).to_owned() + "\n").collect();
    let short: String = uncommented
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .map(|line| line.to_owned() + "\n")
        .collect();
    let poll = "[[ingest.poll]]\nseries = \"host/switches\"\nfile = \"/proc/stat\"\npattern = '^ctxt (\\d+)'\nkind = \"counter\"\nevery = \"1s\"\nceiling = 4294967296\n";
    let sample =
        poll.replace("counter", "sample").replace("ceiling = 4294967296\n", "").replace("\\d", "\\S");
    vec![
        short.into_bytes(),
        format!("{poll}\0\0cpu 1 2\nctxt 123456\n").into_bytes(),
        format!("{sample}\0\0cpu 1 2\nctxt -1.5e3\n").into_bytes(),
        b"[api]\nlisten = \"127.0.0.1:1\"\n\0n127.0.0.1:2\0".to_vec(),
        b"[cluster]\nelection_timeout_min = \"500ms\"\n\0l2s\0".to_vec(),
        b"[api]\nlisen = \"x\"\n".to_vec(),
        b"[upstream]\nurl = \"mqtts://user@broker.example:8883\"\nformat = [\"json\"]\n\0lmqtt://h\0"
            .to_vec(),
        b"\0l[::1]:99\0".to_vec(),
    ]
}
