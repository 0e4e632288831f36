//! Text to ids and back.

use models::{Tokenizer, TokenizerError};

use crate::tokenizers_made_here::{
    BOS, EOS, FIRST_BYTE, FIRST_PIECE, PIECES, S, TOOL, byte_fallback, byte_level, byte_level_json, words,
};

const TEXTS: [&str; 6] = ["", "the then", " the  end\n", "é 東京 🦊🦊", "a\u{0}b\u{7f}", "<tool>x<|eos|>"];

#[test]
fn byte_level_text_survives_a_round_trip() {
    let tokenizer = byte_level();
    for text in TEXTS {
        let ids = tokenizer.encode(text, false).unwrap();
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    }
}

#[test]
fn byte_fallback_text_survives_a_round_trip() {
    let tokenizer = byte_fallback();
    for text in ["a ban", "  an", "東京 🦊é", "b\nb"] {
        let ids = tokenizer.encode(text, false).unwrap();
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    }
}

#[test]
fn merges_and_added_tokens_are_used() {
    let tokenizer = byte_level();
    assert_eq!(tokenizer.encode("he the", false).unwrap(), [257, 258]);
    assert_eq!(tokenizer.encode("é<tool><|eos|>", false).unwrap(), [259, TOOL, EOS]);
}

#[test]
fn special_tokens_are_added_by_the_post_processor_when_asked() {
    assert_eq!(byte_level().encode("he", true).unwrap(), [BOS, 257]);
    assert_eq!(byte_level().encode("he", false).unwrap(), [257]);
    assert_eq!(byte_fallback().encode("a", true).unwrap(), [S, FIRST_PIECE + 4]);
}

#[test]
fn truncation_and_padding_of_the_file_are_off() {
    let tokenizer = byte_level();
    assert_eq!(tokenizer.encode("0123456789", false).unwrap().len(), 10, "the file truncates to 4");
    assert_eq!(tokenizer.encode("0", false).unwrap().len(), 1, "the file pads to 9");
}

#[test]
fn specials_are_skipped_when_asked_and_other_added_tokens_are_not() {
    let tokenizer = byte_level();
    let ids = [BOS, 257, TOOL, EOS];
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "he<tool>");
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "<|bos|>he<tool><|eos|>");
    assert!(tokenizer.is_special(BOS) && !tokenizer.is_special(TOOL) && !tokenizer.is_special(9999));
}

#[test]
fn token_bytes_are_raw_bytes() {
    let tokenizer = byte_level();
    for byte in 0..=255u8 {
        assert_eq!(tokenizer.token_bytes(u32::from(byte)), Some(vec![byte]));
    }
    assert_eq!(tokenizer.token_bytes(258).unwrap(), b" the");
    assert_eq!(tokenizer.token_bytes(BOS).unwrap(), b"<|bos|>");
    assert_eq!((tokenizer.token_bytes(263), tokenizer.vocab_size()), (None, 263));
}

#[test]
fn token_bytes_of_byte_fallback_are_raw_bytes() {
    let tokenizer = byte_fallback();
    assert_eq!(tokenizer.token_bytes(FIRST_BYTE + 0xE2), Some(vec![0xE2]));
    assert_eq!(tokenizer.token_bytes(S).unwrap(), b"<s>");
    for (index, piece) in PIECES.iter().enumerate() {
        let bytes = tokenizer.token_bytes(FIRST_PIECE + index as u32).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), piece.replace('▁', " "));
    }
    assert_eq!(words().token_bytes(1).unwrap(), b" the");
}

#[test]
fn a_tokenizer_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    assert!(
        matches!(Tokenizer::from_file(&path), Err(TokenizerError::Load { path: named, .. }) if named == path)
    );
    let json = byte_level_json().to_string();
    std::fs::write(&path, &json[..json.len() / 2]).unwrap();
    assert!(matches!(Tokenizer::from_file(&path), Err(TokenizerError::Load { .. })));
}
