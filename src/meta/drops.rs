//! Dropping maps: which rows to write. Pure.
//!
//! A drop takes the map's row away and leaves a note with its id; the note goes when no partition
//! has an entry of the map any more and whoever missed the answer has had time to ask again. Ids are
//! never given again, so what is left of a map can never show up in a later one of the same name.

use super::keys::MetaKey;
use super::planner::RowChange;
use super::rows::DroppedRow;
use super::view::MetaView;
use crate::error::{Code, Error, Result};
use crate::types::{MapDescriptor, MapId};

/// A map that is to be dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedMap {
    /// What it was.
    pub descriptor: MapDescriptor,
    /// The changes that drop it.
    pub changes: Vec<RowChange>,
}

/// Drops the map of that name.
///
/// # Errors
/// `NoSuchMap`.
pub fn drop_map(view: &MetaView, name: &str) -> Result<DroppedMap> {
    let missing = || Error::new(Code::NoSuchMap, format!("there is no map {name:?}"));
    let present = view.maps.get(name).ok_or_else(missing)?;
    let descriptor = present.row.descriptor.clone();
    let note = DroppedRow { name: name.to_owned(), map: Some(descriptor.clone()), extra: Default::default() };
    let changes = vec![
        RowChange::delete(&MetaKey::Map(name.to_owned()), present.revision),
        RowChange::of(&MetaKey::Dropped(descriptor.id), None, &note)?,
    ];
    Ok(DroppedMap { descriptor, changes })
}

/// The map of that name that is there, or, if there is none, the last one that a note tells of: who
/// asks for a drop again is answered as before. Where an id is named, only the map of that id.
///
/// # Errors
/// `NoSuchMap`.
pub fn to_drop(view: &MetaView, name: &str, id: Option<MapId>) -> Result<MapDescriptor> {
    let missing = || match id {
        Some(MapId(id)) => Error::new(Code::NoSuchMap, format!("there is no map {name:?} with the id {id} any more")),
        None => Error::new(Code::NoSuchMap, format!("there is no map {name:?}")),
    };
    let meant = |map: &&MapDescriptor| map.name == name && id.is_none_or(|id| map.id == id);
    let noted = || view.dropped.values().rev().filter_map(|note| note.row.map.as_ref()).find(meant);
    view.map(name).filter(meant).or_else(noted).cloned().ok_or_else(missing)
}

/// Nothing is left of a dropped map: takes the note away, if it is there.
pub fn forgotten(view: &MetaView, map: MapId) -> Option<RowChange> {
    view.dropped.get(&map).map(|note| RowChange::delete(&MetaKey::Dropped(map), note.revision))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::{Row, new_map};
    use crate::types::{Condition, KeyCodec, MapSpec, ValueCodec};

    fn write(view: &mut MetaView, revision: u64, changes: &[RowChange]) {
        for change in changes {
            view.set(&change.key, revision, change.value.as_deref()).expect("sets");
        }
    }

    #[test]
    fn a_dropped_map_leaves_a_note_and_its_name_is_free_for_another() {
        let mut view = MetaView::default();
        let ids = super::super::rows::MapIdsRow { next: 4, extra: Default::default() };
        view.set("map-ids", 1, Some(&ids.encode().expect("encodes"))).expect("sets");
        assert_eq!(drop_map(&view, "m").expect_err("not there").code, Code::NoSuchMap);
        let spec = MapSpec::new("m", KeyCodec::Utf8, ValueCodec::Utf8);
        let made = new_map(&view, &spec).expect("new");
        write(&mut view, 2, &made.changes);

        assert_eq!(to_drop(&view, "m", None), Ok(made.descriptor.clone()));
        let dropped = drop_map(&view, "m").expect("there");
        assert_eq!(dropped.descriptor, made.descriptor);
        assert_eq!(dropped.changes[0].condition, Condition::Revision(2), "not one that was created since");
        write(&mut view, 3, &dropped.changes);
        assert!(view.map("m").is_none());
        assert_eq!(view.dropped[&MapId(4)].row.name, "m");

        assert_eq!(to_drop(&view, "m", None), Ok(made.descriptor), "whoever asks again is told of the same map");

        let later = new_map(&view, &spec).expect("new");
        assert_eq!(later.descriptor.id, MapId(5));
        write(&mut view, 4, &later.changes);
        assert_eq!(to_drop(&view, "m", None), Ok(later.descriptor.clone()), "the one that is there");
        let late = to_drop(&view, "m", Some(MapId(4))).expect("it was there");
        assert_eq!(late.id, MapId(4), "a late request for the first drops no other");
        let again = drop_map(&view, "m").expect("there");
        write(&mut view, 5, &again.changes);
        assert_eq!(to_drop(&view, "m", None), Ok(later.descriptor), "the last one");
        let gone: Vec<RowChange> = [4, 5].into_iter().filter_map(|id| forgotten(&view, MapId(id))).collect();
        write(&mut view, 6, &gone);
        assert!(view.dropped.is_empty() && forgotten(&view, MapId(4)).is_none());
        assert_eq!(to_drop(&view, "m", None).expect_err("long gone").code, Code::NoSuchMap);
        assert_eq!(to_drop(&view, "m", Some(MapId(4))).expect_err("long gone").code, Code::NoSuchMap);
    }
}
