//! Job tasks: each leaves a mark for every step of every attempt. An ended job stays as it ended, and
//! ends as its last attempt did; attempts only rise, and none writes over a later one's progress; within
//! an attempt each step happens once, in order; one that was cancelled before it began never begins.

use super::clients::{check_error, connect, create_maps, decode_list, is_unknown, until_answered};
use super::peer::{KEEP, LISTS};
use super::{QUIET_FROM, Records};
use crate::checks::Violation;
use crate::dice::Dice;
use crate::machine::Life;
use keystead::client::Client;
use keystead::clock::{Instant, sleep};
use keystead::compute::{JobContext, TaskError};
use keystead::error::{Class, Code, Error};
use keystead::types::{JobId, JobInfo, JobState, TaskPayload, ValueCodec};
use std::collections::BTreeSet;
use std::time::Duration;

/// The job's name.
pub(super) const NAME: &str = "steps";
/// Time for a job in all.
const TIME: Duration = Duration::from_secs(20);
/// What a job is looked at for, at most.
const PATIENCE: Duration = Duration::from_secs(30);

fn mark(attempt: u32, step: u64) -> u64 {
    u64::from(attempt) << 32 | step
}

/// Leaves a mark for each step; answers the attempt.
pub(super) async fn steps(context: JobContext, (steps, pause_ms): (u64, u64)) -> Result<u32, TaskError> {
    let (attempt, key) = (context.attempt(), context.key().to_vec());
    for step in 1..=steps {
        let _: u64 = context.submit("append", &key, &(mark(attempt, step), KEEP)).await?;
        context.progress(step as f64 / (steps + 1) as f64, format!("{attempt} {step}"));
        sleep(Duration::from_millis(pause_ms)).await;
    }
    Ok(attempt)
}

/// A job as it was seen once.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Look {
    state: JobState,
    attempt: u32,
    permille: u16,
    /// The attempt and the step that its progress names.
    said: (u32, u64),
    /// What it answered.
    answer: Option<u32>,
    /// It waits for a leader that carries it, and says so instead of its progress.
    waits: bool,
}

impl Look {
    fn of(job: &JobInfo) -> Self {
        let mut words = job.text.split(' ');
        let said = (
            words.next().and_then(|word| word.parse().ok()).unwrap_or(0),
            words.next().and_then(|word| word.parse().ok()).unwrap_or(0),
        );
        let answer = job.outcome.as_ref().and_then(|outcome| outcome.as_ref().ok());
        let answer = answer.map(|answer| rmp_serde::from_slice(&answer.data).unwrap_or(u32::MAX));
        let waits = job.text.starts_with("waits: ");
        Look { state: job.state, attempt: job.attempt, permille: job.permille, said, answer, waits }
    }
}

/// What is wrong with what was seen of a job, one look after the other.
fn looks(seen: &[Look]) -> Vec<String> {
    let mut wrong = Vec::new();
    for pair in seen.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        // One that waits says so in the place of its progress: between two such looks, another attempt
        // may have begun, said how far it was, and ended.
        let says_same = after.said.0 == before.said.0 && !(before.waits && after.waits);
        // What it waited for between the looks was said in the place of its progress; an attempt that begins
        // then has said nothing yet.
        let begun_anew = after.attempt > before.attempt && after.said == (0, 0);
        let fell = after.attempt < before.attempt
            || (after.said < before.said && !after.waits && !begun_anew)
            || (says_same && after.permille < before.permille && !before.state.ended())
            || (before.state == JobState::Running && after.state == JobState::Queued && !after.waits);
        if fell || (before.state.ended() && before != after) {
            wrong.push(format!("{before:?} became {after:?}"));
        }
    }
    for look in seen {
        let answered = (look.state == JobState::Done).then_some(look.attempt);
        if look.said.0 > look.attempt || look.answer != answered {
            wrong.push(format!("{look:?} cannot be"));
        }
    }
    wrong
}

/// What is wrong with a job's marks, given how it ended.
fn marks(last: &Look, steps: u64, found: &[u64]) -> Vec<String> {
    let mut wrong = Vec::new();
    let split: Vec<(u32, u64)> = found.iter().map(|mark| ((mark >> 32) as u32, mark & u64::from(u32::MAX))).collect();
    let attempts: BTreeSet<u32> = split.iter().map(|(attempt, _)| *attempt).collect();
    for attempt in attempts {
        let done: Vec<u64> = split.iter().filter(|(of, _)| *of == attempt).map(|(_, step)| *step).collect();
        // It waits for each step's answer before the next one.
        if !done.iter().copied().eq(1..=done.len() as u64) || attempt > last.attempt || done.len() as u64 > steps {
            wrong.push(format!("attempt {attempt} of {} left {done:?} of {steps} steps", last.attempt));
        }
        if last.state == JobState::Done && attempt == last.attempt && done.len() as u64 != steps {
            wrong.push(format!("the attempt that ended well left {done:?} of {steps} steps"));
        }
    }
    if last.state == JobState::Done && steps > 0 && !split.iter().any(|(attempt, _)| *attempt == last.attempt) {
        wrong.push(format!("attempt {} ended well and left no mark", last.attempt));
    }
    wrong
}

