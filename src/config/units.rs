//! Texts of durations (`90s`, `10m`, `7d`) and sizes (`64MiB`, `1GB`) as options take them. Pure.

use std::time::Duration;

const DURATIONS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const SIZES: [(&str, u64); 10] = [
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

/// A duration: a whole number with `ms`, `s`, `m`, `h` or `d`.
///
/// # Errors
/// One sentence that says what is wanted.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    scaled(text, &DURATIONS)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("\"{text}\" is not a time such as 500ms, 90s, 10m, 2h or 7d"))
}

/// A size in bytes: a whole number, alone or with `KiB`, `MiB`, `GiB`, `TiB` (powers of 1024) or
/// `kB`, `MB`, `GB`, `TB` (powers of 1000).
///
/// # Errors
/// One sentence that says what is wanted.
pub fn parse_size(text: &str) -> Result<u64, String> {
    scaled(text, &SIZES).ok_or_else(|| format!("\"{text}\" is not a size such as 4096, 64MiB or 2GB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_have_units() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(parse_duration("2 h"), Ok(Duration::from_secs(7200)));
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        assert_eq!(parse_size("2 GB"), Ok(2_000_000_000));
        assert_eq!(parse_size("7"), Ok(7));
    }

    #[test]
    fn what_is_no_duration_or_size_is_refused() {
        for text in ["", "10", "s", "-1s", "1.5h", "1w", "99999999999999999999s", "213503982334602d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        for text in ["", "MiB", "-1", "1mib", "99999999TiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
