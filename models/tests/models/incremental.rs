//! Decoding token by token: what is given out piece by piece is what decoding all at once gives.

use std::sync::Arc;

use models::{IncrementalDecoder, Tokenizer};

use crate::tokenizers_made_here::{
    EOS, FIRST_BYTE, FIRST_PIECE, PIECES, S, TOOL, byte_fallback, byte_level, words,
};

/// SplitMix64: numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }
}

fn pieces(tokenizer: &Arc<Tokenizer>, prompt: &[u32], ids: &[u32], skip: bool) -> Vec<String> {
    let mut decoder = IncrementalDecoder::new(Arc::clone(tokenizer), prompt, skip);
    let mut pieces: Vec<String> = ids.iter().map(|&id| decoder.push(id).unwrap()).collect();
    pieces.push(decoder.finish().unwrap());
    pieces
}

fn assert_joined_equals_whole(tokenizer: &Arc<Tokenizer>, ids: &[u32]) {
    for skip in [true, false] {
        let whole = tokenizer.decode(ids, skip).unwrap();
        assert_eq!(pieces(tokenizer, &[], ids, skip).concat(), whole, "skip {skip}: {ids:?}");
    }
}

/// Ids of text with characters of one to four bytes, each byte a token, with specials and words between them.
fn random_text_ids(numbers: &mut Numbers, ids_of: impl Fn(&str) -> Vec<u32>, others: &[u32]) -> Vec<u32> {
    let characters = ["a", " ", "é", "東", "🦊", "\u{10FFFF}", "\n"];
    let mut ids = Vec::new();
    for _ in 0..numbers.below(40) {
        if numbers.below(3) == 0 {
            ids.push(others[numbers.below(others.len() as u64) as usize]);
        }
        ids.extend(ids_of(characters[numbers.below(7) as usize]));
    }
    ids
}

fn byte_tokens(text: &str) -> Vec<u32> {
    text.bytes().map(|byte| FIRST_BYTE + u32::from(byte)).collect()
}

#[test]
fn any_ids_of_a_byte_level_tokenizer_join_to_the_whole() {
    let tokenizer = byte_level();
    let mut numbers = Numbers(1);
    for _ in 0..2000 {
        let ids: Vec<u32> = (0..numbers.below(40)).map(|_| numbers.below(300) as u32).collect();
        assert_joined_equals_whole(&tokenizer, &ids);
    }
}

#[test]
fn bytes_of_split_characters_join_to_the_whole() {
    let mut numbers = Numbers(2);
    for _ in 0..1000 {
        let ids = random_text_ids(
            &mut numbers,
            |text| text.bytes().map(u32::from).collect(),
            &[EOS, TOOL, 258, 999],
        );
        assert_joined_equals_whole(&byte_level(), &ids);
    }
}

#[test]
fn byte_fallback_text_joins_to_the_whole() {
    let tokenizer = byte_fallback();
    let others: Vec<u32> = (FIRST_PIECE..FIRST_PIECE + PIECES.len() as u32).chain([S, 0, 999]).collect();
    let mut numbers = Numbers(3);
    for _ in 0..1000 {
        assert_joined_equals_whole(&tokenizer, &random_text_ids(&mut numbers, byte_tokens, &others));
    }
}

#[test]
fn words_join_to_the_whole() {
    let tokenizer = words();
    let mut numbers = Numbers(4);
    for _ in 0..500 {
        let ids: Vec<u32> = (0..numbers.below(20)).map(|_| numbers.below(7) as u32).collect();
        assert_joined_equals_whole(&tokenizer, &ids);
    }
}

#[test]
fn random_bytes_in_byte_fallback_are_given_out_at_once_or_soon() {
    let tokenizer = byte_fallback();
    let mut numbers = Numbers(5);
    for _ in 0..500 {
        let ids: Vec<u32> = (0..60).map(|_| 1 + numbers.below(270) as u32).collect();
        let pieces = pieces(&tokenizer, &[], &ids, true);
        let silent = pieces.split(|piece| !piece.is_empty()).map(<[String]>::len).max().unwrap();
        assert!(silent <= 8, "{silent} tokens without text: {ids:?}");
    }
}

#[test]
fn an_emoji_comes_out_with_its_last_byte() {
    for (tokenizer, ids) in [
        (byte_level(), "🦊!".bytes().map(u32::from).collect::<Vec<u32>>()),
        (byte_fallback(), byte_tokens("🦊!")),
    ] {
        assert_eq!(pieces(&tokenizer, &[], &ids, true), ["", "", "", "🦊", "!", ""]);
    }
}

#[test]
fn an_incomplete_character_is_flushed_at_the_end() {
    assert_eq!(pieces(&byte_level(), &[], &[0xF0, 0x9F], true), ["", "", "\u{FFFD}"]);
    let ids = [FIRST_BYTE + 0xF0, FIRST_BYTE + 0x9F];
    assert_eq!(
        pieces(&byte_fallback(), &[], &ids, true).concat(),
        byte_fallback().decode(&ids, true).unwrap()
    );
}

#[test]
fn a_prompt_keeps_the_space_that_decoding_alone_would_drop() {
    let tokenizer = byte_fallback();
    let ids = tokenizer.encode("a ban", true).unwrap();
    assert_eq!(pieces(&tokenizer, &[], &ids[2..], true).concat(), "ban");
    assert_eq!(pieces(&tokenizer, &ids[..2], &ids[2..], true).concat(), " ban");
}

#[test]
fn a_character_begun_in_the_prompt_is_completed() {
    for (tokenizer, ids) in [
        (byte_level(), "é🦊".bytes().map(u32::from).collect::<Vec<u32>>()),
        (byte_fallback(), byte_tokens("é🦊")),
    ] {
        assert_eq!(pieces(&tokenizer, &ids[..4], &ids[4..], true).concat(), "🦊");
        assert_eq!(
            pieces(&tokenizer, &ids[1..2], &ids[2..], true).concat(),
            "🦊",
            "the prompt begins inside `é`"
        );
    }
}

#[test]
fn a_decoder_can_be_taken_over_at_any_token() {
    for (tokenizer, ids) in [
        (byte_level(), "the é東🦊 end".bytes().map(u32::from).collect::<Vec<u32>>()),
        (byte_fallback(), byte_fallback().encode("ban é東🦊 an\n a", true).unwrap()),
    ] {
        for at in 1..ids.len() {
            let mut first = IncrementalDecoder::new(Arc::clone(&tokenizer), &[], true);
            let before: String = ids[..at].iter().map(|&id| first.push(id).unwrap()).collect();
            let after = pieces(&tokenizer, &ids[..at], &ids[at..], true).concat();
            assert_eq!(before + &after, tokenizer.decode(&ids, true).unwrap(), "taken over at {at}");
        }
    }
}
