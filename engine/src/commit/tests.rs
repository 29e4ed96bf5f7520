//! Errors as brokers answer them, through the table, against the real committer: librdkafka's mock cluster speaks the
//! protocol on loopback and answers what it is told to.

use std::{path::Path, sync::Mutex};

use rdkafka::{
    consumer::Consumer as _,
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};

use super::*;
use crate::{
    epoch::{Outputs, Rows},
    store::{OBJECT, Shared, Store, row_key},
};

const PARTITION: u32 = 0;

/// A committer with a cluster and a store of its own.
struct Bench {
    brokers: MockCluster<'static, DefaultProducerContext>,
    committer: Committer,
    store: Arc<Store>,
    stop: Arc<AtomicBool>,
}

impl Bench {
    fn new() -> Self {
        Self::hearing(|_, _| {})
    }

    /// `committed` hears of every committed epoch, and is handed the committer's tie.
    fn hearing(committed: impl Fn(&Tie, &TaskEpoch) + Send + Sync + 'static) -> Self {
        let brokers = MockCluster::new(1).unwrap();
        let kafka = kafka::Args {
            bootstrap_servers: brokers.bootstrap_servers(),
            kafka: Vec::new(),
        };
        let consumer: kafka::Consumer = kafka::create(&kafka.consumer("app-a-0", "app")).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let tie = Arc::new(std::sync::OnceLock::<Tie>::new());
        let its_tie = Arc::clone(&tie);
        let settings = Settings {
            consumer: kafka.consumer("app-a-0", "app"),
            names: Arc::new(Names::of("app")),
            group: consumer.group_metadata().unwrap(),
            published: Arc::default(),
            committed: Arc::new(move |epoch| committed(its_tie.get().unwrap(), epoch)),
            stop: Arc::clone(&stop),
            pulse: Pulse::default(),
            answers: Pulse::default(),
        };
        let committer = Committer::new(&kafka, "app-a-0", settings).unwrap();
        tie.set(committer.tie()).unwrap();
        let shared = Shared::in_memory().unwrap();
        let store = Store::open(&shared, Path::new("/commit"), "app", PARTITION).unwrap();
        Self {
            brokers,
            committer,
            store: Arc::new(store),
            stop,
        }
    }

    /// An epoch with one of everything: a row, an output, an offset.
    fn epoch(&self) -> Epoch {
        let mut rows = Rows::default();
        rows.push(&row_key(OBJECT, b"site"), Some(b"attacked"));
        let mut outputs = Outputs::default();
        outputs.emit(b"site", Some(b"attacked"));
        self.with(rows, outputs)
    }

    fn with(&self, rows: Rows, outputs: Outputs) -> Epoch {
        let task = TaskEpoch {
            partition: PARTITION,
            store: Arc::downgrade(&self.store),
            rows: rows.into(),
            timers: Rows::default(),
            outputs: outputs.into(),
            next_offset: Some(7),
            records: 1,
            digest: 0,
        };
        Epoch {
            tasks: vec![Arc::new(task)],
        }
    }

    /// As if the broker had forgotten the last epoch's outputs, and only these.
    fn forget_outputs(&self) {
        let published = &self.committer.settings.published;
        let last = published.last(PARTITION, 0).unwrap();
        let offset = last.offset + 1;
        published.put(PARTITION, last.at(offset));
    }

    /// How many outputs there are.
    fn published(&self) -> i64 {
        let Settings {
            consumer, names, ..
        } = &self.committer.settings;
        let consumer: kafka::Consumer = kafka::create(consumer).unwrap();
        let partition = kafka_partition(PARTITION);
        let ends = consumer.fetch_watermarks(&names.states, partition, CALL);
        ends.unwrap().1
    }

    /// Is the epoch's row in the store?
    fn has_row(&self) -> bool {
        let row = self.store.get(&row_key(OBJECT, b"site")).unwrap();
        row.is_some()
    }
}

/// The name of an outcome.
fn name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Committed => "committed",
        Outcome::Aborted(_) => "aborted",
        Outcome::Lost(_) => "lost",
        Outcome::Done => "done",
        Outcome::Failed(_) => "failed",
    }
}

