//! Options of the commands that ask about the grid itself.

use super::{Affinity, Connection};
use clap::Args;

/// `members`.
#[derive(Debug, Args)]
#[command(after_help = "\
TASKS are those that the member's program registered, the first two of them; --json shows all.

Example:
  keystead members --json")]
pub struct MembersArgs {
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

/// `partitions`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  keystead partitions --json")]
pub struct PartitionsArgs {
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

/// `explain`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  keystead explain 'order:{customer-7}:42'")]
pub struct ExplainArgs {
    /// The key
    #[arg(allow_hyphen_values = true)]
    pub key: String,
    /// Where it lives.
    #[command(flatten)]
    pub affinity: Affinity,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}
