//! The rules of start and lead as tables.

use std::collections::BTreeMap;

use super::{assign::Share, *};

const RULES: Rules = Rules {
    standbys: 0,
    acceptable_lag: 100,
};
/// Beats for which an owner that is away is waited for.
const GRACE: u32 = 10;

fn row(instance: &str, beat: u64) -> Row {
    Row {
        version: VERSION,
        incarnation: format!("{instance}-1"),
        beat,
        endpoint: format!("http://{instance}"),
        rack: None,
        status: Status::Present,
        transactional_ids: vec![format!("app-{instance}-0")],
        closed_for: 0,
        tasks: BTreeMap::new(),
        stores: BTreeMap::new(),
        restores: BTreeMap::new(),
    }
}

/// A cluster seen by `me`, in which everybody has just spoken.
fn cluster(me: &str, others: &[&str]) -> Cluster {
    let mut cluster = Cluster::new(me, &format!("{me}-1"), RULES, GRACE);
    for other in others {
        cluster.on_row(other, Some(row(other, 1)));
    }
    cluster.on_row(me, Some(row(me, 1)));
    cluster
}

fn owned_by(owner: &str) -> Share {
    Share {
        owner: Some(owner.to_owned()),
        ..Share::default()
    }
}

fn beats(cluster: &mut Cluster, me: &str, count: u32) {
    for _ in 0..count {
        let next = cluster.beat + 1;
        cluster.on_row(me, Some(row(me, next)));
    }
}

#[test]
fn silence_is_counted_in_the_log() {
    let mut cluster = cluster("a", &["b"]);
    // Reading b's rows again and again keeps it present; own beats without b's make it suspect.
    beats(&mut cluster, "a", SUSPECTED_AFTER - 2);
    assert!(cluster.is_present("b"));
    cluster.on_row("b", Some(row("b", 2)));
    beats(&mut cluster, "a", SUSPECTED_AFTER - 1);
    assert!(cluster.is_present("b"));
    let repeated = row("a", cluster.beat);
    cluster.on_row("a", Some(repeated));
    assert!(
        cluster.is_present("b"),
        "a row that is no beat measures no time"
    );
    beats(&mut cluster, "a", 1);
    assert!(!cluster.is_present("b"));
    assert!(cluster.is_present("a"), "nobody suspects itself");
}

#[test]
fn the_first_of_those_present_leads_when_the_leader_is_gone() {
    let mut a = cluster("a", &["b"]);
    let mut b = cluster("b", &["a"]);
    assert!(a.should_take_lead() && !b.should_take_lead());
    let plan = a.next_plan(4).unwrap();
    assert!(!b.is_member(), "there is no plan");
    a.on_plan(PlanRow::Known(Box::new(plan.clone())));
    b.on_plan(PlanRow::Known(Box::new(plan.clone())));
    assert!(b.is_member());
    assert_eq!(a.next_plan(4), None, "nothing changed");
    assert!(!b.should_take_lead());
    beats(&mut b, "b", SEAT_TAKEN_AFTER - 1);
    assert!(b.should_take_lead(), "a is silent");
    let same = b.next_plan(4).unwrap().tasks;
    assert_eq!(same, plan.tasks, "and keeps its tasks for now");
    beats(&mut b, "b", SUSPECTED_AFTER - SEAT_TAKEN_AFTER);
    let plan = b.next_plan(4).unwrap();
    assert_eq!(plan.number, 2);
    assert!(plan.tasks.iter().all(|t| t.owner.as_deref() == Some("b")));
    a.on_plan(PlanRow::Known(Box::new(plan)));
    assert!(a.is_led_by_another());
}

#[test]
fn an_unannounced_instance_leads_nothing() {
    let mut cluster = Cluster::new("a", "a-2", RULES, GRACE);
    cluster.on_row("a", Some(row("a", 9)));
    assert!(!cluster.should_take_lead());
    assert_eq!(cluster.former_ids(), ["app-a-0"]);
}

