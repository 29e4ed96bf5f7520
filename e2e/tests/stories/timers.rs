//! Timers fire once per arming, whoever has the partition when they are due.

use std::time::Duration;

use anyhow::{Result, ensure};
use common::schema::{
    Cause,
    SiteAttackVerdict::{Clear, UnderAttack},
    Verdict as _,
};
use e2e::{Api, Application, PATIENCE, story, until};
use reqwest::Method;
use serde_json::json;

use crate::cluster::{shared, two};
use crate::report;

const SITES: usize = 40;
/// The first override ends so long after it is ordered, and each of the others this much later than the one before.
const FIRST: Duration = Duration::from_secs(2);
const STEP: Duration = Duration::from_millis(100);

fn site(number: usize) -> String {
    format!("site-{number:04}.example.com")
}

/// Orders an override of every site that ends soon, one after the other. None is waited for: that would take longer.
async fn arm(api: &Api) -> Result<()> {
    for (number, later) in (0..SITES).zip(0u32..) {
        let ends = FIRST + STEP * later;
        let body = json!({
            "verdict": UnderAttack.name(),
            "expires_in": format!("{}ms", ends.as_millis()),
        });
        let path = format!("/v1/objects/{}", site(number));
        let answer = api.request(Method::PUT, &path, Some(&body)).await?;
        ensure!(answer.status.is_success(), "{answer:?}");
    }
    Ok(())
}

/// How many overrides are over: each is two more transitions.
async fn over(api: &Api, version: i64) -> Result<usize> {
    let objects = api.list("").await?.objects;
    Ok(objects.iter().filter(|o| o.version == version).count())
}

/// Waits until some overrides are over. Others must not be: they are due while the partitions move.
async fn some_are_over(api: &Api, version: i64) -> Result<()> {
    let what = "some overrides are over";
    let over = until(
        what,
        PATIENCE,
        async || over(api, version).await,
        |n| *n > 0,
    )
    .await?;
    ensure!(over < SITES, "too slow: all overrides are over");
    Ok(())
}

async fn all_are_over(api: &Api, version: i64) -> Result<()> {
    let what = "all overrides are over";
    until(
        what,
        PATIENCE,
        async || over(api, version).await,
        |n| *n == SITES,
    )
    .await?;
    Ok(())
}

/// The causes of all transitions of each site, in their order.
async fn causes_are(app: &Application, expected: &[Cause]) -> Result<()> {
    let topics = app.topics()?;
    let states = topics.states().await?;
    for number in 0..SITES {
        let id = site(number);
        let of_site = states.iter().filter(|(record, _)| record.key_text() == id);
        let causes: Vec<_> = of_site.map(|(_, s)| s.as_ref().map(|s| s.cause)).collect();
        let same = causes
            .iter()
            .copied()
            .eq(expected.iter().copied().map(Some));
        ensure!(same, "{id}: {causes:?}, not {expected:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_fires_once_per_arming_through_a_crash_and_a_move() -> Result<()> {
    story("timers", async |app| {
        let (mut a, mut b) = two(app).await?;
        let topics = app.topics()?;
        for number in 0..SITES {
            let report = report(&site(number), "waf-1", Clear, 1);
            topics.report(&report).await?;
        }
        let api = b.api().await?;
        let applied = async || over(&api, 1).await;
        until("every site is clear", PATIENCE, applied, |n| *n == SITES).await?;

        // A crash in the midst of the expiries.
        arm(&api).await?;
        some_are_over(&api, 3).await?;
        a.kill().await?;
        all_are_over(&api, 3).await?;
        let mut expected = vec![Cause::Vote, Cause::Override, Cause::Expiry];
        causes_are(app, &expected).await?;

        // Partitions that move in order, there and back.
        arm(&api).await?;
        some_are_over(&api, 5).await?;
        a.restart().await?;
        a.ready().await?;
        all_are_over(&api, 5).await?;
        expected.extend([Cause::Override, Cause::Expiry]);
        causes_are(app, &expected).await?;
        shared(&api, &[("a", 4), ("b", 4)]).await?;
        arm(&api).await?;
        some_are_over(&api, 7).await?;
        ensure!(b.terminate().await? == 0, "{}", b.end_of_log());
        let api = a.api().await?;
        all_are_over(&api, 7).await?;
        expected.extend([Cause::Override, Cause::Expiry]);
        causes_are(app, &expected).await
    })
    .await
}
