//! Instances share the partitions, take over from each other, and lose nothing.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use common::schema::{
    SiteAttackVerdict::{Clear, UnderAttack},
    State,
};
use e2e::{
    Api, Application, PATIENCE, Service,
    api::{Cluster, Page},
    story, until,
};

use crate::report;

pub(crate) const FLAGS: [(&str, &str); 2] = [("quorum", "1"), ("freshness", "1h")];

/// Two instances that share eight partitions.
pub(crate) async fn two(app: &Application) -> Result<(Service, Service)> {
    let a = app.state_service("a", &FLAGS)?;
    a.ready().await?;
    let b = app.state_service("b", &FLAGS)?;
    b.ready().await?;
    shared(&b.api().await?, &[("a", 4), ("b", 4)]).await?;
    Ok((a, b))
}

/// Waits until the instances process so many partitions each.
pub(crate) async fn shared(api: &Api, shares: &[(&str, usize)]) -> Result<Cluster> {
    let look = async || api.cluster().await;
    until(
        "the partitions are shared",
        PATIENCE,
        look,
        |cluster: &Cluster| {
            shares
                .iter()
                .all(|(instance, share)| cluster.running_at(instance) == *share)
        },
    )
    .await
}

/// Writes `count` objects, each one report; returns their ids.
async fn fill(app: &Application, count: usize, sequence: i64) -> Result<Vec<String>> {
    let topics = app.topics()?;
    let ids: Vec<String> = (0..count)
        .map(|i| format!("site-{i:04}.example.com"))
        .collect();
    for (i, id) in ids.iter().enumerate() {
        let verdict = if i % 2 == 0 { Clear } else { UnderAttack };
        topics
            .report(&report(id, "waf-1", verdict, sequence))
            .await?;
    }
    Ok(ids)
}