#[test]
fn a_new_owner_waits_for_those_present_and_fences_the_others() {
    let nothing = BTreeMap::new();
    let mut a = cluster("a", &[]);
    a.on_plan(PlanRow::Known(Box::new(a.next_plan(2).unwrap())));
    assert_eq!(a.start(0, &nothing), Start::Now, "nobody wrote before");

    // b joins and is given partition 1 in plan 2.
    a.on_row("b", Some(row("b", 1)));
    let plan = a.next_plan(2).unwrap();
    let given = plan
        .tasks
        .iter()
        .position(|t| t.owner.as_deref() == Some("b"))
        .unwrap();
    let given = u32::try_from(given).unwrap();
    let mut b = cluster("b", &["a"]);
    b.on_plan(PlanRow::Known(Box::new(plan.clone())));
    assert_eq!(
        b.start(given, &nothing),
        Start::Wait,
        "a is present and has not closed it"
    );
    let mut closed = row("a", 2);
    closed.closed_for = plan.number;
    b.on_row("a", Some(closed));
    assert_eq!(b.start(given, &nothing), Start::Now, "a has closed it");

    let mut b = cluster("b", &["a"]);
    b.on_plan(PlanRow::Known(Box::new(plan)));
    beats(&mut b, "b", SUSPECTED_AFTER);
    assert_eq!(
        b.start(given, &nothing),
        Start::Fence(vec!["app-a-0".into()])
    );
    let fenced = BTreeMap::from([("app-a-0".to_owned(), 2)]);
    assert_eq!(b.start(given, &fenced), Start::Now);
    let too_early = BTreeMap::from([("app-a-0".to_owned(), 1)]);
    assert_ne!(
        b.start(given, &too_early),
        Start::Now,
        "a may have come back since"
    );
}

#[test]
fn an_owner_that_never_started_stays_on_the_list_of_writers() {
    // x owns partition 0 and has confirmed it; y is given it and dies before it has fenced x.
    let mut leader = cluster("l", &["x"]);
    let mut plan = leader.next_plan(1).unwrap();
    plan.tasks[0].owner = Some("x".into());
    plan.tasks[0].writers = vec![Writer {
        instance: "x".into(),
        transactional_id: "app-x-0".into(),
    }];
    leader.on_plan(PlanRow::Known(Box::new(plan.clone())));
    let mut y_plan = plan.clone();
    y_plan.number = 2;
    y_plan.tasks[0] = leader.assignment(
        0,
        owned_by("y"),
        Some(&plan.tasks[0]),
        2,
        &BTreeMap::from([(&"y".to_owned(), &row("y", 1))]),
    );
    let names = |p: &Plan| -> Vec<String> {
        p.tasks[0]
            .writers
            .iter()
            .map(|w| w.instance.clone())
            .collect()
    };
    assert_eq!(names(&y_plan), ["x", "y"]);
    // y dies: the next owner must deal with both.
    leader.on_plan(PlanRow::Known(Box::new(y_plan.clone())));
    let next = leader.assignment(
        0,
        owned_by("l"),
        Some(&y_plan.tasks[0]),
        3,
        &BTreeMap::from([(&"l".to_owned(), &row("l", 1))]),
    );
    assert_eq!(
        next.writers
            .iter()
            .map(|w| w.instance.as_str())
            .collect::<Vec<_>>(),
        ["x", "y", "l"]
    );
    // Had y confirmed its start, x would be settled.
    let mut started = row("y", 2);
    started.tasks.insert(
        0,
        TaskRow {
            since: 2,
            running: true,
        },
    );
    leader.on_row("y", Some(started));
    let next = leader.assignment(
        0,
        owned_by("l"),
        Some(&y_plan.tasks[0]),
        3,
        &BTreeMap::from([(&"l".to_owned(), &row("l", 1))]),
    );
    assert_eq!(
        next.writers
            .iter()
            .map(|w| w.instance.as_str())
            .collect::<Vec<_>>(),
        ["y", "l"]
    );
}

#[test]
fn an_owner_whose_id_is_not_listed_waits_for_the_plan_that_lists_it() {
    // b ran with one worker, and its next process runs with two: partition 1 is now written by
    // another id. Whoever took the partition over by the plan in force would fence the former only.
    let nothing = BTreeMap::new();
    let mut leader = cluster("a", &["b"]);
    let plan = leader.next_plan(2).unwrap();
    assert_eq!(plan.tasks[1].owner.as_deref(), Some("b"));
    leader.on_plan(PlanRow::Known(Box::new(plan.clone())));

    let mut restarted = row("b", 1);
    restarted.incarnation = "b-2".into();
    restarted.transactional_ids = vec!["app-b-0".into(), "app-b-1".into()];
    let mut b = Cluster::new("b", "b-2", RULES, GRACE);
    b.on_plan(PlanRow::Known(Box::new(plan)));
    b.on_row("b", Some(restarted.clone()));
    assert_eq!(b.start(1, &nothing), Start::Wait);

    leader.on_row("b", Some(restarted));
    let plan = leader.next_plan(2).unwrap();
    b.on_plan(PlanRow::Known(Box::new(plan)));
    assert_eq!(b.start(1, &nothing), Start::Now);
}

