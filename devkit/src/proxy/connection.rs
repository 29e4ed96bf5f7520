//! One connection of a client and the one to the broker that belongs to it.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::faults::{self, Faults};
use super::rewrite::rewrite;
use super::{Direction, Shared};

/// Kafka's brokers take 100 MB at most, clients may be told otherwise.
const MAX_FRAME: usize = 256 << 20;

/// How many frames may wait for a delay to pass.
const IN_FLIGHT: usize = 64;

/// A request whose answer is awaited.
#[derive(Clone, Copy, Debug)]
struct Pending {
    key: i16,
    version: i16,
    correlation_id: i32,
    swallow: bool,
}

/// The requests of a connection in order: a broker answers them in order.
type Requests = Mutex<VecDeque<Pending>>;

/// Counts a connection as long as it lives.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: Arc<Shared>) -> Self {
        shared.connections.fetch_add(1, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Serves a client until either side leaves or a fault ends it.
pub(super) fn spawn(client: TcpStream, broker: String, shared: Arc<Shared>) {
    let open = Open::new(Arc::clone(&shared));
    let faults = shared.faults.subscribe();
    let resets = faults.borrow().resets;
    tokio::spawn(async move {
        tokio::select! {
            ended = serve(client, &broker, &shared) => if let Err(error) = ended {
                tracing::debug!(broker, error = format!("{error:#}"), "a proxied connection ended");
            },
            () = faults::broken(faults, resets) => {}
        }
        drop(open);
    });
}

async fn serve(client: TcpStream, broker: &str, shared: &Arc<Shared>) -> Result<()> {
    let upstream = TcpStream::connect(broker)
        .await
        .with_context(|| format!("cannot connect to broker {broker}"))?;
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let (mut from_client, to_client) = client.into_split();
    let (mut from_broker, to_broker) = upstream.into_split();
    let requests = Requests::default();

    let (send_request, queued_requests) = mpsc::channel(IN_FLIGHT);
    let (send_answer, queued_answers) = mpsc::channel(IN_FLIGHT);
    let mut faults = [(); 4].map(|()| shared.faults.subscribe());
    let [
        request_faults,
        answer_faults,
        to_broker_faults,
        to_client_faults,
    ] = &mut faults;
    let requests_in = async {
        while let Some(frame) = read(&mut from_client, request_faults).await? {
            note(&frame, &requests, shared)?;
            let due = Instant::now() + request_faults.borrow().delay(Direction::ToBroker);
            send_request.send((due, frame)).await?;
        }
        Ok(())
    };
    let answers_in = async {
        while let Some(frame) = read(&mut from_broker, answer_faults).await? {
            let frame = answer(frame, &requests, shared)?;
            let due = Instant::now() + answer_faults.borrow().delay(Direction::ToClient);
            send_answer.send((due, frame)).await?;
        }
        Ok(())
    };
    // The first that ends, ends all: half a connection is of no use to Kafka's protocol.
    tokio::select! {
        ended = requests_in => ended,
        ended = answers_in => ended,
        ended = write(queued_requests, to_broker, to_broker_faults) => ended,
        ended = write(queued_answers, to_client, to_client_faults) => ended,
    }
}

/// Reads a frame without its length; none when the other side has left.
async fn read(
    from: &mut OwnedReadHalf,
    faults: &mut watch::Receiver<Faults>,
) -> Result<Option<Bytes>> {
    faults::thawed(faults).await;
    let Ok(length) = from.read_i32().await else {
        return Ok(None);
    };
    let length = usize::try_from(length).context("a frame of negative length")?;
    ensure!(length <= MAX_FRAME, "a frame of {length} bytes");
    let mut frame = BytesMut::zeroed(length);
    from.read_exact(&mut frame).await?;
    Ok(Some(frame.freeze()))
}

/// Writes each frame when it is due.
async fn write(
    mut queue: mpsc::Receiver<(Instant, Bytes)>,
    mut to: OwnedWriteHalf,
    faults: &mut watch::Receiver<Faults>,
) -> Result<()> {
    while let Some((due, frame)) = queue.recv().await {
        tokio::time::sleep_until(due).await;
        faults::thawed(faults).await;
        to.write_i32(i32::try_from(frame.len())?).await?;
        to.write_all(&frame).await?;
    }
    Ok(())
}

/// Remembers which request this is.
fn note(frame: &Bytes, requests: &Requests, shared: &Shared) -> Result<()> {
    let [k0, k1, v0, v1, c0, c1, c2, c3, ..] = frame[..] else {
        bail!("a request of {} bytes", frame.len())
    };
    let key = i16::from_be_bytes([k0, k1]);
    requests
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push_back(Pending {
            key,
            version: i16::from_be_bytes([v0, v1]),
            correlation_id: i32::from_be_bytes([c0, c1, c2, c3]),
            swallow: shared.count_request(key, frame),
        });
    Ok(())
}

/// Finds the request that is answered, and changes the answer if it holds addresses.
fn answer(frame: Bytes, requests: &Requests, shared: &Arc<Shared>) -> Result<Bytes> {
    let [c0, c1, c2, c3, ..] = frame[..] else {
        bail!("an answer of {} bytes", frame.len())
    };
    let correlation_id = i32::from_be_bytes([c0, c1, c2, c3]);
    let request = {
        let mut requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
        // Requests before it got no answer: a Produce with acks=0 gets none.
        let position = requests
            .iter()
            .position(|request| request.correlation_id == correlation_id);
        let position =
            position.with_context(|| format!("an answer to no request ({correlation_id})"))?;
        requests.drain(..=position).next_back()
    };
    let Some(request) = request else {
        return Ok(frame);
    };
    if request.swallow {
        bail!("swallowed the answer to a request of kind {}", request.key);
    }
    rewrite(request.key, request.version, &frame, &|host, port| {
        let local = shared.address_for(&format!("{host}:{port}"))?;
        Ok((local.ip().to_string(), i32::from(local.port())))
    })
    .with_context(|| {
        format!(
            "the answer to a request of kind {} version {}",
            request.key, request.version
        )
    })
    .map(|changed| changed.unwrap_or(frame))
}
