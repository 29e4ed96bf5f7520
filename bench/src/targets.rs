//! What was promised, and what came of it: one number for each promise and round. Systems that take turns are minutes apart in a
//! round; in another round, the machine may be half as fast for all of them.

use crate::report::{Spread, Table};
use crate::results::Results;
use crate::systems::{OURS, STREAMS};
use crate::work::{drain, growth, idle, latency, limit, restore, takeover};

/// When a promise is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// The number is this or more.
    AtLeast(f64),
    /// It is this or less.
    AtMost(f64),
    /// It is less than this.
    Below(f64),
}

impl Bound {
    /// Is it kept?
    #[must_use]
    pub fn keeps(self, number: f64) -> bool {
        match self {
            Self::AtLeast(bound) => number >= bound,
            Self::AtMost(bound) => number <= bound,
            Self::Below(bound) => number < bound,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(bound) => format!("at least {bound}"),
            Self::AtMost(bound) => format!("at most {bound}"),
            Self::Below(bound) => format!("below {bound}"),
        }
    }
}

/// A promise.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name in the last lines of a run.
    pub id: &'static str,
    /// What is compared.
    pub what: &'static str,
    /// When it is kept.
    pub bound: Bound,
    /// Of one round.
    number: fn(&Results) -> Option<f64>,
}

impl Target {
    /// The work that measures it.
    fn work(&self) -> &'static str {
        match self.id.split_once('-') {
            Some(("start", _)) => "restore",
            Some((work, _)) => work,
            None => self.id,
        }
    }

    /// Its number in the rounds, of which the middle one counts; `None` if it was not measured.
    #[must_use]
    pub fn numbers(&self, results: &Results) -> Option<Spread> {
        let numbers = results
            .each_round()
            .filter_map(|round| (self.number)(&round));
        Spread::of(numbers.filter(|number| number.is_finite()))
    }
}

const fn target(
    id: &'static str,
    what: &'static str,
    bound: Bound,
    number: fn(&Results) -> Option<f64>,
) -> Target {
    Target {
        id,
        what,
        bound,
        number,
    }
}

/// Ours as a multiple of the peer's.
fn times(results: &Results, work: &str, case: &str, metric: &str) -> Option<f64> {
    let of = |variant| results.median(work, case, variant, metric);
    Some(of(OURS)? / of(STREAMS)?)
}

fn restored(results: &Results, metric: &str) -> Option<f64> {
    let case = restore::Store::None.case(restore::SIZES[1].1);
    times(results, "restore", &case, metric)
}

/// All of them, in the order of the document.
pub const TARGETS: [Target; 17] = [
    target(
        "drain-100k-cpu",
        "drain of 100,000 objects, reports per CPU second",
        Bound::AtLeast(7.0),
        |r| times(r, "drain", drain::FEW, "reports_per_cpu_s"),
    ),
    target(
        "drain-100k-cpu-warm",
        "the same against the second half of Kafka Streams' drain",
        Bound::AtLeast(6.0),
        |r| {
            let streams = r.median("drain", drain::FEW, STREAMS, "warm_cpu_s_per_million")?;
            Some(streams / r.median("drain", drain::FEW, OURS, "cpu_s_per_million")?)
        },
    ),
    target(
        "drain-2m-cpu",
        "drain of 2,000,000 objects, reports per CPU second",
        Bound::AtLeast(4.0),
        |r| times(r, "drain", drain::MANY, "reports_per_cpu_s"),
    ),
    target(
        "drain-100k-wall",
        "drain of 100,000 objects, reports per second",
        Bound::AtLeast(7.0),
        |r| times(r, "drain", drain::FEW, "reports_per_s"),
    ),
    target(
        "drain-limit-share",
        "drain of 100,000 objects, share of what librdkafka alone does per CPU second",
        Bound::AtLeast(0.45),
        |r| {
            let of = |variant| r.median("drain", drain::FEW, variant, "reports_per_cpu_s");
            Some(of(OURS)? / of(limit::NAME)?)
        },
    ),
    target(
        "drain-peak-rss",
        "peak memory of that drain",
        Bound::AtMost(0.25),
        |r| times(r, "drain", drain::FEW, "peak_rss_mib"),
    ),
    target(
        "idle-rss",
        "memory of an idle instance",
        Bound::AtMost(0.2),
        |r| times(r, "idle", idle::CASES[1].1, "steady_rss_mib"),
    ),
    target(
        "drain-broker-cpu",
        "CPU of the broker per million reports of that drain",
        Bound::AtMost(0.5),
        |r| times(r, "drain", drain::FEW, "broker_cpu_s_per_million"),
    ),
    target(
        "latency-100ms-p99",
        "report to state, p99, committing every 100 ms",
        Bound::AtMost(0.75),
        |r| times(r, "latency", latency::CASES[0].name, "p99_ms"),
    ),
    target(
        "latency-10ms-p99-ms",
        "report to state, p99 in ms, committing every 10 ms",
        Bound::Below(45.0),
        |r| r.median("latency", latency::CASES[1].name, OURS, "p99_ms"),
    ),
    target(
        "restore-2m-cpu",
        "restore of 2,000,000 objects from nothing, changelog records per CPU second",
        Bound::AtLeast(3.3),
        |r| restored(r, "records_per_cpu_s"),
    ),
    target(
        "restore-2m-wall",
        "the same, changelog records per second",
        Bound::AtLeast(3.5),
        |r| restored(r, "records_per_s"),
    ),
    target(
        "start-100k",
        "start with its own store to serving, 100,000 objects",
        Bound::AtMost(0.25),
        |r| started(r, restore::SIZES[0].1),
    ),
    target(
        "start-2m",
        "start with its own store to serving, 2,000,000 objects",
        Bound::AtMost(0.25),
        |r| started(r, restore::SIZES[1].1),
    ),
    target(
        "takeover-read-s",
        "takeover with a standby, defaults: seconds without an answer",
        Bound::AtMost(3.0),
        |r| Some(r.median("takeover", takeover::CASE, takeover::OURS, "no_answer_ms")? / 1e3),
    ),
    target(
        "takeover-write-s",
        "takeover with a standby, defaults: seconds until a report shows",
        Bound::AtMost(3.0),
        |r| Some(r.median("takeover", takeover::CASE, takeover::OURS, "not_shown_ms")? / 1e3),
    ),
    target(
        "growth-agents",
        "cost per report with 1,000 agents of an object, as a multiple of that with 10",
        Bound::Below(2.0),
        |r| {
            let cost = |case| r.median("growth", case, OURS, "cpu_s_per_million");
            Some(cost(growth::AGENTS[2].1)? / cost(growth::AGENTS[0].1)?)
        },
    ),
];

