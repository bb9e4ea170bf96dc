//! Following a map's changes: a watch that connects again, through whichever peer answers, and
//! goes on behind the last message that it gave. In: what to follow. Out: messages, each change
//! once. It holds one message at a time: who does not ask for the next one is not sent more than
//! the connection's window.

use super::core::Peer;
use super::peers::share;
use super::{Client, MapKey, TypedMap};
use crate::api::wire;
use crate::clock::{self, Instant};
use crate::error::{Code, Error, Result, Retry};
use crate::node::LocalEntry;
use crate::types::{
    PartitionId, RemovalCause, Value, ValueCodec, WatchEvent, WatchKeys, WatchKind, WatchMessage, WatchRequest,
    WatchStart, WatchToken,
};
use bytes::Bytes;
use futures::Stream;
use grid_proto::keystead::v1;
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::time::Duration;
use tonic::Streaming;

/// A peer that says nothing for so long is given up: it should report progress every few seconds.
const SILENCE: Duration = Duration::from_secs(15);
/// A peer may answer so much after the deadline that it was given.
const GRACE: Duration = Duration::from_secs(1);

/// What to follow: the whole map from now on, until said otherwise.
#[derive(Clone)]
pub struct WatchBuilder {
    client: Client,
    request: WatchRequest,
}

impl Client {
    /// Follows the changes of a map.
    pub fn watch(&self, map: &str) -> WatchBuilder {
        WatchBuilder { client: self.clone(), request: WatchRequest { map: map.to_owned(), ..WatchRequest::default() } }
    }
}

impl Client {
    /// An entry of a replicated map from the copy of the first peer that answers, which should be
    /// the one beside the caller; once the copy is of `at_least` this revision, that of one's own
    /// last write, say.
    ///
    /// # Errors
    /// `NoSuchMap`, `NoLocalCopy`, `DeadlineExceeded`, or `PeerUnreachable`.
    pub async fn get_local(&self, map: &str, key: impl AsRef<[u8]>, at_least: u64) -> Result<LocalEntry> {
        let give_up = Instant::now() + self.shared.config.deadline;
        let key = Bytes::copy_from_slice(key.as_ref());
        loop {
            let known: Vec<Peer> = self.shared.sight.read().map(|sight| sight.peers.clone()).unwrap_or_default();
            let mut last = Error::new(Code::PeerUnreachable, "no peer is known");
            for (peer, further) in known.iter().zip((0..known.len()).rev()) {
                // One that is to wait for a revision may be silent for all of the time.
                let within = match at_least {
                    0 => share(give_up, further).min(self.shared.config.attempt_timeout),
                    _ => share(give_up, 0),
                };
                match self.get_local_at(peer, map, &key, at_least, within).await {
                    Err(error) if error.code.retry() == Retry::OtherPeer => last = error,
                    // It has no copy yet; another may.
                    Err(error) if at_least == 0 && error.code == Code::DeadlineExceeded => last = error,
                    answer => return answer,
                }
            }
            if Instant::now() >= give_up {
                return Err(last);
            }
            clock::sleep(self.shared.config.backoff_max).await;
        }
    }

    /// As [`Client::get_local`], from this peer's copy.
    async fn get_local_at(
        &self,
        peer: &Peer,
        map: &str,
        key: &Bytes,
        at_least: u64,
        within: Duration,
    ) -> Result<LocalEntry> {
        // The peer's own word of what it lacks says more than that it has not answered in time.
        let (at_peer, grace) = if at_least == 0 { (within * 3 / 4, Duration::ZERO) } else { (within, GRACE) };
        let deadline_ms = u32::try_from(at_peer.as_millis()).unwrap_or(u32::MAX).max(1);
        let request = v1::GetLocalRequest { map: map.to_owned(), key: key.clone(), at_least, deadline_ms };
        let asked = async {
            let answer = self.shared.peers.watch(peer).await?.get_local(request).await;
            wire::local_entry_from_wire(answer.map_err(|status| wire::error_from_status(&status))?.into_inner())
        };
        let answer = match clock::timeout(within + grace, asked).await {
            Ok(answer) => answer,
            Err(clock::Elapsed) => Err(Error::new(Code::PeerUnreachable, "no answer in time").at(&**peer)),
        };
        if answer.as_ref().is_err_and(|error| error.code == Code::PeerUnreachable) {
            self.shared.peers.forget(peer);
        }
        answer
    }
}

