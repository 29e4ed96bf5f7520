//! What an instance shows of itself and the cluster.

use std::time::Duration;

use super::conductor::{Conductor, read};
use crate::{
    membership::{Role, Status, holdings::Phase},
    processor::Processor,
    query::{InstanceView, StandbyView, TaskView, View},
};

/// Beats come every 400 ms; after this time without one, the brokers are taken to be away.
const SILENT_AFTER: Duration = Duration::from_secs(4);

impl<P: Processor> Conductor<P> {
    pub(super) fn publish_view(&self) {
        let plan = self.cluster.plan();
        let running = |partition: u32, owner: Option<&String>| {
            let owner = owner?;
            let (_, row, _) = self.cluster.members().find(|(id, _, _)| *id == owner)?;
            Some(row.tasks.get(&partition)?.running)
        };
        let standby = |partition: u32, id: &String| StandbyView {
            instance: id.clone(),
            lag: self.cluster.lag(partition, id),
        };
        let tasks = plan.iter().flat_map(|plan| (0u32..).zip(&plan.tasks));
        let view = View {
            instance: self.settings.identity.instance_id.clone(),
            application_id: self.settings.application_id.clone(),
            plan: plan.map_or(0, |plan| plan.number),
            leader: plan.map(|plan| plan.leader.clone()),
            partitions: self.settings.partitions,
            instances: self
                .cluster
                .members()
                .filter(|(_, row, _)| row.status == Status::Present)
                .map(|(id, row, present)| InstanceView {
                    id: id.clone(),
                    endpoint: row.endpoint.clone(),
                    rack: row.rack.clone(),
                    present,
                    restores: row.restores.clone(),
                })
                .collect(),
            tasks: tasks
                .map(|(partition, task)| TaskView {
                    partition,
                    owner: task.owner.clone(),
                    running: running(partition, task.owner.as_ref()).unwrap_or(false),
                    standbys: task
                        .standbys
                        .iter()
                        .map(|id| standby(partition, id))
                        .collect(),
                    warming_up: task.warming_up.as_ref().map(|id| standby(partition, id)),
                })
                .collect(),
            stores: self.stores.all(),
            strangers: self.strangers.clone(),
            stuck: self.stuck.clone(),
            not_ready: self.not_ready(),
        };
        self.view.send_if_modified(|current| {
            let changed = *current != view;
            *current = view;
            changed
        });
        metrics::gauge!("tasks_running").set(f64::from(
            u32::try_from(read(&self.tasks).len()).unwrap_or(u32::MAX),
        ));
    }

    fn not_ready(&self) -> Option<String> {
        if self.heard.1.elapsed() > SILENT_AFTER {
            return Some("Kafka does not answer: this instance's beats do not come back".into());
        }
        if let Some(version) = self.cluster.outdated_by() {
            return Some(format!(
                "the plan in force has version {version}, which this program does not know: upgrade it"
            ));
        }
        if !self.cluster.is_member() {
            return Some("the plan in force was made without this instance".into());
        }
        if !self.holdings.all_ready() {
            return Some("a worker is still initialising its producer".into());
        }
        let roles = self.cluster.roles().into_iter();
        let mine: Vec<u32> = roles
            .filter(|(_, role)| matches!(role, Role::Owner(_)))
            .map(|(partition, _)| partition)
            .collect();
        let held = self.holdings.held();
        let running = |partition: &&u32| {
            let held = held.get(partition);
            held.is_some_and(|held| held.phase == Phase::Running)
        };
        let missing = mine.len() - mine.iter().filter(running).count();
        (missing > 0).then(|| format!("{missing} of {} tasks are not running yet", mine.len()))
    }
}
