//! Flags of a program: defaults, and a story's own in their place.

/// Flags as name (without dashes) and value.
pub(crate) type Pairs<'a> = [(&'a str, &'a str)];

/// The command line of `defaults` with `own` on top: a flag that is in `own` replaces the default of that name,
/// and may be there several times.
pub(crate) fn command_line(defaults: &Pairs<'_>, own: &Pairs<'_>) -> Vec<String> {
    let kept = defaults
        .iter()
        .filter(|(name, _)| own.iter().all(|(replaced, _)| replaced != name));
    // `--flag=value`: a value may begin with a dash.
    kept.chain(own)
        .map(|(name, value)| format!("--{name}={value}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_flags_replace_defaults_and_repeat() {
        let line = command_line(
            &[("quorum", "2"), ("listen", "127.0.0.1:0")],
            &[("weight", "a=2"), ("quorum", "3"), ("weight", "b=3")],
        );
        assert_eq!(
            line,
            [
                "--listen=127.0.0.1:0",
                "--weight=a=2",
                "--quorum=3",
                "--weight=b=3"
            ]
        );
    }
}
