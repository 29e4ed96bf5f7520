//! Consumers that are read in batches.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use common::kafka;
use e2e::{PATIENCE, story};
use engine::fetch::{Fetched, Fetcher};

const REPORTS: u64 = 400_000;

/// Before it was given up in order, librdkafka waited for ever for one out of two of these.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_with_records_in_its_queue_ends() -> Result<()> {
    story("fetcher", async |app| {
        let mut service = app.state_service("a", &[])?;
        service.ready().await?;
        ensure!(service.terminate().await? == 0, "{}", service.end_of_log());
        let reports = REPORTS.to_string();
        let load = ["simulate", "--count", &reports, "--rate", "max"];
        app.agents("load", &load)?.finished().await?;

        let kafka = kafka::Args {
            bootstrap_servers: app.bootstrap().to_owned(),
            kafka: Vec::new(),
        };
        let config = kafka.consumer("fetcher", "fetcher");
        let topic = app.names().reports;
        let (ended, heard) = mpsc::channel();
        // A thread that nobody waits for if it hangs.
        thread::spawn(move || {
            for _ in 0..8 {
                ended.send(read_half(&config, &topic)).ok();
            }
        });
        for time in 1..=8 {
            let read = tokio::task::block_in_place(|| heard.recv_timeout(PATIENCE));
            read.with_context(|| format!("the {time}. consumer does not end"))??;
        }
        Ok(())
    })
    .await
}

/// Reads half of the topic with a consumer of its own.
fn read_half(config: &rdkafka::ClientConfig, topic: &str) -> Result<()> {
    let mut fetcher = Fetcher::new(config, 5_000)?;
    for partition in 0..8 {
        fetcher.assign(topic, partition, 0)?;
    }
    let mut read = 0;
    while read < REPORTS / 2 {
        let batch = fetcher.next(Duration::from_millis(20));
        let is_record = |fetched: &Fetched<'_>| matches!(fetched, Fetched::Record(..));
        read += batch.iter().filter(is_record).count() as u64;
    }
    Ok(())
}
