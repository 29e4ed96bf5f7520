//! Ports for servers that have to be told theirs, and must get the same one when they start again.
//!
//! They lie below the range that the system gives to outgoing connections (32768 and up on Linux), so a port
//! whose server is stopped is not taken meanwhile; and a lock file keeps two processes that use this crate from
//! choosing the same.

use std::env;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;

use anyhow::{Context, Result, bail};

const FIRST: u16 = 15_000;
const COUNT: u16 = 15_000;

/// A port on 127.0.0.1 that is this process's until dropped.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Reserves a port that nobody listens on.
    pub(crate) fn reserve() -> Result<Self> {
        let folder = env::temp_dir().join(format!(
            "shared-state-ports-{}",
            rustix::process::getuid().as_raw()
        ));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        // The standard library's hash keys are its only source of randomness, and good enough for this.
        let start = RandomState::new().hash_one(0) % u64::from(COUNT);
        for step in 0..u64::from(COUNT) {
            let number = FIRST + u16::try_from((start + step) % u64::from(COUNT))?;
            let path = folder.join(number.to_string());
            let lock =
                File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
            if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Ok(Self {
                    number,
                    _lock: lock,
                });
            }
        }
        bail!("no free port from {FIRST} to {}", FIRST + COUNT - 1)
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn nobody_gets_a_port_that_another_holds() {
        let ports: Vec<_> = (0..50).map(|_| Port::reserve().unwrap()).collect();
        assert_eq!(
            ports
                .iter()
                .map(Port::number)
                .collect::<BTreeSet<_>>()
                .len(),
            50
        );
    }
}
