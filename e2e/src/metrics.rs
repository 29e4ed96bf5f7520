//! What a service counts, as Prometheus reads it.

/// The metrics of one service at one moment.
#[derive(Clone, Debug)]
pub struct Metrics(String);

impl Metrics {
    /// Metrics in Prometheus' text format.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The sum over all series of this name that have all these labels; 0 if there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.0
            .lines()
            .filter_map(|line| value(line, name, labels))
            .sum()
    }

    /// Changelog records that its restorer has read: for tasks, and ahead of them. Whoever waits for a
    /// former owner to be closed or fenced follows the changelog meanwhile.
    pub fn changelog_records_read(&self) -> f64 {
        let counters = ["restored_records_total", "followed_records_total"];
        counters.iter().map(|name| self.sum(name, &[])).sum()
    }

    /// All of it.
    pub fn text(&self) -> &str {
        &self.0
    }
}

fn value(line: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let rest = line.strip_prefix(name)?;
    if !rest.starts_with(['{', ' ']) {
        return None;
    }
    let (series, value) = rest.rsplit_once(' ')?;
    let has = |(label, value): &(&str, &str)| {
        let pair = format!("{label}=\"{value}\"");
        series.contains(&format!("{{{pair}")) || series.contains(&format!(",{pair}"))
    };
    labels.iter().all(has).then(|| value.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_the_series_of_a_name() {
        let text = "# TYPE a counter\na{x=\"1\",y=\"2\"} 3\na{x=\"2\",y=\"2\"} 4\n\
                    a_total 100\nb 0.5\n";
        let metrics = Metrics::new(text.to_owned());
        for (name, labels, sum) in [
            ("a", &[][..], 7.0),
            ("a", &[("x", "1")], 3.0),
            ("a", &[("y", "2")], 7.0),
            ("a", &[("y", "2"), ("x", "2")], 4.0),
            ("a", &[("z", "2")], 0.0),
            ("b", &[], 0.5),
            ("c", &[], 0.0),
        ] {
            assert!(
                (metrics.sum(name, labels) - sum).abs() < 1e-9,
                "{name} {labels:?}"
            );
        }
    }
}
