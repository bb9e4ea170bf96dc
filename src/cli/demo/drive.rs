//! Sends the events and takes the answers, while a peer is killed and another joins. In: events, a client, the
//! peers. Out: for each event its answer with its times and its giver, when the kill was, and the join.
//!
//! Events are sent in order and in one session, without waiting for each other's answers, so each
//! customer's events take effect in their order whatever happens to a peer. A bounded number of
//! them is unanswered at once. Without a rate the sending pauses until the joined peer leads its
//! part, since the events would else be over before; the pause is told apart in the figures.

use super::event::{BUCKET_SECONDS, BUCKETS, Event};
use super::progress::Progress;
use super::readings::{READ_COUNTERS, StateReads};
use crate::cli::local::Peers;
use crate::client::Client;
use crate::clock::{self, Instant};
use crate::compute::rolling_total;
use crate::error::{Error, Result};
use crate::types::{NodeId, TaskPayload, ValueCodec};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};

/// The map that holds the sub-windows.
pub(super) const MAP: &str = "rolling-totals";
/// Unanswered events when the rate is given: enough for a failover to pass without a pause.
pub(super) const WINDOW_PACED: usize = 4096;
/// Unanswered events when there is no rate.
pub(super) const WINDOW_UNPACED: usize = 1024;
/// The victim is chosen at this share of the events, in percent, so that the kill need not wait.
const CHOOSE_PERCENT: usize = 35;
/// The kill is at this share of the events, in percent.
const KILL_PERCENT: usize = 40;
/// Another peer joins at this share of the events, in percent.
const JOIN_PERCENT: usize = 50;
/// Without a rate the sending pauses at this share of the events, in percent, ...
const PAUSE_PERCENT: usize = 60;
/// ... until the joined peer leads one of so many partitions, ...
const PAUSE_UNTIL_ONE_OF: usize = 5;
/// ... but no longer than this.
const PAUSE_AT_MOST: Duration = Duration::from_secs(60);
/// Between two looks at who leads.
const LOOK: Duration = Duration::from_millis(100);

/// What came of one event. Times count from the first event's sending.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// When it was sent.
    pub(super) sent: Duration,
    /// When it was answered.
    pub(super) answered: Duration,
    /// The answer.
    pub(super) total: Result<i64>,
    /// The peer that led the customer's partition and answered.
    pub(super) by: Option<NodeId>,
}

/// The kill.
#[derive(Clone, Debug, Default)]
pub(super) struct Kill {
    /// Who was killed.
    pub(super) peer: String,
    /// How many partitions it led.
    pub(super) led: usize,
    /// How many partitions there are.
    pub(super) partitions: usize,
    /// When, from the first event's sending.
    pub(super) at: Duration,
    /// The victim's counters just before.
    pub(super) reads: StateReads,
}

/// The peer that joins.
#[derive(Clone, Debug, Default)]
pub(super) struct Joiner {
    /// Its name.
    pub(super) peer: String,
    /// When its process was started, from the first event's sending.
    pub(super) at: Duration,
}

/// When nothing was sent, so that the joined peer could take its part: from and to, from the first
/// event's sending. Of no length where there was no pause.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pause {
    pub(super) from: Duration,
    pub(super) to: Duration,
}

impl Pause {
    /// A time, as it would be without the pause.
    pub(super) fn without(&self, at: Duration) -> Duration {
        at - at.min(self.to).saturating_sub(self.from)
    }
}

/// What came of the whole.
pub(super) struct Drive {
    /// One outcome for each event.
    pub(super) outcomes: Vec<Option<Outcome>>,
    /// The kill.
    pub(super) kill: Kill,
    /// The join.
    pub(super) joiner: Joiner,
    /// The pause.
    pub(super) pause: Pause,
}

