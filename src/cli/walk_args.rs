//! Options of the commands on conditions, several entries and whole maps.

use super::args::Connection;
use clap::Args;

/// What a write may demand of the present entry; at most one.
#[derive(Clone, Debug, Default, Args)]
pub struct Conditions {
    /// Only if there is no entry
    #[arg(long, group = "condition")]
    pub if_absent: bool,
    /// Only if there is an entry
    #[arg(long, group = "condition")]
    pub if_present: bool,
    /// Only if the entry has this revision
    #[arg(long, value_name = "N", group = "condition")]
    pub if_revision: Option<u64>,
    /// Only if the entry's value is this
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true, group = "condition")]
    pub if_value: Option<String>,
    /// Print the entry that was there before, not the revision
    #[arg(long)]
    pub previous: bool,
}

/// `transact`.
#[derive(Debug, Args)]
#[command(after_help = "\
All keys need one {tag}, so that they share a slot. Status 1 if a check does not hold. What is put lives
as long as the map says.

Example:
  keystead transact carts --check '{7}:total=12' --put '{7}:total=30' --delete '{7}:coupon'")]
pub struct TransactArgs {
    /// The map
    pub map: String,
    /// A key and the revision that its entry must have; KEY=absent: that there must be none. The
    /// last = parts them
    #[arg(long, value_name = "KEY=REVISION", value_parser = check)]
    pub check: Vec<(String, Option<u64>)>,
    /// A key and the value that its entry must have. The first = parts them
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub check_value: Vec<(String, String)>,
    /// A key and its new value. The first = parts them, so that a value may hold one and a key not
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub put: Vec<(String, String)>,
    /// A key whose entry is deleted
    #[arg(long, value_name = "KEY")]
    pub delete: Vec<String>,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("\"{text}\" is not KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(super) fn check(text: &str) -> Result<(String, Option<u64>), String> {
    let wrong = || format!("\"{text}\" is neither KEY=REVISION nor KEY=absent");
    // The last sign: a key may hold one, a revision does not.
    let (key, revision) = text.rsplit_once('=').ok_or_else(wrong)?;
    match revision {
        "absent" => Ok((key.to_owned(), None)),
        number => Ok((key.to_owned(), Some(number.parse().map_err(|_| wrong())?))),
    }
}

/// `scan`.
#[derive(Debug, Args)]
#[command(after_help = "\
Entries come by partition, slot and key, a page at a time: each page is one moment, the whole is not.
With --limit one page is printed, and its token names the next.

Example:
  keystead scan orders --prefix 2026- --limit 100")]
pub struct ScanArgs {
    /// The map
    pub map: String,
    /// Only keys that start with this text
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    pub prefix: String,
    /// Print one page of at most so many entries [default: all pages]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
    /// Begin where the page ended that named this token
    #[arg(long, value_name = "TOKEN", value_parser = token)]
    pub token: Option<crate::types::Cursor>,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

/// A token in hex.
fn token(text: &str) -> Result<crate::types::Cursor, String> {
    let bad = || format!("\"{text}\" is no page token");
    let digits: Option<Vec<u8>> = text.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0).ok_or_else(bad)?;
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    crate::types::Cursor::from_token(&bytes.into()).map_err(|error| format!("{}; {}", error.what, error.remedy))
}

/// `size`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  keystead size orders")]
pub struct SizeArgs {
    /// The map
    pub map: String,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

/// `clear`.
#[derive(Debug, Args)]
#[command(after_help = "What is written meanwhile may stay.\n\nExample:\n  keystead clear orders")]
pub struct ClearArgs {
    /// The map
    pub map: String,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

/// `drop`.
#[derive(Debug, Args)]
#[command(after_help = "\
The map is gone at once; its entries are deleted in the background. A later map of the same name is
another one.

Example:
  keystead drop orders")]
pub struct DropArgs {
    /// The map
    pub map: String,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

/// `maps`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  keystead maps --json")]
pub struct MapsArgs {
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}
