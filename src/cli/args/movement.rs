//! Options of the commands that move data: `remove`, `drain`, `rebalance`.

use super::Connection;
use clap::{Args, Subcommand};

/// `remove`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The command waits until the member has gone. Its disk is refused afterwards; an empty one joins anew.

Example:
  keystead remove n2")]
pub struct RemoveArgs {
    /// The member's name or id
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub member: String,
    /// Return at once
    #[arg(long)]
    pub no_wait: bool,
    /// Give up waiting after so many seconds; the removal goes on
    #[arg(long, default_value_t = 600, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub within: u32,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

/// `drain`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The command waits until the member holds nothing, unless no other peer is left to take it.

Example:
  keystead drain n2 && systemctl stop keystead")]
pub struct DrainArgs {
    /// The member's name or id
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub member: String,
    /// Let the member hold its share again
    #[arg(long)]
    pub undo: bool,
    /// Return at once
    #[arg(long)]
    pub no_wait: bool,
    /// Give up waiting after so many seconds; the drain goes on
    #[arg(long, default_value_t = 600, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub within: u32,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

/// `rebalance`.
#[derive(Clone, Debug, Subcommand)]
pub enum RebalanceCommand {
    /// Show the moves under way
    Status(RebalanceArgs),
}

/// `rebalance status`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  keystead rebalance status")]
pub struct RebalanceArgs {
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}
