//! The registered tasks: names and handlers, with the codecs between them and their callers.

use super::context::Handled;
use super::execute::panicked;
use super::inside::Marked;
use super::scatter::{AnyScatter, PartitionScan, Reduced, Scatter};
use super::{
    JobContext, PartitionContext, TaskContext, TaskError, count_entries, payload, rolling_total, top_k, word_count,
};
use crate::error::{Code, Error, Result};
use crate::types::TaskPayload;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
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

type RunJob =
    Arc<dyn Fn(JobContext, String, String, TaskPayload) -> BoxFuture<'static, Handled<TaskPayload>> + Send + Sync>;

/// What kind of user code a name stands for.
#[derive(Clone)]
pub(super) enum Work {
    /// Runs beside a key.
    Key(Run),
    /// Runs on a whole partition.
    Partition(Run),
    /// Runs beside all partitions.
    Scatter(Arc<dyn AnyScatter>),
    /// Runs beside one partition.
    Job(RunJob),
}

impl Work {
    /// What it is called, and how it is run.
    fn words(&self) -> (&'static str, &'static str) {
        match self {
            Work::Key(_) => ("a task beside a key", "submit it by a key: `keystead task`"),
            Work::Partition(_) => ("a partition task", "run it on all partitions: `keystead broadcast`"),
            Work::Job(_) => ("a job task", "start it: `keystead job start`"),
            Work::Scatter(_) => ("a scatter", "run it on all partitions: `keystead scatter`"),
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

    /// The tasks that every peer carries: `rolling-total`, `count-entries`, `word-count`, `top-k`.
    ///
    /// # Errors
    /// None that can happen; see [`Registry::register`].
    pub fn with_builtins() -> Result<Self> {
        let mut registry = Registry::new();
        registry.register(rolling_total::NAME, rolling_total::handle)?;
        registry.example(rolling_total::NAME, rolling_total::EXAMPLE);
        registry.register_partition(count_entries::NAME, count_entries::handle)?;
        registry.example(count_entries::NAME, count_entries::EXAMPLE);
        registry.register_scatter(word_count::NAME, word_count::WordCount)?;
        registry.example(word_count::NAME, word_count::EXAMPLE);
        registry.register_scatter(top_k::NAME, top_k::TopK)?;
        registry.example(top_k::NAME, top_k::EXAMPLE);
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

    /// Registers a scatter: a step on every partition, combined and reduced.
    ///
    /// # Errors
    /// `InvalidName` when the name is not allowed or already taken.
    pub fn register_scatter(&mut self, name: &str, scatter: impl Scatter) -> Result<()> {
        self.insert(name, Work::Scatter(Arc::new(scatter)))
    }

    /// Registers a job task: it runs beside a partition's leader, may take long, and is begun
    /// again where its peer is lost.
    ///
    /// # Errors
    /// `InvalidName` when the name is not allowed or already taken.
    pub fn register_job<In, Out, F, R>(&mut self, name: &str, handler: F) -> Result<()>
    where
        In: DeserializeOwned + Send + 'static,
        Out: Serialize + 'static,
        F: Fn(JobContext, In) -> R + Send + Sync + 'static,
        R: Future<Output = std::result::Result<Out, TaskError>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let typed = move |context: JobContext, name: String, example: String, payload: TaskPayload| {
            let handler = handler.clone();
            async move {
                let input = Given { name: &name, example: &example, payload: &payload }.decode()?;
                let codec = payload.codec;
                let output = handler(context, input).await?;
                Ok(payload::encode(codec, &output)?)
            }
            .boxed()
        };
        self.insert(name, Work::Job(Arc::new(typed)))
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

/// A job's handler under way; gives its answer or its coded error.
pub type RunningJob = BoxFuture<'static, Result<TaskPayload>>;

impl Registry {
    /// Whether a name is a job task's.
    ///
    /// # Errors
    /// `NoSuchTask`, `InvalidRequest`.
    pub fn check_job(&self, name: &str) -> Result<()> {
        match &self.entry(name)?.work {
            Work::Job(_) => Ok(()),
            work => Err(wrong_kind(name, work)),
        }
    }

    /// A job's handler, to be run where user code may.
    ///
    /// # Errors
    /// `NoSuchTask`, `InvalidRequest`.
    pub fn job(&self, name: &str, context: JobContext, payload: TaskPayload) -> Result<RunningJob> {
        let entry = self.entry(name)?;
        let Work::Job(run) = &entry.work else { return Err(wrong_kind(name, &entry.work)) };
        let (run, name, example) = (run.clone(), name.to_owned(), entry.example.clone());
        let guarded = async move {
            let task = name.clone();
            // Called inside, so that a panic before the first await is caught too.
            let handler = async move { run(context, name, example, payload).await };
            match AssertUnwindSafe(handler).catch_unwind().await {
                Ok(outcome) => outcome.map_err(|error| error.into_error(&task)),
                Err(panic) => Err(panicked(&task, panic.as_ref())),
            }
        };
        Ok(guarded.boxed())
    }
}

/// Steps of scatters: called on threads for user code.
impl Registry {
    fn scatter(&self, name: &str) -> Result<(&dyn AnyScatter, &str)> {
        let entry = self.entry(name)?;
        match &entry.work {
            Work::Scatter(scatter) => Ok((scatter.as_ref(), &entry.example)),
            work => Err(wrong_kind(name, work)),
        }
    }

    /// Whether a name is a scatter's.
    ///
    /// # Errors
    /// `NoSuchTask`, `InvalidRequest`.
    pub fn check_scatter(&self, name: &str) -> Result<()> {
        self.scatter(name).map(drop)
    }

    fn step<T>(
        &self,
        name: &str,
        payload: &TaskPayload,
        step: impl FnOnce(&dyn AnyScatter, &Given<'_>) -> Handled<T>,
    ) -> Result<T> {
        let (scatter, example) = self.scatter(name)?;
        let given = Given { name, example, payload };
        guarded(name, || step(scatter, &given))
    }

    /// A scatter's step on one partition; gives an encoded part.
    ///
    /// # Errors
    /// The handler's, coded; `TaskPanicked`.
    pub fn scatter_map(&self, name: &str, payload: &TaskPayload, scan: &mut PartitionScan<'_>) -> Result<Bytes> {
        self.step(name, payload, |scatter, given| scatter.map(scan, given))
    }

    /// Puts encoded parts together.
    ///
    /// # Errors
    /// `TaskCodec`, `TaskPanicked`.
    pub fn scatter_combine(&self, name: &str, payload: &TaskPayload, parts: Vec<Bytes>) -> Result<Bytes> {
        self.step(name, payload, |scatter, given| scatter.combine(given, parts))
    }

    /// Makes the answer of all parts together.
    ///
    /// # Errors
    /// The handler's, coded; `TaskPanicked`.
    pub fn scatter_reduce(&self, name: &str, payload: &TaskPayload, all: Option<Bytes>) -> Result<Reduced> {
        self.step(name, payload, |scatter, given| scatter.reduce(given, all))
    }
}

/// Runs user code on the current thread; a panic ends here.
fn guarded<T>(name: &str, run: impl FnOnce() -> Handled<T>) -> Result<T> {
    let _marked = Marked::new();
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(outcome) => outcome.map_err(|error| error.into_error(name)),
        Err(panic) => Err(panicked(name, panic.as_ref())),
    }
}

/// A name was called as what it is not.
fn wrong_kind(name: &str, work: &Work) -> Error {
    let (kind, remedy) = work.words();
    Error::new(Code::InvalidRequest, format!("\"{name}\" is {kind}")).at(format!("task {name}")).remedy(remedy)
}
