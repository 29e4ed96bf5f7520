//! Stands between Kafka's clients and its brokers and breaks things on purpose.
//!
//! Brokers tell clients where the brokers are. The proxy changes those addresses to its own, one listener per
//! broker, made when a broker is first heard of; so every connection of a client goes through it. It reads the
//! head of each frame (which request, which version) and changes only answers that hold addresses; everything
//! else passes as it came, byte for byte. Connections without TLS only.

mod connection;
mod faults;
mod request;
mod rewrite;

use std::collections::{BTreeMap, HashMap};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
pub use kafka_protocol::messages::ApiKey;
use tokio::net::TcpListener;
use tokio::sync::watch;

use self::faults::Faults;
use self::request::transactional_id;
use crate::port::Port;
use crate::process::POLL;

/// The way that bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Requests.
    ToBroker,
    /// Answers.
    ToClient,
}

/// A running proxy. Dropping it closes all connections.
#[derive(Debug)]
pub struct KafkaProxy {
    bootstrap: String,
    shared: Arc<Shared>,
}

/// What the connections share with the handle.
#[derive(Debug)]
struct Shared {
    /// One listener for each broker, by the broker's address.
    routes: Mutex<HashMap<String, Arc<Route>>>,
    faults: watch::Sender<Faults>,
    counts: Mutex<Counts>,
    connections: AtomicUsize,
}

#[derive(Debug, Default)]
struct Counts {
    /// Requests seen, by the number of their API key.
    requests: BTreeMap<i16, u64>,
    /// Answers still to be swallowed, by the number of their request's API key.
    drops: BTreeMap<i16, Drops>,
    /// Answers swallowed so far.
    dropped: u64,
}

/// Answers of a kind that are still to be swallowed.
#[derive(Debug)]
struct Drops {
    left: u64,
    /// Only those to requests of this transactional id.
    transactional_id: Option<String>,
}

/// A listener that stands for a broker.
#[derive(Debug)]
struct Route {
    broker: String,
    port: Port,
    listening: AtomicBool,
}

impl KafkaProxy {
    /// Starts a proxy before the brokers of this `bootstrap.servers`. They need not run yet.
    ///
    /// # Errors
    /// The list is empty, or there is no free port.
    pub async fn start(bootstrap: &str) -> Result<Self> {
        let shared = Arc::new(Shared {
            routes: Mutex::default(),
            faults: watch::Sender::new(Faults::default()),
            counts: Mutex::default(),
            connections: AtomicUsize::new(0),
        });
        let brokers = bootstrap
            .split(',')
            .map(str::trim)
            .filter(|broker| !broker.is_empty());
        let addresses = brokers
            .map(|broker| Ok(shared.address_for(broker)?.to_string()))
            .collect::<Result<Vec<_>>>()?;
        ensure!(
            !addresses.is_empty(),
            "no broker to stand before: {bootstrap:?}"
        );
        Ok(Self {
            bootstrap: addresses.join(","),
            shared,
        })
    }

    /// The `bootstrap.servers` of clients that are to come through the proxy.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The proxy's address for the broker at this address, which clients are told instead of it.
    ///
    /// # Errors
    /// The broker is not known yet and there is no free port.
    pub fn address_for(&self, broker: &str) -> Result<SocketAddr> {
        self.shared.address_for(broker)
    }

