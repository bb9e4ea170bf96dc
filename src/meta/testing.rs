//! A small stand-in for the meta group's map, for the planners' tests.

use super::founding::{Founder, FoundingRecord};
use super::planner::{RowChange, founding_rows};
use super::rows::{MemberIntent, MemberRow};
use super::view::MetaView;
use crate::types::{Condition, GridId, Incarnation, NodeId};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Rows with revisions; writes are conditional as in the meta group.
#[derive(Clone, Default)]
pub(super) struct Rows {
    pub(super) revision: u64,
    pub(super) rows: BTreeMap<String, (u64, Bytes)>,
}

impl Rows {
    pub(super) fn founded(founders: u64) -> Self {
        Rows::founded_with(founders, 8, 3)
    }

    pub(super) fn founded_with(founders: u64, partitions: u32, replicas: usize) -> Self {
        let mut rows = Rows::default();
        let record = FoundingRecord { partitions, replicas, ..record(founders) };
        for (key, value) in founding_rows(&record).expect("rows") {
            rows.write(&RowChange { key, condition: Condition::Absent, value: Some(value) }).expect("absent");
        }
        rows
    }

    pub(super) fn write(&mut self, change: &RowChange) -> std::result::Result<(), String> {
        let present = self.rows.get(&change.key).map(|(revision, _)| *revision);
        let holds = match change.condition {
            Condition::Absent => present.is_none(),
            Condition::Revision(revision) => present == Some(revision),
            _ => false,
        };
        if !holds {
            return Err(change.key.clone());
        }
        self.revision += 1;
        match &change.value {
            Some(value) => drop(self.rows.insert(change.key.clone(), (self.revision, value.clone()))),
            None => drop(self.rows.remove(&change.key)),
        }
        Ok(())
    }

    pub(super) fn write_all(&mut self, changes: &[RowChange]) {
        changes.iter().for_each(|change| self.write(change).expect("the row has not changed"));
    }

    pub(super) fn view(&self) -> MetaView {
        MetaView::build(self.rows.iter().map(|(key, (revision, value))| (key.as_str(), *revision, &value[..])))
            .expect("rows can be read")
    }
}

pub(super) fn record(founders: u64) -> FoundingRecord {
    let founder = |id: u64| Founder {
        node: NodeId(id * 11),
        name: format!("n{id}"),
        address: format!("h{id}:7000"),
        zone: None,
        weight: 1,
    };
    FoundingRecord {
        grid: GridId(7),
        founders: (1..=founders).map(founder).collect(),
        founder_list: (1..=founders).map(|id| format!("h{id}:7000")).collect(),
        partitions: 8,
        replicas: 3,
        created_ms: 9,
    }
}

pub(super) fn member(id: u64) -> MemberRow {
    MemberRow {
        node: NodeId(id),
        name: "n1".to_owned(),
        address: "h1:7000".to_owned(),
        zone: None,
        weight: 1,
        incarnation: Incarnation(1),
        since: 20,
        intent: MemberIntent::Active,
        tasks: Vec::new(),
        extra: Default::default(),
    }
}
