//! The story, scene by scene. Each step is a check; the first that is not seen ends the story.

use anyhow::{Result, ensure};
use common::schema::{Basis, State, UNDETERMINED};
use devkit::mail::Message;

use super::cast::{AGENTS, BLOG, Cast, SHOP, SITES};
use super::narrator::{Narrator, seconds};
use super::takeover;
use crate::api::{Api, Set};
use crate::{Application, PATIENCE, eventually, until};

pub(super) const CLEAR: &str = "CLEAR";
pub(super) const UNDER_ATTACK: &str = "UNDER_ATTACK";

/// Tells all of it.
///
/// # Errors
/// The step that was not seen.
pub(super) async fn tell(
    app: &Application,
    cast: &mut Cast,
    narrator: &mut Narrator,
) -> Result<()> {
    let what = "two instances and the notifier are ready";
    narrator.step(what, cast.enter(app)).await?;
    for service in cast.instances() {
        narrator.note(&format!(
            "instance {}  {}",
            service.name(),
            service.url().await?
        ));
    }
    reports_flow(app, cast, narrator).await?;
    the_attack(app, cast, narrator).await?;
    mail(cast, narrator, "The mail arrives", UNDER_ATTACK).await?;
    any_instance(cast, narrator).await?;
    an_override(cast, narrator).await?;
    let dead = takeover::the_owner_dies(cast, narrator).await?;
    the_attack_ends(app, cast, narrator, &dead).await?;
    mail(cast, narrator, "The second mail arrives", CLEAR).await?;
    nothing_else(app, cast, narrator).await?;
    takeover::the_dead_come_back(cast, narrator, &dead).await
}

async fn reports_flow(app: &Application, cast: &mut Cast, narrator: &mut Narrator) -> Result<()> {
    narrator.chapter(&format!("{AGENTS} agents report on {} sites", SITES.len()));
    cast.agents_see(app, None).await?;
    let apis = cast.apis().await?;
    let both = narrator.step(
        "both instances process reports",
        until(
            "both instances process reports",
            PATIENCE,
            async || counts(&apis).await,
            |counts| counts.iter().all(|count| *count > 20.0),
        ),
    );
    let counts = both.await?;
    narrator.note(&format!(
        "a: {} records, b: {} records",
        counts[0], counts[1]
    ));
    let quiet = async || {
        for site in SITES {
            let state = apis[0].state(site).await?;
            ensure!(state.verdict == CLEAR, "{site} is {}", state.verdict);
        }
        Ok(())
    };
    let what = "every site is CLEAR";
    narrator.step(what, eventually(what, PATIENCE, quiet)).await
}

async fn counts(apis: &[Api; 2]) -> Result<[f64; 2]> {
    let processed = async |api: &Api| {
        let metrics = api.metrics().await?;
        anyhow::Ok(metrics.sum("records_processed_total", &[]))
    };
    Ok([processed(&apis[0]).await?, processed(&apis[1]).await?])
}

async fn the_attack(app: &Application, cast: &mut Cast, narrator: &mut Narrator) -> Result<()> {
    narrator.chapter(&format!("A wave of requests hits {SHOP}"));
    cast.agents_see(app, Some(SHOP)).await?;
    let [a, _] = cast.apis().await?;
    let state = turns(&a, narrator, UNDER_ATTACK).await?;
    narrator.note(&votes(&state));
    Ok(())
}

/// The shop's state becomes `verdict` by vote.
async fn turns(api: &Api, narrator: &Narrator, verdict: &str) -> Result<State> {
    let what = format!("the vote turns: {SHOP} is {verdict}");
    let look = async || api.state(SHOP).await;
    let wanted = |state: &State| state.verdict == verdict && state.basis == Basis::Votes;
    narrator
        .step(&what, until(&what, PATIENCE, look, wanted))
        .await
}

fn votes(state: &State) -> String {
    let votes = state.votes.iter();
    let votes: Vec<_> = votes
        .map(|v| format!("{} {}", v.agent_id, v.verdict))
        .collect();
    format!("version {}: {}", state.version, votes.join(", "))
}

async fn mail(cast: &Cast, narrator: &mut Narrator, title: &str, verdict: &str) -> Result<()> {
    narrator.chapter(title);
    let what = format!("a mail says that {SHOP} is {verdict}");
    let begin = format!("{SHOP} is {verdict}");
    let wanted = |mail: &Message| mail.subject().contains(&begin);
    let mail = narrator
        .step(&what, cast.mail.wait_for(wanted, PATIENCE))
        .await?;
    narrator.note(&format!("Subject: {}", narrator.strong(mail.subject())));
    narrator.note(&format!("To:      {}", mail.to.join(", ")));
    Ok(())
}

