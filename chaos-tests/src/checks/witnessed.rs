//! Hands what the replicas do to the checks that judge it as it happens.
//!
//! In: deeds from the witness of each node, lost disks from the nemesis. Out: violations.

use super::{Copies, LogMatching, Oaths, Violation};
use keystead::raft::{Deed, Witness};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
struct Checks {
    log: LogMatching,
    oaths: Oaths,
    copies: Copies,
}

/// The checks of one run. Clones are the same; they outlive the nodes.
#[derive(Clone, Debug, Default)]
pub struct Witnessed {
    checks: Arc<Mutex<Checks>>,
}

impl Witnessed {
    /// The checks of a grid that promises so many copies.
    pub fn new(promised: usize) -> Self {
        let checks = Checks { copies: Copies::new(promised), ..Checks::default() };
        Witnessed { checks: Arc::new(Mutex::new(checks)) }
    }

    fn checks(&self) -> MutexGuard<'_, Checks> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The witness of a node on this host.
    pub fn on(&self, host: &str) -> Witness {
        let (all, host) = (self.clone(), host.to_owned());
        Witness(Arc::new(move |group, replica, deed: &Deed<'_>| {
            let mut checks = all.checks();
            checks.log.told(group, replica, deed);
            checks.oaths.told(&host, group, replica, deed);
            checks.copies.told(&host, group, replica, deed);
        }))
    }

    /// This host's disk is gone with everything on it.
    pub fn disk_lost(&self, host: &str) {
        let mut checks = self.checks();
        checks.oaths.disk_lost(host);
        checks.copies.disk_lost(host);
    }

    /// Whether this host may lose its disk, as far as copies go.
    pub fn may_lose(&self, host: &str) -> bool {
        self.checks().copies.may_lose(host)
    }

    /// From now on no more copies than this are promised.
    pub fn promise(&self, at_most: usize) {
        self.checks().copies.promise(at_most);
    }

    /// How many replicas became voters of a group that others had formed.
    pub fn newcomers(&self) -> u64 {
        self.checks().copies.newcomers()
    }

    /// What was wrong so far.
    pub fn violations(&self) -> Vec<Violation> {
        let checks = self.checks();
        let all = [checks.log.violations(), checks.oaths.violations(), checks.copies.violations()];
        all.into_iter().flatten().cloned().collect()
    }
}
