//! The registered tasks: names and handlers, with the codecs between them and their callers.

use super::context::Handled;
use super::{TaskContext, TaskError, rolling_total};
use crate::error::{Code, Error, Result};
use crate::types::{TaskPayload, ValueCodec};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::Arc;

const MAX_NAME: usize = 128;

pub(super) type Handler = Arc<dyn Fn(&mut TaskContext<'_>, &TaskPayload) -> Handled<TaskPayload> + Send + Sync>;

/// Named handlers. Filled before the node starts, then shared and never changed, so that what a
/// peer advertises is what it can run.
#[derive(Clone, Default)]
pub struct Registry {
    handlers: BTreeMap<String, Handler>,
}

impl Registry {
    /// No tasks.
    pub fn new() -> Self {
        Registry::default()
    }

    /// The tasks that every peer carries: `rolling-total`.
    ///
    /// # Errors
    /// None that can happen; see [`Registry::register`].
    pub fn with_builtins() -> Result<Self> {
        let mut registry = Registry::new();
        registry.register(rolling_total::NAME, rolling_total::handle)?;
        Ok(registry)
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
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(allowed) {
            return Err(Error::new(Code::InvalidName, format!("\"{name}\" is not a task name")));
        }
        if self.handlers.contains_key(name) {
            return Err(Error::new(Code::InvalidName, format!("two tasks are named \"{name}\""))
                .remedy("register each task once, under a name of its own"));
        }
        let typed = move |context: &mut TaskContext<'_>, payload: &TaskPayload| {
            let input = decode_payload(payload)?;
            let output = handler(context, input)?;
            Ok(encode_payload(payload.codec, &output)?)
        };
        self.handlers.insert(name.to_owned(), Arc::new(typed));
        Ok(())
    }

    /// The names, sorted.
    pub fn names(&self) -> Vec<String> {
        self.handlers.keys().cloned().collect()
    }

    pub(super) fn handler(&self, name: &str) -> Result<&Handler> {
        self.handlers.get(name).ok_or_else(|| Error::new(Code::NoSuchTask, format!("there is no task \"{name}\"")))
    }
}

fn unknown(codec: ValueCodec) -> Error {
    Error::new(Code::TaskCodec, format!("a task's payload cannot be {codec:?}; it is Msgpack or Json"))
}

fn decode_payload<In: DeserializeOwned>(payload: &TaskPayload) -> Result<In> {
    let bad = |error: String| {
        Error::new(Code::TaskCodec, format!("the {:?} payload is not what the task takes: {error}", payload.codec))
    };
    match payload.codec {
        ValueCodec::Msgpack => rmp_serde::from_slice(&payload.data).map_err(|error| bad(error.to_string())),
        ValueCodec::Json => serde_json::from_slice(&payload.data).map_err(|error| bad(error.to_string())),
        other => Err(unknown(other)),
    }
}

fn encode_payload<Out: Serialize>(codec: ValueCodec, output: &Out) -> Result<TaskPayload> {
    let bad = |error: String| Error::new(Code::TaskCodec, format!("the task's answer cannot be {codec:?}: {error}"));
    let data = match codec {
        ValueCodec::Msgpack => rmp_serde::to_vec_named(output).map_err(|error| bad(error.to_string()))?,
        ValueCodec::Json => serde_json::to_vec(output).map_err(|error| bad(error.to_string()))?,
        other => return Err(unknown(other)),
    };
    Ok(TaskPayload { codec, data: data.into() })
}
