//! Clients that move amounts between accounts: two entries of one slot, checked and written by one
//! transaction. Whoever reads all accounts at one moment finds the same sum; no two transfers replace
//! the same entry; and what was acknowledged is seen by everyone who asks later.

use super::clients::{check_error, connect, is_unknown, number};
use super::{QUIET_FROM, Records};
use crate::checks::Violation;
use crate::dice::Dice;
use crate::machine::Life;
use keystead::client::{Client, Transacted};
use keystead::clock::{Instant, sleep};
use keystead::error::{Error, Result};
use keystead::types::{KeyCodec, ReadLevel, StoredValue, Value, ValueCodec};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

const MAP: &str = "accounts";
const ACCOUNTS: usize = 4;
/// What each account begins with.
const EACH: i64 = 1000;

/// An account's revision and what is in it.
type Found = Option<(u64, i64)>;

fn key(account: usize) -> String {
    format!("{{b}}{account}")
}

/// What is known of the accounts; all that is said to it comes in real-time order.
#[derive(Default)]
pub(super) struct Ledger {
    /// The newest revision of each account that an answer named.
    newest: BTreeMap<usize, u64>,
    /// All revisions of an account that answers named.
    revisions: BTreeSet<(usize, u64)>,
    /// Of each account, what transfers replaced: the revision before, and the one that they wrote.
    replaced: Vec<(usize, u64, u64)>,
    wrong: Vec<String>,
}

impl Ledger {
    /// A revision of an account is known to have been there.
    fn knows(&mut self, account: usize, revision: u64) {
        let newest = self.newest.entry(account).or_default();
        *newest = revision.max(*newest);
        if !self.revisions.insert((account, revision)) {
            return;
        }
        let within = |(of, before, after): &&(usize, u64, u64)| *of == account && (*before..*after).contains(&revision);
        if let Some((_, before, after)) = self.replaced.iter().find(|move_| within(move_) && move_.1 != revision) {
            let what = format!("account {account} had revision {revision}; a transfer replaced {before} by {after}");
            self.wrong.push(what);
        }
    }

    /// All accounts were read at one moment; `before` is what was known when that began.
    fn read(&mut self, before: &BTreeMap<usize, u64>, found: &[Found]) {
        let sum: i64 = found.iter().flatten().map(|(_, amount)| amount).sum();
        let whole = found.iter().all(Option::is_some) && sum == EACH * ACCOUNTS as i64;
        if !whole {
            self.wrong.push(format!("the accounts hold {found:?}, together {sum}"));
        }
        for (account, found) in found.iter().enumerate() {
            let Some((revision, _)) = found else { continue };
            let known = before.get(&account).copied().unwrap_or(0);
            if *revision < known {
                self.wrong.push(format!("account {account} was read at {revision}, after {known} was known"));
            }
            self.knows(account, *revision);
        }
    }

    /// A transfer that demanded these revisions was acknowledged.
    fn moved(&mut self, accounts: [(usize, u64); 2], at: u64) {
        for (account, before) in accounts {
            let twice = self.replaced.iter().find(|(of, replaced, _)| (*of, *replaced) == (account, before));
            if let Some((_, _, other)) = twice.filter(|(_, _, other)| *other != at) {
                self.wrong.push(format!("account {account}: {at} and {other} both replaced {before}"));
            }
            let mut between = self.revisions.range((account, before + 1)..(account, at.max(before + 1)));
            if let Some((_, other)) = between.next() {
                self.wrong.push(format!("account {account}: {at} replaced {before}, though {other} came between"));
            }
            self.replaced.push((account, before, at));
            self.knows(account, at);
        }
    }

    /// A transfer was refused since an account was not as demanded.
    fn refused(&mut self, account: usize, demanded: u64, present: Found) {
        match present {
            Some((revision, _)) if revision == demanded => {
                self.wrong.push(format!("account {account}: {demanded} was demanded, is there, and was refused"));
            }
            Some((revision, _)) => self.knows(account, revision),
            None => self.wrong.push(format!("account {account} is gone")),
        }
    }

    fn violations(&mut self) -> impl Iterator<Item = Violation> {
        self.wrong.drain(..).map(|what| Violation { check: "transfers", what })
    }
}

/// One client of the accounts.
struct Teller {
    client: Client,
    ledger: Rc<RefCell<Ledger>>,
    records: Records,
    name: String,
}

fn found(stored: Option<StoredValue>) -> Result<Found> {
    let revision = stored.as_ref().map(|stored| stored.revision);
    Ok(revision.zip(number(stored)?))
}

impl Teller {
    /// Reads all accounts at one moment: by a request of several keys, or by a page of a scan.
    async fn look(&self, by_scan: bool) -> Result<Option<Vec<Found>>> {
        let before = self.ledger.borrow().newest.clone();
        let keys: Vec<String> = (0..ACCOUNTS).map(key).collect();
        let all: Vec<Found> = if by_scan {
            let page = self.client.scan_page(MAP, "{b}", None, 100, ReadLevel::Linearizable).await?;
            if page.next.is_some() {
                // Not all of it is of one moment.
                return Ok(None);
            }
            let mut entries: BTreeMap<Vec<u8>, StoredValue> =
                page.entries.into_iter().map(|(key, stored)| (key.to_vec(), stored)).collect();
            keys.iter().map(|key| found(entries.remove(key.as_bytes()))).collect::<Result<_>>()?
        } else {
            self.client.get_many(MAP, &keys).await?.into_iter().map(found).collect::<Result<_>>()?
        };
        crate::event!(&self.name, "accounts {all:?}");
        self.ledger.borrow_mut().read(&before, &all);
        Ok(Some(all))
    }

