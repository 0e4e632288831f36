//! The alphabet of byte-level vocabularies: one printable character for each byte.
//!
//! Source: `bytes_to_unicode` of GPT-2, <https://github.com/openai/gpt-2/blob/master/src/encoder.py>.

/// Substitutes for the bytes that are not printable begin here.
const SUBSTITUTES_START: usize = 0x100;
/// One past the last substitute: 68 bytes are not printable.
const SUBSTITUTES_END: usize = SUBSTITUTES_START + 68;

/// The byte that each character below `SUBSTITUTES_END` stands for.
static BYTE_OF: [Option<u8>; SUBSTITUTES_END] = byte_of_characters();

/// The bytes that a token of a byte-level vocabulary stands for; its own UTF-8 when it has a character
/// outside of the alphabet, as in the `ByteLevel` decoder of tokenizers.
pub(crate) fn bytes_of_token(token: &str) -> Vec<u8> {
    let byte_of = |character| BYTE_OF.get(character as usize).copied().flatten();
    token.chars().map(byte_of).collect::<Option<Vec<u8>>>().unwrap_or_else(|| token.as_bytes().to_vec())
}

/// Printable Latin-1 bytes stand for themselves; the others take the characters from U+0100 on, in order.
const fn byte_of_characters() -> [Option<u8>; SUBSTITUTES_END] {
    let mut table = [None; SUBSTITUTES_END];
    let mut substitute = SUBSTITUTES_START;
    let mut byte = 0;
    while byte < 256 {
        let character = if is_printable(byte as u8) {
            byte
        } else {
            substitute += 1;
            substitute - 1
        };
        table[character] = Some(byte as u8);
        byte += 1;
    }
    table
}

const fn is_printable(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character() {
        let mut bytes: Vec<u8> = BYTE_OF.iter().copied().flatten().collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!(BYTE_OF[SUBSTITUTES_END - 1], Some(0xAD));
    }

    #[test]
    fn the_alphabet_is_that_of_tokenizers() {
        for character in tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet() {
            assert_eq!(bytes_of_token(&character.to_string()).len(), 1, "{character:?}");
        }
        assert_eq!(bytes_of_token("Ġ€"), "Ġ€".as_bytes(), "`€` is not in the alphabet");
        assert_eq!(bytes_of_token("Ġhi"), b" hi");
    }
}
