//! What the instances answer is what was published.

use std::collections::BTreeMap;

use anyhow::Result;
use common::schema::State;
use e2e::Api;

use super::{Class, Finding, rows::Moment};
use crate::model::{Object, Rules};

const CHECK: &str = "api";

/// What an instance lists.
#[derive(Debug)]
pub struct Listed {
    /// The instance.
    pub instance: String,
    /// All objects, by id.
    pub objects: BTreeMap<String, State>,
}

/// All objects as this instance lists them, page by page.
///
/// # Errors
/// It does not answer.
pub async fn list(instance: &str, api: &Api) -> Result<Listed> {
    let mut objects = BTreeMap::new();
    let mut query = String::new();
    loop {
        let page = api.list(&query).await?;
        let named = page.objects.into_iter().map(|o| (o.object_id.clone(), o));
        objects.extend(named);
        match page.next {
            Some(next) => query = format!("?after={next}"),
            None => break,
        }
    }
    Ok(Listed {
        instance: instance.to_owned(),
        objects,
    })
}

/// Compares a list with the model's objects. `later` holds the states that were published while it was made.
pub fn check(
    rules: &Rules,
    listed: &Listed,
    objects: &BTreeMap<&str, &Object>,
    later: &BTreeMap<String, Vec<Option<State>>>,
    skip: &dyn Fn(&str) -> bool,
    moment: Moment,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let finding = |id: &str, class, what: String| {
        let what = format!("instance {} lists {id}: {what}", listed.instance);
        Finding::new(class, CHECK, what)
    };
    for (id, object) in objects {
        let since = later.get(*id).map_or(&[][..], Vec::as_slice);
        match listed.objects.get(*id) {
            None if since.contains(&None) => {}
            None => findings.push(finding(id, Class::Lost, "not at all".to_owned())),
            Some(state) => {
                let fits = is_published(object, state)
                    || since.iter().flatten().any(|later| same(later, state));
                if !fits {
                    let what = format!("as {state:?}, by the model {:?}", object.published());
                    findings.push(finding(id, Class::Wrong, what));
                } else if let Some(what) = votes_differ(rules, object, state, moment) {
                    findings.push(finding(id, Class::Wrong, what));
                }
            }
        }
    }
    for id in listed.objects.keys() {
        let known = objects.contains_key(id.as_str()) || later.contains_key(id) || skip(id);
        if !known {
            let what = "by the model it does not exist".to_owned();
            findings.push(finding(id, Class::Wrong, what));
        }
    }
    findings
}

/// The same but for the votes: an answer shows those of now, a published state those of the transition.
fn same(published: &State, answered: &State) -> bool {
    let votes = answered.votes.clone();
    State {
        votes,
        ..published.clone()
    } == *answered
}

fn is_published(object: &Object, state: &State) -> bool {
    let found = (
        state.verdict.as_str(),
        state.previous_verdict.as_deref(),
        state.basis,
        state.cause,
        state.since_ms,
        state.version,
    );
    let published = object.published().map(|p| {
        (
            p.verdict, p.previous, p.basis, p.cause, p.since_ms, p.version,
        )
    });
    published == Some(found) && state.override_.as_ref() == object.override_()
}

/// Every vote that is fresh is shown, and none that expired a while ago or that nobody cast.
fn votes_differ(rules: &Rules, object: &Object, state: &State, moment: Moment) -> Option<String> {
    let must = object.fresh(rules, moment.until_ms);
    let may = object.fresh(rules, moment.past_ms);
    let missing = must.iter().find(|vote| !state.votes.contains(vote));
    let stray = state.votes.iter().find(|vote| !may.contains(vote));
    match (missing, stray) {
        (None, None) => None,
        (Some(vote), _) => Some(format!("without the fresh vote {vote:?}")),
        (_, Some(vote)) => Some(format!("with {vote:?}, which is not a vote of now")),
    }
}
