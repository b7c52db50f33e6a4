//! What a topic may contain, and a user's name.

/// Whether a topic may contain the character: no wildcards, and nothing that a broker may take for malformed
/// (control characters; noncharacters, over which Mosquitto closes the connection).
pub(crate) fn is_allowed(c: char) -> bool {
    !matches!(c, '+' | '#') && is_text(c)
}

/// Whether any text of the protocol may contain the character: a broker may take others for malformed.
pub(super) fn is_text(c: char) -> bool {
    !c.is_control() && !is_noncharacter(c)
}

/// U+FDD0 to U+FDEF, and the last two of each plane.
fn is_noncharacter(c: char) -> bool {
    let code = u32::from(c);
    (0xfdd0..=0xfdef).contains(&code) || code & 0xfffe == 0xfffe
}