/// The task's payload for an event.
///
/// # Errors
/// `Internal` when it cannot be encoded.
pub(super) fn payload(event: &Event) -> Result<TaskPayload> {
    let input = rolling_total::Input {
        map: MAP.to_owned(),
        time_s: event.time_s,
        amount: event.pence,
        bucket_s: BUCKET_SECONDS,
        buckets: BUCKETS,
    };
    let data = rmp_serde::to_vec_named(&input).map_err(|error| Error::internal(error.to_string()))?;
    Ok(TaskPayload { codec: ValueCodec::Msgpack, data: data.into() })
}

/// Asks the task and reads its answer: the total, and who answered.
pub(super) async fn ask(client: Client, customer: String, payload: TaskPayload) -> Result<(i64, NodeId)> {
    let answer = client.task(rolling_total::NAME, customer, payload).await?;
    let output: rolling_total::Output = crate::types::msgpack::from_slice(&answer.payload.data)
        .map_err(|error| Error::internal(format!("an unreadable answer: {error}")))?;
    Ok((output.total, answer.served.node))
}

/// Sends all events at the rate (0: as fast as answers come); on the way it kills the busiest leader
/// and lets another peer join.
///
/// # Errors
/// When the victim cannot be chosen, or an event cannot be encoded. An event that fails is an
/// [`Outcome`], not an error.
pub(super) async fn drive(client: &Client, peers: &Peers, events: &[Event], rate: u64) -> Result<Drive> {
    let began = Instant::now();
    let (sent, watching) = watch::channel(0);
    let (joined, joins) = watch::channel(None);
    let (answers, answered) = mpsc::unbounded_channel();
    let joining = watching.clone();
    let (sending, outcomes, kill, joiner) = tokio::join!(
        send(client, events, rate, began, answers, sent, joins),
        collect(answered, events.len()),
        kill_busiest(client, peers, events.len(), began, watching),
        join(peers, events.len(), began, joining, joined),
    );
    let pause = sending?;
    Ok(Drive { outcomes, kill: kill?, joiner: joiner?, pause })
}

type Answers = mpsc::UnboundedSender<(usize, Outcome)>;

async fn send(
    client: &Client,
    events: &[Event],
    rate: u64,
    began: Instant,
    answers: Answers,
    sent: watch::Sender<usize>,
    joins: watch::Receiver<Option<String>>,
) -> Result<Pause> {
    let mut pause = Pause::default();
    let places = Arc::new(Semaphore::new(if rate == 0 { WINDOW_UNPACED } else { WINDOW_PACED }));
    for (at, event) in events.iter().enumerate() {
        if rate > 0 {
            wait_until(began + due(at, rate)).await;
        } else if at == (events.len() * PAUSE_PERCENT).div_ceil(100) {
            pause.from = began.elapsed();
            until_joined_leads(client, joins.clone()).await;
            pause.to = began.elapsed();
        }
        let place = places.clone().acquire_owned().await.map_err(|error| Error::internal(error.to_string()))?;
        let call = ask(client.clone(), event.customer.clone(), payload(event)?);
        // The client takes a call in when it is first polled: that happens here, in order. Only
        // the waiting is left to a task of its own. Without tokio's budget the poll is never
        // put off; a place among the client's outstanding calls is free (see WINDOW_PACED).
        let mut call = Box::pin(tokio::task::unconstrained(call));
        let sent_at = began.elapsed();
        let early = poll_once(call.as_mut()).await;
        let answers = answers.clone();
        clock::spawn(async move {
            let answer = match early {
                Poll::Ready(answer) => answer,
                Poll::Pending => call.await,
            };
            let by = answer.as_ref().ok().map(|(_, by)| *by);
            let total = answer.map(|(total, _)| total);
            // The collector ends last; if it is gone the demo has been given up.
            drop(answers.send((at, Outcome { sent: sent_at, answered: began.elapsed(), total, by })));
            drop(place);
        });
        sent.send_replace(at + 1);
    }
    Ok(pause)
}