#[test]
fn an_id_that_its_instance_no_longer_has_is_fenced() {
    // b ran with two workers, came back with one and died before it had fenced the second id; its
    // next process knows of that id only from the plan.
    let nothing = BTreeMap::new();
    let mut plan = cluster("a", &["b"]).next_plan(1).unwrap();
    let listed = |id: &str| Writer {
        instance: "b".into(),
        transactional_id: id.into(),
    };
    plan.tasks[0].writers = vec![listed("app-b-1"), listed("app-b-0")];
    plan.tasks[0].owner = Some("b".into());
    let fence = Start::Fence(vec!["app-b-1".into()]);
    let fenced = BTreeMap::from([("app-b-1".to_owned(), plan.number)]);

    let mut b = cluster("b", &["a"]);
    b.on_plan(PlanRow::Known(Box::new(plan.clone())));
    assert_eq!(b.start(0, &nothing), fence);
    assert_eq!(b.start(0, &fenced), Start::Now);

    // The same for another owner: what b says of itself does not cover that id.
    plan.tasks[0].owner = Some("a".into());
    plan.tasks[0].writers.push(Writer {
        instance: "a".into(),
        transactional_id: "app-a-0".into(),
    });
    let mut a = cluster("a", &[]);
    let mut closed = row("b", 1);
    closed.closed_for = plan.number;
    a.on_row("b", Some(closed));
    a.on_plan(PlanRow::Known(Box::new(plan)));
    assert_eq!(a.start(0, &nothing), fence);
    assert_eq!(a.start(0, &fenced), Start::Now);
}

#[test]
fn a_late_row_of_a_dead_process_says_nothing() {
    // b restarts; a row that its former process had sent reaches the topic after the first row of the
    // new one.
    let mut a = cluster("a", &["b"]);
    let mut late = row("b", 2);
    late.status = Status::Left;
    late.closed_for = PlanNumber::MAX;
    let mut restarted = row("b", 1);
    restarted.incarnation = "b-2".into();
    a.on_row("b", Some(restarted.clone()));
    a.on_row("b", Some(late));
    let (_, row, is_present) = a.members().find(|(id, _, _)| *id == "b").unwrap();
    assert_eq!((row, is_present), (&restarted, true));
}

#[test]
fn whoever_goes_on_speaking_is_the_living_process() {
    // The first row that b's dead process sent comes after the first row of the new one.
    let mut a = cluster("a", &[]);
    let mut living = row("b", 1);
    living.incarnation = "b-2".into();
    a.on_row("b", Some(living.clone()));
    a.on_row("b", Some(row("b", 1)));
    for beat in 2..2 + u64::from(ALIVE_AFTER) {
        living.beat = beat;
        a.on_row("b", Some(living.clone()));
    }
    let (_, row, is_present) = a.members().find(|(id, _, _)| *id == "b").unwrap();
    assert_eq!((row, is_present), (&living, true));
}

#[test]
fn what_nobody_else_has_waits_for_its_owner() {
    let mut a = cluster("a", &["b"]);
    let mut large = row("b", 1);
    large.stores = BTreeMap::from([(0, 1_000), (1, 1_000)]);
    a.on_row("b", Some(large));
    let mut plan = a.next_plan(2).unwrap();
    for task in &mut plan.tasks {
        task.owner = Some("b".into());
    }
    a.on_plan(PlanRow::Known(Box::new(plan)));
    beats(&mut a, "a", SUSPECTED_AFTER);
    let plan = a.next_plan(2).unwrap();
    assert!(plan.tasks.iter().all(|t| t.owner.as_deref() == Some("b")));
    assert!(
        !plan.members.contains_key("b"),
        "it is waited for, not relied on"
    );
    a.on_plan(PlanRow::Known(Box::new(plan)));
    assert_eq!(a.next_plan(2), None);
    beats(&mut a, "a", GRACE - SUSPECTED_AFTER);
    let plan = a.next_plan(2).unwrap();
    assert!(plan.tasks.iter().all(|t| t.owner.as_deref() == Some("a")));
}

#[test]
fn a_newer_plan_is_respected_by_holding_nothing() {
    let mut a = cluster("a", &["b"]);
    a.on_plan(PlanRow::Known(Box::new(a.next_plan(2).unwrap())));
    assert_eq!(a.roles().len(), 1);
    a.on_plan(PlanRow::Newer {
        version: 2,
        number: 9,
        generation: None,
    });
    assert!(a.roles().is_empty() && !a.should_take_lead());
    assert_eq!(
        (a.next_plan(2), a.plan_number(), a.outdated_by()),
        (None, 9, Some(2))
    );
}

#[test]
fn a_newer_row_is_present_and_given_nothing() {
    let mut a = cluster("a", &[]);
    let newer = br#"{"version":2,"incarnation":"b-1","beat":1,"endpoint":"http://b","status":"present","new":1}"#;
    a.on_row("b", Some(Row::read(newer).unwrap()));
    assert!(a.is_present("b"));
    let plan = a.next_plan(2).unwrap();
    assert!(plan.tasks.iter().all(|t| t.owner.as_deref() == Some("a")));
}

