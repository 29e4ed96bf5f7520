//! Takes an application back to its beginning: offsets, changelog, membership and local state. The
//! source and output topics stay; what the source topic still holds is processed again.

use std::{collections::BTreeMap, path::PathBuf, time::Duration, time::Instant};

use anyhow::{Context as _, bail};
use common::{kafka, topics::Names};
use rdkafka::{
    Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    consumer::Consumer as _,
    error::RDKafkaErrorCode,
};

use crate::{
    identity::{self, Slot},
    membership::{
        InstanceId, Row, Status,
        link::{self, Link, News},
    },
};

const CALL: Duration = Duration::from_secs(10);
/// Whoever is alive beats within this time, several times.
const LISTEN: Duration = Duration::from_secs(2);

/// Which application.
#[derive(Debug, Clone)]
pub struct Target {
    /// How to reach Kafka.
    pub kafka: kafka::Args,
    /// Its id.
    pub application_id: String,
    /// Where its instances on this machine keep their stores.
    pub state_dir: PathBuf,
}

/// What there is to reset.
#[derive(Debug)]
pub struct Survey {
    /// Instances that beat: nothing is reset while there are any.
    pub active: Vec<InstanceId>,
    /// Instances that never said goodbye and do not beat: they may be frozen, and are fenced.
    pub silent: Vec<InstanceId>,
    /// Every transactional id that instances announced.
    transactional_ids: Vec<String>,
    /// Of each source partition: the committed offset, and the end.
    pub offsets: Vec<(Option<i64>, i64)>,
    /// Internal topics that exist, with the records between their beginnings and ends.
    pub internal: Vec<(String, i64)>,
    /// Folders of instances on this machine.
    pub slots: Vec<Slot>,
}

impl Survey {
    /// Is there nothing to reset?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.internal.is_empty()
            && self.slots.is_empty()
            && self.offsets.iter().all(|(offset, _)| offset.is_none())
    }
}

/// Looks at everything that [`execute`] would change. Blocks for some seconds.
///
/// # Errors
/// When the brokers do not answer, or the state directory cannot be read.
pub fn survey(target: &Target) -> anyhow::Result<Survey> {
    let id = &target.application_id;
    let names = Names::of(id);
    let client = target.kafka.consumer(&format!("{id}-reset"), id);
    let client: kafka::Consumer = kafka::create(&client)?;
    let metadata = client
        .fetch_metadata(None, CALL)
        .context("the brokers do not answer")?;
    let partitions = |name: &str| {
        let mut topics = metadata.topics().iter();
        let topic = topics.find(|topic| topic.name() == name);
        topic.map_or(0, |topic| topic.partitions().len())
    };
    let mut internal = Vec::new();
    for name in [&names.changelog, &names.plans, &names.instances] {
        if partitions(name) > 0 {
            internal.push((name.clone(), records(&client, name, partitions(name))?));
        }
    }
    let rows = match partitions(&names.instances) {
        0 => Rows::default(),
        _ => listen(target, &names)?,
    };
    let gone = |id: &&InstanceId| !rows.beating.contains_key(*id);
    let present = rows
        .all
        .iter()
        .filter(|(_, row)| row.status == Status::Present);
    Ok(Survey {
        silent: present.map(|(id, _)| id).filter(gone).cloned().collect(),
        active: rows.beating.into_keys().collect(),
        transactional_ids: rows
            .all
            .into_values()
            .flat_map(|row| row.transactional_ids)
            .collect(),
        offsets: offsets(&client, &names.reports, partitions(&names.reports))?,
        internal,
        slots: identity::slots(&target.state_dir, id)?,
    })
}

#[derive(Default)]
struct Rows {
    all: BTreeMap<InstanceId, Row>,
    beating: BTreeMap<InstanceId, ()>,
}

/// Reads what instances have said, and hears who is still speaking.
fn listen(target: &Target, names: &Names) -> anyhow::Result<Rows> {
    let mut rows = Rows::default();
    let client_id = format!("{}-reset", target.application_id);
    let mut link = Link::new(&target.kafka, names, &client_id)?;
    link.read_to_end(CALL, &|| true, &mut |news| {
        if let News::Row(id, Some(row)) = news {
            rows.all.insert(id, row);
        }
    })?;
    let deadline = Instant::now() + LISTEN;
    while Instant::now() < deadline {
        link.poll(Duration::from_millis(50), &mut |news| {
            if let News::Row(id, Some(row)) = news {
                if row.status == Status::Present {
                    rows.beating.insert(id.clone(), ());
                }
                rows.all.insert(id, row);
            }
        });
    }
    Ok(rows)
}

fn records(client: &kafka::Consumer, topic: &str, partitions: usize) -> anyhow::Result<i64> {
    let mut sum = 0;
    for partition in 0..partitions {
        let (low, high) = client.fetch_watermarks(topic, i32::try_from(partition)?, CALL)?;
        sum += high - low;
    }
    Ok(sum)
}

fn offsets(
    client: &kafka::Consumer,
    source: &str,
    partitions: usize,
) -> anyhow::Result<Vec<(Option<i64>, i64)>> {
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition(source, i32::try_from(partition)?);
    }
    let committed = client
        .committed_offsets(list, CALL)
        .context("committed offsets")?;
    let mut offsets = Vec::new();
    for element in committed.elements() {
        let (_, end) = client.fetch_watermarks(source, element.partition(), CALL)?;
        let offset = match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        offsets.push((offset, end));
    }
    Ok(offsets)
}

/// Resets what `survey` found. Interrupted at any point, it can be run again.
///
/// # Errors
/// When an instance is active, here or elsewhere, or Kafka refuses.
pub async fn execute(target: &Target, survey: &Survey) -> anyhow::Result<()> {
    if !survey.active.is_empty() {
        bail!(
            "{} still runs: stop every instance of {} first",
            survey.active.join(", "),
            target.application_id
        );
    }
    if let Some(slot) = survey.slots.iter().find(|slot| slot.in_use) {
        bail!(
            "{} is in use: stop the instance first",
            slot.folder.display()
        );
    }
    // Whoever is frozen must not write once it wakes up.
    let kafka = target.kafka.clone();
    let mut ids = survey.transactional_ids.clone();
    ids.push(link::leader_id(&target.application_id));
    tokio::task::spawn_blocking(move || ids.iter().for_each(|id| link::fence(&kafka, id, || true)))
        .await
        .context("fencing")?;
    let admin: AdminClient<DefaultClientContext> = target
        .kafka
        .client(&format!("{}-reset", target.application_id))
        .create()?;
    let options = AdminOptions::new()
        .request_timeout(Some(CALL))
        .operation_timeout(Some(CALL));
    // Offsets first: a store without its offsets takes reports again that it knows already, and
    // ignores them; offsets without their store would lose reports.
    let groups = admin.delete_groups(&[&target.application_id], &options);
    for result in groups.await.context("delete the group")? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::GroupIdNotFound)) => {}
            Err((group, code)) => bail!("cannot delete the offsets of group {group}: {code}"),
        }
    }
    let names: Vec<&str> = survey.internal.iter().map(|(name, _)| &**name).collect();
    if !names.is_empty() {
        let topics = admin.delete_topics(&names, &options);
        for result in topics.await.context("delete the internal topics")? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
                Err((topic, code)) => bail!("cannot delete topic {topic}: {code}"),
            }
        }
    }
    for slot in &survey.slots {
        slot.remove_stores()?;
    }
    Ok(())
}
