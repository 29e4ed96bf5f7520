//! One documented struct per service, filled from flags, environment and a file.
//!
//! The struct is a `clap` parser; a TOML file may set every flag by its long name. A flag wins over
//! the environment, the environment over the file, the file over the default. All mistakes are
//! reported together, before anything starts.

use std::{ffi::OsString, path::Path};

use clap::{Arg, Command, Parser, error::ErrorKind};

pub mod secret;

/// What a service adds to parsing: rules over several settings.
pub trait Validate {
    /// Every broken rule, as one sentence each that names the settings and the way out.
    fn validate(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Why no configuration came out.
#[derive(Debug)]
pub enum Error {
    /// `--help`, `--version`, an unknown flag: clap's own message and exit code.
    Clap(clap::Error),
    /// Everything that is wrong.
    Invalid(Vec<String>),
}

/// Parses the process's arguments, environment and file, or explains and exits (code 2 for a
/// mistake, 0 for `--help`).
#[must_use]
pub fn parse<T: Parser + Validate>() -> T {
    parse_from(std::env::args_os().collect())
}

/// [`parse`] for given arguments (the first is the program's name, with the subcommand if there is
/// one).
#[must_use]
pub fn parse_from<T: Parser + Validate>(args: Vec<OsString>) -> T {
    match try_parse(args) {
        Ok(config) => config,
        Err(Error::Clap(error)) => error.exit(),
        Err(Error::Invalid(mistakes)) => {
            eprintln!("the configuration is not usable:");
            for mistake in mistakes {
                eprintln!("  - {mistake}");
            }
            eprintln!("nothing was started; --help explains every setting");
            std::process::exit(2);
        }
    }
}

/// [`parse`] for given arguments (the first is the program's name).
///
/// # Errors
/// All mistakes at once.
pub fn try_parse<T: Parser + Validate>(args: Vec<OsString>) -> Result<T, Error> {
    let mut command = T::command();
    let mut mistakes = environment_mistakes(&command);
    mistakes.extend(flag_mistakes(&command, &args));
    if let Some(path) = file_of(&command, &args) {
        match read_file(Path::new(&path)) {
            Ok(settings) => command = apply_file(command, &path, settings, &mut mistakes),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    if !mistakes.is_empty() {
        return Err(Error::Invalid(mistakes));
    }
    let matches = command.try_get_matches_from(args).map_err(Error::Clap)?;
    let config = T::from_arg_matches(&matches).map_err(Error::Clap)?;
    let mistakes = config.validate();
    if mistakes.is_empty() {
        Ok(config)
    } else {
        Err(Error::Invalid(mistakes))
    }
}

/// The `--config` of a service, if it has that flag and it is given.
fn file_of(command: &Command, args: &[OsString]) -> Option<String> {
    if !command.get_arguments().any(|a| a.get_id() == "config") {
        return None;
    }
    let matches = command
        .clone()
        .ignore_errors(true)
        .try_get_matches_from(args)
        .ok()?;
    let path: &std::path::PathBuf = matches.try_get_one("config").ok()??;
    Some(path.display().to_string())
}

/// The settings of a TOML file, tables joined by dots.
fn read_file(path: &Path) -> Result<Vec<(String, Vec<String>)>, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| format!("config file {shown}: {e}"))?;
    let table: toml::Table = text
        .parse()
        .map_err(|e| format!("config file {shown}: {e}"))?;
    let mut settings = Vec::new();
    flatten("", &table, &mut settings);
    Ok(settings)
}

fn flatten(prefix: &str, table: &toml::Table, into: &mut Vec<(String, Vec<String>)>) {
    for (key, value) in table {
        let path = if prefix.is_empty() {
            key.clone()
        } else {
            format!("{prefix}.{key}")
        };
        match value {
            toml::Value::Table(inner) => flatten(&path, inner, into),
            toml::Value::Array(items) => into.push((path, items.iter().map(plain).collect())),
            other => into.push((path, vec![plain(other)])),
        }
    }
}

fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Makes the file's settings the defaults of their flags. `table.key = value` under a flag that
/// takes `KEY=VALUE` pairs (`kafka`, for one) becomes one of its pairs.
fn apply_file(
    mut command: Command,
    path: &str,
    settings: Vec<(String, Vec<String>)>,
    mistakes: &mut Vec<String>,
) -> Command {
    let mut defaults: Vec<(String, Vec<String>)> = Vec::new();
    for (key, values) in settings {
        let (flag, values) = match key.split_once('.') {
            None => (key.clone(), values),
            Some((table, rest)) => (
                table.to_owned(),
                values.iter().map(|v| format!("{rest}={v}")).collect(),
            ),
        };
        let Some(arg) = find(&command, &flag).filter(|a| a.get_id() != "config") else {
            mistakes.push(format!("config file {path}: there is no setting {key:?}"));
            continue;
        };
        let id = arg.get_id().to_string();
        for value in &values {
            if let Some(why) = check(&command, &flag, value) {
                mistakes.push(format!("config file {path}: {key}: {why}"));
            }
        }
        match defaults.iter_mut().find(|(known, _)| *known == id) {
            Some((_, all)) => all.extend(values),
            None => defaults.push((id, values)),
        }
    }
    for (id, values) in defaults {
        command = command.mut_arg(id, |arg| arg.default_values(values).required(false));
    }
    command
}

fn find<'a>(command: &'a Command, flag: &str) -> Option<&'a Arg> {
    command
        .get_arguments()
        .find(|arg| arg.get_long() == Some(flag))
}

/// Wrong values in the environment, each on its own: clap would stop at the first.
fn environment_mistakes(command: &Command) -> Vec<String> {
    command
        .get_arguments()
        .filter_map(|arg| {
            let name = arg.get_env()?;
            let value = std::env::var(name).ok()?;
            let why = check(command, arg.get_long()?, &value)?;
            Some(format!("{}: {why}", name.to_string_lossy()))
        })
        .collect()
}

/// Wrong values among the flags, each on its own.
fn flag_mistakes(command: &Command, args: &[OsString]) -> Vec<String> {
    let mut mistakes = Vec::new();
    let mut args = args.iter().skip(1).filter_map(|a| a.to_str()).peekable();
    while let Some(arg) = args.next() {
        let Some(flag) = arg.strip_prefix("--") else {
            continue;
        };
        let (flag, value) = match flag.split_once('=') {
            Some((flag, value)) => (flag, Some(value)),
            None => (flag, args.peek().copied()),
        };
        let takes_value = find(command, flag).is_some_and(|a| a.get_action().takes_values());
        if let (true, Some(value)) = (takes_value, value)
            && let Some(why) = check(command, flag, value)
        {
            mistakes.push(format!("--{flag}: {why}"));
        }
    }
    mistakes
}

/// What clap says of one value of one flag; the values of the others do not matter here.
fn check(command: &Command, flag: &str, value: &str) -> Option<String> {
    let error = command
        .clone()
        .mut_args(|arg| arg.env(None::<&'static str>).required(false))
        .try_get_matches_from([command.get_name(), &format!("--{flag}={value}")])
        .err()?;
    match error.kind() {
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            Some(line.trim_start_matches("error: ").to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
