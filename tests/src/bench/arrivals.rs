//! When the tokens of a batch arrived, and the rates that follow: computed in one place for every side of a comparison.

use serde::{Deserialize, Serialize};

/// For each sequence of a batch the time of each token, in seconds since the batch was started, ascending.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Arrivals(pub Vec<Vec<f64>>);

impl Arrivals {
    /// Tokens a second while *every* sequence decodes: after the last of their first tokens, up to the first of their last ones.
    pub fn decode_rate(&self) -> f64 {
        let from = self.firsts().fold(f64::NEG_INFINITY, f64::max);
        let until = self.0.iter().filter_map(|times| times.last()).copied().fold(f64::INFINITY, f64::min);
        let inside = self.0.iter().flatten().filter(|&&time| from < time && time <= until);
        inside.count() as f64 / (until - from)
    }

    /// Tokens a second from the start to the last token, prefill included.
    pub fn total_rate(&self) -> f64 {
        let end = self.0.iter().flatten().copied().fold(0.0, f64::max);
        self.0.iter().map(Vec::len).sum::<usize>() as f64 / end
    }

    /// Time to first token of each sequence, in seconds.
    pub fn firsts(&self) -> impl Iterator<Item = f64> {
        self.0.iter().filter_map(|times| times.first()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_time_in_which_all_decode_counts_as_decode() {
        let early: Vec<f64> = (0..20).map(|i| 1.0 + f64::from(i) * 0.1).collect();
        let late: Vec<f64> = (0..20).map(|i| 2.0 + f64::from(i) * 0.1).collect();
        let arrivals = Arrivals(vec![early, late]);
        let rate = arrivals.decode_rate();
        assert!((rate - 20.0).abs() < 2.0, "{rate}");
        assert!((arrivals.total_rate() - 40.0 / 3.9).abs() < 1e-9);
        assert_eq!(arrivals.firsts().collect::<Vec<_>>(), [1.0, 2.0]);
    }
}
