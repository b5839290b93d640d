//! Histograms in Envoy's `/stats` text: quantiles, or counts by bucket.

use std::fmt::Write;

/// Envoy's quantiles, in thousandths.
const QUANTILES: [u64; 10] = [0, 250, 500, 750, 900, 950, 990, 995, 999, 1000];

/// How `/stats` shows a histogram (`?histogram_buckets=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Buckets {
    /// Quantiles.
    #[default]
    Summary,
    /// How many values are at most as large as each bound.
    Cumulative,
    /// How many are in each bucket.
    Disjoint,
}

/// `cells` are those of the buckets, the one above all bounds included. Envoy shows what came since its last flush and what
/// came ever; nothing is flushed here, so that the first is never there.
pub(super) fn text(bounds: &[u64], cells: &[u64], buckets: Buckets) -> String {
    match buckets {
        Buckets::Summary => summary(bounds, cells),
        Buckets::Cumulative | Buckets::Disjoint => counts(bounds, cells, buckets),
    }
}

fn summary(bounds: &[u64], cells: &[u64]) -> String {
    let count: u64 = cells.iter().sum();
    if count == 0 {
        return "No recorded values".to_owned();
    }
    let quantile = |thousandths: u64| {
        let value = at(bounds, cells, count as f64 * thousandths as f64 / 1000.0);
        format!("P{}(nan,{})", thousandths as f64 / 10.0, (value.round()) / 1000.0)
    };
    QUANTILES.map(quantile).join(" ")
}

/// The value below which `rank` of the values are, as if those of a bucket lay evenly in it. In thousandths.
fn at(bounds: &[u64], cells: &[u64], rank: f64) -> f64 {
    let (mut before, mut low) = (0.0, 0.0);
    let mut value = 0.0;
    for (index, cell) in cells.iter().enumerate() {
        // What is above all bounds is at least the highest.
        let high = bounds.get(index).map_or(low, |bound| *bound as f64);
        if *cell > 0 {
            let within = ((rank - before) / *cell as f64).clamp(0.0, 1.0);
            value = low + (high - low) * within;
            before += *cell as f64;
            if before >= rank {
                break;
            }
        }
        low = high;
    }
    value
}

fn counts(bounds: &[u64], cells: &[u64], buckets: Buckets) -> String {
    let (mut out, mut sum) = (String::new(), 0);
    for (bound, cell) in bounds.iter().zip(cells) {
        sum += cell;
        let shown = if buckets == Buckets::Cumulative { sum } else { *cell };
        let space = if out.is_empty() { "" } else { " " };
        // Writing to a string cannot fail.
        let _ = write!(out, "{space}B{}(0,{shown})", *bound as f64 / 1000.0);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_within_their_buckets() {
        // One up to 1, two from 1 to 5, one from 10 to 20.
        let (bounds, cells) = ([1_000, 5_000, 10_000, 20_000], [1, 2, 0, 1, 0]);
        let expected = "P0(nan,0) P25(nan,1) P50(nan,3) P75(nan,5) P90(nan,16) P95(nan,18) P99(nan,19.6) P99.5(nan,19.8) \
                        P99.9(nan,19.96) P100(nan,20)";
        assert_eq!(text(&bounds, &cells, Buckets::Summary), expected);
        assert_eq!(text(&bounds, &[0; 5], Buckets::Summary), "No recorded values");
        assert_eq!(text(&bounds, &cells, Buckets::Cumulative), "B1(0,1) B5(0,3) B10(0,3) B20(0,4)");
        assert_eq!(text(&bounds, &cells, Buckets::Disjoint), "B1(0,1) B5(0,2) B10(0,0) B20(0,1)");
    }

    #[test]
    fn quantiles_begin_where_values_do_and_end_at_the_highest_bound() {
        assert_eq!(at(&[1_000, 5_000], &[0, 4, 0], 0.0), 1_000.0);
        assert_eq!(at(&[1_000, 5_000], &[0, 0, 3], 2.0), 5_000.0);
        assert_eq!(at(&[1_000, 5_000], &[0, 0, 3], 3.0), 5_000.0);
    }
}
