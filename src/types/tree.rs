//! A value of any shape, as self-describing formats hold it: what is left of an entry's fields when
//! a program does not know them all.
//!
//! In: MessagePack or JSON through serde. Out: the same. Keeps the order of fields and the kinds of
//! numbers. Pure.

use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A value of any shape.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tree {
    Nil,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Single(f32),
    Double(f64),
    Text(String),
    Binary(Vec<u8>),
    List(Vec<Tree>),
    Map(Vec<(Tree, Tree)>),
}

/// The keys that lead from a value's top to a field of it.
pub(super) type Path = Vec<Tree>;

impl Tree {
    /// The fields of `self` that `known` has not, each at the top of what is missing.
    pub(super) fn missing_in(&self, known: &Tree) -> Vec<(Path, Tree)> {
        let mut missing = Vec::new();
        self.collect_missing(known, &mut Vec::new(), &mut missing);
        missing
    }

    fn collect_missing(&self, known: &Tree, at: &mut Path, missing: &mut Vec<(Path, Tree)>) {
        let (Tree::Map(fields), Tree::Map(_)) = (self, known) else { return };
        for (key, value) in fields {
            at.push(key.clone());
            match known.field(key) {
                None => missing.push((at.clone(), value.clone())),
                Some(known) => value.collect_missing(known, at, missing),
            }
            at.pop();
        }
    }

    fn field(&self, key: &Tree) -> Option<&Tree> {
        match self {
            Tree::Map(fields) => fields.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Takes a field away.
    pub(super) fn remove(&mut self, path: &[Tree]) {
        let (Tree::Map(fields), Some((key, rest))) = (self, path.split_first()) else { return };
        match rest {
            [] => fields.retain(|(name, _)| name != key),
            rest => fields.iter_mut().filter(|(name, _)| name == key).for_each(|(_, value)| value.remove(rest)),
        }
    }

    /// Adds a field, unless there is one, or what it belonged to is gone.
    pub(super) fn add(&mut self, path: &[Tree], value: Tree) {
        let (Tree::Map(fields), Some((key, rest))) = (self, path.split_first()) else { return };
        let place = fields.iter_mut().find(|(name, _)| name == key);
        match (place, rest) {
            (None, []) => fields.push((key.clone(), value)),
            (Some((_, inner)), rest) if !rest.is_empty() => inner.add(rest, value),
            _ => {}
        }
    }
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self {
            Tree::Nil => out.serialize_unit(),
            Tree::Bool(value) => out.serialize_bool(*value),
            Tree::Signed(value) => out.serialize_i64(*value),
            Tree::Unsigned(value) => out.serialize_u64(*value),
            Tree::Single(value) => out.serialize_f32(*value),
            Tree::Double(value) => out.serialize_f64(*value),
            Tree::Text(value) => out.serialize_str(value),
            Tree::Binary(value) => out.serialize_bytes(value),
            Tree::List(items) => {
                let mut list = out.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Tree::Map(fields) => {
                let mut map = out.serialize_map(Some(fields.len()))?;
                fields.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
        }
    }
}

struct AnyShape;

impl<'de> Visitor<'de> for AnyShape {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Nil)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Nil)
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Tree, D::Error> {
        inner.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Signed(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Unsigned(value))
    }

    fn visit_f32<E>(self, value: f32) -> Result<Tree, E> {
        Ok(Tree::Single(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Double(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Tree, E> {
        Ok(Tree::Binary(value.to_vec()))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, _inner: D) -> Result<Tree, D::Error> {
        Err(D::Error::custom("a MessagePack extension cannot be kept"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Tree, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = fields.next_entry()? {
            map.push(entry);
        }
        Ok(Tree::Map(map))
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Tree, D::Error> {
        from.deserialize_any(AnyShape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_tree() -> impl Strategy<Value = Tree> {
        let leaf = prop_oneof![
            Just(Tree::Nil),
            any::<bool>().prop_map(Tree::Bool),
            // Only what is below zero: others come back as unsigned.
            (i64::MIN..0).prop_map(Tree::Signed),
            any::<u64>().prop_map(Tree::Unsigned),
            (-1e9f32..1e9).prop_map(Tree::Single),
            (-1e9f64..1e9).prop_map(Tree::Double),
            ".{0,5}".prop_map(Tree::Text),
            any::<Vec<u8>>().prop_map(Tree::Binary),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Tree::List),
                prop::collection::btree_map("[a-z]{1,3}", inner, 0..4)
                    .prop_map(|map| Tree::Map(map.into_iter().map(|(key, value)| (Tree::Text(key), value)).collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_shape_reads_back(tree in any_tree()) {
            let bytes = rmp_serde::to_vec_named(&tree).expect("encodes");
            prop_assert_eq!(rmp_serde::from_slice::<Tree>(&bytes).expect("decodes"), tree);
        }

        #[test]
        fn what_is_missing_can_be_put_back(tree in any_tree(), known in any_tree()) {
            let mut less = tree.clone();
            let missing = tree.missing_in(&known);
            missing.iter().for_each(|(path, _)| less.remove(path));
            prop_assert!(less.missing_in(&known).is_empty());
            for (path, value) in missing {
                less.add(&path, value);
            }
            prop_assert!(tree.missing_in(&less).is_empty() && less.missing_in(&tree).is_empty());
        }
    }
}
