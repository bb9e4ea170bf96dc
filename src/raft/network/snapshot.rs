//! The sending side of a snapshot: pieces one after the other, then the trailer.

use super::client::{Call, ReplicaClient};
use super::{Shared, kind};
use crate::clock::{ThreadKind, run_on};
use crate::error::{Code, Error, Result};
use crate::failpoint;
use crate::net::peer::{Lane, LongCall};
use crate::raft::confirm::no_questions;
use crate::raft::rpc_codec::{self as codec, SnapshotPart};
use crate::raft::snapshot::{Chunk, SnapshotData, SnapshotSource};
use crate::raft::types::{SnapshotMeta, TypeConfig, Vote};
use bytes::Bytes;
use openraft::RPCTypes;
use openraft::alias::SnapshotOf;
use openraft::errors::{NetworkError, RPCError};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Where the pieces come from.
enum Pieces {
    Scan { source: Arc<dyn SnapshotSource>, cursor: Option<Bytes>, done: bool },
    Received { pieces: Arc<crate::raft::Pieces>, next: usize, trailer: Bytes },
}

impl Pieces {
    fn of(data: SnapshotData) -> Self {
        match data {
            SnapshotData::Source(source) => Pieces::Scan { source, cursor: None, done: false },
            SnapshotData::Received { pieces, trailer } => {
                Pieces::Received { pieces: Arc::new(pieces), next: 0, trailer }
            }
        }
    }

    /// The next rows; `None` after the last.
    async fn next(&mut self, client: &ReplicaClient) -> Result<Option<Bytes>> {
        match self {
            Pieces::Received { pieces, next, .. } => {
                let (pieces, number) = (pieces.clone(), *next);
                *next += 1;
                run_on(&client.shared.threads, ThreadKind::Backend, move || pieces.get(number)).await?
            }
            Pieces::Scan { done: true, .. } => Ok(None),
            Pieces::Scan { source, cursor, done } => {
                let (scanned, from) = (source.clone(), cursor.take());
                let bytes = client.shared.config.snapshot_chunk_bytes;
                let scan = move || scanned.chunk(from.as_deref(), bytes);
                let Chunk { rows, next } = run_on(&client.shared.threads, ThreadKind::Backend, scan).await??;
                *done = next.is_none();
                *cursor = next;
                Ok(Some(rows))
            }
        }
    }

    async fn trailer(&self, client: &ReplicaClient) -> Result<Bytes> {
        match self {
            Pieces::Received { trailer, .. } => Ok(trailer.clone()),
            Pieces::Scan { source, .. } => {
                let source = source.clone();
                run_on(&client.shared.threads, ThreadKind::Backend, move || source.trailer()).await
            }
        }
    }
}

/// One transfer to one replica.
struct Transfer<'a> {
    client: &'a ReplicaClient,
    number: u64,
    vote: Vote,
}

/// Sends a snapshot; answers with the receiver's vote, which is higher than the sender's when the
/// receiver knows a later leader.
pub(super) async fn send(
    client: &ReplicaClient,
    vote: Vote,
    snapshot: SnapshotOf<TypeConfig, SnapshotData>,
) -> Result<Vote, RPCError<TypeConfig>> {
    let number = client.shared.transfers.fetch_add(1, Relaxed) + 1;
    let transfer = Transfer { client, number, vote };
    let mut pieces = Pieces::of(snapshot.snapshot);
    let mut meta = Some(snapshot.meta);
    let mut sequence = 0;
    loop {
        let rows = match pieces.next(client).await.map_err(local)? {
            Some(rows) => rows,
            // The first message carries the metadata, even of a snapshot without rows.
            None if meta.is_some() => Bytes::new(),
            None => break,
        };
        failpoint::reach("snapshot-before-piece");
        let theirs = transfer.piece(sequence, meta.take(), rows).await?;
        if theirs > vote {
            return Ok(theirs);
        }
        sequence += 1;
    }
    let trailer = pieces.trailer(client).await.map_err(local)?;
    failpoint::reach("snapshot-before-end");
    let theirs = transfer.end(sequence, trailer).await;
    // Until here: while the receiver installs, its source keeps the log from the snapshot's start.
    drop(pieces);
    theirs
}

/// Whether a call's answer did not come.
fn is_silence(code: Code) -> bool {
    matches!(code, Code::DeadlineExceeded | Code::OutcomeUnknown)
}

fn local(error: Error) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(&error))
}

impl Transfer<'_> {
    /// Sends a piece, again if its answer does not come: the receiver knows a piece that it has.
    async fn piece(
        &self,
        sequence: u32,
        meta: Option<SnapshotMeta>,
        rows: Bytes,
    ) -> Result<Vote, RPCError<TypeConfig>> {
        let config = &self.client.shared.config;
        let call = Call {
            lane: Lane::Bulk,
            kind: kind::SNAPSHOT_CHUNK,
            deadline: config.chunk_timeout,
            action: RPCTypes::InstallSnapshot,
        };
        let payload = self.encode(sequence, meta, rows).map_err(local)?;
        let mut attempt = 1;
        loop {
            let error = match self.call(call, payload.clone()).await {
                Ok(vote) => return Ok(vote),
                Err(error) => error,
            };
            if !is_silence(error.code) || attempt >= config.chunk_attempts {
                return Err(self.client.rpc_error(call, &error));
            }
            attempt += 1;
        }
    }

    /// Sends the trailer. Installing may take long; while its answer does not come, the receiver is
    /// asked for signs of life: an answer that was lost with its connection is not waited for.
    async fn end(&self, pieces: u32, trailer: Bytes) -> Result<Vote, RPCError<TypeConfig>> {
        let Shared { transport, group, config, .. } = &*self.client.shared;
        let payload = self.encode(pieces, None, trailer).map_err(local)?;
        let call = Call {
            lane: Lane::Bulk,
            kind: kind::SNAPSHOT_END,
            deadline: config.install_timeout,
            action: RPCTypes::InstallSnapshot,
        };
        let long = LongCall {
            kind: call.kind,
            payload,
            deadline: call.deadline,
            sign: (kind::CONFIRM, no_questions()),
            every: config.chunk_timeout,
        };
        let ended = transport.call_long(self.client.node, call.lane, *group, long).await;
        ended.and_then(codec::decode_answer).map_err(|error| self.client.rpc_error(call, &error))
    }

    fn encode(&self, sequence: u32, meta: Option<SnapshotMeta>, body: Bytes) -> Result<Bytes> {
        let part = SnapshotPart { transfer: self.number, vote: self.vote, sequence, meta, body };
        codec::encode_part(self.client.target, &part)
    }

    async fn call(&self, call: Call, payload: Bytes) -> Result<Vote> {
        codec::decode_answer(self.client.send(call, payload).await?)
    }
}
