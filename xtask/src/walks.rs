//! Whether the documents name files and functions that exist.

use std::path::Path;

/// What a document names in backticks: a file of the repository, and after it what is in that file.
fn named(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// What of a document is not so; `root` is the repository's folder.
pub(crate) fn wrong(document: &str, root: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    // Headings and blank lines end what a file was named for.
    for part in document.split("\n\n").flat_map(|part| part.split("\n#")) {
        let mut file: Option<(&str, String)> = None;
        for name in named(part) {
            if name.contains('/') && Path::new(name).extension().is_some() {
                match std::fs::read_to_string(root.join(name)) {
                    Ok(content) => file = Some((name, content)),
                    Err(error) => wrong.push(format!("{name}: {error}")),
                }
            } else if let Some((path, content)) = &file
                && is_function(name)
                && !content.contains(&format!("fn {name}"))
            {
                wrong.push(format!("{path} has no fn {name}"));
            }
        }
    }
    wrong
}

fn is_function(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_and_glossary_name_what_exists() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for document in ["docs/life-of-a-count.md", "docs/glossary.md"] {
            let text = std::fs::read_to_string(root.join(document)).unwrap();
            assert_eq!(wrong(&text, &root), [""; 0], "{document}");
            assert!(named(&text).len() > 40, "{document} names nothing");
        }
    }

    #[test]
    fn what_does_not_exist_is_found() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let text = "`xtask/src/walks.rs`: `wrong` and `gone_since`.\n\n`no/such.rs`: `named`.";
        let found = wrong(text, &root);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("gone_since") && found[1].contains("no/such.rs"), "{found:?}");
    }
}