/// Nothing of a sweep stays, and the producer goes on.
#[test]
fn a_producer_sweeps_between_two_epochs() {
    let mut bench = Bench::new();
    bench.committer.initialise().unwrap();
    for _ in 0..2 {
        let committed = bench.committer.commit(&bench.epoch());
        assert_eq!(name(&committed), "committed", "{committed:?}");
        let position = bench.store.position().unwrap();
        let swept = bench.committer.sweep(PARTITION);
        assert_eq!(swept, Ok(()));
        assert_eq!(bench.store.position().unwrap(), position);
    }
}

#[test]
fn an_epoch_of_several_rounds_is_committed_whole() {
    let mut bench = Bench::new();
    bench.committer.initialise().unwrap();
    let large = vec![7; 300_000];
    let mut rows = Rows::default();
    let keys: Vec<Vec<u8>> = (0..7_u8).map(|i| row_key(OBJECT, &[i])).collect();
    for key in &keys {
        rows.push(key, Some(&large));
    }
    let mut outputs = Outputs::default();
    for i in 0..5_u8 {
        outputs.emit(&[i], Some(&large));
    }
    let epoch = bench.with(rows, outputs);
    let committed = bench.committer.commit(&epoch);
    assert_eq!(name(&committed), "committed", "{committed:?}");
    for key in &keys {
        assert_eq!(bench.store.get(key).unwrap().as_ref(), Some(&large));
    }
    assert_eq!(bench.store.position().unwrap(), 7);
    // Nothing of it is held any longer: its memory serves the next one.
    let Epoch { tasks } = epoch;
    let task = Arc::into_inner(tasks.into_iter().next().unwrap()).unwrap();
    assert!(Arc::into_inner(task.rows).is_some());
}

/// After an abort, what was committed before is looked for: the broker may have forgotten about it.
#[test]
fn an_abort_is_believed_if_the_commits_before_it_are_still_there() {
    let abort = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    for (rows, outputs, expected) in [
        (true, true, "aborted"),
        (false, true, "lost"),
        (true, false, "lost"),
    ] {
        let mut bench = Bench::new();
        bench.committer.initialise().unwrap();
        let epoch = bench.epoch();
        assert_eq!(name(&bench.committer.commit(&epoch)), "committed");
        let last = bench.store.unseen().unwrap();
        assert!(last.is_some(), "an owner wrote it, and nobody has read it");
        // As if one more had been committed.
        if !rows {
            let position = bench.store.position().unwrap() + 1;
            bench.store.apply_epoch(&epoch.tasks[0], position).unwrap();
        }
        if !outputs {
            bench.forget_outputs();
        }
        // For both topics, whichever is sent first: to the mock, what it has taken is committed.
        bench
            .brokers
            .request_errors(RDKafkaApiKey::Produce, &[abort; 2]);
        let outcome = bench.committer.commit(&bench.epoch());
        assert_eq!(name(&outcome), expected, "{outcome:?}");
    }
}

/// Outputs whose epoch is in the store are published once more if the topic has lost them, and only then.
#[test]
fn outputs_that_are_gone_are_published_again() {
    let mut bench = Bench::new();
    bench.committer.initialise().unwrap();
    let again = |bench: &mut Bench, digest| {
        let todo = Todo::PublishAgain {
            partition: PARTITION,
            digest,
        };
        let outcome = bench.committer.carry_out(&todo);
        assert_eq!(name(&outcome), "done", "{outcome:?}");
        bench.published()
    };
    assert_eq!(name(&bench.committer.commit(&bench.epoch())), "committed");
    assert_eq!(again(&mut bench, 0), 1, "they are there");
    bench.forget_outputs();
    assert_eq!(again(&mut bench, 1), 1, "the store has others");
    assert_eq!(again(&mut bench, 0), 2);
    assert_eq!(again(&mut bench, 0), 2, "they are there again");
}

/// Outputs are forgotten once they are there for good, and kept while nobody knows.
#[test]
fn outputs_that_are_there_for_good_are_forgotten() {
    let mut bench = Bench::new();
    bench.committer.initialise().unwrap();
    assert_eq!(name(&bench.committer.commit(&bench.epoch())), "committed");
    let kept = |bench: &Bench| bench.committer.settings.published.bytes(PARTITION) > 0;
    let confirm = |bench: &mut Bench, digest| {
        let todo = Todo::Confirm {
            partition: PARTITION,
            digest,
        };
        let outcome = bench.committer.carry_out(&todo);
        assert_eq!(name(&outcome), "done", "{outcome:?}");
        kept(bench)
    };
    assert!(confirm(&mut bench, 1), "of another store");
    bench.forget_outputs();
    assert!(confirm(&mut bench, 0), "they are gone");
    assert_eq!(name(&bench.committer.commit(&bench.epoch())), "committed");
    assert!(!confirm(&mut bench, 0), "they are there");
    assert!(!confirm(&mut bench, 0), "nothing is kept");
}

