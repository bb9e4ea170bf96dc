//! Errors that leave a module: a stable code, what happened, where, and how to mend it.
//!
//! One table ([`Code::facts`]) fixes each code's number, class and retry advice; gRPC status and
//! exit status follow from the class. Codes are never renumbered.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;

/// What kind of trouble it is; decides gRPC status and exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The request cannot be right, whoever is asked.
    BadRequest,
    /// The thing does not exist.
    NotFound,
    /// It exists already, or is not what the request expected.
    Conflict,
    /// Nobody can answer at the moment.
    Unavailable,
    /// It may or may not have happened.
    OutcomeUnknown,
    /// Too late.
    DeadlineExceeded,
    /// A limit was met.
    Exhausted,
    /// User code failed.
    UserCode,
    /// Damage on disk.
    DataLoss,
    /// Not allowed.
    Denied,
    /// A bug.
    Internal,
}

/// What a client may do with the same request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Retry {
    /// Asking again gives the same answer, or may do harm.
    Never,
    /// Ask the same peer again, after a pause.
    SamePeer,
    /// Ask another peer (the leader named, if one is).
    OtherPeer,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $class:ident, $retry:ident, $remedy:literal;)*) => {
        /// A stable error code, shown as `KSnnnn`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[repr(u16)]
        pub enum Code { $($(#[$doc])* $name = $number),* }

        impl Code {
            /// Every code, in the order of the numbers.
            pub const ALL: &'static [Code] = &[$(Code::$name),*];

            /// The code's class, retry advice and usual remedy.
            pub fn facts(self) -> (Class, Retry, &'static str) {
                match self { $(Code::$name => (Class::$class, Retry::$retry, $remedy)),* }
            }
        }
    };
}

codes! {
    /// A request that no grid could serve: empty name, missing field, keys of several slots.
    InvalidRequest = 1001, BadRequest, Never, "correct the request; `keystead help COMMAND` shows the form";
    /// A map or task name that is not allowed.
    InvalidName = 1002, BadRequest, Never, "use 1 to 128 letters, digits, '-', '_', '.' or ':'";
    /// A key or value over the limit.
    TooLarge = 1003, BadRequest, Never, "send a smaller key or value; the bounds are in the [limits] table of the configuration file";
    /// The value is not what the operation needs, or not of the map's codec.
    WrongCodec = 1004, BadRequest, Never, "write values of the map's codec; `keystead get` shows what is there";
    /// The number does not fit.
    NumberOverflow = 1005, BadRequest, Never, "use a smaller delta or reset the entry";
    /// Keys of a request that must share a slot do not.
    CrossSlot = 1006, BadRequest, Never, "give the keys a common {tag}, or name the affinity";
    /// The configuration is not usable.
    InvalidConfig = 1007, BadRequest, Never, "correct the named option";
    /// An option asks for an address that would be open to the network.
    PublicAddress = 1008, Denied, Never, "listen on loopback, or pass --insecure if the network is trusted";
    /// Another process listens at the address.
    AddressInUse = 1009, Conflict, Never, "choose another address, or stop the process that uses it";

    /// No such map.
    NoSuchMap = 2001, NotFound, Never, "create it with a first `keystead put`, or correct the name";
    /// No such task on this peer.
    NoSuchTask = 2002, NotFound, Never, "register the task on every peer, or correct the name";
    /// No such key.
    NoSuchKey = 2003, NotFound, Never, "put the key first";
    /// A map of that name exists with another description.
    MapExists = 2004, Conflict, Never, "use the map as it is, or another name";
    /// A meta row has changed since it was read.
    RowChanged = 2005, Conflict, SamePeer, "read the row again and repeat the change";
    /// No such member.
    NoSuchMember = 2006, NotFound, Never, "`keystead members` shows names and ids";
    /// What a write demanded of the present entry does not hold.
    ConditionFailed = 2010, Conflict, Never, "read the entry and decide anew; nothing was written";
    /// A value was written by a program with a newer schema than the reader accepts.
    NewerSchema = 2011, Conflict, Never, "upgrade this program, or let it accept the newer schema if its new fields may be ignored";
    /// A value's bytes are not what the reader expects.
    ValueMismatch = 2012, Conflict, Never, "read it with the type that wrote it, or give fields that came later a default";
    /// No such job task: never started, or its result is no longer kept.
    NoSuchJob = 2020, NotFound, Never, "`keystead jobs` lists those that are known";
    /// A map is at its limit and may not evict, or the write is larger than all of it.
    MapFull = 2030, Exhausted, Never, "delete entries, or create a map with a higher limit or with eviction lru or lfu";

    /// This peer does not lead the partition.
    NotLeader = 3001, Unavailable, OtherPeer, "ask the peer that leads the partition";
    /// The partition has no leader at the moment.
    NoLeader = 3002, Unavailable, OtherPeer, "try again in a moment; `keystead partitions` shows the leaders";
    /// No route: the peer cannot be reached.
    PeerUnreachable = 3003, Unavailable, OtherPeer, "try another peer; `keystead members` shows who is there";
    /// The peer has not joined or founded a grid yet.
    NotReady = 3004, Unavailable, OtherPeer, "wait until /readyz answers 200";
    /// The peer is shutting down.
    ShuttingDown = 3005, Unavailable, OtherPeer, "ask another peer";
    /// A queue is full.
    Overloaded = 3006, Exhausted, SamePeer, "send less, or later; the limits are in the config";
    /// The request's time is over before an answer.
    DeadlineExceeded = 3007, DeadlineExceeded, SamePeer, "allow more time; a retry with the same session number is safe";
    /// The write may or may not have taken effect; asked again with its session number, it runs once.
    OutcomeUnknown = 3008, OutcomeUnknown, SamePeer, "retry with the same session number";
    /// The write's session has ended: it can no longer be told whether it ran.
    SessionEnded = 3009, OutcomeUnknown, Never, "read the state and decide; open a new session";
    /// An earlier write of the session to the slot has not arrived.
    ResendFrom = 3010, Unavailable, SamePeer, "resend the session's writes from the number named";
    /// A session holds too many unanswered writes.
    SessionFull = 3011, Exhausted, SamePeer, "wait for answers before sending more";
    /// The sender's clock is too far ahead.
    ClockAhead = 3012, BadRequest, OtherPeer, "set the clock of the named peer";
    /// So many peers of the partition cannot be reached that no majority is left.
    NoMajority = 3013, Unavailable, OtherPeer, "start the named peers again, or mend the network between them; `keystead members` shows who is there";
    /// No living replica of the partition is on a peer that carries the task.
    TaskNotCarried = 3020, Unavailable, OtherPeer, "start a peer that registers the task; `keystead members` shows who carries which";
    /// The peer's memory limit is reached, and nothing is left that could leave RAM.
    MemoryFull = 3030, Exhausted, Never, "delete entries, raise --memory-limit, or add peers; reads and deletions go on";

    /// A task's handler returned an error.
    TaskFailed = 4001, UserCode, Never, "see the handler's message";
    /// A task's handler panicked; its writes were undone.
    TaskPanicked = 4002, UserCode, Never, "mend the handler; the panic is in the peer's log";
    /// A task ran over its deadline; its writes were undone.
    TaskOverrun = 4003, UserCode, Never, "make the handler shorter or its deadline longer";
    /// A task touched a key outside its slot.
    TaskOutsideSlot = 4004, UserCode, Never, "touch only keys that share the task key's {tag}";
    /// A task's payload or answer could not be encoded or decoded.
    TaskCodec = 4005, BadRequest, Never, "send the payload that the task takes";
    /// An event is older than what the task still keeps.
    TooLate = 4006, UserCode, Never, "send events no older than the window, or widen it";
    /// Remote calls are refused inside a task.
    RemoteCallInTask = 4007, UserCode, Never, "read only the task's own slot";
    /// A task was cancelled; nothing that it wrote has taken effect.
    TaskCancelled = 4008, UserCode, Never, "submit it again if it is wanted after all";
    /// A task on all partitions failed on some.
    PartitionsFailed = 4009, UserCode, Never, "see the first failure; ask for a partial answer if some partitions are enough";
    /// A job task was started several times, and its peer was lost each time.
    JobGaveUp = 4010, UserCode, Never, "see what the job does to its peers; start it again under another id";

    /// The disk failed; the peer stops.
    DiskFailed = 5001, DataLoss, OtherPeer, "replace the disk and start the peer with an empty data directory";
    /// The disk is full; nothing was written.
    DiskFull = 5002, Exhausted, OtherPeer, "make room; the peer recovers by itself";
    /// Bytes on disk are damaged where they had been durable.
    CorruptLog = 5003, DataLoss, OtherPeer, "the peer replaces the affected replicas from the others; if it stops, do what its message says";
    /// A row's bytes are damaged or of an unknown version.
    CorruptRow = 5004, DataLoss, Never, "restore the row from its source; please report this";
    /// A file is of a format that this version does not know.
    UnknownFormat = 5005, DataLoss, Never, "use the version of Keystead that wrote the data directory, or a later one";
    /// The data directory is in use by another process.
    DataDirBusy = 5006, Conflict, Never, "stop the other process, or choose another --data";
    /// The data directory cannot be written.
    DataDirUnwritable = 5007, Denied, Never, "make the directory writable for this user, or choose another --data";

    /// The peer belongs to another grid.
    ForeignGrid = 6001, Denied, Never, "correct the seeds, or start with an empty data directory to join this grid";
    /// The founders' settings differ.
    FoundingMismatch = 6002, Conflict, Never, "start all founders with the same seeds, partitions and replicas";
    /// The other peer speaks no common protocol version.
    ProtocolMismatch = 6003, Denied, Never, "upgrade the older peer";
    /// The caller may not do that.
    Unauthorized = 6004, Denied, Never, "ask the grid's operator";
    /// The node was removed from the grid for good.
    MemberRemoved = 6005, Denied, Never, "start the peer with an empty data directory: it joins as a new node";

    /// The history no longer has what comes behind the token.
    Compacted = 7001, Conflict, Never, "watch again with a snapshot; a longer history is kept with feed_bytes_per_partition in the [limits] table";
    /// A watch token that cannot be read, or of another map.
    InvalidToken = 7002, BadRequest, Never, "use a token of a watch of the same map, or begin without one";
    /// The peer serves as many watches as it may.
    TooManyWatches = 7003, Exhausted, OtherPeer, "watch through another peer, or raise max_watches in the [limits] table";
    /// The map is not replicated, or this peer has no copy of it.
    NoLocalCopy = 7004, Conflict, Never, "create the map with the option replicated, or read it without --local";
    /// A replicated map has reached its limit.
    ReplicatedFull = 7005, Exhausted, Never, "delete entries, or raise replicated_map_bytes or replicated_bytes_per_node in the [limits] table of every peer";

    /// A state that cannot be: a bug.
    Internal = 9001, Internal, Never, "please report this, with the peer's log";
}

impl Code {
    /// The code with this number.
    pub fn from_number(number: u16) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| *code as u16 == number)
    }

    /// The gRPC status number (google.rpc.Code).
    pub fn grpc(self) -> i32 {
        match self.facts().0 {
            Class::BadRequest => 3,
            Class::NotFound => 5,
            Class::Conflict => 9,
            Class::Unavailable => 14,
            Class::OutcomeUnknown => 10,
            Class::DeadlineExceeded => 4,
            Class::Exhausted => 8,
            Class::UserCode => 2,
            Class::DataLoss => 15,
            Class::Denied => 7,
            Class::Internal => 13,
        }
    }

    /// The command line's exit status: 1 failed, 2 usage, 3 not found.
    pub fn exit_status(self) -> u8 {
        match self.facts().0 {
            Class::NotFound => 3,
            _ if matches!(
                self,
                Code::InvalidConfig | Code::PublicAddress | Code::InvalidRequest | Code::InvalidName | Code::CrossSlot
            ) =>
            {
                2
            }
            _ => 1,
        }
    }

    /// The retry advice.
    pub fn retry(self) -> Retry {
        self.facts().1
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KS{:04}", *self as u16)
    }
}

