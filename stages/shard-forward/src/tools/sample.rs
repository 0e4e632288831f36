//! Several measurements of one thing.

use serde::Serialize;

/// The mean of several measurements and how far they scatter.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sample {
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation, from n − 1; 0 of one.
    pub deviation: f64,
    /// How many they are.
    pub count: usize,
}

impl Sample {
    /// Of `values`; NaN when there are none.
    pub fn of(values: &[f64]) -> Self {
        let count = values.len();
        let mean = values.iter().sum::<f64>() / count as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = if count > 1 { (squares / (count - 1) as f64).sqrt() } else { 0.0 };
        Self { mean, deviation, count }
    }

    /// The standard error of the mean.
    pub fn error(&self) -> f64 {
        self.deviation / (self.count as f64).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviation_and_error_are_of_a_sample() {
        let sample = Sample::of(&[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(sample.mean, 2.5);
        assert!((sample.deviation - (5.0_f64 / 3.0).sqrt()).abs() < 1e-12);
        assert!((sample.error() - sample.deviation / 2.0).abs() < 1e-12);
        assert_eq!(Sample::of(&[7.0]).deviation, 0.0);
    }
}
