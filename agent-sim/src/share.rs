//! Some of the agents: a number, or a part of all.

use std::str::FromStr;

/// `3` agents, or `0.25` or `25%` of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Share {
    /// So many.
    Count(usize),
    /// Such a part, from 0 to 1.
    Part(f64),
}

impl Share {
    /// How many of `all` this is; a part is rounded to the nearest whole.
    #[must_use]
    pub fn of(self, all: usize) -> usize {
        match self {
            Self::Count(count) => count,
            // Between 0 and `all` by the parser's check.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            Self::Part(part) => (part * all as f64).round() as usize,
        }
    }
}

impl FromStr for Share {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is neither a number of agents (3) nor a part (0.25, 25%)");
        if let Ok(count) = text.parse() {
            return Ok(Self::Count(count));
        }
        let part = match text.strip_suffix('%') {
            Some(percent) => percent.parse::<f64>().map_err(|_| wrong())? / 100.0,
            None => text.parse().map_err(|_| wrong())?,
        };
        probability(part).map(Self::Part)
    }
}

/// Checks that `p` is between 0 and 1.
pub(crate) fn probability(p: f64) -> Result<f64, String> {
    if (0.0..=1.0).contains(&p) {
        return Ok(p);
    }
    Err(format!("{p} is not between 0 and 1"))
}

/// Parses a probability.
pub(crate) fn parse_probability(text: &str) -> Result<f64, String> {
    let p = text
        .parse()
        .map_err(|_| format!("{text:?} is no number between 0 and 1"))?;
    probability(p)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_parts() {
        let cases = [
            ("0", 0),
            ("3", 3),
            ("0.25", 3),
            ("25%", 3),
            ("100%", 10),
            ("0.04", 0),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Share>().unwrap().of(10), expected, "{text}");
        }
        for bad in ["", "-1", "1.5", "101%", "some", "NaN"] {
            assert!(bad.parse::<Share>().is_err(), "{bad}");
        }
    }
}