/// An error with its code: what, where, remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Error {
    /// The stable code.
    pub code: Code,
    /// What happened, in one sentence without a full stop.
    pub what: String,
    /// Where: a peer, partition, map, file or option; empty if `what` says it.
    pub place: String,
    /// How to mend it.
    pub remedy: String,
    /// For `NotLeader`: the leader's address, if known.
    pub leader: Option<String>,
    /// For `ResendFrom`: the number of the write to resend from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resend_from: Option<u64>,
}

impl Error {
    /// An error with the code's usual remedy.
    pub fn new(code: Code, what: impl Into<String>) -> Self {
        let remedy = code.facts().2.to_owned();
        Error { code, what: what.into(), place: String::new(), remedy, leader: None, resend_from: None }
    }

    /// Names where it happened.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = place.into();
        self
    }

    /// Replaces the usual remedy.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    /// Names the leader to ask instead.
    #[must_use]
    pub fn leader(mut self, address: impl Into<String>) -> Self {
        self.leader = Some(address.into());
        self
    }

    /// Names the write to resend from.
    #[must_use]
    pub fn resend_from(mut self, number: u64) -> Self {
        self.resend_from = Some(number);
        self
    }

    /// What this error says of a write of which an earlier attempt may have reached a log: unless it is
    /// the verdict on the write itself, nobody knows what became of it.
    #[must_use]
    pub fn of_unsure_write(self) -> Self {
        let (class, _, _) = self.code.facts();
        let is_verdict = !self.code.may_pass() && class != Class::Denied;
        // Its client sends from that number on; it answers nothing.
        if is_verdict || self.code == Code::ResendFrom {
            return self;
        }
        // How to get on with the grid is still good to know; that this peer may not ask helps nobody.
        let remedy = if class == Class::Denied { Code::OutcomeUnknown.facts().2.to_owned() } else { self.remedy };
        Error { code: Code::OutcomeUnknown, remedy, ..self }
    }

    /// Why an address cannot be listened on.
    pub fn cannot_listen(protocol: &str, error: &io::Error) -> Self {
        let what = format!("cannot listen on {protocol}: {error}");
        match error.kind() {
            io::ErrorKind::AddrInUse => Error::new(Code::AddressInUse, what),
            io::ErrorKind::AddrNotAvailable => {
                Error::new(Code::InvalidConfig, what).remedy("name an address of this machine")
            }
            io::ErrorKind::PermissionDenied => Error::new(Code::InvalidConfig, what)
                .remedy("choose a port above 1023, or start as a user who may use it"),
            _ => Error::new(Code::InvalidConfig, what),
        }
    }

    /// A bug, seen at run time.
    pub fn internal(what: impl Into<String>) -> Self {
        Error::new(Code::Internal, what)
    }
}

