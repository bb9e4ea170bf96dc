//! What can be typed. Pure.

/// What the commands are.
pub(super) const HELP: &str = "kill N, start N, add, load RATE, quit";

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DevCommand {
    /// Kill a peer with SIGKILL.
    Kill(String),
    /// Start a killed peer again.
    Start(String),
    /// Start one more peer.
    Add,
    /// Write and read so often a second.
    Load(u32),
    /// Show the commands.
    Help,
    /// Stop everything.
    Quit,
}

/// The highest rate of the built-in load.
const MAX_RATE: u32 = 100_000;

impl DevCommand {
    /// Reads a line; `None` for an empty one.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub(super) fn parse(line: &str) -> Result<Option<Self>, String> {
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { return Ok(None) };
        let argument = words.next();
        if words.next().is_some() {
            return Err(format!("{line:?} has too many words; there are: {HELP}"));
        }
        let peer = |verb: &str| match argument {
            Some(name) if name.parse::<u32>().is_ok() => Ok(format!("n{name}")),
            Some(name) => Ok(name.to_owned()),
            None => Err(format!("{verb} whom? For example: {verb} 2")),
        };
        let command = match first {
            "kill" => DevCommand::Kill(peer("kill")?),
            "start" => DevCommand::Start(peer("start")?),
            "add" => DevCommand::Add,
            "load" => match argument.and_then(|rate| rate.parse().ok()).filter(|rate| *rate <= MAX_RATE) {
                Some(rate) => DevCommand::Load(rate),
                None => return Err(format!("load wants a number up to {MAX_RATE}, for example: load 500")),
            },
            "help" | "?" => DevCommand::Help,
            "quit" | "exit" | "q" => DevCommand::Quit,
            _ => return Err(format!("{first:?} is not known; there are: {HELP}")),
        };
        Ok(Some(command))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_commands() {
        let parse = |line| DevCommand::parse(line).expect("a command");
        assert_eq!(parse("kill 2"), Some(DevCommand::Kill("n2".to_owned())));
        assert_eq!(parse(" start  n4 "), Some(DevCommand::Start("n4".to_owned())));
        assert_eq!(parse("add"), Some(DevCommand::Add));
        assert_eq!(parse("load 500"), Some(DevCommand::Load(500)));
        assert_eq!(parse("q"), Some(DevCommand::Quit));
        assert_eq!(parse("  "), None);
    }

    #[test]
    fn nonsense_is_told_apart() {
        for (line, part) in [("kill", "kill 2"), ("load x", "load 500"), ("dance", "not known"), ("kill 1 2", "words")]
        {
            let what = DevCommand::parse(line).expect_err("nonsense");
            assert!(what.contains(part), "{what}");
        }
    }
}
