//! Token by token: what an answer has lost, what it has twice, what is different.

use super::client::Heard;

/// How an answer differs from that of an undisturbed run, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// Not at all.
    None,
    /// A run of tokens is missing; the rest is equal.
    Lost(usize),
    /// A run of tokens comes twice; the rest is equal.
    Doubled(usize),
    /// From some token on it is another answer: so many tokens from there.
    Changed(usize),
}

impl Difference {
    /// Of `heard` from `expected`.
    pub fn of(heard: &Heard, expected: &Heard) -> Self {
        if heard == expected {
            return Difference::None;
        }
        let (heard_text, expected_text) = (heard.text.as_bytes(), expected.text.as_bytes());
        let same = |(a, b): (&u8, &u8)| a == b;
        let prefix = heard_text.iter().zip(expected_text).take_while(|pair| same(*pair)).count();
        let shorter = heard_text.len().min(expected_text.len());
        let suffix = heard_text.iter().rev().zip(expected_text.iter().rev());
        let suffix = suffix.take(shorter - prefix).take_while(|pair| same(*pair)).count();
        let rest_is_equal = prefix + suffix == shorter;
        match (expected_text.len(), heard_text.len()) {
            (expected, heard) if heard < expected && rest_is_equal => Difference::Lost(expected - heard),
            (expected, heard) if heard > expected && rest_is_equal => Difference::Doubled(heard - expected),
            // Usage or the finish reason alone may differ.
            (expected, heard) => Difference::Changed((expected.max(heard) - prefix).max(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(text: &str) -> Heard {
        Heard { text: text.into(), tokens: text.len() as u64, finish: "length".into() }
    }

    #[test]
    fn lost_doubled_and_changed_tokens_are_told_apart() {
        let of = |text: &str| Difference::of(&heard(text), &heard("abcdefgh"));
        assert_eq!(of("abcdefgh"), Difference::None);
        assert_eq!(of("abfgh"), Difference::Lost(3));
        assert_eq!(of("abcdef"), Difference::Lost(2));
        assert_eq!(of("abcdcdefgh"), Difference::Doubled(2));
        assert_eq!(of("abcXefgh"), Difference::Changed(5));
        assert_eq!(of(""), Difference::Lost(8));
    }

    #[test]
    fn usage_that_counts_twice_is_a_change() {
        let twice = Heard { tokens: 16, ..heard("abcdefgh") };
        assert_eq!(Difference::of(&twice, &heard("abcdefgh")), Difference::Changed(1));
    }
}