async fn any_instance(cast: &Cast, narrator: &mut Narrator) -> Result<()> {
    narrator.chapter("Any instance answers for any site");
    let apis = cast.apis().await?;
    let same =
        async { takeover::goes_on(&apis[0].state(SHOP).await?, &apis[1].state(SHOP).await?) };
    let what = format!("GET /v1/objects/{SHOP} is the same at a and at b");
    narrator.step(&what, same).await?;
    let owner = async {
        let (a, b) = (apis[0].cluster().await?, apis[1].cluster().await?);
        let owner = a.owner_of(SHOP).map(str::to_owned);
        ensure!(a.tasks == b.tasks, "a: {a:?}, b: {b:?}");
        Ok((a.partition_of(SHOP), owner))
    };
    let what = "both know who owns what";
    let (partition, owner) = narrator.step(what, owner).await?;
    let owner = narrator.strong(owner.as_deref().unwrap_or("nobody"));
    narrator.note(&format!(
        "{SHOP} is on partition {partition}, at instance {owner}"
    ));
    Ok(())
}

async fn an_override(cast: &Cast, narrator: &mut Narrator) -> Result<()> {
    narrator.chapter(&format!("An operator overrides the vote on {BLOG}"));
    let apis = cast.apis().await?;
    let set = Set {
        verdict: UNDER_ATTACK,
        operator: Some("demo"),
        note: Some("a drill"),
        expires_in: Some("10m"),
    };
    let what = format!("PUT {UNDER_ATTACK} at b is applied");
    narrator.step(&what, apis[1].set(BLOG, &set)).await?;
    let what = format!("both instances say {UNDER_ATTACK}, by override of demo");
    let seen = both_say(&apis, UNDER_ATTACK, Basis::Override);
    narrator.step(&what, seen).await?;
    let what = "DELETE of the override at a is applied";
    narrator.step(what, apis[0].clear(BLOG)).await?;
    let what = format!("both instances say {CLEAR}, by vote");
    narrator
        .step(&what, both_say(&apis, CLEAR, Basis::Votes))
        .await
}

/// What was applied can be read everywhere at once: nothing is waited for.
async fn both_say(apis: &[Api; 2], verdict: &str, basis: Basis) -> Result<()> {
    for api in apis {
        let state = api.state(BLOG).await?;
        let said = state.verdict == verdict && state.basis == basis;
        ensure!(said, "{} says {state:?}", api.url());
    }
    Ok(())
}

async fn the_attack_ends(
    app: &Application,
    cast: &mut Cast,
    narrator: &mut Narrator,
    dead: &str,
) -> Result<()> {
    narrator.chapter("The wave ends");
    cast.agents_see(app, None).await?;
    let survivor = takeover::survivor(cast, dead).await?;
    let state = turns(&survivor, narrator, CLEAR).await?;
    narrator.note(&votes(&state));
    let lasted = state.since_ms - takeover::attack_since(app).await?;
    let lasted = std::time::Duration::from_millis(u64::try_from(lasted)?);
    narrator.note(&format!("it was under attack for {}", seconds(lasted)));
    Ok(())
}

/// The states of the shop are one line of versions, and each change was mailed once, in spite of the kill.
async fn nothing_else(app: &Application, cast: &Cast, narrator: &mut Narrator) -> Result<()> {
    narrator.chapter("Nothing was lost, and nothing happened twice");
    let topics = app.topics()?;
    let once = async {
        let states = topics.states_of(SHOP).await?;
        let states: Vec<_> = states.into_iter().flatten().collect();
        let versions: Vec<_> = states.iter().map(|s| s.version).collect();
        ensure!(versions == (1..=4).collect::<Vec<_>>(), "{states:#?}");
        let verdicts: Vec<_> = states.iter().map(|s| s.verdict.clone()).collect();
        ensure!(
            verdicts == [UNDETERMINED, CLEAR, UNDER_ATTACK, CLEAR],
            "{states:#?}"
        );
        Ok(verdicts)
    };
    let what = format!("the topic of states has each version of {SHOP} once");
    let verdicts = narrator.step(&what, once).await?;
    narrator.note(&verdicts.join(" → "));
    let mailed = async {
        let mut last = std::collections::BTreeMap::new();
        for record in topics.read(&topics.names().states).await? {
            last.insert(record.partition, record.offset);
        }
        let group = format!("{}.notifier", app.id());
        let look = async || topics.committed(&group, &topics.names().states).await;
        let done = "the notifier has committed every state";
        until(done, PATIENCE, look, |at| {
            let mut last = last.iter();
            last.all(|(partition, offset)| at.get(partition) > Some(offset))
        })
        .await?;
        let mails = cast.mail.messages();
        let about = |mail: &&Message| mail.subject().contains(SHOP);
        let subjects: Vec<_> = mails.iter().filter(about).map(Message::subject).collect();
        ensure!(subjects.len() == 2, "{subjects:#?}");
        Ok(mails.len())
    };
    let what = format!("the notifier is done: exactly two mails about {SHOP}");
    let all = narrator.step(&what, mailed).await?;
    narrator.note(&format!(
        "{all} mails in all; the others are about the override on {BLOG}"
    ));
    Ok(())
}
