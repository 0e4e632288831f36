//! Text from files, made harmless for a terminal.

/// `text` on one line: control characters, and the backslash that announces them, are escaped.
pub fn escaped(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character == '\\' || character.is_control() || is_invisible(character) {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// As [`escaped`]; bytes that are no UTF-8 read `\xe2`.
pub fn escaped_bytes(bytes: &[u8]) -> String {
    let mut line = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        line += &escaped(chunk.valid());
        chunk.invalid().iter().for_each(|byte| line += &format!("\\x{byte:02x}"));
    }
    line
}

/// As [`escaped`], of `max` characters at most and then `…`.
pub fn shortened(text: &str, max: usize) -> String {
    let mut characters = text.chars();
    let start: String = characters.by_ref().take(max).collect();
    let more = if characters.next().is_some() { "…" } else { "" };
    escaped(&start) + more
}

/// Line and paragraph separators, and what changes the direction of a line.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_file_reaches_the_terminal_as_a_command() {
        assert_eq!(escaped("a\n\x1b[2J\\ é\u{202e}"), "a\\n\\u{1b}[2J\\\\ é\\u{202e}");
        assert_eq!(escaped_bytes(b"a\xe2\x82 \xff"), "a\\xe2\\x82 \\xff");
        assert_eq!(shortened("日本語", 2), "日本…");
        assert_eq!(shortened("日本", 2), "日本");
    }
}
