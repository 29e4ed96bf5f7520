//! Who is mailed about what: a pure function of a state.
//!
//! Routes come from a TOML file of their own, because the settings file holds flags only:
//!
//! ```toml
//! [[routes]]
//! name = "shops"
//! recipients = ["Shop desk <shops@example.com>"]
//! objects = ["*.shop.example.com"]                # globs; default: all objects
//! transitions = ["* -> UNDER_ATTACK", "UNDER_ATTACK -> *"]   # default: "* -> *"
//! ```

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    str::FromStr,
};

use common::schema::State;
use globset::{Glob, GlobSet, GlobSetBuilder};
use lettre::message::Mailbox;
use serde::Deserialize;

/// The word for "no state before" in a transition.
const NEW: &str = "NEW";

/// A change of verdict that is worth a mail: `FROM -> TO`. `*` stands for any verdict, `NEW` on the
/// left for no state before; `*` is not `NEW`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    from: From,
    to: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum From {
    Any,
    New,
    Verdict(String),
}

impl Transition {
    /// From any verdict to any other.
    #[must_use]
    pub fn any() -> Self {
        Self {
            from: From::Any,
            to: None,
        }
    }

    /// Is a change from `previous` to `verdict` such a transition?
    #[must_use]
    pub fn matches(&self, previous: Option<&str>, verdict: &str) -> bool {
        let from = match (&self.from, previous) {
            (From::Any, Some(_)) | (From::New, None) => true,
            (From::Verdict(wanted), Some(previous)) => wanted == previous,
            (From::Any | From::Verdict(_), None) | (From::New, Some(_)) => false,
        };
        from && self.to.as_deref().is_none_or(|wanted| wanted == verdict)
    }
}

impl FromStr for Transition {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            Err(format!(
                "{text:?} is no transition ({why}): write \"CLEAR -> UNDER_ATTACK\", \
                 \"* -> UNDER_ATTACK\" or \"NEW -> *\""
            ))
        };
        let Some((from, to)) = text.split_once("->") else {
            return wrong("there is no ->");
        };
        let (from, to) = (from.trim(), to.trim());
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for verdict in [from, to] {
            if verdict != "*" && (verdict.is_empty() || !verdict.chars().all(legal)) {
                return wrong("a verdict is letters, digits and _");
            }
        }
        if to == NEW {
            return wrong("nothing becomes NEW");
        }
        Ok(Self {
            from: match from {
                "*" => From::Any,
                NEW => From::New,
                verdict => From::Verdict(verdict.to_owned()),
            },
            to: (to != "*").then(|| to.to_owned()),
        })
    }
}

/// Recipients, and what they are mailed about.
#[derive(Debug, Clone)]
pub struct Route {
    /// What the log calls it.
    pub name: String,
    /// Who is mailed.
    pub recipients: Vec<Mailbox>,
    objects: GlobSet,
    transitions: Vec<Transition>,
}

impl Route {
    /// A route for every change of verdict of every object.
    #[must_use]
    pub fn everything(name: &str, recipients: Vec<Mailbox>) -> Self {
        Self {
            name: name.to_owned(),
            recipients,
            objects: all_objects(),
            transitions: vec![Transition::any()],
        }
    }

    /// Is `state` for this route? Only a change of verdict ever is.
    #[must_use]
    pub fn matches(&self, state: &State) -> bool {
        let previous = state.previous_verdict.as_deref();
        previous != Some(state.verdict.as_str())
            && self.objects.is_match(&state.object_id)
            && self
                .transitions
                .iter()
                .any(|t| t.matches(previous, &state.verdict))
    }
}

/// All routes.
#[derive(Debug, Clone, Default)]
pub struct Routes(Vec<Route>);

impl Routes {
    /// These routes.
    #[must_use]
    pub fn new(routes: Vec<Route>) -> Self {
        Self(routes)
    }

