//! Statistics of time samples, and an order in which they are taken.

/// Returns Welch's t of two samples.
pub fn welch(a: &[f64], b: &[f64]) -> f64 {
    let moments = |x: &[f64]| {
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
        (mean, variance / n)
    };
    let ((mean_a, error_a), (mean_b, error_b)) = (moments(a), moments(b));
    (mean_a - mean_b) / (error_a + error_b).sqrt()
}

/// Returns the largest |t| of any two of these samples, and which two.
pub fn furthest<'a>(samples: &'a [(&'a str, Vec<f64>)]) -> (f64, &'a str, &'a str) {
    let mut worst = (0.0, "", "");
    for (i, (a, of_a)) in samples.iter().enumerate() {
        for (b, of_b) in &samples[i + 1..] {
            let t = welch(of_a, of_b).abs();
            if t > worst.0 {
                worst = (t, a, b);
            }
        }
    }
    worst
}

/// Returns the median.
pub fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Returns the numbers below `count` in a pseudo-random order, which differs between connections
/// and rounds.
pub fn order(count: usize, nth: usize, round: usize) -> Vec<usize> {
    let mut state = (nth * 7919 + round + 1) as u64;
    let mut order: Vec<usize> = (0..count).collect();
    for i in (1..order.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        order.swap(i, (state >> 33) as usize % (i + 1));
    }
    order
}
