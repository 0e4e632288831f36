//! The matcher against a search over the whole text, for every way to split it.

use detokenize::stop::StopMatcher;

/// SplitMix64, for making cases.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    fn text(&mut self, length: usize) -> String {
        (0..length).map(|_| ['a', 'b', 'é', '🙂'][self.below(4)]).collect()
    }
}

/// Where the text ends: at the start of the longest sequence among those that complete first.
fn expected(text: &str, stops: &[String]) -> usize {
    let ends = text.char_indices().map(|(at, character)| at + character.len_utf8());
    let cut = |end: usize| {
        let complete = stops.iter().filter(|stop| text[..end].ends_with(stop.as_str()));
        complete.map(|stop| end - stop.len()).min()
    };
    ends.into_iter().find_map(cut).unwrap_or(text.len())
}

#[test]
fn any_split_gives_the_same_text_and_no_piece_shows_a_stop_sequence() {
    let mut dice = Dice(1);
    for case in 0..20_000 {
        let lengths: Vec<usize> = (0..1 + dice.below(3)).map(|_| 1 + dice.below(4)).collect();
        let stops: Vec<String> = lengths.into_iter().map(|length| dice.text(length)).collect();
        let length = dice.below(24);
        let text = dice.text(length);
        let whole = &text[..expected(&text, &stops)];
        let mut matcher = StopMatcher::new(&stops);
        let mut emitted = String::new();
        let mut rest = text.as_str();
        let mut stopped = false;
        while !rest.is_empty() && !stopped {
            let characters = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
            let at = characters.skip(1).nth(dice.below(3)).unwrap_or(rest.len());
            let released = matcher.push(&rest[..at]);
            emitted.push_str(&released.text);
            stopped = released.stopped;
            rest = &rest[at..];
            // Nothing that was emitted may have to be taken back, however the text goes on.
            assert!(whole.starts_with(&emitted), "case {case}: {emitted:?} of {text:?} with {stops:?}");
        }
        if !stopped {
            emitted.push_str(&matcher.finish());
        }
        assert_eq!(emitted, whole, "case {case}: {text:?} with {stops:?}");
        assert!(stops.iter().all(|stop| !emitted.contains(stop.as_str())), "case {case}");
    }
}

#[test]
fn long_runs_of_a_prefix_cost_two_comparisons_a_byte() {
    let stop = "a".repeat(5_000) + "b";
    let mut matcher = StopMatcher::new(&[stop]);
    let text = "a".repeat(2_000_000);
    let released = matcher.push(&text).text.len();
    assert_eq!(released + matcher.finish().len(), text.len());
}