fn started(results: &Results, size: &str) -> Option<f64> {
    let case = restore::Store::Own.case(size);
    times(results, "restore", &case, "serving_ms")
}

/// The table of all that was measured.
#[must_use]
pub fn table(results: &Results) -> Table {
    let mut table = Table::new(&["", "target", "measured", ""]);
    for target in TARGETS {
        let Some(numbers) = target.numbers(results) else {
            continue;
        };
        let met = if target.bound.keeps(numbers.median) {
            "met"
        } else {
            "**not met**"
        };
        table.row(vec![
            target.what.to_owned(),
            target.bound.text(),
            numbers.show(3),
            met.to_owned(),
        ]);
    }
    table
}

/// One line `ratio ID NUMBER` for each whose work was asked for; `nan` if the measurement failed.
#[must_use]
pub fn lines(results: &Results) -> Vec<String> {
    let asked = |target: &&Target| results.works.iter().any(|work| work == target.work());
    let line = |target: &Target| match target.numbers(results) {
        Some(numbers) => format!("ratio {} {:.3}", target.id, numbers.median),
        None => format!("ratio {} nan", target.id),
    };
    TARGETS.iter().filter(asked).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Measurement, sample};

    #[test]
    fn numbers_are_those_of_the_rounds() {
        let fast = [("reports_per_cpu_s", 700.0), ("cpu_s_per_million", 1.0)];
        let slow = [
            ("reports_per_cpu_s", 100.0),
            ("warm_cpu_s_per_million", 5.5),
        ];
        let limit = [("reports_per_cpu_s", 1_000.0)];
        let results = sample(&[
            ("drain", drain::FEW, OURS, &fast),
            ("drain", drain::FEW, STREAMS, &slow),
            ("drain", drain::FEW, limit::NAME, &limit),
        ]);
        let lines = lines(&results);
        assert_eq!(
            lines,
            [
                "ratio drain-100k-cpu 7.000",
                "ratio drain-100k-cpu-warm 5.500",
                // Asked for, and not measured.
                "ratio drain-2m-cpu nan",
                "ratio drain-100k-wall nan",
                "ratio drain-limit-share 0.700",
                "ratio drain-peak-rss nan",
                "ratio drain-broker-cpu nan",
            ]
        );
        let text = table(&results).text();
        assert_eq!(text.matches("**not met**").count(), 1, "{text}");
    }

    /// The medians may be those of different rounds: here they would make 9.
    #[test]
    fn a_machine_that_is_faster_in_a_round_is_so_for_both() {
        let mut results = sample(&[]);
        for (round, ours, streams) in [(1, 400.0, 50.0), (2, 900.0, 150.0), (3, 1_000.0, 100.0)] {
            let cpu = |number| [("reports_per_cpu_s", number)];
            let (ours, streams) = (cpu(ours), cpu(streams));
            let ran = sample(&[
                ("drain", drain::FEW, OURS, &ours),
                ("drain", drain::FEW, STREAMS, &streams),
            ]);
            let ran = ran.measurements.into_iter();
            results
                .measurements
                .extend(ran.map(|run| Measurement { round, ..run }));
        }
        let numbers = TARGETS[0].numbers(&results).unwrap();
        assert_eq!(numbers.show(1), "6.0 / 8.0 / 10.0");
    }

    #[test]
    fn bounds() {
        assert!(Bound::AtLeast(7.0).keeps(7.0) && !Bound::AtLeast(7.0).keeps(6.9));
        assert!(Bound::AtMost(0.2).keeps(0.2) && !Bound::AtMost(0.2).keeps(0.3));
        assert!(Bound::Below(2.0).keeps(1.9) && !Bound::Below(2.0).keeps(2.0));
    }
}