struct Jobs {
    client: Client,
    records: Records,
}

struct Started {
    id: JobId,
    key: String,
    steps: u64,
    seen: Vec<Look>,
}

impl Jobs {
    fn wrong(&self, key: &str, what: Vec<String>) {
        let named = what.into_iter().map(|what| Violation { check: "jobs", what: format!("job {key}: {what}") });
        self.records.violations.borrow_mut().extend(named);
    }

    fn failed(&self, error: &Error) {
        if !is_unknown(error) {
            check_error(error, &self.records);
        }
    }

    /// A job that failed says why: the grid may have lost its peers, or its time may be over.
    fn explained(&self, key: &str, info: &JobInfo) {
        if let (JobState::Failed, Some(Err(error))) = (info.state, &info.outcome) {
            let lost = matches!(error.code, Code::JobGaveUp | Code::TaskOverrun) || is_unknown(error);
            let class = error.code.facts().0;
            if !lost && !matches!(class, Class::Unavailable | Class::DeadlineExceeded | Class::Exhausted) {
                self.wrong(key, vec![format!("it failed: {error}")]);
            }
        }
    }

    async fn look(&self, job: &mut Started) -> Option<JobInfo> {
        match self.client.job(job.id).await {
            Ok(info) => {
                crate::event!("j0", "{}: {:?}", job.key, Look::of(&info));
                job.seen.push(Look::of(&info));
                self.explained(&job.key, &info);
                Some(info)
            }
            Err(error) => {
                self.failed(&error);
                None
            }
        }
    }

    /// Starts a job, looks at it until it has ended, and cancels it then, perhaps.
    async fn run(&self, key: String, dice: &mut Dice) -> Option<Started> {
        let (steps, pause_ms) = (dice.between(1, 6), dice.between(10, 400));
        let cancel_after = dice.per_mille(250).then(|| dice.below(8));
        let data = rmp_serde::to_vec(&(steps, pause_ms)).unwrap_or_default();
        let payload = TaskPayload { codec: ValueCodec::Msgpack, data: data.into() };
        let started = match self.client.start_job(NAME, &key, payload, TIME).await {
            Ok(started) => started,
            Err(error) => {
                self.failed(&error);
                return None;
            }
        };
        crate::event!("j0", "{key} is {} with {steps} steps", started.id);
        let until = Instant::now() + PATIENCE;
        let mut job = Started { id: started.id, key, steps, seen: vec![Look::of(&started)] };
        for turn in 0.. {
            if cancel_after == Some(turn) {
                match self.client.cancel_job(job.id).await {
                    Ok(told) => {
                        crate::event!("j0", "{} is cancelled: {:?}", job.key, Look::of(&told));
                        job.seen.push(Look::of(&told));
                        if !told.cancelling && !told.state.ended() {
                            self.wrong(&job.key, vec!["it was cancelled, and goes on".to_owned()]);
                        }
                    }
                    Err(error) => self.failed(&error),
                }
            }
            if self.look(&mut job).await.is_some_and(|info| info.state.ended()) {
                break;
            }
            if Instant::now() >= until {
                self.wrong(&job.key, vec![format!("it has not ended in {PATIENCE:?}: {:?}", job.seen.last())]);
                break;
            }
            sleep(Duration::from_millis(dice.between(20, 300))).await;
        }
        Some(job)
    }
}