/// A follower tells where it is a beat late, of which much may have happened.
#[test]
fn a_follower_of_a_busy_partition_counts_as_caught_up() {
    let mut a = cluster("a", &["b"]);
    let at = |instance: &str, beat: u64, position: i64, running: bool| {
        let mut row = row(instance, beat);
        row.stores.insert(0, position);
        if running {
            row.tasks.insert(0, TaskRow { since: 1, running });
        }
        Some(row)
    };
    // While it restores, what it has is what counts.
    a.on_row("a", at("a", 2, 0, false));
    a.on_row("b", at("b", 2, 500, false));
    a.on_row("a", at("a", 3, 90_000, true));
    assert_eq!(a.lag(0, "b"), Some(89_500));
    // Then it processes 40,000 records a beat, and b follows.
    a.on_row("b", at("b", 3, 90_000, false));
    a.on_row("a", at("a", 4, 130_000, true));
    assert_eq!(a.lag(0, "b"), Some(0));
    // A row that is no beat changes nothing.
    a.on_row("a", at("a", 4, 131_000, true));
    assert_eq!(a.lag(0, "b"), Some(0));
    a.on_row("a", at("a", 5, 170_000, true));
    assert_eq!(a.lag(0, "b"), Some(41_000));
}

#[test]
fn who_is_away_for_a_day_is_forgotten_unless_the_plan_names_it() {
    let mut a = cluster("a", &["b", "c"]);
    let plan = a.next_plan(4).unwrap();
    a.on_plan(PlanRow::Known(Box::new(plan)));
    beats(&mut a, "a", FORGOTTEN_AFTER);
    assert_eq!(a.forget(), None, "the plan names all");
    // Both are gone for good, and what b may be writing has not been taken over yet.
    let mut plan = a.next_plan(4).unwrap();
    plan.tasks[0].writers.push(Writer {
        instance: "b".into(),
        transactional_id: "app-b-0".into(),
    });
    for task in &mut plan.tasks[1..] {
        task.writers.clear();
    }
    plan.tasks[0]
        .writers
        .retain(|writer| writer.instance == "b");
    a.on_plan(PlanRow::Known(Box::new(plan)));
    assert_eq!(a.forget().as_deref(), Some("c"));
    assert_eq!(a.forget(), None);
    assert!(
        a.is_announced() && a.is_present("a"),
        "nobody forgets itself"
    );
}

#[test]
fn a_plan_of_another_generation_is_a_reset_whatever_its_number() {
    for (number, of_this_version) in [(1, true), (2, true), (3, true), (1, false), (4, false)] {
        let mut a = cluster("a", &[]);
        let mut plan = a.next_plan(2).unwrap();
        plan.number = 2;
        a.on_plan(PlanRow::Known(Box::new(plan.clone())));
        let mut later = plan.clone();
        later.number = 3;
        a.on_plan(PlanRow::Known(Box::new(later)));
        assert!(!a.is_reset(), "of the same generation");
        assert_eq!(a.roles().len(), 2);

        plan.number = number;
        plan.generation = "b-1".into();
        a.on_plan(match of_this_version {
            true => PlanRow::Known(Box::new(plan)),
            false => PlanRow::Newer {
                version: VERSION + 1,
                number,
                generation: Some(plan.generation),
            },
        });
        assert!(a.is_reset(), "plan {number}");
        assert!(a.roles().is_empty(), "it owns nothing any more");
        assert!(!a.should_take_lead());
        a.on_row("c", Some(row("c", 1)));
        assert_eq!(a.next_plan(2), None, "and plans nothing");
    }
}

#[test]
fn whoever_does_not_know_the_version_of_the_plan_stands_in_nobodys_way() {
    // The versions of a and of the plan, and whether c leads when b, the leader, is gone.
    for (of_a, of_plan, leads) in [
        (VERSION, VERSION, false),
        (VERSION - 1, VERSION, true),
        (VERSION - 1, VERSION - 1, false),
    ] {
        let mut c = cluster("c", &[]);
        let mut plan = cluster("b", &["c"]).next_plan(2).unwrap();
        plan.version = of_plan;
        c.on_plan(PlanRow::Known(Box::new(plan)));
        for beat in 2..10 {
            let mut old = row("a", beat);
            old.version = of_a;
            c.on_row("a", Some(old));
            c.on_row("c", Some(row("c", beat)));
        }
        assert_eq!(c.should_take_lead(), leads, "{of_a} {of_plan}");
    }
}
