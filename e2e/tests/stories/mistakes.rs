//! What operators do by mistake: it is found, named, and harms nothing.

use anyhow::{Context as _, Result, ensure};
use common::schema::SiteAttackVerdict::Clear;
use e2e::{PATIENCE, eventually, story, until};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewPartitions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
};

use crate::report;

const SITE: &str = "shop.example.com";

#[tokio::test(flavor = "multi_thread")]
async fn a_source_topic_that_grows_ends_the_instance_with_the_reason() -> Result<()> {
    story("grown", async |app| {
        let mut service = app.state_service("a", &[("quorum", "1"), ("partitions", "2")])?;
        service.ready().await?;
        let topics = app.topics()?;
        topics.report(&report(SITE, "waf-1", Clear, 1)).await?;
        let api = service.api().await?;
        let look = async || Ok(api.get(SITE).await?.map(|s| s.verdict));
        until("the report counts", PATIENCE, look, |v| {
            v.as_deref() == Some("CLEAR")
        })
        .await?;

        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", app.bootstrap())
            .create()?;
        let grown = NewPartitions::new(&topics.names().reports, 3);
        admin
            .create_partitions([&grown], &AdminOptions::new())
            .await?;
        let code = eventually("it has ended", PATIENCE * 2, async || {
            service.ended()?.context("it runs")
        })
        .await?;
        ensure!(code == 1, "exit code {code}");
        let log = service.log().text();
        ensure!(log.contains("has 3 partitions now"), "{log}");

        // Started again, it refuses: keys would be looked for on the wrong partition.
        service.restart().await?;
        let code = eventually("it has ended", PATIENCE, async || {
            service.ended()?.context("it runs")
        })
        .await?;
        ensure!(code == 1, "exit code {code}");
        let log = service.log().text();
        ensure!(log.contains("has 2 partitions and must have 3"), "{log}");
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
        let look = async || Ok(api.get(SITE).await?.map(|s| s.verdict));
        until("the report counts", PATIENCE, look, |v| {
            v.as_deref() == Some("CLEAR")
        })
        .await?;
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
        let listed = async |api: &e2e::Api| Ok(api.list("").await?.objects.len());
        let api = service.api().await?;
        until("all count", PATIENCE, || listed(&api), |n| *n == 20).await?;

        let state = app.folder().join("a.state").display().to_string();
        let reset = async |more: &[&str]| {
            let mut command = tokio::process::Command::new(e2e::binary("state-service")?);
            command
                .args(["reset", "--bootstrap-servers", app.bootstrap()])
                .args(["--application-id", app.id(), "--state-dir", &state])
                .args(more);
            let output = command.output().await?;
            let both = [output.stdout, output.stderr].concat();
            anyhow::Ok((
                output.status.code(),
                String::from_utf8_lossy(&both).into_owned(),
            ))
        };
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
