//! Text from files, made harmless for a terminal.

use std::path::Path;

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

/// Text that is several lines, or a message with a path: control characters but line breaks and tabs are escaped, backslashes are
/// not.
pub fn harmless(text: &str) -> String {
    let mut lines = String::with_capacity(text.len());
    for character in text.chars() {
        if !matches!(character, '\n' | '\t') && (character.is_control() || is_invisible(character)) {
            lines.extend(character.escape_default());
        } else {
            lines.push(character);
        }
    }
    lines
}

/// A path in JSON, which need not be UTF-8 on disk but must be there.
pub fn lossy_path<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// Line and paragraph separators, what changes the direction of a line, and what has no width.
fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{e0000}'..='\u{e007f}'
    )
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

    #[test]
    fn what_cannot_be_seen_is_named() {
        assert_eq!(escaped("a\u{200b}b\u{200f}\u{feff}\u{9b}"), "a\\u{200b}b\\u{200f}\\u{feff}\\u{9b}");
        assert_eq!(harmless("a\n\tb\\\x1b[2J\u{202e}\r"), "a\n\tb\\\\u{1b}[2J\\u{202e}\\r");
    }
}
