//! Stop sequences in a stream of text.
//!
//! The text is matched byte by byte, so how it was split into pieces changes nothing. What might be the beginning of a stop
//! sequence is held back until it is one, and then dropped, or is not, and then released. The sequence that completes first
//! ends the text; of several that complete at the same byte, the longest. Each is found by the Knuth-Morris-Pratt automaton:
//! at most two comparisons a byte and sequence on average.

/// Finds the end of one answer.
#[derive(Debug)]
pub struct StopMatcher {
    patterns: Vec<Pattern>,
    held: String,
}

/// What a piece of text released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// Text that is certain to precede every stop sequence.
    pub text: String,
    /// Whether a stop sequence was completed: `text` is then the last of it.
    pub stopped: bool,
}

impl StopMatcher {
    /// A matcher at the beginning of a text. An empty sequence never matches.
    pub fn new(sequences: &[String]) -> Self {
        let patterns = sequences.iter().filter(|sequence| !sequence.is_empty()).map(|it| Pattern::new(it));
        Self { patterns: patterns.collect(), held: String::new() }
    }

    /// Adds `text`. A match drops what follows it in `text`.
    pub fn push(&mut self, text: &str) -> Released {
        let before = self.held.len();
        self.held.push_str(text);
        for (index, byte) in text.bytes().enumerate() {
            let completed = self.patterns.iter_mut().filter_map(|pattern| pattern.advance(byte)).max();
            if let Some(length) = completed {
                let mut text = std::mem::take(&mut self.held);
                text.truncate(before + index + 1 - length);
                return Released { text, stopped: true };
            }
        }
        let kept = self.patterns.iter().map(|pattern| pattern.matched).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - kept);
        Released { text: std::mem::replace(&mut self.held, rest), stopped: false }
    }

    /// The text held back, when nothing follows.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// One stop sequence and how much of it the text ends with.
#[derive(Debug)]
struct Pattern {
    bytes: Vec<u8>,
    /// For each prefix, the length of its longest proper prefix that is also its suffix.
    borders: Vec<usize>,
    matched: usize,
}

impl Pattern {
    fn new(sequence: &str) -> Self {
        let bytes = sequence.as_bytes().to_vec();
        let mut borders = vec![0; bytes.len()];
        let mut border = 0;
        for index in 1..bytes.len() {
            while border > 0 && bytes[index] != bytes[border] {
                border = borders[border - 1];
            }
            border += usize::from(bytes[index] == bytes[border]);
            borders[index] = border;
        }
        Self { bytes, borders, matched: 0 }
    }

    /// Takes the next byte of the text; the pattern's length when it is complete.
    fn advance(&mut self, byte: u8) -> Option<usize> {
        while self.matched > 0 && self.bytes[self.matched] != byte {
            self.matched = self.borders[self.matched - 1];
        }
        self.matched += usize::from(self.bytes[self.matched] == byte);
        if self.matched < self.bytes.len() {
            return None;
        }
        self.matched = self.borders[self.bytes.len() - 1];
        Some(self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(sequences: &[&str]) -> StopMatcher {
        StopMatcher::new(&sequences.iter().map(|&it| it.to_owned()).collect::<Vec<_>>())
    }

    /// What each piece releases, then what the end does; `None` from the piece that stops.
    fn releases(sequences: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut matcher = matcher(sequences);
        let mut texts = Vec::new();
        for piece in pieces {
            let released = matcher.push(piece);
            texts.push(released.text);
            if released.stopped {
                return (texts, true);
            }
        }
        texts.push(matcher.finish());
        (texts, false)
    }

    #[test]
    fn the_beginning_of_a_stop_sequence_is_held_back_until_it_is_none() {
        assert_eq!(releases(&["END"], &["a E", "N", "ough"]).0, ["a ", "", "ENough", ""]);
        assert_eq!(releases(&["END"], &["a E", "N"]), (vec!["a ".into(), "".into(), "EN".into()], false));
    }

    #[test]
    fn a_match_over_several_pieces_ends_before_it() {
        assert_eq!(releases(&["END"], &["a E", "N", "D b"]), (vec!["a ".into(), "".into(), "".into()], true));
        assert_eq!(releases(&["END"], &["a END b"]), (vec!["a ".into()], true));
    }

    #[test]
    fn a_prefix_inside_a_prefix_is_not_lost() {
        assert_eq!(releases(&["aab"], &["aaab"]), (vec!["a".into()], true));
        assert_eq!(releases(&["\n\nQ:"], &["x\n", "\n", "\nQ", ":"]).0.concat(), "x\n");
    }

    #[test]
    fn the_first_to_complete_wins_and_then_the_longest() {
        assert_eq!(releases(&["abcd", "bc"], &["abcd"]), (vec!["a".into()], true));
        assert_eq!(releases(&["c", "abc"], &["xabc"]), (vec!["x".into()], true));
    }

    #[test]
    fn characters_are_never_cut() {
        let (texts, stopped) = releases(&["🙂🙃"], &["é🙂", "🙂", "🙃"]);
        assert_eq!((texts.concat().as_str(), stopped), ("é🙂", true));
    }
}
