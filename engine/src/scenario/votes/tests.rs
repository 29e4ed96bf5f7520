//! Votes as they were put, room for them, and finding them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[test]
fn every_agent_is_found_among_few_and_many() {
    for count in [1, FEW, FEW + 1, 100] {
        let mut votes = Votes::default();
        // Ids of different lengths; many have the same print.
        let agents: Vec<String> = (0..count).map(|i| format!("{i}-ends-alike")).collect();
        for agent in &agents {
            let opinion = Opinion {
                object_id: "",
                agent_id: agent,
                observed_at_ms: 0,
                sequence: 0,
                verdict: (),
                weight: 1,
            };
            let place = votes.find(agent);
            assert!(place.is_err(), "{agent} is new");
            votes.put(place, &opinion, 0, true, agent.as_bytes());
        }
        let ids: Vec<&[u8]> = votes.iter().map(|vote| vote.agent).collect();
        assert!(ids.is_sorted());
        for agent in &agents {
            let place = votes.find(agent).unwrap();
            assert_eq!(votes.get(place).agent, agent.as_bytes());
        }
        assert_eq!(votes.find(""), Err(0));
        assert_eq!(votes.find("~"), Err(count));
    }
}

proptest! {
    #[test]
    fn what_has_room_fits(
        limit in 1_000_usize..4_000,
        reports in proptest::collection::vec((0_u8..12, 0_usize..500, any::<i64>(), any::<u32>()), 1..40),
    ) {
        let mut votes = Votes::default();
        for (agent, len, number, weight) in reports {
            let agent = format!("agent-{agent}");
            let report = [b"frame", agent.as_bytes(), &vec![b'x'; len]].concat();
            let opinion = Opinion {
                object_id: "",
                agent_id: &agent,
                observed_at_ms: number,
                sequence: number,
                verdict: (),
                weight,
            };
            let place = votes.find(&agent);
            if !votes.has_room(place, &agent, &report, limit) {
                continue;
            }
            votes.put(place, &opinion, 0, true, &report);
            let mut row = Vec::new();
            votes.encode(&mut row);
            prop_assert!(row.len() <= limit, "{} bytes", row.len());
            // Who reads the row decides alike.
            let read = Votes::decode(&row).unwrap();
            for more in [0, limit / 4, limit / 2, limit] {
                let more = vec![b'y'; more];
                let same = votes.has_room(Err(0), "z", &more, limit);
                prop_assert_eq!(read.has_room(Err(0), "z", &more, limit), same);
            }
        }
    }

    /// Reports grow and shrink in place, with and without their stem and their agent's id.
    #[test]
    fn votes_are_as_they_were_put(
        reports in proptest::collection::vec(
            (0_u8..9, 0_u8..4, 0_usize..400, any::<i64>(), 0_u32..3, any::<bool>()),
            1..60,
        ),
    ) {
        let mut votes = Votes::default();
        let mut model = BTreeMap::new();
        for (agent, how, len, number, weight, counted) in reports {
            let agent = format!("agent-{agent}");
            let body = vec![b'x'; len];
            let report = match how {
                0 => [b"frame", agent.as_bytes(), &body].concat(),
                1 => [b"other frame", agent.as_bytes(), &body].concat(),
                2 => [&body, agent.as_bytes()].concat(),
                _ => body,
            };
            let opinion = Opinion {
                object_id: "",
                agent_id: &agent,
                observed_at_ms: number,
                sequence: !number,
                verdict: (),
                weight,
            };
            votes.put(votes.find(&agent), &opinion, how, counted, &report);
            model.insert(agent, (number, how, weight, counted, report));
        }
        let mut row = Vec::new();
        votes.encode(&mut row);
        let read = Votes::decode(&row).unwrap();
        for votes in [&votes, &read] {
            prop_assert_eq!(votes.len(), model.len());
            for (place, (vote, (agent, put))) in votes.iter().zip(&model).enumerate() {
                prop_assert_eq!(votes.find(agent), Ok(place));
                prop_assert_eq!(vote.agent, agent.as_bytes());
                prop_assert_eq!(vote.sequence, !vote.observed_at_ms);
                let Vote { observed_at_ms, verdict, weight, counted, .. } = vote;
                prop_assert_eq!(vote.ballot(), counted.then_some(Ballot { verdict, weight }));
                let found = (observed_at_ms, verdict, weight, counted, vote.report.concat());
                prop_assert_eq!(&found, put);
            }
        }
        for cut in 0..row.len() {
            prop_assert!(Votes::decode(&row[..cut]).is_err(), "cut at {}", cut);
        }
    }
}

#[test]
fn what_put_never_wrote_is_refused() {
    let votes = |agents: &[&[u8]]| {
        let mut row = Vec::new();
        packed::put_bytes(&mut row, b"");
        packed::put(&mut row, agents.len());
        for agent in agents {
            let len = u8::try_from(agent.len()).unwrap();
            // No flags, verdict 0, time and sequence of a byte each; the piece is the agent's id alone.
            row.extend_from_slice(&[0, 0, 0x11, 0, len, len, 0, 0]);
            row.extend_from_slice(agent);
        }
        row
    };
    assert!(Votes::decode(&votes(&[b"a", b"b"])).is_ok());
    let mut stem = Vec::new();
    packed::put_bytes(&mut stem, &[b's'; LONGEST_STEM + 1]);
    packed::put(&mut stem, 0);
    let longer = [votes(&[b"a"]), vec![0]].concat();
    let cases = [
        (
            votes(&[b"b", b"a"]),
            "votes are not in the order of their agents",
        ),
        (
            votes(&[b"a", b"a"]),
            "votes are not in the order of their agents",
        ),
        (votes(&[b"\xff"]), "an agent's id is not UTF-8"),
        (longer, "1 bytes are left over"),
        (stem, "the stem is too long"),
        (vec![0xff; 12], "a length in the row is too long"),
    ];
    for (row, expected) in cases {
        assert_eq!(Votes::decode(&row).unwrap_err(), expected);
    }
}

#[test]
fn an_agent_is_found_in_its_report_borrowed_from_it_or_not() {
    let report = b"waf-1 waf-1";
    assert_eq!(within(report, &report[6..]), Some(6));
    assert_eq!(within(report, &report[11..]), Some(11));
    assert_eq!(within(report, b"-1 w"), Some(3));
    assert_eq!(within(report, b"waf-2"), None);
    // It goes on behind the end: another place is meant.
    assert_eq!(within(&report[..8], &report[6..]), Some(0));
}
