//! Who sees which site under attack, and when. A pure function of the time since the start.

use std::{collections::HashMap, str::FromStr, time::Duration};

/// A site that is attacked on demand: `NAME`, `NAME@FROM` or `NAME@FROM..TO`, with times since the
/// start such as `10s` or `1m30s`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attack {
    /// The site.
    pub object_id: String,
    /// When it begins, since the start.
    pub from: Duration,
    /// When it ends, since the start; `None`: not before the run ends.
    pub to: Option<Duration>,
}

impl FromStr for Attack {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (object_id, times) = match text.split_once('@') {
            Some((name, times)) => (name, Some(times)),
            None => (text, None),
        };
        if object_id.is_empty() {
            return Err(
                "write NAME, NAME@FROM or NAME@FROM..TO, as in shop.example.com@10s..1m".into(),
            );
        }
        let time = |text: &str| {
            humantime::parse_duration(text).map_err(|e| format!("{text:?} is no duration: {e}"))
        };
        let (from, to) = match times.map(|times| times.split_once("..").unwrap_or((times, ""))) {
            None => (Duration::ZERO, None),
            Some((from, "")) => (time(from)?, None),
            Some((from, to)) => (time(from)?, Some(time(to)?)),
        };
        if to.is_some_and(|to| to <= from) {
            return Err("the attack must end after it begins".into());
        }
        Ok(Self {
            object_id: object_id.to_owned(),
            from,
            to,
        })
    }
}

/// Attacks that come and go: a pause, then a wave over some objects, then a pause, and so on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waves {
    /// Objects under attack at once; 0: none.
    pub attacked: usize,
    /// How long a wave lasts.
    pub wave: Duration,
    /// How long the pause before each wave lasts.
    pub pause: Duration,
}

/// Everything that happens to the objects, by index.
#[derive(Debug, Clone)]
pub struct Sky {
    waves: Waves,
    objects: usize,
    seed: u64,
    on_demand: HashMap<usize, Vec<(i64, i64)>>,
}

impl Sky {
    /// What happens to `objects` objects: the `waves`, chosen by `seed`, and the attacks `on_demand`
    /// (object index and attack).
    #[must_use]
    pub fn new(waves: Waves, objects: usize, seed: u64, on_demand: &[(usize, Attack)]) -> Self {
        let mut by_object: HashMap<usize, Vec<(i64, i64)>> = HashMap::new();
        for (object, attack) in on_demand {
            let to = attack.to.map_or(i64::MAX, millis);
            by_object
                .entry(*object)
                .or_default()
                .push((millis(attack.from), to));
        }
        Self {
            waves,
            objects,
            seed,
            on_demand: by_object,
        }
    }

    /// Is `object` under attack `t_ms` after the start? Nothing is before the start.
    #[must_use]
    pub fn attacked(&self, object: usize, t_ms: i64) -> bool {
        if t_ms < 0 {
            return false;
        }
        let on_demand = self
            .on_demand
            .get(&object)
            .is_some_and(|all| all.iter().any(|(from, to)| (*from..*to).contains(&t_ms)));
        on_demand || self.in_wave(object, t_ms)
    }

    /// The objects of one wave stand next to each other, from a place that seed and wave decide.
    fn in_wave(&self, object: usize, t_ms: i64) -> bool {
        let attacked = self.waves.attacked.min(self.objects);
        let pause = millis(self.waves.pause);
        let cycle = pause + millis(self.waves.wave);
        if attacked == 0 || cycle == 0 || t_ms % cycle < pause {
            return false;
        }
        let wave = (t_ms / cycle).cast_unsigned();
        let objects = self.objects as u64;
        let first = mix(self.seed ^ mix(wave)) % objects;
        let distance = (object as u64 + objects - first) % objects;
        distance < attacked as u64
    }
}

/// A duration in whole milliseconds.
#[must_use]
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

/// SplitMix64's finaliser (Steele, Lea, Flood: "Fast splittable pseudorandom number generators"):
/// neighbours become unrelated.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waves(attacked: usize) -> Waves {
        Waves {
            attacked,
            wave: Duration::from_secs(20),
            pause: Duration::from_secs(10),
        }
    }

    #[test]
    fn waves_come_after_pauses_and_hit_as_many_as_asked() {
        let sky = Sky::new(waves(3), 10, 7, &[]);
        for t in (0..300_000).step_by(500) {
            let hit = (0..10).filter(|object| sky.attacked(*object, t)).count();
            let expected = if t % 30_000 < 10_000 { 0 } else { 3 };
            assert_eq!(hit, expected, "{t} ms after the start");
        }
    }

    #[test]
    fn waves_move_about() {
        let sky = Sky::new(waves(1), 50, 7, &[]);
        let hit = |wave: i64| (0..50).find(|o| sky.attacked(*o, wave * 30_000 + 15_000));
        let all: std::collections::BTreeSet<_> = (0..20).map(hit).collect();
        assert!(all.len() > 10, "20 waves hit only {} objects", all.len());
    }

    #[test]
    fn attacks_on_demand_keep_their_times() {
        let attack = "a@5s..7s".parse().unwrap();
        let later = "b@1m".parse().unwrap();
        let sky = Sky::new(waves(0), 3, 0, &[(0, attack), (1, later)]);
        let cases = [
            (0, -1, false),
            (0, 4_999, false),
            (0, 5_000, true),
            (0, 6_999, true),
            (0, 7_000, false),
            (1, 59_999, false),
            (1, 60_000, true),
            (1, 6_000_000, true),
            (2, 60_000, false),
        ];
        for (object, t, expected) in cases {
            assert_eq!(sky.attacked(object, t), expected, "object {object} at {t}");
        }
    }

    #[test]
    fn reads_attacks() {
        let good = [
            ("shop", 0, None),
            ("shop@2s", 2_000, None),
            ("shop@2s..1m", 2_000, Some(60_000)),
        ];
        for (text, from, to) in good {
            let attack: Attack = text.parse().unwrap();
            assert_eq!(attack.object_id, "shop");
            assert_eq!(
                (millis(attack.from), attack.to.map(millis)),
                (from, to),
                "{text}"
            );
        }
        for bad in ["", "@1s", "shop@soon", "shop@5s..5s", "shop@..5s"] {
            assert!(bad.parse::<Attack>().is_err(), "{bad}");
        }
    }
}