impl Code {
    /// Whether a command that was refused with it may be taken elsewhere or later: then no session keeps
    /// it as the command's answer, and of a write that was tried before it says nothing.
    pub fn may_pass(self) -> bool {
        // A map that this peer has not heard of yet may exist; another peer may carry the task.
        let elsewhere = matches!(self, Code::NoSuchMap | Code::NoSuchTask | Code::MemoryFull | Code::Internal);
        elsewhere || self.retry() != Retry::Never
    }
}

impl Error {
    /// What happened and where, without what to do about it: for messages that hold another.
    pub fn brief(&self) -> String {
        Error { remedy: String::new(), ..self.clone() }.to_string()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.what)?;
        if !self.place.is_empty() {
            write!(f, " ({})", self.place)?;
        }
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_rise() {
        assert!(Code::ALL.windows(2).all(|pair| (pair[0] as u16) < pair[1] as u16));
        for code in Code::ALL {
            assert_eq!(Code::from_number(*code as u16), Some(*code));
        }
    }

    #[test]
    fn an_error_says_what_where_and_how_to_mend_it() {
        let error = Error::new(Code::NoSuchMap, "there is no map \"orders\"").at("peer n1").remedy("create it");
        assert_eq!(error.to_string(), "KS2001: there is no map \"orders\" (peer n1); create it");
        assert_eq!(error.code.exit_status(), 3);
    }

    #[test]
    fn what_an_attempt_met_hides_no_earlier_one_that_may_take_effect() {
        let said = |code| Error::new(code, "x").at("partition 3").of_unsure_write();
        assert_eq!(said(Code::MemberRemoved), Error::new(Code::OutcomeUnknown, "x").at("partition 3"));
        for refusal in [Code::NoMajority, Code::DiskFull, Code::NoLeader, Code::TaskNotCarried] {
            let expected = Error { code: Code::OutcomeUnknown, ..Error::new(refusal, "x").at("partition 3") };
            assert_eq!(said(refusal), expected);
        }
        for verdict in [Code::MapFull, Code::TaskFailed, Code::SessionEnded, Code::ResendFrom] {
            assert_eq!(said(verdict).code, verdict);
        }
    }
}
