//! Metrics in the text format in which a replica serves them.

use std::collections::BTreeMap;

/// The series of a text by name and labels, as the text spells them.
pub fn parse(text: &str) -> BTreeMap<String, f64> {
    let series = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = series.filter_map(|line| line.rsplit_once(' '));
    pairs
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap_or(f64::NAN)))
        .collect()
}

/// Sums the series of a name by one label of them.
pub fn sum_by(series: &BTreeMap<String, f64>, name: &str, label: &str) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for (series, value) in series {
        let labels = series
            .strip_prefix(name)
            .and_then(|labels| labels.strip_prefix('{'));
        let value_of = |labels: &str| {
            let (_, rest) = labels.split_once(&format!("{label}=\""))?;
            Some(rest.split_once('"')?.0.to_owned())
        };
        if let Some(key) = labels.and_then(value_of) {
            *sums.entry(key).or_default() += value;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_by_one_label() {
        let text = "# TYPE calls counter\n\
            calls{method=\"a\",result=\"ok\"} 2\n\
            calls{method=\"a\",result=\"refused\"} 1\n\
            calls{method=\"b\",result=\"ok\"} 4\n\
            calls_other{method=\"b\"} 8\n\
            calls 16\n";
        let series = parse(text);
        assert_eq!(series.get("calls"), Some(&16.0));
        let sums = sum_by(&series, "calls", "method");
        let expected = [("a", 3.0), ("b", 4.0)].map(|(key, sum)| (key.to_owned(), sum));
        assert_eq!(sums, expected.into());
    }
}
