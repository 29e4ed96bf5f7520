//! What operators do by mistake: it is found, named, and harms nothing.

use anyhow::{Context as _, Result, ensure};
use common::schema::SiteAttackVerdict::{self, Clear, UnderAttack};
use e2e::{Api, Application, PATIENCE, Service, Topics, eventually, story, until};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewPartitions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
};

use crate::report;

const SITE: &str = "shop.example.com";

/// Waits for its end, with exit code 1 and this in its log.
async fn ends_saying(service: &mut Service, why: &str) -> Result<()> {
    let ended = async || service.ended()?.context("it runs");
    let code = eventually("it has ended", PATIENCE * 2, ended).await?;
    ensure!(code == 1, "exit code {code}");
    let log = service.log().text();
    ensure!(log.contains(why), "{log}");
    Ok(())
}

/// Waits until the site is found clear.
async fn is_clear(api: &Api) -> Result<()> {
    let look = async || Ok(api.get(SITE).await?.map(|s| s.verdict));
    let is_clear = |verdict: &Option<String>| verdict.as_deref() == Some("CLEAR");
    until("the report counts", PATIENCE, look, is_clear).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_topic_that_grows_ends_the_instance_with_the_reason() -> Result<()> {
    story("grown", async |app| {
        let mut service = app.state_service("a", &[("quorum", "1"), ("partitions", "2")])?;
        service.ready().await?;
        let topics = app.topics()?;
        topics.report(&report(SITE, "waf-1", Clear, 1)).await?;
        let api = service.api().await?;
        is_clear(&api).await?;

        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", app.bootstrap())
            .create()?;
        let grown = NewPartitions::new(&topics.names().reports, 3);
        admin
            .create_partitions([&grown], &AdminOptions::new())
            .await?;
        ends_saying(&mut service, "has 3 partitions now").await?;

        // Started again, it refuses: keys would be looked for on the wrong partition.
        service.restart().await?;
        ends_saying(&mut service, "has 2 partitions and must have 3").await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_in_the_group_is_named() -> Result<()> {
    story("stranger", async |app| {
        let service = app.state_service("a", &[("quorum", "1")])?;
        service.ready().await?;
        let stranger: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", app.bootstrap())
            .set("group.id", app.id())
            .set("client.id", "somebody-else")
            .create()?;
        stranger.subscribe(&[&app.names().reports])?;
        let api = service.api().await?;
        let look = async || {
            // Whoever does not poll is put out of its group.
            drop(stranger.poll(std::time::Duration::ZERO));
            Ok(api.cluster().await?.strangers)
        };
        until("the stranger is named", PATIENCE * 2, look, |strangers| {
            strangers.iter().any(|name| name.contains("somebody-else"))
        })
        .await?;
        let errors = service.log().lines_with("has joined the group");
        ensure!(errors.len() == 1, "said once: {errors:?}");
        // It goes on all the same.
        app.topics()?
            .report(&report(SITE, "waf-1", Clear, 1))
            .await?;
        is_clear(&api).await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_waits_for_its_order_and_for_everybody_to_leave() -> Result<()> {
    story("reset", async |app| {
        let mut service = app.state_service("a", &[("quorum", "1")])?;
        service.ready().await?;
        let topics = app.topics()?;
        for i in 0..20 {
            let site = format!("site-{i:04}.example.com");
            topics.report(&report(&site, "waf-1", Clear, 1)).await?;
        }
        let listed = async |api: &Api| Ok(api.list("").await?.objects.len());
        let api = service.api().await?;
        until("all count", PATIENCE, || listed(&api), |n| *n == 20).await?;

        let reset = async |more: &[&str]| reset(app, "a", more).await;
        let (code, said) = reset(&["--execute"]).await?;
        ensure!(code == Some(1) && said.contains("a still runs"), "{said}");
        ensure!(service.terminate().await? == 0, "{}", service.end_of_log());

        let (code, said) = reset(&[]).await?;
        ensure!(
            code == Some(0) && said.contains("nothing was changed"),
            "{said}"
        );
        service.restart().await?;
        service.ready().await?;
        let again = service.metrics().await?.sum("records_processed_total", &[]);
        ensure!(again < 0.5, "{again} reports were processed again");
        ensure!(service.terminate().await? == 0, "{}", service.end_of_log());

        let (code, said) = reset(&["--execute"]).await?;
        ensure!(code == Some(0) && said.contains("done"), "{said}");
        let (_, said) = reset(&[]).await?;
        ensure!(
            said.contains("a.state/"),
            "the instance keeps its name: {said}"
        );
        service.restart().await?;
        service.ready().await?;
        let api = service.api().await?;
        until("all count", PATIENCE, || listed(&api), |n| *n == 20).await?;
        let again = service.metrics().await?.sum("records_processed_total", &[]);
        ensure!((again - 20.0).abs() < 0.5, "{again} reports were processed");
        Ok(())
    })
    .await
}

/// `state-service reset` beside the stores of an instance: its exit code, and what it says.
async fn reset(app: &Application, name: &str, more: &[&str]) -> Result<(Option<i32>, String)> {
    let mut command = tokio::process::Command::new(e2e::binary("state-service")?);
    command
        .args(["reset", "--bootstrap-servers", app.bootstrap()])
        .args(["--application-id", app.id(), "--state-dir"])
        .arg(app.state_dir(name))
        .args(more);
    let output = command.output().await?;
    let both = [output.stdout, output.stderr].concat();
    Ok((
        output.status.code(),
        String::from_utf8_lossy(&both).into_owned(),
    ))
}

/// The sites of a story.
fn sites() -> impl Iterator<Item = String> {
    (0..20).map(|i| format!("site-{i:04}.example.com"))
}

/// Waits until all are at this version.
async fn all_at_version(api: &Api, version: i64) -> Result<()> {
    let look = async || {
        let objects = api.list("").await?.objects;
        Ok(objects.iter().filter(|o| o.version == version).count())
    };
    until("all are at one version", PATIENCE, look, |n| *n == 20).await?;
    Ok(())
}

async fn all_report(topics: &Topics, verdict: SiteAttackVerdict, sequence: i64) -> Result<()> {
    for site in sites() {
        topics
            .report(&report(&site, "waf-1", verdict, sequence))
            .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_frozen_during_a_reset_ends_and_comes_back_from_nothing() -> Result<()> {
    story("frozen", async |app| {
        let flags = [("quorum", "1"), ("freshness", "1h")];
        let mut frozen = app.state_service("a", &flags)?;
        frozen.ready().await?;
        let topics = app.topics()?;
        all_report(&topics, Clear, 1).await?;
        let api = frozen.api().await?;
        all_at_version(&api, 1).await?;
        frozen.pause()?;
        let (code, said) = reset(app, "b", &["--execute"]).await?;
        ensure!(code == Some(0) && said.contains("done"), "{said}");

        let other = app.state_service("b", &flags)?;
        other.ready().await?;
        let api = other.api().await?;
        all_at_version(&api, 1).await?;
        frozen.resume()?;
        all_report(&topics, UnderAttack, 2).await?;
        ends_saying(&mut frozen, "has been reset").await?;
        all_at_version(&api, 2).await?;

        // Its stores are of a changelog that is gone: it takes its share from nothing.
        frozen.restart().await?;
        frozen.ready().await?;
        let look = async || api.cluster().await;
        until("it has its share", PATIENCE, look, |c| {
            c.running_at("a") > 0 && c.running_at("b") > 0
        })
        .await?;
        all_report(&topics, Clear, 3).await?;
        all_at_version(&api, 3).await?;
        for site in sites() {
            let states = topics.states_of(&site).await?.into_iter();
            let versions: Vec<i64> = states.flatten().map(|s| s.version).collect();
            ensure!(versions == [1, 1, 2, 3], "{site}: {versions:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_refuses_what_must_be_written_ends_the_instance_with_the_reason() -> Result<()>
{
    story("refused", async |app| {
        let mut service = app.state_service("a", &[("quorum", "1")])?;
        service.ready().await?;
        let topics = app.topics()?;
        let states = topics.names().states.clone();
        let compact = ("cleanup.policy", "compact");
        topics
            .configure(&states, &[compact, ("max.message.bytes", "100")])
            .await?;
        topics.report(&report(SITE, "waf-1", Clear, 1)).await?;
        ends_saying(&mut service, "5 times in a row").await?;

        // Started again, it looks first.
        service.restart().await?;
        ends_saying(&mut service, "max.message.bytes=100").await?;

        topics
            .configure(&states, &[compact, ("max.message.bytes", "8388608")])
            .await?;
        service.restart().await?;
        service.ready().await?;
        let api = service.api().await?;
        is_clear(&api).await?;
        Ok(())
    })
    .await
}
