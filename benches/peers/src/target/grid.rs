//! Keystead through its Rust client: one call and one acknowledgement per put, one connection per
//! peer.

use anyhow::Result;
use keystead::client::{Client, ClientConfig};
use keystead::types::{KeyCodec, Value, ValueCodec};

const MAP: &str = "bench";

/// A connected client.
#[derive(Clone)]
pub struct GridTarget {
    client: Client,
}

impl GridTarget {
    /// Connects and creates the map.
    ///
    /// # Errors
    /// What the grid answers.
    pub async fn connect(addresses: Vec<String>) -> Result<Self> {
        let client = Client::connect(addresses, ClientConfig::default()).await?;
        client.create_map(MAP, KeyCodec::Utf8, ValueCodec::Bytes, 0).await?;
        Ok(GridTarget { client })
    }

    pub(super) async fn put(&self, key: String, value: Vec<u8>) -> Result<()> {
        self.client.put(MAP, key, Value::bytes(value)).await?;
        Ok(())
    }

    pub(super) async fn get(&self, key: String) -> Result<Option<usize>> {
        Ok(self.client.get(MAP, key).await?.map(|entry| entry.value.data.len()))
    }
}
