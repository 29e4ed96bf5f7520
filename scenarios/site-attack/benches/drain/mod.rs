//! One partition's task fed with a fleet's reports, without a broker: what the benchmarks drive.

use std::{path::Path, sync::Arc, time::Duration};

use agent_sim::{
    generator::{Generator, Settings as Fleet, Slot},
    waves::Waves,
};
use common::{
    avro::{Encoder, Schema},
    schema::{self, SITE_ATTACK_REPORT, SiteAttackReport},
};
use engine::{
    epoch::TaskEpoch,
    intake::{Limits, SourceRecord},
    memory::Pool,
    scenario::{Codecs, Scenario as _, ScenarioProcessor, majority},
    store::{Shared, Store},
    task::{Progress, Schemas, Settings, Task},
};
use site_attack::SiteAttack;

/// Reports per millisecond of the time that they tell of.
const PER_MS: u64 = 10;
const START_MS: i64 = 1_700_000_000_000;

/// A framed report under its key.
pub(crate) type Encoded = (Vec<u8>, Vec<u8>);

/// The schema of the reports, as the registry would tell it.
pub(crate) struct Known(Arc<Schema>);

impl Schemas for Known {
    fn lookup(&mut self, _: u32) -> Option<Result<Arc<Schema>, String>> {
        Some(Ok(Arc::clone(&self.0)))
    }
}

/// A task and its fleet.
pub(crate) struct Drain {
    task: Task<ScenarioProcessor<SiteAttack>>,
    schemas: Known,
    fleet: Generator,
    encoder: Encoder<SiteAttackReport>,
    slots: u64,
    now_ms: i64,
    offset: i64,
    position: i64,
}

impl Drain {
    /// `agents` report about `objects`; every agent has reported every object once.
    pub(crate) fn new(objects: usize, agents: usize) -> Self {
        // A service has a recorder; without one metrics would cost nothing here.
        let _ = metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder();
        let parse = |id, text| Arc::new(Schema::parse(id, text).expect("a record schema"));
        let report = parse(1, SITE_ATTACK_REPORT);
        let scenario = Arc::new(SiteAttack::new(majority::Rules::default()));
        let codecs = Codecs::new(Encoder::new(parse(2, schema::STATE))).expect("a record schema");
        let settings = Settings {
            source_topic: "reports".into(),
            partitions: 1,
            limits: Limits {
                object_id_bytes: 512,
                record_bytes: 1 << 20,
            },
            dead_letters: Encoder::new(parse(3, schema::DEAD_LETTER)),
            objects: Pool::of(1 << 30),
        };
        let shared = Shared::in_memory().expect("an in-memory environment");
        let store = Store::open(&shared, Path::new("/bench"), "bench", 0).expect("a store");
        let processor = ScenarioProcessor::new(scenario, Arc::new(codecs), 5_000);
        let task = Task::new(0, settings, processor, Arc::new(store), 0).expect("a task");
        let mut drain = Self {
            task,
            schemas: Known(Arc::clone(&report)),
            fleet: Generator::new(fleet(objects, agents), 1, START_MS),
            encoder: Encoder::new(report),
            slots: 0,
            now_ms: START_MS,
            offset: 0,
            position: 0,
        };
        let first = drain.reports(objects * agents);
        drain.feed(&first);
        let epoch = drain.task.cut();
        drain.store(epoch);
        drain
    }

    /// The fleet's next `count` reports.
    pub(crate) fn reports(&mut self, count: usize) -> Vec<Encoded> {
        (0..count).map(|_| self.report()).collect()
    }

    fn report(&mut self) -> Encoded {
        self.slots += 1;
        let at_ms = START_MS + i64::try_from(self.slots / PER_MS).expect("a short time");
        let Slot::Report(report) = self.fleet.slot(at_ms) else {
            panic!("nobody is silent, and there is no end");
        };
        self.now_ms = at_ms;
        let value = self.encoder.encode(&report).expect("it encodes");
        (report.object_id.into_bytes(), value)
    }

    /// Processes these.
    #[inline(never)]
    pub(crate) fn process(&mut self, reports: &[Encoded]) {
        self.feed(reports);
    }

    /// As a worker's turn does it: what is due, then a batch of records.
    fn feed(&mut self, reports: &[Encoded]) {
        for batch in reports.chunks(1000) {
            while self.task.fire_timers(self.now_ms).expect("timers fire") {}
            for (key, value) in batch {
                let record = SourceRecord {
                    offset: self.offset,
                    timestamp_ms: None,
                    key: Some(key),
                    value: Some(value),
                };
                let progress = self.task.process(&record, &mut self.schemas, self.now_ms);
                assert_eq!(progress.expect("it goes on"), Progress::Done);
                self.offset += 1;
            }
        }
    }

    /// Ends the epoch and writes it to the store, as a committer does behind its transaction.
    pub(crate) fn commit(&mut self) {
        let epoch = self.cut();
        self.store(epoch);
    }

    fn store(&mut self, epoch: Option<Arc<TaskEpoch>>) {
        if let Some(epoch) = epoch {
            self.position += 1;
            let applied = self.task.store().apply_epoch(&epoch, self.position);
            applied.expect("rows are applied");
            drop(epoch);
            self.task.committed();
        }
    }

    /// Ends the epoch. It must be taken as committed before the next.
    #[inline(never)]
    pub(crate) fn cut(&mut self) -> Option<Arc<TaskEpoch>> {
        self.task.cut()
    }
}

fn fleet(objects: usize, agents: usize) -> Fleet {
    let wave = Duration::from_secs(2);
    Fleet {
        agents,
        objects: (0..objects)
            .map(|i| format!("site-{i:07}.example.com"))
            .collect(),
        waves: Waves {
            attacked: objects.div_ceil(10),
            wave,
            pause: wave,
        },
        attacks: Vec::new(),
        ramp_up: wave / 2,
        false_positives: 0.05,
        silent: 0,
        silent_after: Duration::ZERO,
        lying: agents / 10,
        reordered: 0.0,
        repeated: 0.0,
        count: None,
        duration: None,
        first_sequence: 1,
    }
}
