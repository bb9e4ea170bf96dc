//! The founding record: what the founders agree on before there is a grid. The first founder writes
//! it; the others persist and acknowledge exactly one, and refuse one that differs from their own
//! settings. What is persisted and sent is the same bytes.

use super::codec::text;
use crate::error::{Code, Error, Result};
use crate::types::{GridId, NodeId};
use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// Founders at most: the first addresses of the seed list.
pub const FOUNDERS_MAX: usize = 3;

const VERSION: u8 = 1;
const HEADER: usize = 1 + 4;

/// The founders' addresses: the first ones of a seed list.
pub fn founder_list(seeds: &[String]) -> &[String] {
    &seeds[..seeds.len().min(FOUNDERS_MAX)]
}

/// One founder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founder {
    /// Its identity.
    #[serde(with = "text")]
    pub node: NodeId,
    /// Its name, for people.
    pub name: String,
    /// Where clients and peers reach it.
    pub address: String,
    /// What fails together with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Its share of the data, relative to the others'.
    pub weight: u32,
}

/// What the founders agree on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundingRecord {
    /// The grid's identity, minted by the first founder.
    #[serde(with = "text")]
    pub grid: GridId,
    /// The founders, in the order of the founder list.
    pub founders: Vec<Founder>,
    /// Their addresses as the seed list has them; empty for a grid of one without seeds.
    pub founder_list: Vec<String>,
    /// Partitions of the grid.
    pub partitions: u32,
    /// Replicas wanted per partition.
    pub replicas: usize,
    /// When the first founder wrote this, in Unix milliseconds.
    pub created_ms: u64,
}

impl FoundingRecord {
    /// Bytes: version (1) | crc32 of the rest (4, LE) | JSON.
    ///
    /// # Errors
    /// `Internal`: a record that is no JSON is a bug.
    pub fn encode(&self) -> Result<Bytes> {
        let json = serde_json::to_vec(self)
            .map_err(|error| Error::internal(format!("a founding record cannot be encoded: {error}")))?;
        let mut bytes = BytesMut::with_capacity(HEADER + json.len());
        bytes.put_u8(VERSION);
        bytes.put_u32_le(crc32fast::hash(&json));
        bytes.put_slice(&json);
        Ok(bytes.freeze())
    }