impl WatchBuilder {
    /// Only this key.
    #[must_use]
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.request.keys = WatchKeys::Key(Bytes::copy_from_slice(key.as_ref()));
        self
    }

    /// Only keys that start with these bytes.
    #[must_use]
    pub fn prefix(mut self, prefix: impl AsRef<[u8]>) -> Self {
        self.request.keys = WatchKeys::Prefix(Bytes::copy_from_slice(prefix.as_ref()));
        self
    }

    /// What decides where the keys live, if their writes named it.
    #[must_use]
    pub fn affinity(mut self, affinity: impl Into<Bytes>) -> Self {
        self.request.affinity = Some(affinity.into());
        self
    }

    /// Goes on where another watch of the map ended.
    #[must_use]
    pub fn from(mut self, token: WatchToken) -> Self {
        self.request.start = WatchStart::Token(token);
        self
    }

    /// Begins with the entries that are there, unless a token says where; and whenever the history
    /// has passed where the watch stands, a partition begins anew after a [`WatchKind::Reset`],
    /// where the watch would else fail with `Compacted`.
    #[must_use]
    pub fn snapshot(mut self) -> Self {
        self.request.resnapshot = true;
        self
    }

    /// Begins the watch; nothing is sent before the first message is asked for.
    pub fn start(mut self) -> Watch {
        if self.request.resnapshot && self.request.start == WatchStart::Now {
            self.request.start = WatchStart::Snapshot;
        }
        Watch { client: self.client, request: self.request, under_way: None, turn: 0 }
    }
}

/// A watch under way. It ends with an error only; [`Watch::token`] says how far it came.
pub struct Watch {
    client: Client,
    request: WatchRequest,
    under_way: Option<(Peer, Streaming<v1::WatchMessage>)>,
    turn: usize,
}

impl Watch {
    /// The next message. A change comes once, whatever fails in between. May be dropped and called
    /// again.
    ///
    /// # Errors
    /// What the codes call final, `Compacted` and `NoSuchMap` among them; the last peer's error when
    /// none has answered for the client's deadline.
    pub async fn next(&mut self) -> Result<WatchMessage> {
        let mut give_up = None;
        loop {
            let error = match self.attempt().await {
                Ok(message) => {
                    self.request.start = WatchStart::Token(message.token.clone());
                    return Ok(message);
                }
                Err(error) => error,
            };
            if let Some((peer, _)) = self.under_way.take()
                && error.code == Code::PeerUnreachable
            {
                self.client.shared.peers.forget(&peer);
            }
            self.turn = self.turn.wrapping_add(1);
            if error.code.retry() == Retry::Never {
                return Err(error);
            }
            let deadline = *give_up.get_or_insert_with(|| Instant::now() + self.client.shared.config.deadline);
            if Instant::now() >= deadline {
                return Err(error);
            }
            clock::sleep(self.client.shared.config.backoff_max).await;
        }
    }

    /// How far the watch has come; `None` before its first message.
    pub fn token(&self) -> Option<&WatchToken> {
        match &self.request.start {
            WatchStart::Token(token) => Some(token),
            WatchStart::Now | WatchStart::Snapshot => None,
        }
    }

    /// The messages as a stream; it ends behind its first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<WatchMessage>> {
        futures::stream::unfold(Some(self), |watch| async {
            let mut watch = watch?;
            let next = watch.next().await;
            let rest = next.is_ok().then_some(watch);
            Some((next, rest))
        })
    }

    async fn attempt(&mut self) -> Result<WatchMessage> {
        if self.under_way.is_none() {
            self.under_way = Some(self.connect().await?);
        }
        let Some((peer, messages)) = &mut self.under_way else {
            return Err(Error::internal("a watch without a connection"));
        };
        let lost = |what: &str| Error::new(Code::PeerUnreachable, what).at(&**peer);
        match clock::timeout(SILENCE, messages.message()).await {
            Ok(Ok(Some(message))) => wire::watch_message_from_wire(message),
            Ok(Ok(None)) => Err(lost("the peer ended the watch")),
            Ok(Err(status)) => Err(wire::error_from_status(&status)),
            Err(clock::Elapsed) => Err(lost("the peer has been silent")),
        }
    }

    async fn connect(&self) -> Result<(Peer, Streaming<v1::WatchMessage>)> {
        let shared = &self.client.shared;
        let known: Vec<Peer> = shared.sight.read().map(|sight| sight.peers.clone()).unwrap_or_default();
        let peer = known.get(self.turn % known.len().max(1)).cloned();
        let peer = peer.ok_or_else(|| Error::new(Code::PeerUnreachable, "no peer is known"))?;
        let asked = async {
            let mut client = shared.peers.watch(&peer).await?;
            let answer = client.watch(wire::watch_request_to_wire(&self.request)).await;
            Ok::<_, Error>(answer.map_err(|status| wire::error_from_status(&status))?.into_inner())
        };
        match clock::timeout(shared.config.attempt_timeout, asked).await {
            Ok(Ok(messages)) => Ok((peer, messages)),
            Ok(Err(error)) => {
                if error.code == Code::PeerUnreachable {
                    shared.peers.forget(&peer);
                }
                Err(error)
            }
            Err(clock::Elapsed) => {
                shared.peers.forget(&peer);
                Err(Error::new(Code::PeerUnreachable, "no answer in time").at(&*peer))
            }
        }
    }
}

