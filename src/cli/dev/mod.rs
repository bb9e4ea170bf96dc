//! `dev`: a grid of three peers on this machine, with a live table and commands that break and grow
//! it.
//!
//! In: lines typed while it runs (`kill 2`, `add`, ...). Out: a table of the peers, drawn anew twice
//! a second on a terminal; elsewhere one table when something changed, or one JSON object per look.
//! Never leaves a process or a directory behind.

mod command;
#[cfg(test)]
mod fuzz;
mod load;
mod look;
mod view;

use super::args::DevArgs;
use super::local::Peers;
use super::output::{json, line, print};
use super::signals::Signals;
use crate::client::{Client, ClientConfig};
use crate::clock::{self, SystemThreads, ThreadKind, Threads};
use crate::error::{Error, Result};
use command::DevCommand;
use load::Load;
use look::{Look, Looker};
use std::collections::VecDeque;
use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;
use tokio::sync::mpsc;

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(500);
/// Happenings that stay on the screen.
const HAPPENINGS: usize = 10;
/// Lines typed ahead that are kept.
const TYPED: usize = 16;

/// Runs until `quit`, the end of the input, or a signal.
///
/// # Errors
/// What keeps the peers from starting.
pub(super) async fn dev(args: &DevArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let mut signals = Signals::new()?;
    let peers = Peers::start()?;
    let ran = tokio::select! {
        biased;
        _ = signals.wait() => Ok(()),
        ran = run(args, &peers, out) => ran,
    };
    peers.stop();
    ran
}

/// What is on the screen besides the table.
struct Screen {
    live: bool,
    as_json: bool,
    happenings: VecDeque<String>,
    shown: Option<String>,
}

async fn run(args: &DevArgs, peers: &Peers, out: &mut (dyn Write + Send)) -> Result<()> {
    let live = !args.json && std::io::stdout().is_terminal();
    if !args.json {
        line(out, "starting three peers ...")?;
    }
    peers.wait_ready().await?;
    let client = Client::connect(peers.addresses(), ClientConfig::default()).await?;
    let mut load = Load::new(client.clone(), args.load);
    let mut screen = Screen { live, as_json: args.json, happenings: VecDeque::new(), shown: None };
    screen.happened(&format!("try: keystead put orders 42 open --endpoint {}", peers.addresses().join(",")));
    let mut typed = typed_lines();
    let mut looker = Looker::new(client);
    let mut tick = clock::interval(PERIOD);
    if live {
        print(out, view::CLEAR.as_bytes())?;
    }
    loop {
        tokio::select! {
            biased;
            text = typed.recv() => {
                let Some(text) = text else { return Ok(()) };
                if live {
                    // The typed line has moved the cursor on: what follows draws everything anew.
                    print(out, view::CLEAR.as_bytes())?;
                }
                match DevCommand::parse(&text) {
                    Ok(Some(DevCommand::Quit)) => return Ok(()),
                    Ok(Some(command)) => screen.happened(&obey(&command, peers, &mut load).unwrap_or_else(|error| error.to_string())),
                    Ok(None) => {}
                    Err(what) => screen.happened(&what),
                }
            }
            _ = tick.tick() => {}
        }
        let look = looker.look(peers, load.rate()).await;
        screen.show(look, out)?;
    }
}

/// Does what was typed; says what was done.
fn obey(command: &DevCommand, peers: &Peers, load: &mut Load) -> Result<String> {
    Ok(match command {
        DevCommand::Kill(name) if peers.kill(name) => format!("{name} killed"),
        DevCommand::Kill(name) => format!("{name} does not run"),
        DevCommand::Start(name) if peers.start_again(name)? => format!("{name} started again, with its data"),
        DevCommand::Start(name) => format!("{name} runs already, or was never added"),
        DevCommand::Add => format!("{} added; it joins", peers.add()?),
        DevCommand::Load(rate) => {
            load.set(*rate);
            format!("{rate} writes and reads a second from now on")
        }
        DevCommand::Help => command::HELP.to_owned(),
        DevCommand::Quit => String::new(),
    })
}

impl Screen {
    fn happened(&mut self, what: &str) {
        self.happenings.push_back(what.to_owned());
        while self.happenings.len() > HAPPENINGS {
            self.happenings.pop_front();
        }
    }

    fn show(&mut self, look: Look, out: &mut (dyn Write + Send)) -> Result<()> {
        for what in &look.changes {
            self.happened(what);
        }
        if self.as_json {
            let mut fields = serde_json::to_value(&look).map_err(|error| Error::internal(error.to_string()))?;
            fields["happenings"] = std::mem::take(&mut self.happenings).into_iter().collect();
            return json(out, &fields);
        }
        if self.live {
            let happenings: Vec<&str> = self.happenings.iter().map(String::as_str).collect();
            return print(out, view::screen(&look, &happenings).as_bytes());
        }
        // Rates change all the time; only what the peers are is worth a new table in a file.
        let standing = view::standing(&look);
        for what in self.happenings.drain(..) {
            line(out, &what)?;
        }
        if self.shown.as_ref() != Some(&standing) {
            print(out, view::table(&look).as_bytes())?;
            self.shown = Some(standing);
        }
        Ok(())
    }
}

/// The lines of the standard input, read on a thread of its own since that blocks.
fn typed_lines() -> mpsc::Receiver<String> {
    let (typed, lines) = mpsc::channel(TYPED);
    let read = move || {
        for text in std::io::stdin().lock().lines() {
            let Ok(text) = text else { return };
            if typed.blocking_send(text).is_err() {
                return;
            }
        }
    };
    SystemThreads.run(ThreadKind::Backend, Box::new(read));
    lines
}
