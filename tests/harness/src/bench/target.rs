//! Target values and their measurements.

use serde::Serialize;

/// A target value and its measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Target {
    /// What is measured.
    pub measure: String,
    /// The target.
    pub target: String,
    /// The measured value; none if it was not measured.
    pub measured: Option<String>,
    /// Whether the target was met. False if it was not measured.
    pub met: bool,
    /// Other measurements that explain the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

impl Target {
    /// A target that a value must not exceed.
    pub fn at_most(
        measure: impl Into<String>,
        most: f64,
        unit: &str,
        measured: Option<f64>,
    ) -> Self {
        let met = measured.is_some_and(|measured| measured <= most);
        Self::of(measure, "<=", most, unit, measured, met)
    }

    /// A target that a value must reach.
    pub fn at_least(
        measure: impl Into<String>,
        least: f64,
        unit: &str,
        measured: Option<f64>,
    ) -> Self {
        let met = measured.is_some_and(|measured| measured >= least);
        Self::of(measure, ">=", least, unit, measured, met)
    }

    /// With other measurements that explain the value.
    #[must_use]
    pub fn because(self, facts: impl Into<String>) -> Self {
        Self {
            because: Some(facts.into()),
            ..self
        }
    }

    fn of(
        measure: impl Into<String>,
        relation: &str,
        bound: f64,
        unit: &str,
        measured: Option<f64>,
        met: bool,
    ) -> Self {
        let text = |value: f64| format!("{} {unit}", number(value)).trim_end().to_owned();
        Self {
            measure: measure.into(),
            target: format!("{relation} {}", text(bound)),
            measured: measured.map(text),
            met,
            because: None,
        }
    }
}

/// The targets as a text table.
pub fn table(targets: &[Target]) -> String {
    let mut rows = vec![["MEASURE", "TARGET", "MEASURED", ""].map(str::to_owned)];
    for target in targets {
        let (measured, met) = match &target.measured {
            None => ("not measured", "-"),
            Some(measured) => (measured.as_str(), if target.met { "met" } else { "MISSED" }),
        };
        rows.push([
            target.measure.clone(),
            target.target.clone(),
            measured.to_owned(),
            met.to_owned(),
        ]);
    }
    super::table(&rows)
}

/// Three decimals for small values, fewer for large ones.
pub fn number(value: f64) -> String {
    match value {
        value if value.abs() < 10.0 && value.fract() != 0.0 => format!("{value:.3}"),
        value if value.fract() != 0.0 => format!("{value:.2}"),
        value => format!("{value:.0}"),
    }
}