/// Runs jobs until everything is mended; each must end, and is looked at once more.
pub(super) async fn work(life: Life, seed: u64, endpoints: Vec<String>, records: Records) {
    let start = Instant::now();
    let client = connect(&life, &endpoints).await;
    create_maps(&client).await;
    let mut dice = Dice::new(seed, "jobs");
    let jobs = Jobs { client, records };
    let mut all = Vec::new();
    for number in 0.. {
        if start.elapsed() >= QUIET_FROM {
            break;
        }
        all.extend(jobs.run(format!("j{number}"), &mut dice).await);
        sleep(Duration::from_millis(dice.between(0, 200))).await;
    }
    for mut job in all {
        while jobs.look(&mut job).await.is_none() {
            sleep(Duration::from_millis(100)).await;
        }
        jobs.wrong(&job.key, looks(&job.seen));
        let stored = until_answered(|| jobs.client.get(LISTS, &job.key)).await;
        let found = stored.map(|stored| decode_list(&stored.value.data)).unwrap_or_default();
        if let Some(last) = job.seen.last() {
            jobs.wrong(&job.key, marks(last, job.steps, &found));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(state: JobState, attempt: u32, permille: u16, said: (u32, u64)) -> Look {
        Look { state, attempt, permille, said, answer: (state == JobState::Done).then_some(attempt), waits: false }
    }

    const LIFE: [(JobState, u32, u16, (u32, u64)); 5] = [
        (JobState::Queued, 0, 0, (0, 0)),
        (JobState::Running, 1, 400, (1, 2)),
        (JobState::Running, 2, 400, (1, 2)),
        (JobState::Running, 2, 200, (2, 1)),
        (JobState::Done, 2, 1000, (2, 1)),
    ];

    fn life() -> Vec<Look> {
        LIFE.map(|(state, attempt, permille, said)| look(state, attempt, permille, said)).to_vec()
    }

    #[test]
    fn a_job_that_was_begun_twice_passes() {
        assert_eq!(looks(&life()), Vec::<String>::new());
        let last = look(JobState::Done, 2, 1000, (2, 1));
        assert_eq!(marks(&last, 2, &[mark(1, 1), mark(2, 1), mark(1, 2), mark(2, 2)]), Vec::<String>::new());
        let cancelled = look(JobState::Cancelled, 1, 200, (1, 1));
        assert_eq!(marks(&cancelled, 2, &[mark(1, 1)]), Vec::<String>::new());
    }

    #[test]
    fn a_job_that_waits_for_one_who_carries_it_passes() {
        let mut seen = life();
        seen.insert(2, Look { waits: true, ..look(JobState::Queued, 1, 400, (0, 0)) });
        assert_eq!(looks(&seen), Vec::<String>::new());
        seen.insert(3, Look { waits: true, ..look(JobState::Queued, 2, 200, (0, 0)) });
        assert_eq!(looks(&seen), Vec::<String>::new(), "another attempt between the looks");
        seen[2].waits = false;
        assert!(looks(&seen).join("; ").contains("became"), "queued again for nothing");
    }

    #[test]
    fn an_attempt_that_began_after_a_wait_has_said_nothing() {
        let mut seen = life();
        seen[2].said = (0, 0);
        assert_eq!(looks(&seen), Vec::<String>::new());
        seen[2].attempt = 1;
        assert!(looks(&seen).join("; ").contains("became"), "the same attempt's report is gone");
    }

    #[test]
    fn each_wrong_look_is_named() {
        let wrong = |at: usize, changed: Look| {
            let mut seen = life();
            seen[at] = changed;
            looks(&seen).join("; ")
        };
        assert!(wrong(2, look(JobState::Running, 0, 400, (1, 2))).contains("became"), "an attempt less");
        assert!(wrong(2, look(JobState::Queued, 2, 400, (1, 2))).contains("became"), "queued again");
        assert!(wrong(2, look(JobState::Running, 2, 300, (1, 2))).contains("became"), "progress lost");
        assert!(wrong(4, look(JobState::Running, 2, 1000, (1, 9))).contains("became"), "an older attempt's report");
        assert!(wrong(3, look(JobState::Running, 2, 200, (3, 1))).contains("cannot be"), "a later attempt's report");
        assert!(wrong(3, look(JobState::Done, 2, 1000, (1, 2))).contains("became"), "an end that is none");
        let answer = Look { answer: Some(1), ..look(JobState::Done, 2, 1000, (2, 1)) };
        assert!(wrong(4, answer).contains("cannot be"), "the answer of an older attempt");
    }

    #[test]
    fn each_wrong_mark_is_named() {
        let last = look(JobState::Done, 2, 1000, (2, 2));
        let wrong = |found: &[u64]| marks(&last, 2, found).join("; ");
        assert!(wrong(&[mark(2, 1)]).contains("ended well left [1]"));
        assert!(wrong(&[mark(1, 1)]).contains("left no mark"));
        assert!(wrong(&[mark(2, 1), mark(2, 1), mark(2, 2)]).contains("left [1, 1, 2]"));
        assert!(wrong(&[mark(2, 2), mark(2, 1)]).contains("left [2, 1]"));
        assert!(wrong(&[mark(2, 1), mark(2, 2), mark(3, 1)]).contains("attempt 3 of 2"));
        let never = look(JobState::Cancelled, 0, 0, (0, 0));
        assert!(marks(&never, 2, &[mark(1, 1)]).join("").contains("attempt 1 of 0"));
    }
}