    /// Who is mailed about `state`: each address once, in the order of addresses, so that a second
    /// attempt goes the same way.
    #[must_use]
    pub fn recipients(&self, state: &State) -> Vec<Mailbox> {
        let mut found: BTreeMap<String, Mailbox> = BTreeMap::new();
        for route in self.0.iter().filter(|route| route.matches(state)) {
            for mailbox in &route.recipients {
                found
                    .entry(mailbox.email.to_string())
                    .or_insert_with(|| mailbox.clone());
            }
        }
        found.into_values().collect()
    }
}

/// Reads the routes in the file `path`.
///
/// # Errors
/// Everything that is wrong with it, one sentence each.
pub fn read(path: &Path) -> Result<Vec<Route>, Vec<String>> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| vec![format!("--routes {shown}: {e}")])?;
    parse(&text).map_err(|mistakes| {
        let named = mistakes.into_iter();
        named.map(|m| format!("--routes {shown}: {m}")).collect()
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRoute {
    name: String,
    recipients: Vec<String>,
    #[serde(default)]
    objects: Option<Vec<String>>,
    #[serde(default)]
    transitions: Option<Vec<String>>,
}

/// [`read`] for the text of a file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(text: &str) -> Result<Vec<Route>, Vec<String>> {
    let table: toml::Table = text.parse().map_err(|e| vec![format!("{e}")])?;
    let mut mistakes = Vec::new();
    for key in table.keys().filter(|key| *key != "routes") {
        mistakes.push(format!("there is no setting {key:?}, only [[routes]]"));
    }
    let Some(toml::Value::Array(raw)) = table.get("routes") else {
        mistakes.push("there is no [[routes]]".to_owned());
        return Err(mistakes);
    };
    let mut routes = Vec::new();
    let mut names = HashSet::new();
    for (index, value) in raw.iter().enumerate() {
        let number = index + 1;
        match value.clone().try_into::<RawRoute>() {
            Ok(raw) => {
                if !names.insert(raw.name.clone()) {
                    mistakes.push(format!(
                        "route {number}: there is another named {:?}",
                        raw.name
                    ));
                }
                routes.push(build(raw, &mut mistakes));
            }
            Err(e) => mistakes.push(format!("route {number}: {}", e.to_string().trim())),
        }
    }
    if mistakes.is_empty() {
        Ok(routes)
    } else {
        Err(mistakes)
    }
}

/// The route, as far as it is good; the rest goes to `mistakes`.
fn build(raw: RawRoute, mistakes: &mut Vec<String>) -> Route {
    let name = raw.name;
    let mut wrong = |what: &str, why: String| mistakes.push(format!("route {name:?}: {what}{why}"));
    if raw.recipients.is_empty() {
        wrong("recipients: ", "there must be at least one".to_owned());
    }
    let mut recipients = Vec::new();
    for text in &raw.recipients {
        match text.parse::<Mailbox>() {
            Ok(mailbox) => recipients.push(mailbox),
            Err(e) => wrong("recipients: ", format!("{text:?} is no mail address: {e}")),
        }
    }
    let mut transitions = Vec::new();
    for text in raw.transitions.unwrap_or_else(|| vec!["* -> *".to_owned()]) {
        match text.parse() {
            Ok(transition) => transitions.push(transition),
            Err(e) => wrong("transitions: ", e),
        }
    }
    let mut globs = GlobSetBuilder::new();
    for text in raw.objects.unwrap_or_else(|| vec!["*".to_owned()]) {
        match Glob::new(&text) {
            Ok(glob) => drop(globs.add(glob)),
            Err(e) => wrong("objects: ", e.to_string()),
        }
    }
    let objects = globs.build().unwrap_or_else(|e| {
        wrong("objects: ", e.to_string());
        GlobSet::empty()
    });
    Route {
        name,
        recipients,
        objects,
        transitions,
    }
}

fn all_objects() -> GlobSet {
    let all = Glob::new("*").and_then(|all| GlobSetBuilder::new().add(all).build());
    // `*` is a glob; an empty set would only mail nobody.
    all.unwrap_or_default()
}

#[cfg(test)]
mod tests;