/// Records that are sent while the transaction before has no marks yet are refused for longer than offsets are.
#[test]
fn a_transaction_gets_its_offsets_before_its_records() {
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED;
    let mut bench = Bench::new();
    bench.committer.initialise().unwrap();
    assert_eq!(name(&bench.committer.commit(&bench.epoch())), "committed");
    let before = bench.published();
    bench
        .brokers
        .request_errors(RDKafkaApiKey::AddOffsetsToTxn, &[refused]);
    let outcome = bench.committer.commit(&bench.epoch());
    assert_eq!(name(&outcome), "aborted", "{outcome:?}");
    // To the mock, what it has taken is committed.
    assert_eq!(bench.published(), before, "no record was sent");
}

/// A committer whose call does not end holds its epoch: others must be able to close the store.
#[test]
fn an_epoch_does_not_keep_its_store_open() {
    let bench = Bench::new();
    let epoch = bench.epoch();
    assert!(Arc::into_inner(bench.store).is_some());
    assert!(epoch.tasks[0].store.upgrade().is_none());
}

/// What brokers may answer to each request of a transaction, and what must become of the epoch.
#[test]
fn every_class_of_error_of_every_request_has_its_outcome() {
    use RDKafkaApiKey::{
        AddOffsetsToTxn, AddPartitionsToTxn, EndTxn, InitProducerId, Produce, TxnOffsetCommit,
    };
    use RDKafkaRespErr::{
        RD_KAFKA_RESP_ERR__TRANSPORT as CUT,
        RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS as CONCURRENT,
        RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS as LOADING,
        RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED as GROUP_REFUSED,
        RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION as OLD_GENERATION,
        RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH as OLD_EPOCH,
        RD_KAFKA_RESP_ERR_INVALID_TXN_STATE as OTHER_STATE,
        RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE as TOO_LARGE,
        RD_KAFKA_RESP_ERR_NOT_COORDINATOR as MOVED,
        RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION as OTHER_LEADER,
        RD_KAFKA_RESP_ERR_PRODUCER_FENCED as FENCED,
        RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED as REFUSED,
        RD_KAFKA_RESP_ERR_UNKNOWN as UNKNOWN,
    };
    type Answers<'a> = &'a [(RDKafkaApiKey, &'a [RDKafkaRespErr])];
    let cases: [(Answers<'_>, &str); 17] = [
        // Retriable: the same call again, and the epoch is committed.
        (&[(AddPartitionsToTxn, &[CONCURRENT, LOADING])], "committed"),
        (&[(Produce, &[OTHER_LEADER, CUT])], "committed"),
        (&[(AddOffsetsToTxn, &[CONCURRENT, MOVED, CUT])], "committed"),
        (
            &[(TxnOffsetCommit, &[LOADING, CONCURRENT, CUT])],
            "committed",
        ),
        (&[(EndTxn, &[CONCURRENT, MOVED, CUT])], "committed"),
        // Abortable: nothing of the epoch is committed, and the producer goes on.
        (&[(AddPartitionsToTxn, &[REFUSED])], "aborted"),
        (&[(Produce, &[TOO_LARGE])], "aborted"),
        (&[(AddOffsetsToTxn, &[GROUP_REFUSED])], "aborted"),
        (&[(TxnOffsetCommit, &[OLD_GENERATION])], "aborted"),
        (&[(EndTxn, &[UNKNOWN])], "aborted"),
        // Fenced, or fatal otherwise: this producer is at its end.
        (&[(AddPartitionsToTxn, &[OLD_EPOCH])], "lost"),
        (&[(AddOffsetsToTxn, &[OLD_EPOCH])], "lost"),
        (&[(TxnOffsetCommit, &[OLD_EPOCH])], "lost"),
        (&[(EndTxn, &[OLD_EPOCH])], "lost"),
        (&[(EndTxn, &[FENCED])], "lost"),
        (&[(EndTxn, &[OTHER_STATE])], "lost"),
        // Of a record it may be another reason; the abort tells.
        (
            &[(Produce, &[OLD_EPOCH]), (InitProducerId, &[FENCED])],
            "lost",
        ),
    ];
    for (answers, expected) in cases {
        let what = format!("{answers:?}");
        let mut bench = Bench::new();
        bench.committer.initialise().unwrap();
        for (request, errors) in answers {
            bench.brokers.request_errors(*request, errors);
        }
        let outcome = bench.committer.commit(&bench.epoch());
        assert_eq!(name(&outcome), expected, "{what}: {outcome:?}");
        assert_eq!(bench.has_row(), expected == "committed", "{what}");
        let fences = |error| [OLD_EPOCH, FENCED].contains(error);
        let fenced = answers.iter().any(|(_, errors)| errors.iter().any(fences));
        let told = format!("{outcome:?}").contains("fenced");
        assert_eq!(told, fenced, "{what}: {outcome:?}");

        // The brokers are well again: what was thrown away can be offered once more, and is taken in the end. An abort
        // empties librdkafka's queues at some moment, which may cost another one.
        for (request, _) in answers {
            bench.brokers.clear_request_errors(*request);
        }
        let mut then = bench.committer.commit(&bench.epoch());
        for _ in 0..3 {
            if name(&then) == "aborted" {
                then = bench.committer.commit(&bench.epoch());
            }
        }
        let goes_on = if expected == "lost" {
            "lost"
        } else {
            "committed"
        };
        assert_eq!(name(&then), goes_on, "{what}, then {then:?}");
        assert_eq!(bench.has_row(), goes_on == "committed", "{what}");
    }
}

#[test]
fn a_producer_is_initialised_again_and_again_unless_that_is_refused() {
    use RDKafkaRespErr::{
        RD_KAFKA_RESP_ERR__TRANSPORT as CUT,
        RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED as REFUSED,
        RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS as CONCURRENT,
        RD_KAFKA_RESP_ERR_NOT_COORDINATOR as MOVED, RD_KAFKA_RESP_ERR_PRODUCER_FENCED as FENCED,
    };
    let cases = [
        (&[CONCURRENT, MOVED, CUT][..], true),
        (&[REFUSED], false),
        (&[FENCED], false),
    ];
    for (errors, goes_on) in cases {
        let bench = Bench::new();
        bench
            .brokers
            .request_errors(RDKafkaApiKey::InitProducerId, errors);
        let initialised = bench.committer.initialise();
        assert_eq!(initialised.is_ok(), goes_on, "{errors:?}: {initialised:?}");
    }
}

/// The connection is cut at every try to commit, and the instance must end: the commit may have happened or not.
#[test]
fn a_commit_of_unknown_outcome_is_lost_and_not_in_the_store() {
    let cut = [RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT; 1_000];
    let mut bench = Bench::new();
    bench.committer.initialise().unwrap();
    bench.brokers.request_errors(RDKafkaApiKey::EndTxn, &cut);
    bench.stop.store(true, Ordering::Release);
    // Without records, of which the delivery would be waited for: offsets only.
    let outcome = bench
        .committer
        .commit(&bench.with(Rows::default(), Outputs::default()));
    assert!(
        matches!(&outcome, Outcome::Lost(why) if why.starts_with("commit: ") && !why.contains("abort")),
        "{outcome:?}"
    );
}

#[test]
fn a_committer_that_was_cut_off_writes_to_no_store() {
    let mut bench = Bench::new();
    bench.committer.initialise().unwrap();
    assert!(bench.committer.tie().cut());
    let outcome = bench.committer.commit(&bench.epoch());
    assert_eq!(name(&outcome), "lost", "{outcome:?}");
    assert!(!bench.has_row());
}

#[test]
fn a_committer_is_not_cut_off_while_it_writes_to_the_stores() {
    let (heard, cuts) = mpsc::channel();
    let heard = Mutex::new(heard);
    let mut bench = Bench::hearing(move |tie, _| {
        let cut = tie.cut();
        heard.lock().unwrap().send(cut).unwrap();
    });
    bench.committer.initialise().unwrap();
    let outcome = bench.committer.commit(&bench.epoch());
    assert_eq!(name(&outcome), "committed", "{outcome:?}");
    assert_eq!(cuts.try_iter().collect::<Vec<_>>(), [false]);
    assert!(bench.has_row());
}
