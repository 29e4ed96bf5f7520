//! Text that must not reach a log.

use std::{convert::Infallible, fmt, path::Path, str::FromStr};

use anyhow::Context as _;

/// A password or token. Its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Text(String);

impl Text {
    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Text {
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The secret given directly, or the content of `file` without the line end.
///
/// # Errors
/// When the file cannot be read.
pub fn read(given: Option<&Text>, file: Option<&Path>) -> anyhow::Result<Option<Text>> {
    if let Some(given) = given {
        return Ok(Some(given.clone()));
    }
    let Some(file) = file else { return Ok(None) };
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the secret in {}", file.display()))?;
    Ok(Some(Text(text.trim_end_matches(['\r', '\n']).to_owned())))
}
