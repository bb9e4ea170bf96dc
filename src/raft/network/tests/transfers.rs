//! Snapshot transfers against a transport that loses answers, or never answers.

use super::*;
use crate::clock::SystemThreads;
use crate::error::{Code, Error};
use crate::raft::rpc_codec as codec;
use crate::raft::snapshot::SnapshotData;
use crate::raft::types::{LeaderId, SnapshotMeta, Vote};
use openraft::RaftNetworkV2;
use openraft::alias::SnapshotOf;
use openraft::errors::{ReplicationClosed, StreamingError};
use openraft::network::RPCOption;
use std::sync::Mutex;

const VOTE: Vote = Vote { leader_id: LeaderId { term: 3, voted_for: 1 }, committed: true };

/// Hands frames to receptions; the first answer to each piece is lost.
struct Lossy {
    receptions: Receptions,
    heard: Mutex<Vec<(u8, Bytes)>>,
    received: Mutex<Option<SnapshotOf<TypeConfig, SnapshotData>>>,
    answer: Vote,
}

impl Lossy {
    fn new(answer: Vote) -> Arc<Self> {
        let receptions = Receptions::new(ReceptionConfig::default());
        Arc::new(Lossy { receptions, heard: Mutex::default(), received: Mutex::default(), answer })
    }
}

#[async_trait::async_trait]
impl RaftTransport for Lossy {
    async fn call(
        &self,
        _to: NodeId,
        _lane: Lane,
        group: GroupId,
        kind: u8,
        payload: Bytes,
        _deadline: Duration,
    ) -> Result<Bytes> {
        let (replica, part) = codec::decode_part(payload.clone())?;
        let again = {
            let mut heard = self.heard.lock().expect("lock");
            let again = heard.contains(&(kind, payload.clone()));
            heard.push((kind, payload));
            again
        };
        if kind == kind::SNAPSHOT_END {
            *self.received.lock().expect("lock") = Some(self.receptions.end(group, replica, part)?);
            return codec::encode_answer(&self.answer);
        }
        self.receptions.piece(group, replica, part).await?;
        if again {
            return codec::encode_answer(&self.answer);
        }
        Err(Error::new(Code::DeadlineExceeded, "the answer was lost"))
    }
}

/// Never answers.
struct Silent;

#[async_trait::async_trait]
impl RaftTransport for Silent {
    async fn call(&self, _: NodeId, _: Lane, _: GroupId, _: u8, _: Bytes, _: Duration) -> Result<Bytes> {
        std::future::pending().await
    }
}

async fn client(transport: Arc<dyn RaftTransport>) -> ReplicaClient {
    let config = RaftNetworkConfig::default();
    let mut network = GroupNetwork::new(GroupId(1), 1, transport, Arc::new(SystemThreads), config);
    openraft::RaftNetworkFactory::new_client(&mut network, 2, &ReplicaNode { node: NodeId(2) }).await
}

fn snapshot(chunks: &[&'static [u8]]) -> SnapshotOf<TypeConfig, SnapshotData> {
    let meta = SnapshotMeta { last_log_id: Some(codec::log_id(2, 9)), last_membership: Default::default() };
    let chunks: Vec<Bytes> = chunks.iter().map(|chunk| Bytes::from_static(chunk)).collect();
    openraft::Snapshot { meta, snapshot: SnapshotData::Received { pieces: chunks.into(), trailer: "end".into() } }
}

fn option() -> RPCOption {
    RPCOption::new(Duration::from_millis(1))
}

#[tokio::test]
async fn lost_answers_are_asked_for_again_and_nothing_comes_twice() {
    for chunks in [vec![], vec![b"aa".as_slice(), b"bb"]] {
        let lossy = Lossy::new(VOTE);
        let mut client = client(lossy.clone()).await;
        let sent = client.full_snapshot(VOTE, snapshot(&chunks), std::future::pending(), option()).await;
        assert_eq!(sent.expect("sent").vote, VOTE);
        let received = lossy.received.lock().expect("lock").take().expect("received");
        assert_eq!(received.meta.last_log_id, Some(codec::log_id(2, 9)));
        let SnapshotData::Received { pieces, trailer } = received.snapshot else { panic!("not received") };
        let came: Vec<Bytes> = pieces.iter().collect::<crate::error::Result<_>>().expect("readable");
        // A snapshot without rows still has one piece, for its metadata.
        let expected: Vec<&[u8]> = if chunks.is_empty() { vec![b""] } else { chunks };
        assert_eq!(
            (came, trailer.as_ref()),
            (expected.into_iter().map(Bytes::from_static).collect(), b"end".as_slice())
        );
    }
}

#[tokio::test]
async fn a_receiver_with_a_higher_vote_ends_the_transfer() {
    let higher = Vote { leader_id: LeaderId { term: 4, voted_for: 3 }, committed: true };
    let lossy = Lossy::new(higher);
    let mut client = client(lossy.clone()).await;
    let sent = client.full_snapshot(VOTE, snapshot(&[b"aa", b"bb", b"cc"]), std::future::pending(), option()).await;
    assert_eq!(sent.expect("answered").vote, higher);
    assert!(lossy.heard.lock().expect("lock").len() <= 2, "it went on sending");
}

/// Takes all pieces, and keeps what the trailer was sent as.
#[derive(Default)]
struct Ended(Mutex<Option<LongCall>>);

#[async_trait::async_trait]
impl RaftTransport for Ended {
    async fn call(&self, _: NodeId, _: Lane, _: GroupId, _: u8, _: Bytes, _: Duration) -> Result<Bytes> {
        codec::encode_answer(&VOTE)
    }

    async fn call_long(&self, _: NodeId, _: Lane, _: GroupId, call: LongCall) -> Result<Bytes> {
        *self.0.lock().expect("lock") = Some(call);
        Err(Error::new(Code::OutcomeUnknown, "no sign of life"))
    }
}

#[tokio::test]
async fn an_installation_is_waited_for_with_signs_of_life() {
    let config = RaftNetworkConfig::default();
    let transport = Arc::<Ended>::default();
    let mut client = client(transport.clone()).await;
    let sent = client.full_snapshot(VOTE, snapshot(&[b"aa"]), std::future::pending(), option()).await;
    assert!(matches!(sent, Err(StreamingError::Network(_))), "openraft sends it again");
    let call = transport.0.lock().expect("lock").take().expect("the trailer was sent so");
    assert_eq!((call.kind, call.deadline), (kind::SNAPSHOT_END, config.install_timeout));
    assert_eq!((call.sign.0, call.every), (kind::CONFIRM, config.chunk_timeout));
}

#[tokio::test]
async fn a_cancelled_transfer_ends_at_once() {
    let (cancel, cancelled) = tokio::sync::oneshot::channel::<()>();
    let mut client = client(Arc::new(Silent)).await;
    let cancelled = async move {
        drop(cancelled.await);
        ReplicationClosed::new("not leader any more")
    };
    let sending = client.full_snapshot(VOTE, snapshot(&[b"aa"]), cancelled, option());
    drop(cancel);
    assert!(matches!(sending.await, Err(StreamingError::Closed(_))));
}
