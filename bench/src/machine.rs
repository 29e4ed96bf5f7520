//! What the machine is, and what a process takes of it, as `/proc` tells.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// Where something was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// How many of them this process may use.
    pub cores: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The operating system.
    pub system: String,
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn this() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let (processor, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
        let name = field(&processor, "model name").unwrap_or("unknown");
        Self {
            processor: name.to_owned(),
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            memory_mib: kibibytes(&memory, "MemTotal").unwrap_or(0) / 1024,
            system: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

/// What a process has taken so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Seconds of processor time, of all its threads, in user and in kernel mode.
    pub cpu_s: f64,
    /// Resident memory now, in MiB.
    pub rss_mib: u64,
    /// The most that it ever was, in MiB.
    pub peak_rss_mib: u64,
}

impl Usage {
    /// What process `pid` has taken so far.
    ///
    /// # Errors
    /// There is no such process.
    pub fn of(pid: u32) -> Result<Self> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
        };
        let (stat, status) = (read("stat")?, read("status")?);
        let ticks = cpu_ticks(&stat).with_context(|| format!("unexpected /proc/{pid}/stat"))?;
        let mib = |name| kibibytes(&status, name).unwrap_or(0) / 1024;
        Ok(Self {
            cpu_s: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
            rss_mib: mib("VmRSS"),
            peak_rss_mib: mib("VmHWM"),
        })
    }

    /// The share of one core since `before`, which was `time` ago.
    #[must_use]
    pub fn cores_since(&self, before: &Self, time: Duration) -> f64 {
        (self.cpu_s - before.cpu_s) / time.as_secs_f64()
    }
}

/// User and system time in `/proc/<pid>/stat`. The name in parentheses may hold spaces.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(ticks()? + ticks()?)
}

/// The first `name : value` of a file in `/proc`.
fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let mut values = lines.filter(|(found, _)| found.trim() == name);
    values.next().map(|(_, value)| value.trim())
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let value = field(text, name)?;
    value.trim_end_matches("kB").trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_files_of_proc() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 1 2 3 4 100 50 7 8 20 0 5";
        assert_eq!(cpu_ticks(stat), Some(150));
        assert_eq!(cpu_ticks("42 (cut"), None);
        let status = "Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n";
        assert_eq!(kibibytes(status, "VmRSS"), Some(1024));
        assert_eq!(kibibytes(status, "VmSwap"), None);
    }

    #[test]
    fn this_process_takes_something() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.rss_mib > 0 && usage.peak_rss_mib >= usage.rss_mib);
        assert!(Usage::of(u32::MAX).is_err());
        assert!(Machine::this().cores > 0);
    }
}
