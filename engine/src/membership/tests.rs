//! The assignor's properties, and the rules of start and lead as tables.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{assign::assign, *};

fn ids(names: &[&str]) -> BTreeSet<InstanceId> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

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
    }
}

/// A cluster seen by `me`, in which everybody has just spoken.
fn cluster(me: &str, others: &[&str]) -> Cluster {
    let mut cluster = Cluster::new(me, &format!("{me}-1"));
    for other in others {
        cluster.on_row(other, Some(row(other, 1)));
    }
    cluster.on_row(me, Some(row(me, 1)));
    cluster
}

fn beats(cluster: &mut Cluster, me: &str, count: u32) {
    for _ in 0..count {
        let next = cluster.beat + 1;
        cluster.on_row(me, Some(row(me, next)));
    }
}

fn shares(owners: &[Option<InstanceId>]) -> BTreeMap<InstanceId, usize> {
    let mut shares = BTreeMap::new();
    for owner in owners.iter().flatten() {
        *shares.entry(owner.clone()).or_insert(0) += 1;
    }
    shares
}

proptest! {
    #[test]
    fn assignments_are_complete_balanced_and_sticky(
        partitions in 1..40u32,
        first in proptest::collection::btree_set("[a-h]", 1..6),
        second in proptest::collection::btree_set("[a-h]", 1..6),
    ) {
        let before = assign(&first, &[], partitions);
        let after = assign(&second, &before, partitions);
        prop_assert_eq!(after.len(), partitions as usize);
        prop_assert!(after.iter().all(|o| o.as_ref().is_some_and(|o| second.contains(o))));
        let shares = shares(&after);
        let most = shares.values().max().copied().unwrap_or(0);
        let least = second.iter().map(|m| shares.get(m).copied().unwrap_or(0)).min().unwrap_or(0);
        prop_assert!(most - least <= 1, "{:?}", shares);
        // Only what must move moves: an owner that stays loses at most what is above its share.
        for member in first.intersection(&second) {
            let had = before.iter().filter(|o| o.as_ref() == Some(member)).count();
            let kept = (0..partitions as usize)
                .filter(|p| before[*p].as_ref() == Some(member) && after[*p].as_ref() == Some(member))
                .count();
            let fair = partitions as usize / second.len();
            prop_assert!(kept >= had.min(fair), "{member} had {had}, kept {kept} of a share of {fair}");
        }
        prop_assert_eq!(&assign(&second, &after, partitions), &after, "nothing moves without a reason");
    }
}

#[test]
fn nobody_present_means_nobody_owns() {
    assert_eq!(assign(&ids(&[]), &[], 2), vec![None, None]);
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
    a.on_plan(plan.clone());
    b.on_plan(plan);
    assert!(b.is_member());
    assert_eq!(a.next_plan(4), None, "nothing changed");
    beats(&mut b, "b", SUSPECTED_AFTER);
    assert!(b.should_take_lead(), "a is silent");
    let plan = b.next_plan(4).unwrap();
    assert_eq!(plan.number, 2);
    assert!(plan.tasks.iter().all(|t| t.owner.as_deref() == Some("b")));
    a.on_plan(plan);
    assert!(a.is_led_by_another());
}

#[test]
fn an_unannounced_instance_leads_nothing() {
    let mut cluster = Cluster::new("a", "a-2");
    cluster.on_row("a", Some(row("a", 9)));
    assert!(!cluster.should_take_lead());
    assert_eq!(cluster.former_ids(), ["app-a-0"]);
}

#[test]
fn a_new_owner_waits_for_those_present_and_fences_the_others() {
    let nothing = BTreeMap::new();
    let mut a = cluster("a", &[]);
    a.on_plan(a.next_plan(2).unwrap());
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
    b.on_plan(plan.clone());
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
    b.on_plan(plan);
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
    leader.on_plan(plan.clone());
    let mut y_plan = plan.clone();
    y_plan.number = 2;
    y_plan.tasks[0] = leader.assignment(
        0,
        Some("y".into()),
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
    leader.on_plan(y_plan.clone());
    let next = leader.assignment(
        0,
        Some("l".into()),
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
        Some("l".into()),
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
