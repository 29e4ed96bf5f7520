//! Rounds of reports: each flips every site once more, so the history of a site must have each version once, in order.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use common::schema::SiteAttackVerdict::{Clear, UnderAttack};
use e2e::{Api, Application, PATIENCE, Topics, until};

use crate::report;

const SITES: usize = 40;

fn site(number: usize) -> String {
    format!("site-{number:04}.example.com")
}

/// Flips every site once more. Rounds count from 1.
pub(crate) async fn flip(topics: &Topics, round: i64) -> Result<()> {
    let verdict = if round % 2 == 0 { Clear } else { UnderAttack };
    for number in 0..SITES {
        let report = report(&site(number), "waf-1", verdict, round);
        topics.report(&report).await?;
    }
    Ok(())
}

/// Waits until every site has been flipped by this round.
pub(crate) async fn applied(api: &Api, round: i64) -> Result<()> {
    // How many sites are at which version: fewer flips than rounds would be a lost report.
    let look = async || {
        let mut versions = BTreeMap::new();
        for object in api.list("").await?.objects {
            *versions.entry(object.version).or_insert(0) += 1;
        }
        Ok(versions)
    };
    let what = format!("round {round} has been applied");
    let all = BTreeMap::from([(round, SITES)]);
    until(&what, PATIENCE * 2, look, |seen| *seen == all).await?;
    Ok(())
}

/// The output topic, read committed, has each version of each site once, in order.
pub(crate) async fn exactly(app: &Application, rounds: i64) -> Result<()> {
    let expected: Vec<i64> = (1..=rounds).collect();
    let states = app.topics()?.states().await?;
    let mut wrong = Vec::new();
    for number in 0..SITES {
        let id = site(number);
        let of_site = states.iter().filter(|(record, _)| record.key_text() == id);
        // Where they are: whoever looks for the reason needs it.
        let (places, versions): (Vec<_>, Vec<_>) = of_site
            .map(|(record, state)| {
                let version = state.as_ref().map_or(0, |state| state.version);
                ((record.partition, record.offset), version)
            })
            .unzip();
        if versions != expected {
            wrong.push(format!("{id}: {versions:?} at {places:?}"));
        }
    }
    ensure!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), app.tails());
    Ok(())
}