    /// Closes all connections and refuses new ones. Returns when that is so.
    pub async fn cut(&self) {
        self.shared.faults.send_modify(|faults| faults.cut = true);
        // In this order: whoever still listens may add a connection.
        let quiet = || self.shared.count_listening() == 0 && self.connections() == 0;
        while !quiet() {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Closes all connections; new ones are welcome. A network that hiccups.
    pub fn reset(&self) {
        self.shared.faults.send_modify(|faults| faults.resets += 1);
    }

    /// Ends a [`cut`](Self::cut). Returns when connections are accepted again.
    pub async fn restore(&self) {
        self.shared.faults.send_modify(|faults| faults.cut = false);
        while self.shared.count_listening() < self.shared.routes().len() {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Delivers everything that goes this way so much later, in order and with no loss of throughput.
    /// [`Duration::ZERO`] ends it.
    pub fn delay(&self, direction: Direction, delay: Duration) {
        self.shared.faults.send_modify(|faults| match direction {
            Direction::ToBroker => faults.delay_to_broker = delay,
            Direction::ToClient => faults.delay_to_client = delay,
        });
    }

    /// Keeps all connections open and moves no bytes; new connections are accepted and hang too.
    pub fn freeze(&self) {
        self.shared
            .faults
            .send_modify(|faults| faults.frozen = true);
    }

    /// Ends a [`freeze`](Self::freeze): what has been held back is delivered.
    pub fn thaw(&self) {
        self.shared
            .faults
            .send_modify(|faults| faults.frozen = false);
    }

    /// Loses the answers to the next `count` requests of this kind: the broker gets the request and does what it
    /// says; its answer is swallowed, and the client's connection closed instead.
    pub fn drop_answer(&self, request: ApiKey, count: u64) {
        self.lose(request, None, count);
    }

    /// [`drop_answer`](Self::drop_answer), but only if the request is of this transactional id: an instance has several
    /// producers. For requests that begin with the id, as all do that librdkafka makes in a transaction.
    pub fn drop_answer_to(&self, transactional_id: &str, request: ApiKey, count: u64) {
        self.lose(request, Some(transactional_id.to_owned()), count);
    }

    fn lose(&self, request: ApiKey, transactional_id: Option<String>, left: u64) {
        let drops = Drops {
            left,
            transactional_id,
        };
        self.shared.counts().drops.insert(request as i16, drops);
    }

    /// How many answers [`drop_answer`](Self::drop_answer) has lost so far.
    pub fn dropped(&self) -> u64 {
        self.shared.counts().dropped
    }

    /// How many requests of this kind have come so far.
    pub fn requests(&self, request: ApiKey) -> u64 {
        self.shared
            .counts()
            .requests
            .get(&(request as i16))
            .copied()
            .unwrap_or(0)
    }

    /// How many requests of each kind have come so far, by name; those of a kind that is not known by number.
    pub fn all_requests(&self) -> BTreeMap<String, u64> {
        let name = |key: i16| {
            ApiKey::try_from(key).map_or_else(|()| key.to_string(), |key| format!("{key:?}"))
        };
        self.shared
            .counts()
            .requests
            .iter()
            .map(|(key, count)| (name(*key), *count))
            .collect()
    }

    /// How many connections of clients are open.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for KafkaProxy {
    fn drop(&mut self) {
        self.shared.faults.send_modify(|faults| faults.over = true);
    }
}

impl Shared {
    fn routes(&self) -> MutexGuard<'_, HashMap<String, Arc<Route>>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_listening(&self) -> usize {
        self.routes()
            .values()
            .filter(|route| route.listening.load(Ordering::SeqCst))
            .count()
    }

    /// Counts a request and decides whether its answer is to be swallowed.
    fn count_request(&self, key: i16, frame: &[u8]) -> bool {
        let mut counts = self.counts();
        *counts.requests.entry(key).or_default() += 1;
        let Some(drops) = counts.drops.get_mut(&key).filter(|drops| drops.left > 0) else {
            return false;
        };
        let wanted = drops.transactional_id.as_deref();
        if wanted.is_some_and(|id| transactional_id(frame) != Some(id)) {
            return false;
        }
        drops.left -= 1;
        counts.dropped += 1;
        true
    }

    /// The local address that stands for a broker; its listener is made if there is none.
    fn address_for(self: &Arc<Self>, broker: &str) -> Result<SocketAddr> {
        let mut routes = self.routes();
        if let Some(route) = routes.get(broker) {
            return Ok(route.address());
        }
        let port = Port::reserve()?;
        let route = Arc::new(Route {
            broker: broker.to_owned(),
            port,
            listening: AtomicBool::new(false),
        });
        // Bound here and not in the task: a client that is told the address connects at once.
        let cut = self.faults.borrow().cut;
        let listener = if cut { None } else { Some(route.bind()?) };
        routes.insert(broker.to_owned(), Arc::clone(&route));
        tokio::spawn(listen(
            Arc::clone(&route),
            listener,
            Arc::downgrade(self),
            self.faults.subscribe(),
        ));
        Ok(route.address())
    }
}

impl Route {
    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port.number()))
    }

    fn bind(&self) -> Result<TcpListener> {
        let address = self.address();
        let listener =
            StdListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        self.listening.store(true, Ordering::SeqCst);
        Ok(listener)
    }
}

/// Accepts connections for a broker until the proxy is dropped; during a cut nobody listens.
async fn listen(
    route: Arc<Route>,
    mut listener: Option<TcpListener>,
    shared: Weak<Shared>,
    mut faults: watch::Receiver<Faults>,
) {
    loop {
        let now = faults.borrow_and_update().clone();
        if now.over {
            return;
        }
        if now.cut {
            listener = None;
            route.listening.store(false, Ordering::SeqCst);
        } else if listener.is_none() {
            match route.bind() {
                Ok(bound) => listener = Some(bound),
                Err(error) => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the proxy cannot listen again; trying on"
                    );
                    tokio::time::sleep(POLL).await;
                    continue;
                }
            }
        }
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = faults.changed() => if changed.is_err() { return },
            accepted = accepted => if let (Ok((client, _)), Some(shared)) = (accepted, shared.upgrade()) {
                connection::spawn(client, route.broker.clone(), shared);
            },
        }
    }
}
