//! After the story: where everything is, and what to try.

use anyhow::Result;

use super::cast::{BLOG, Cast, SHOP};
use super::narrator::Narrator;
use crate::{Application, binary};

/// Prints addresses and commands. Everything keeps running.
pub(super) async fn invite(app: &Application, cast: &Cast, narrator: &Narrator) -> Result<()> {
    println!("\n{}", narrator.strong("Everything keeps running:"));
    for service in cast.instances() {
        let pid = service.pid().unwrap_or_default();
        let (name, url) = (service.name(), service.url().await?);
        narrator.note(&format!("instance {name}  {url}  (process {pid})"));
    }
    narrator.note(&format!("notifier    {}", cast.notifier()?.url().await?));
    narrator.note(&format!("Kafka       {}", app.bootstrap()));
    narrator.note(&format!("registry    {}", app.registry_url()));
    narrator.note(&format!("mails       {}", cast.mail.folder().display()));
    narrator.note(&format!("logs        {}", app.folder().display()));

    let [a, b] = cast.apis().await?;
    let (a, b) = (a.url(), b.url());
    let (id, kafka, registry) = (app.id(), app.bootstrap(), app.registry_url());
    let agent_sim = binary("agent-sim")?;
    let agent_sim = agent_sim.display();
    let kill = cast.instances().first().and_then(crate::Service::pid);
    println!("\n{}", narrator.strong("Try:"));
    for (why, command) in [
        (
            "the state of a site",
            format!("curl -s {a}/v1/objects/{SHOP}"),
        ),
        (
            "who said what",
            format!("curl -s {b}/v1/objects/{SHOP}/reports"),
        ),
        ("all sites", format!("curl -s {a}/v1/objects")),
        (
            "who owns which partition",
            format!("curl -s {a}/v1/cluster"),
        ),
        (
            "override the vote, and a mail comes",
            format!(
                "curl -s -X PUT '{b}/v1/objects/{BLOG}?wait=5s' -H 'content-type: application/json' \
                 -d '{{\"verdict\":\"UNDER_ATTACK\",\"operator\":\"me\",\"expires_in\":\"1m\"}}'"
            ),
        ),
        (
            "give it back to the vote",
            format!("curl -s -X DELETE '{a}/v1/objects/{BLOG}/override?wait=5s'"),
        ),
        (
            "another site under attack, until Ctrl-C",
            format!(
                "{agent_sim} simulate --attack bank.example.com --only-attack --application-id {id} \
                 --bootstrap-servers {kafka} --schema-registry-url {registry}"
            ),
        ),
        (
            "kill an instance; the other goes on",
            format!("kill -9 {}", kill.unwrap_or_default()),
        ),
    ] {
        narrator.note(&format!("# {why}"));
        narrator.note(&command);
    }
    println!("\n{}", narrator.strong("Ctrl-C stops all of it."));
    Ok(())
}
