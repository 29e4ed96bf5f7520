//! What a checker says when something is not as it must be.

use std::fmt;

use serde::Serialize;

/// How something is not as it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Something that must be there is not.
    Lost,
    /// Something is there once more than it may be.
    Doubled,
    /// Something is there, and it is not what it must be.
    Wrong,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost",
            Self::Doubled => "doubled",
            Self::Wrong => "wrong",
        })
    }
}

/// One thing that is not as it must be, with its evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it is wrong.
    pub class: Class,
    /// Which comparison found it.
    pub check: &'static str,
    /// What, where (topic, partition, offset), and what was expected.
    pub what: String,
    /// When it happened, in ms since 1970, as far as that is known.
    pub at_ms: Option<i64>,
}

impl Finding {
    /// A finding.
    pub fn new(class: Class, check: &'static str, what: impl Into<String>) -> Self {
        Self {
            class,
            check,
            what: what.into(),
            at_ms: None,
        }
    }

    /// The same with its time.
    #[must_use]
    pub fn at(mut self, at_ms: i64) -> Self {
        self.at_ms = Some(at_ms);
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.class, self.check, self.what)
    }
}