/// All objects as this instance lists them, once there are `count` with reports of `sequence`.
async fn listed(api: &Api, count: usize) -> Result<BTreeMap<String, State>> {
    let look = async || Ok(api.list("").await?.objects);
    let objects = until("every object is listed", PATIENCE, look, |o| {
        o.len() == count
    })
    .await?;
    Ok(objects
        .into_iter()
        .map(|o| (o.object_id.clone(), o))
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn any_instance_answers_for_any_object() -> Result<()> {
    story("any", async |app| {
        let (a, b) = two(app).await?;
        let (a, b) = (a.api().await?, b.api().await?);
        let ids = fill(app, 40, 1).await?;
        let objects = listed(&a, ids.len()).await?;
        ensure!(
            objects == listed(&b, ids.len()).await?,
            "both list the same"
        );
        for id in &ids {
            ensure!(a.state(id).await? == b.state(id).await?, "{id}");
            ensure!(a.reports(id).await? == b.reports(id).await?, "{id}");
        }
        let page = a.list("?limit=15").await?;
        ensure!(page.objects.len() == 15);
        let next = page.next.context("there are more")?;
        let rest = b.list(&format!("?limit=100&after={next}")).await?;
        ensure!(rest.objects.len() == 25 && rest.next.is_none());
        let attacked = b.list("?verdict=UNDER_ATTACK").await?;
        ensure!(attacked.objects.len() == 20);
        Ok(())
    })
    .await
}

/// An instance that does not have what another expects of it must not answer as if that were all.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_list_is_whole_or_refused() -> Result<()> {
    story("parts", async |app| {
        let (a, _b) = two(app).await?;
        let api = a.api().await?;
        let ids = fill(app, 40, 1).await?;
        listed(&api, ids.len()).await?;
        let cluster = api.cluster().await?;
        let of = |owner: &str| -> Vec<u32> {
            let tasks = cluster.tasks.iter();
            let owned = tasks.filter(|task| task.owner.as_deref() == Some(owner));
            owned.map(|task| task.partition).collect()
        };
        let ask = async |partitions: &[u32]| {
            let listed: Vec<String> = partitions.iter().map(u32::to_string).collect();
            let request = reqwest::Client::new()
                .get(format!("{}/v1/objects", api.url()))
                .header("x-shared-state-hop", "1")
                .header("x-shared-state-partitions", listed.join(","));
            let answer = request.send().await?;
            let status = answer.status().as_u16();
            anyhow::Ok((status, answer.text().await?))
        };
        let (mine, theirs) = (of("a"), of("b"));
        let (status, body) = ask(&mine[..2]).await?;
        let page: Page = serde_json::from_str(&body)?;
        let known = page
            .objects
            .iter()
            .map(|o| cluster.partition_of(&o.object_id));
        let known: BTreeSet<u32> = known.collect();
        ensure!(status == 200 && known == mine[..2].iter().copied().collect());
        let (status, body) = ask(&[mine[0], theirs[0]]).await?;
        ensure!(status == 503, "{status}: {body}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_moves_the_partitions_with_their_state() -> Result<()> {
    story("kill", async |app| {
        let (mut a, b) = two(app).await?;
        let api = b.api().await?;
        let ids = fill(app, 60, 1).await?;
        let before = listed(&api, ids.len()).await?;
        a.kill().await?;
        // Asked at once: the answer waits for the new owner.
        let first = api.state(&ids[0]).await?;
        ensure!(Some(&first) == before.get(&ids[0]), "{first:?}");
        shared(&api, &[("b", 8)]).await?;
        ensure!(
            listed(&api, ids.len()).await? == before,
            "the same states as before"
        );
        // And it goes on: every object can change.
        fill_other_way(app, &ids).await?;
        let changed = async || {
            let objects = api.list("").await?.objects;
            Ok(objects.iter().filter(|o| o.version == 2).count())
        };
        until(
            "every object has changed once more",
            PATIENCE,
            changed,
            |n| *n == ids.len(),
        )
        .await?;
        exactly_two_states_each(app, &ids).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_stop_moves_the_partitions_at_once() -> Result<()> {
    story("leave", async |app| {
        let (a, mut b) = two(app).await?;
        let api = a.api().await?;
        let ids = fill(app, 60, 1).await?;
        let before = listed(&api, ids.len()).await?;
        let code = b.terminate().await?;
        ensure!(code == 0, "exit code {code}\n{}", b.end_of_log());
        shared(&api, &[("a", 8)]).await?;
        ensure!(
            listed(&api, ids.len()).await? == before,
            "the same states as before"
        );
        let fences = a.log().lines_with("fenced");
        ensure!(
            fences.is_empty(),
            "who has closed in order is not fenced: {fences:?}"
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_restores_only_the_delta() -> Result<()> {
    story("delta", async |app| {
        let mut a = app.state_service("a", &FLAGS)?;
        a.ready().await?;
        let ids = fill(app, 80, 1).await?;
        let before = listed(&a.api().await?, ids.len()).await?;
        ensure!(a.terminate().await? == 0, "{}", a.end_of_log());

        // Another instance, with no state of its own, restores everything.
        let mut b = app.state_service("b", &FLAGS)?;
        b.ready().await?;
        let read = b.metrics().await?.changelog_records_read();
        ensure!(read >= 80.0, "{read} records for 80 objects");
        // Written while a is away: one row each.
        let topics = app.topics()?;
        for id in &ids[..10] {
            topics.report(&report(id, "waf-2", Clear, 1)).await?;
        }
        let api = b.api().await?;
        let look = async || {
            let mut heard = 0;
            for id in &ids[..10] {
                heard += usize::from(api.reports(id).await?.len() == 2);
            }
            Ok(heard)
        };
        until("the reports have been heard", PATIENCE, look, |n| *n == 10).await?;
        b.kill().await?;

        a.restart().await?;
        a.ready().await?;
        let read = a.metrics().await?.changelog_records_read();
        ensure!(
            (read - 10.0).abs() < 0.5,
            "{read} records read, not the delta of 10"
        );
        let after = listed(&a.api().await?, ids.len()).await?;
        ensure!(ids[10..].iter().all(|id| after.get(id) == before.get(id)));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_while_instances_come_and_go() -> Result<()> {
    story("churn", async |app| {
        let (mut a, mut b) = two(app).await?;
        let ids: Vec<String> = (0..30)
            .map(|i| format!("site-{i:04}.example.com"))
            .collect();
        let topics = app.topics()?;
        let mut rounds = 0;
        for round in 1..=12 {
            let verdict = if round % 2 == 0 { Clear } else { UnderAttack };
            for id in &ids {
                topics.report(&report(id, "waf-1", verdict, round)).await?;
            }
            rounds = round;
            match round {
                3 => a.kill().await?,
                5 => a.restart().await?,
                7 => {
                    a.ready().await?;
                    b.pause()?;
                }
                9 => b.resume()?,
                11 => drop(b.terminate().await?),
                _ => {}
            }
        }
        a.ready().await?;
        let api = a.api().await?;
        let look = async || {
            let objects = api.list("").await?.objects;
            Ok(objects.iter().filter(|o| o.version == rounds).count())
        };
        until("every round has been applied", PATIENCE * 2, look, |n| {
            *n == ids.len()
        })
        .await?;
        // Each round flips each object: the committed history has each transition once, in order.
        let mut versions: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for (record, state) in topics.states().await? {
            let state = state.context("no object was deleted")?;
            versions
                .entry(record.key_text())
                .or_default()
                .push(state.version);
        }
        let expected: Vec<i64> = (1..=rounds).collect();
        for id in &ids {
            ensure!(
                versions.get(id) == Some(&expected),
                "{id}: {:?}",
                versions.get(id)
            );
        }
        Ok(())
    })
    .await
}

async fn fill_other_way(app: &Application, ids: &[String]) -> Result<()> {
    let topics = app.topics()?;
    for (i, id) in ids.iter().enumerate() {
        let verdict = if i % 2 == 0 { UnderAttack } else { Clear };
        topics.report(&report(id, "waf-1", verdict, 2)).await?;
    }
    Ok(())
}

async fn exactly_two_states_each(app: &Application, ids: &[String]) -> Result<()> {
    let mut versions: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for (record, state) in app.topics()?.states().await? {
        let state = state.context("no object was deleted")?;
        versions
            .entry(record.key_text())
            .or_default()
            .push(state.version);
    }
    for id in ids {
        ensure!(
            versions.get(id) == Some(&vec![1, 2]),
            "{id}: {:?}",
            versions.get(id)
        );
    }
    Ok(())
}