/// Waits until the joined peer leads its part. What keeps it from that, the figures tell.
async fn until_joined_leads(client: &Client, mut joins: watch::Receiver<Option<String>>) {
    let give_up = Instant::now() + PAUSE_AT_MOST;
    let Ok(joined) = joins.wait_for(Option::is_some).await.map(|joined| joined.clone()) else { return };
    while Instant::now() < give_up {
        let partitions = client.partitions().await.unwrap_or_default();
        let led = partitions.iter().filter(|partition| partition.leader == joined).count();
        if led > 0 && led * PAUSE_UNTIL_ONE_OF >= partitions.len() {
            return;
        }
        clock::sleep(LOOK).await;
    }
}

/// When an event is due after the first.
fn due(at: usize, rate: u64) -> Duration {
    Duration::from_nanos((at as u128 * 1_000_000_000 / u128::from(rate.max(1))) as u64)
}

async fn wait_until(at: Instant) {
    if at > Instant::now() {
        clock::sleep_until(at).await;
    }
}

async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

async fn collect(mut answered: mpsc::UnboundedReceiver<(usize, Outcome)>, count: usize) -> Vec<Option<Outcome>> {
    let mut outcomes = vec![None; count];
    let mut progress = Progress::new(count);
    let mut done = 0;
    while let Some((at, outcome)) = answered.recv().await {
        done += 1;
        progress.show(done, outcome.answered);
        outcomes[at] = Some(outcome);
    }
    progress.finish();
    outcomes
}

async fn kill_busiest(
    client: &Client,
    peers: &Peers,
    events: usize,
    began: Instant,
    mut sent: watch::Receiver<usize>,
) -> Result<Kill> {
    // A sender that has ended has sent everything, or failed and says so itself.
    drop(sent.wait_for(|sent| *sent >= events * CHOOSE_PERCENT / 100).await);
    let mut leads: BTreeMap<String, usize> = BTreeMap::new();
    let partitions = client.partitions().await?;
    for leader in partitions.iter().filter_map(|partition| partition.leader.clone()) {
        *leads.entry(leader).or_default() += 1;
    }
    let busiest = leads.into_iter().max_by_key(|(_, led)| *led);
    let (peer, led) = busiest.ok_or_else(|| Error::internal("no partition has a leader"))?;
    drop(sent.wait_for(|sent| *sent >= events * KILL_PERCENT / 100).await);
    let reads = StateReads::from_counters(peers.counters(&peer, READ_COUNTERS).await);
    let at = began.elapsed();
    if !peers.kill(&peer) {
        return Err(Error::internal(format!("peer {peer} could not be killed")));
    }
    Ok(Kill { peer, led, partitions: partitions.len(), at, reads })
}

async fn join(
    peers: &Peers,
    events: usize,
    began: Instant,
    mut sent: watch::Receiver<usize>,
    joined: watch::Sender<Option<String>>,
) -> Result<Joiner> {
    drop(sent.wait_for(|sent| *sent >= events * JOIN_PERCENT / 100).await);
    let at = began.elapsed();
    let peer = peers.add()?;
    joined.send_replace(Some(peer.clone()));
    Ok(Joiner { peer, at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_due_at_the_rate() {
        assert_eq!(due(0, 2000), Duration::ZERO);
        assert_eq!(due(1, 2000), Duration::from_micros(500));
        assert_eq!(due(50_000, 2000), Duration::from_secs(25));
    }

    #[test]
    fn times_without_the_pause() {
        let s = Duration::from_secs;
        let pause = Pause { from: s(2), to: s(5) };
        assert_eq!([1, 2, 3, 5, 9].map(|at| pause.without(s(at))), [1, 2, 2, 2, 6].map(s));
        assert_eq!(Pause::default().without(s(9)), s(9));
    }

    #[test]
    fn the_payload_is_what_the_task_takes() {
        let event = Event { row: 1, customer: "7".to_owned(), time_s: 12, pence: -3 };
        let payload = payload(&event).expect("encodes");
        let input: rolling_total::Input = rmp_serde::from_slice(&payload.data).expect("decodes");
        assert_eq!((input.time_s, input.amount, input.bucket_s, input.buckets), (12, -3, 3600, 168));
    }
}