    async fn transfer(&self, seen: &[Found], from: usize, to: usize, amount: i64) -> Result<()> {
        let (Some((at_from, has)), Some((at_to, other))) = (seen[from], seen[to]) else { return Ok(()) };
        let transaction = self.client.transaction(MAP).check(key(from), at_from).check(key(to), at_to);
        let transaction = transaction.put(key(from), Value::i64(has - amount)).put(key(to), Value::i64(other + amount));
        crate::event!(&self.name, "moves {amount} from {from} at {at_from} to {to} at {at_to}");
        match transaction.commit().await? {
            Transacted::Written(written) => {
                crate::event!(&self.name, "moved at {}", written.revision);
                self.ledger.borrow_mut().moved([(from, at_from), (to, at_to)], written.revision);
            }
            Transacted::Refused { key: failed, present, .. } => {
                let (account, demanded) = if failed == key(from) { (from, at_from) } else { (to, at_to) };
                let present = found(present)?;
                crate::event!(&self.name, "not moved: {account} is {present:?}");
                self.ledger.borrow_mut().refused(account, demanded, present);
            }
        }
        Ok(())
    }

    async fn open(&self) {
        while self.client.create_map(MAP, KeyCodec::Utf8, ValueCodec::I64, 0).await.is_err() {
            sleep(Duration::from_millis(100)).await;
        }
        loop {
            let accounts = (0..ACCOUNTS).fold(self.client.transaction(MAP), |transaction, account| {
                transaction.check_absent(key(account)).put(key(account), Value::i64(EACH))
            });
            match accounts.commit().await {
                Ok(_) => return,
                Err(error) => self.failed(&error),
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn failed(&self, error: &Error) {
        crate::event!(&self.name, "{:?}", error.code);
        if !is_unknown(error) {
            check_error(error, &self.records);
        }
    }

    fn tell(&self) {
        self.records.violations.borrow_mut().extend(self.ledger.borrow_mut().violations());
    }
}

/// Transfers and reads until everything is mended, and reads once more.
pub(super) async fn transfer(
    life: Life,
    seed: u64,
    endpoints: Vec<String>,
    ledger: Rc<RefCell<Ledger>>,
    records: Records,
) {
    let start = Instant::now();
    let client = connect(&life, &endpoints).await;
    let mut dice = Dice::new(seed, &format!("transfers {}", life.name));
    let teller = Teller { client, ledger, records, name: life.name.clone() };
    teller.open().await;
    let mut seen: Option<Vec<Found>> = None;
    while start.elapsed() < QUIET_FROM {
        sleep(Duration::from_millis(dice.between(0, 80))).await;
        let from = dice.index(ACCOUNTS);
        let to = (from + 1 + dice.index(ACCOUNTS - 1)) % ACCOUNTS;
        let done = match seen.take() {
            Some(all) => teller.transfer(&all, from, to, dice.between(1, 50) as i64).await,
            None => teller.look(dice.per_mille(300)).await.map(|found| seen = found),
        };
        if let Err(error) = done {
            teller.failed(&error);
        }
        teller.tell();
    }
    while let Err(error) = teller.look(false).await {
        teller.failed(&error);
        sleep(Duration::from_millis(100)).await;
    }
    teller.tell();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(told: impl FnOnce(&mut Ledger)) -> Vec<String> {
        let mut ledger = Ledger::default();
        ledger.read(&BTreeMap::new(), &[Some((1, 1000)); ACCOUNTS]);
        ledger.moved([(0, 1), (1, 1)], 5);
        told(&mut ledger);
        ledger.violations().map(|violation| violation.what).collect()
    }

    #[test]
    fn correct_transfers_pass() {
        let after = [Some((7, 990)), Some((5, 1010)), Some((7, 1000)), Some((1, 1000))];
        let wrong = says(|ledger| {
            ledger.refused(0, 1, Some((5, 990)));
            ledger.moved([(0, 5), (2, 1)], 7);
            let before = ledger.newest.clone();
            ledger.read(&before, &after);
        });
        assert_eq!(wrong, Vec::<String>::new());
    }

    #[test]
    fn each_wrong_history_is_named() {
        let read = |found: [Found; ACCOUNTS]| {
            move |ledger: &mut Ledger| {
                let before = ledger.newest.clone();
                ledger.read(&before, &found);
            }
        };
        let rest = [Some((1, 1000)), Some((1, 1000))];
        let torn = says(read([Some((5, 990)), Some((5, 1000)), rest[0], rest[1]]));
        assert!(torn[0].contains("together 3990"), "{torn:?}");
        let gone = says(read([Some((5, 990)), None, rest[0], rest[1]]));
        assert!(gone[0].contains("None"), "{gone:?}");
        let old = says(read([Some((1, 1000)), Some((1, 1000)), rest[0], rest[1]]));
        assert!(old[0].contains("after 5 was known"), "{old:?}");
        let lost = says(|ledger| ledger.moved([(0, 1), (2, 1)], 6));
        assert!(lost[0].contains("both replaced 1"), "{lost:?}");
        let between = says(|ledger| ledger.refused(1, 1, Some((3, 1))));
        assert!(between[0].contains("a transfer replaced 1 by 5"), "{between:?}");
        let after = says(|ledger| ledger.moved([(0, 2), (2, 1)], 9));
        assert!(after[0].contains("5 came between"), "{after:?}");
        let refused = says(|ledger| ledger.refused(1, 5, Some((5, 1010))));
        assert!(refused[0].contains("is there, and was refused"), "{refused:?}");
        assert!(says(|ledger| ledger.refused(1, 5, None))[0].contains("is gone"));
    }
}