    /// Reads what [`FoundingRecord::encode`] wrote.
    ///
    /// # Errors
    /// [`Code::UnknownFormat`] for an unknown version, [`Code::CorruptRow`] for damage.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let bad = |code, what: String| Error::new(code, format!("a founding record of {} bytes {what}", bytes.len()));
        match bytes.first() {
            Some(&VERSION) if bytes.len() >= HEADER => {}
            Some(&version) if version != VERSION => {
                return Err(bad(Code::UnknownFormat, format!("has format version {version}")));
            }
            _ => return Err(bad(Code::CorruptRow, "is shorter than its header".to_owned())),
        }
        let (sum, json) = ([bytes[1], bytes[2], bytes[3], bytes[4]], &bytes[HEADER..]);
        if u32::from_le_bytes(sum) != crc32fast::hash(json) {
            return Err(bad(Code::CorruptRow, "does not match its checksum".to_owned()));
        }
        serde_json::from_slice(json).map_err(|error| bad(Code::CorruptRow, format!("cannot be read: {error}")))
    }

    /// Compares the record with the own settings.
    ///
    /// # Errors
    /// [`Code::FoundingMismatch`], naming both values.
    pub fn check_settings(&self, seeds: &[String], partitions: u32, replicas: usize) -> Result<()> {
        let differs = |what: &str, theirs: String, own: String| {
            let first = self.founders.first().map_or("the first founder", |founder| founder.address.as_str());
            let what = format!("{first} founds the grid with {what} {theirs}, this peer was started with {own}");
            Err(Error::new(Code::FoundingMismatch, what))
        };
        let own = founder_list(seeds);
        if self.founder_list != own {
            return differs("founders", self.founder_list.join(","), own.join(","));
        }
        if self.partitions != partitions {
            return differs("partitions", self.partitions.to_string(), partitions.to_string());
        }
        if self.replicas != replicas {
            return differs("replicas", self.replicas.to_string(), replicas.to_string());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> FoundingRecord {
        let founder = |id: u64, zone: Option<&str>| Founder {
            node: NodeId(id),
            name: format!("n{id}"),
            address: format!("h{id}:7000"),
            zone: zone.map(str::to_owned),
            weight: 1,
        };
        FoundingRecord {
            grid: GridId(7),
            founders: vec![founder(1, None), founder(2, Some("z"))],
            founder_list: vec!["h1:7000".to_owned(), "h2:7000".to_owned()],
            partitions: 64,
            replicas: 3,
            created_ms: 9,
        }
    }

    #[test]
    fn the_record_has_golden_bytes() {
        let bytes = record().encode().expect("encodes");
        let json = concat!(
            r#"{"grid":"00000000000000000000000000000007","founders":["#,
            r#"{"node":"0000000000000001","name":"n1","address":"h1:7000","weight":1},"#,
            r#"{"node":"0000000000000002","name":"n2","address":"h2:7000","zone":"z","weight":1}],"#,
            r#""founder_list":["h1:7000","h2:7000"],"partitions":64,"replicas":3,"created_ms":9}"#
        );
        assert_eq!(std::str::from_utf8(&bytes[HEADER..]).expect("text"), json);
        assert_eq!(&bytes[..HEADER], &[1, 14, 221, 242, 88]);
        assert_eq!(FoundingRecord::decode(&bytes).expect("decodes"), record());
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = record().encode().expect("encodes");
        for at in 0..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 1;
            assert!(FoundingRecord::decode(&bad).is_err(), "byte {at}");
            assert!(FoundingRecord::decode(&good[..at]).is_err(), "cut at {at}");
        }
        let code = |bytes: &[u8]| FoundingRecord::decode(bytes).expect_err("refused").code;
        assert_eq!(code(&[9, 0, 0, 0, 0]), Code::UnknownFormat);
        assert_eq!(code(&[1, 0]), Code::CorruptRow);
    }

    #[test]
    fn settings_that_differ_are_named() {
        let seeds: Vec<String> = ["h1:7000", "h2:7000"].map(str::to_owned).to_vec();
        assert_eq!(record().check_settings(&seeds, 64, 3), Ok(()));
        let other = vec![seeds[1].clone(), seeds[0].clone()];
        for (result, theirs, own) in [
            (record().check_settings(&other, 64, 3), "h1:7000,h2:7000", "h2:7000,h1:7000"),
            (record().check_settings(&seeds, 128, 3), "partitions 64", "128"),
            (record().check_settings(&seeds, 64, 1), "replicas 3", "with 1"),
        ] {
            let error = result.expect_err("differs");
            assert_eq!(error.code, Code::FoundingMismatch);
            assert!(error.what.contains(theirs) && error.what.contains(own), "{}", error.what);
        }
    }

    #[test]
    fn seeds_after_the_founders_may_differ() {
        let mut record = record();
        record.founder_list = ["a", "b", "c"].map(str::to_owned).to_vec();
        let longer = ["a", "b", "c", "d"].map(str::to_owned);
        assert_eq!(record.check_settings(&longer, 64, 3), Ok(()));
        assert!(record.check_settings(&longer[..2], 64, 3).is_err());
    }

    proptest! {
        #[test]
        fn records_round_trip(grid: u128, node: u64, name: String, zone: Option<String>, partitions: u32, ms: u64) {
            let founder = Founder { node: NodeId(node), name: name.clone(), address: name.clone(), zone, weight: 2 };
            let record = FoundingRecord {
                grid: GridId(grid),
                founders: vec![founder],
                founder_list: vec![name],
                partitions,
                replicas: 3,
                created_ms: ms,
            };
            prop_assert_eq!(FoundingRecord::decode(&record.encode().expect("encodes")).expect("decodes"), record);
        }
    }
}
