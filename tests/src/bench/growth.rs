//! How something grows with the number of requests.

/// The slope of the least-squares line through `points`, in y per x; 0 when all have the same x.
pub fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len().max(1) as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / n;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / n;
    let covariance: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let variance: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    if variance > 0.0 { covariance / variance } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_its_slope_whatever_it_begins_with() {
        let line: Vec<(f64, f64)> =
            (0..50).map(|x| (f64::from(x) * 10.0, 7000.0 + f64::from(x) * 25.0)).collect();
        assert!((slope(&line) - 2.5).abs() < 1e-9);
    }

    #[test]
    fn noise_around_a_level_is_no_growth() {
        let level: Vec<(f64, f64)> = (0..100).map(|x| (f64::from(x), 500.0 + f64::from(x % 2))).collect();
        assert!(slope(&level).abs() < 0.01);
        assert_eq!(slope(&[(1.0, 5.0), (1.0, 9.0)]), 0.0);
        assert_eq!(slope(&[]), 0.0);
    }
}
