//! Room for votes, and finding them.

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
}
