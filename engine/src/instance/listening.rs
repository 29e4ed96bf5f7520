//! Hearing what is said on the membership topics, by others and by this instance itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::conductor::Conductor;
use crate::{
    guard::Findings,
    membership::{
        Cluster,
        link::{self, Link, News},
    },
    processor::Processor,
    watchdog::Pulse,
};

/// How long to wait for the ends of the membership topics before saying so and trying again.
const READ_TO_END: Duration = Duration::from_secs(10);

impl<P: Processor> Conductor<P> {
    /// Announces this instance, then takes its transactional ids from any former incarnation; unless a
    /// stop is asked for meanwhile.
    pub(super) fn join(&mut self) {
        let (stopping, pulse) = (Arc::clone(&self.stopping), self.pulse.clone());
        let goes_on = || goes_on(&stopping, &pulse);
        while !self.cluster.is_announced() && goes_on() {
            self.listen();
        }
        tracing::debug!("this instance is announced");
        let own: Vec<String> = (0..self.settings.workers)
            .map(|worker| self.transactional_id(worker))
            .collect();
        let others: Vec<String> = self
            .cluster
            .former_ids()
            .iter()
            .filter(|id| !own.contains(id))
            .cloned()
            .collect();
        for id in others {
            link::fence(&self.settings.kafka, &id, goes_on);
        }
        if !goes_on() {
            return;
        }
        for worker in 0..self.settings.workers {
            self.start_worker(worker);
        }
    }

    pub(super) fn listen(&mut self) {
        self.pulse.beat();
        let cluster = &mut self.cluster;
        self.link
            .poll(Duration::from_millis(20), &mut |news| hear(cluster, news));
        if self.cluster.own_beat() > self.heard.0 {
            self.heard = (self.cluster.own_beat(), Instant::now());
            self.answers.beat();
            self.tell_positions();
        }
    }

    /// As the function of this name.
    pub(super) fn read_to_end(&mut self) -> bool {
        let (link, cluster) = (&mut self.link, &mut self.cluster);
        read_to_end(link, cluster, &self.stopping, &self.pulse)
    }

    /// Who slept through a reset holds stores of a changelog that is gone, by a plan that is gone.
    pub(super) fn look_for_reset(&mut self) {
        if self.cluster.is_reset() && self.failed.is_none() {
            let id = &self.settings.application_id;
            self.failed = Some(anyhow::anyhow!(
                "application {id} has been reset while this instance was away: what it holds is of \
                 the past; when it is started again, it takes its share from nothing"
            ));
        }
    }

    pub(super) fn on_findings(&mut self, findings: Findings) {
        let partitions = self.settings.partitions;
        if let Some(found) = findings.partitions
            && found != partitions
        {
            let topic = &self.settings.names.reports;
            self.failed = Some(anyhow::anyhow!(
                "topic {topic} has {found} partitions now; the state of this application was made \
                 with {partitions}, and keys are on other partitions than before: use another \
                 application id, or reset this one (see `reset --help`)"
            ));
        }
        if findings.strangers != self.strangers {
            for stranger in &findings.strangers {
                tracing::error!(
                    stranger,
                    group = self.settings.application_id,
                    "a consumer has joined the group of this application; it can move its offsets: \
                     stop it, or give it another group.id"
                );
            }
            self.strangers = findings.strangers;
        }
        let count = u32::try_from(self.strangers.len()).unwrap_or(u32::MAX);
        metrics::gauge!("strangers_in_group").set(f64::from(count));
    }
}

fn hear(cluster: &mut Cluster, news: News) {
    match news {
        News::Row(id, row) => cluster.on_row(&id, row),
        News::Plan(plan) => cluster.on_plan(plan),
    }
}

/// Is nobody asking for a stop? Whoever waits asks this again and again, and shows that it is alive.
fn goes_on(stopping: &AtomicBool, pulse: &Pulse) -> bool {
    pulse.beat();
    !stopping.load(Ordering::Acquire)
}

/// Reads both topics to their ends, for as long as that takes: to go on without would be to guess.
/// `false` if a stop was asked for meanwhile.
pub(super) fn read_to_end(
    link: &mut Link,
    cluster: &mut Cluster,
    stopping: &AtomicBool,
    pulse: &Pulse,
) -> bool {
    let goes_on = || goes_on(stopping, pulse);
    while goes_on() {
        match link.read_to_end(READ_TO_END, &goes_on, &mut |news| hear(cluster, news)) {
            Ok(()) => return true,
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                "membership topics not read yet"
            ),
        }
    }
    false
}
