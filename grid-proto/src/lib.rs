//! Keystead's gRPC contract: the `.proto` files under `proto/` and the code generated from them.
//! In: protobuf messages. Out: Rust types, clients and servers. Never any behaviour of its own.

/// Every `.proto` file, encoded, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/file_descriptor_set.bin"));

/// The packages under `keystead`.
pub mod keystead {
    /// What clients use.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::large_futures)]
    pub mod v1 {
        tonic::include_proto!("keystead.v1");
    }

    /// What only peers use among themselves.
    pub mod peer {
        /// Version 1.
        #[allow(missing_docs, unreachable_pub, clippy::all, clippy::large_futures)]
        pub mod v1 {
            tonic::include_proto!("keystead.peer.v1");
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    #[test]
    fn the_descriptors_name_both_packages() {
        let set = prost_types::FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET).expect("decodes");
        let packages: Vec<_> = set.file.iter().map(|file| file.package()).collect();
        assert!(packages.contains(&"keystead.v1") && packages.contains(&"keystead.peer.v1"), "{packages:?}");
    }
}