/// A key that can be read back from its bytes.
pub trait FromKey: MapKey + Sized {
    /// The key of these bytes; `None` if they are not one.
    fn from_key(bytes: &[u8]) -> Option<Self>;
}

impl FromKey for String {
    fn from_key(bytes: &[u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok().map(str::to_owned)
    }
}

impl FromKey for i64 {
    fn from_key(bytes: &[u8]) -> Option<Self> {
        Some((u64::from_be_bytes(bytes.try_into().ok()?) ^ (1 << 63)) as i64)
    }
}

impl FromKey for Vec<u8> {
    fn from_key(bytes: &[u8]) -> Option<Self> {
        Some(bytes.to_vec())
    }
}

/// What happened to a typed entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypedChange<K, V> {
    /// It was there when the watch came by.
    Entry(K, V),
    /// It was written.
    Put(K, V),
    /// It went.
    Removed(K, RemovalCause),
    /// Forget the partition's entries: those that are there follow.
    Reset,
}

/// One typed event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypedEvent<K, V> {
    /// Where it happened.
    pub partition: PartitionId,
    /// The revision of the change in its partition.
    pub revision: u64,
    /// What happened.
    pub change: TypedChange<K, V>,
}

/// A watch of typed keys and values.
pub struct TypedWatch<K, V> {
    watch: Watch,
    ready: VecDeque<WatchEvent>,
    kinds: PhantomData<fn() -> (K, V)>,
}

impl<K: MapKey + ?Sized, V> TypedMap<K, V> {
    /// Follows the map's changes: `map.watch().snapshot().typed::<String, V>()`, or untyped with
    /// `start`.
    pub fn watch(&self) -> WatchBuilder {
        self.client().watch(self.map_name())
    }
}

impl WatchBuilder {
    /// Begins the watch of a map of MessagePack values with typed keys.
    pub fn typed<K: FromKey, V: DeserializeOwned>(self) -> TypedWatch<K, V> {
        TypedWatch { watch: self.start(), ready: VecDeque::new(), kinds: PhantomData }
    }
}

impl<K: FromKey, V: DeserializeOwned> TypedWatch<K, V> {
    /// The next event.
    ///
    /// # Errors
    /// As [`Watch::next`]; `WrongCodec` for a key or value that is not of the types.
    pub async fn next(&mut self) -> Result<TypedEvent<K, V>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return typed(event);
            }
            self.ready.extend(self.watch.next().await?.events);
        }
    }

    /// A token behind all events that were given, if none of a message wait; else `None`.
    pub fn token(&self) -> Option<&WatchToken> {
        self.watch.token().filter(|_| self.ready.is_empty())
    }
}

fn typed<K: FromKey, V: DeserializeOwned>(event: WatchEvent) -> Result<TypedEvent<K, V>> {
    let wrong = |what: &str| Error::new(Code::WrongCodec, format!("an event's {what} is not of the watch's type"));
    let key = || K::from_key(&event.key).ok_or_else(|| wrong("key"));
    let value = |value: &Value| match value.codec {
        ValueCodec::Msgpack => {
            crate::types::msgpack::from_slice(&value.data).map_err(|error| wrong(&format!("value ({error})")))
        }
        _ => Err(wrong("value")),
    };
    let change = match &event.kind {
        WatchKind::Entry(entry) => TypedChange::Entry(key()?, value(entry)?),
        WatchKind::Put(entry) => TypedChange::Put(key()?, value(entry)?),
        WatchKind::Removed(cause) => TypedChange::Removed(key()?, *cause),
        WatchKind::Reset => TypedChange::Reset,
    };
    Ok(TypedEvent { partition: event.partition, revision: event.revision, change })
}
