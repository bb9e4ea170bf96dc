//! The registered tasks: names and handlers, with the codecs between them and their callers.

use super::context::Handled;
use super::{PartitionContext, TaskContext, TaskError, count_entries, payload, rolling_total};
use crate::error::{Code, Error, Result};
use crate::types::TaskPayload;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::Arc;

const MAX_NAME: usize = 128;

/// What a handler is called with besides its context.
pub(super) struct Given<'a> {
    pub(super) name: &'a str,
    pub(super) example: &'a str,
    pub(super) payload: &'a TaskPayload,
}

impl Given<'_> {
    pub(super) fn decode<In: DeserializeOwned>(&self) -> Result<In> {
        payload::decode(self.name, self.example, self.payload)
    }
}

type Run = Arc<dyn Fn(&mut TaskContext<'_>, &Given<'_>) -> Handled<TaskPayload> + Send + Sync>;

/// What kind of user code a name stands for.
#[derive(Clone)]
pub(super) enum Work {
    /// Runs beside a key.
    Key(Run),
    /// Runs on a whole partition.
    Partition(Run),
}

impl Work {
    /// What it is called, and how it is run.
    fn words(&self) -> (&'static str, &'static str) {
        match self {
            Work::Key(_) => ("a task beside a key", "submit it by a key: `keystead task`"),
            Work::Partition(_) => ("a partition task", "run it on all partitions: `keystead broadcast`"),
        }
    }
}

#[derive(Clone)]
pub(super) struct Entry {
    pub(super) work: Work,
    /// A payload in JSON, for errors; may be empty.
    pub(super) example: String,
}

/// Named handlers. Filled before the node starts, then shared and never changed, so that what a
/// peer advertises is what it can run.
#[derive(Clone, Default)]
pub struct Registry {
    entries: BTreeMap<String, Entry>,
}

impl Registry {
    /// No tasks.
    pub fn new() -> Self {
        Registry::default()
    }

    /// The tasks that every peer carries: `rolling-total`, `count-entries`.
    ///
    /// # Errors
    /// None that can happen; see [`Registry::register`].
    pub fn with_builtins() -> Result<Self> {
        let mut registry = Registry::new();
        registry.register(rolling_total::NAME, rolling_total::handle)?;
        registry.example(rolling_total::NAME, rolling_total::EXAMPLE);
        registry.register_partition(count_entries::NAME, count_entries::handle)?;
        registry.example(count_entries::NAME, count_entries::EXAMPLE);
        Ok(registry)
    }

    pub(super) fn insert(&mut self, name: &str, work: Work) -> Result<()> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(allowed) {
            return Err(Error::new(Code::InvalidName, format!("\"{name}\" is not a task name")));
        }
        if self.entries.contains_key(name) {
            return Err(Error::new(Code::InvalidName, format!("two tasks are named \"{name}\""))
                .remedy("register each task once, under a name of its own"));
        }
        self.entries.insert(name.to_owned(), Entry { work, example: String::new() });
        Ok(())
    }

    /// Registers a handler. Its payload and answer travel as MessagePack with field names, or
    /// as JSON when the payload came so.
    ///
    /// # Errors
    /// `InvalidName` when the name is not allowed or already taken.
    pub fn register<In, Out, F>(&mut self, name: &str, handler: F) -> Result<()>
    where
        In: DeserializeOwned + 'static,
        Out: Serialize + 'static,
        F: Fn(&mut TaskContext<'_>, In) -> std::result::Result<Out, TaskError> + Send + Sync + 'static,
    {
        let typed = move |context: &mut TaskContext<'_>, given: &Given<'_>| {
            let output = handler(context, given.decode()?)?;
            Ok(payload::encode(given.payload.codec, &output)?)
        };
        self.insert(name, Work::Key(Arc::new(typed)))
    }

    /// Registers a partition task: a broadcast runs it once on each partition, in the partition's
    /// turn. Payload and answer as for [`Registry::register`].
    ///
    /// # Errors
    /// `InvalidName` when the name is not allowed or already taken.
    pub fn register_partition<In, Out, F>(&mut self, name: &str, handler: F) -> Result<()>
    where
        In: DeserializeOwned + 'static,
        Out: Serialize + 'static,
        F: Fn(&mut PartitionContext<'_, '_>, In) -> std::result::Result<Out, TaskError> + Send + Sync + 'static,
    {
        let typed = move |context: &mut TaskContext<'_>, given: &Given<'_>| {
            let output = handler(&mut PartitionContext::new(context), given.decode()?)?;
            Ok(payload::encode(given.payload.codec, &output)?)
        };
        self.insert(name, Work::Partition(Arc::new(typed)))
    }

    /// Gives a task an example of its payload, in JSON: callers whose payload is wrong are shown it.
    pub fn example(&mut self, name: &str, json: &str) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.example = json.to_owned();
        }
    }

    /// The names, sorted.
    pub fn names(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    pub(super) fn entry(&self, name: &str) -> Result<&Entry> {
        self.entries.get(name).ok_or_else(|| Error::new(Code::NoSuchTask, format!("there is no task \"{name}\"")))
    }

    /// The handler of a task that runs in a partition's turn.
    pub(super) fn in_turn(&self, name: &str, on_partition: bool) -> Result<(&Run, &str)> {
        let entry = self.entry(name)?;
        match (&entry.work, on_partition) {
            (Work::Key(run), false) | (Work::Partition(run), true) => Ok((run, &entry.example)),
            (work, _) => Err(wrong_kind(name, work)),
        }
    }
}

/// A name was called as what it is not.
fn wrong_kind(name: &str, work: &Work) -> Error {
    let (kind, remedy) = work.words();
    Error::new(Code::InvalidRequest, format!("\"{name}\" is {kind}")).at(format!("task {name}")).remedy(remedy)
}
