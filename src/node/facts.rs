//! The meta group from this node: keeps the local copy of the grid's facts up to date, and writes
//! changes of them, each on the condition that nothing has changed meanwhile.

use super::directory::{Directory, META_MAP, meta_map};
use super::hosting::Hosting;
use super::router::Router;
use crate::clock::{self, Instant};
use crate::error::{Code, Error, Result};
use crate::meta::{MetaView, RowChange};
use crate::partition::rows::{self, PartitionRow};
use crate::types::{
    AckLevel, Condition, GroupId, MapId, Op, ReadLevel, Reply, ReplyBody, Request, StoredValue, Value, slot_of,
};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// How long a change of the grid's facts may take.
const WRITE_TIME: Duration = Duration::from_secs(5);
/// How often a change is worked out again when another came first.
const ATTEMPTS: usize = 20;

/// How long the meta group's replica is looked for again while it is being started.
const RESTART_WAIT: Duration = Duration::from_millis(50);

/// All of the meta group's rows lie in the slot of the empty affinity.
const AFFINITY: Bytes = Bytes::from_static(b"");

/// Reads and writes the grid's facts.
pub struct Facts {
    directory: Arc<Directory>,
    router: Arc<Router>,
    hosting: Arc<Hosting>,
}

impl Facts {
    /// Facts through this node's replica of the meta group.
    pub fn new(directory: Arc<Directory>, router: Arc<Router>, hosting: Arc<Hosting>) -> Self {
        Facts { directory, router, hosting }
    }

    /// Rebuilds the view whenever the meta group's replica here has applied something.
    pub async fn follow(&self) {
        loop {
            let Some(meta) = self.hosting.get(GroupId::META) else {
                clock::sleep(RESTART_WAIT).await;
                continue;
            };
            let mut applied = meta.state.applied_index();
            let state = Arc::downgrade(&meta.state);
            drop(meta);
            while let Some(state) = state.upgrade() {
                let at = *applied.borrow_and_update();
                match read_view(&state) {
                    // The rows are of different moments until the scan's end is passed.
                    _ if !state.may_serve() => {}
                    // A replica that starts anew has less than was known: that is no news.
                    Ok(view) if view.version >= self.directory.view().version && view != *self.directory.view() => {
                        self.directory.set_view(view);
                        self.directory.set_reflected(at);
                    }
                    Ok(view) if view.version == self.directory.view().version => self.directory.set_reflected(at),
                    Ok(_) => {}
                    Err(error) => tracing::error!(%error, "the local copy of the grid's facts cannot be read"),
                }
                drop(state);
                if applied.changed().await.is_err() {
                    break;
                }
            }
        }
    }

    /// What the node knows of the grid.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    fn request(&self, op: Op) -> Request {
        Request {
            affinity: Some(AFFINITY),
            op,
            read: ReadLevel::Linearizable,
            ack: AckLevel::MajorityFsync,
            stamp: None,
            deadline_ms: WRITE_TIME.as_millis() as u32,
        }
    }

    async fn execute(&self, op: Op) -> Result<Reply> {
        let expires = Instant::now() + WRITE_TIME;
        self.router.execute_in(GroupId::META, self.request(op), Some(meta_map()), 0, expires).await
    }

    /// Writes changes all at once, if none of their rows has changed.
    ///
    /// # Errors
    /// `RowChanged`; `OutcomeUnknown` when the meta group's leader was lost meanwhile.
    pub async fn write(&self, changes: Vec<RowChange>) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let (mut checks, mut writes) = (Vec::new(), Vec::new());
        for change in changes {
            let key = Bytes::from(change.key);
            if !matches!(change.condition, Condition::Absent | Condition::Revision(_)) {
                return Err(Error::internal("a change of a meta row is conditional on its revision"));
            }
            let is_check = change.condition == Condition::Absent && change.value.is_none();
            checks.push((key.clone(), change.condition));
            if !is_check {
                writes.push((key, change.value.map(Value::bytes)));
            }
        }
        let reply = self.execute(Op::Transact { map: META_MAP.to_owned(), checks, writes }).await?;
        match reply.body {
            ReplyBody::Written { revision, .. } => self.wait_for(revision).await,
            _ => Err(Error::new(Code::RowChanged, "a row of the meta group has changed meanwhile")),
        }
    }

    /// Waits until the local copy is at least so new.
    async fn wait_for(&self, revision: u64) -> Result<()> {
        let mut view = self.directory.watch_view();
        match clock::timeout(WRITE_TIME, view.wait_for(|view| view.version >= revision)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Error::new(Code::NotReady, "the local copy of the grid's facts lags behind")),
        }
    }

    /// Works out a change from the present facts and writes it, again and again if another change
    /// comes first. `plan` gives what it wants to know afterwards, and the changes.
    ///
    /// # Errors
    /// What `plan` says; `RowChanged` when others always come first.
    pub async fn change<T>(&self, plan: impl Fn(&MetaView) -> Result<(T, Vec<RowChange>)>) -> Result<T> {
        let mut last = Error::new(Code::RowChanged, "the grid's facts change all the time");
        for attempt in 0..ATTEMPTS {
            let (wanted, changes) = plan(&self.directory.view())?;
            if changes.is_empty() {
                return Ok(wanted);
            }
            match self.write(changes).await {
                Ok(()) => return Ok(wanted),
                // Worked out anew: a change that did happen is found to be there.
                Err(error) if matches!(error.code, Code::RowChanged | Code::OutcomeUnknown | Code::NotReady) => {
                    last = error;
                }
                Err(error) => return Err(error),
            }
            self.refresh().await;
            clock::sleep(Duration::from_millis(5 << attempt.min(5))).await;
        }
        Err(last)
    }

    /// Makes sure that what was created before this call, anywhere, is known here.
    pub async fn refresh(&self) {
        // Without an answer the copy stays as it is, and the change is refused if it is too old.
        let _ = self.catch_up().await;
    }

    /// As [`Facts::refresh`], for what must not be done on an old copy.
    ///
    /// # Errors
    /// When the meta group does not answer; `NotReady` when the local copy lags behind.
    pub async fn catch_up(&self) -> Result<()> {
        self.router.catch_up().await
    }
}

fn read_view(state: &crate::partition::ReplicaState) -> Result<MetaView> {
    // Read before the rows: what they show is at least so new. A deletion leaves no row to tell.
    let newest = state.get(&rows::partition_row(PartitionRow::Revision))?.and_then(|row| rows::decode_number(&row));
    let prefix = rows::map_prefix(slot_of(&AFFINITY), MapId(0), b"");
    let mut view = MetaView { version: newest.unwrap_or(0), ..MetaView::default() };
    for (row, value) in state.scan(&prefix, None, usize::MAX)? {
        let stored = StoredValue::decode(&value)?;
        let key = rows::map_key(&row).ok_or_else(|| Error::new(Code::CorruptRow, "a meta row has no key"))?;
        let key = std::str::from_utf8(&key)
            .map_err(|_| Error::new(Code::CorruptRow, "a meta row's key is not UTF-8"))?
            .to_owned();
        view.set(&key, stored.revision, Some(&stored.value.data))?;
    }
    Ok(view)
}
