//! Fuzz target: the commands of `dev`.

use super::command::DevCommand;
use crate::fuzzing::Fuzz;

#[test]
fn dev_command() {
    let seeds = ["kill 2", "start n3", "add", "load 500", "load 100001", "help me now", " ", "quit"];
    Fuzz::new("dev_command", seeds).words(&["kill ", "load ", "start ", "\u{85}", "-1", "q"]).run(|input| {
        match DevCommand::parse(&String::from_utf8_lossy(input)) {
            Ok(command) => format!("{:?}", command.map(|command| std::mem::discriminant(&command))),
            Err(why) => why.split('"').next().unwrap_or_default().to_owned(),
        }
    });
}
