//! Questions about the grid: asked of any peer that answers.

use super::Client;
use super::core::Peer;
use super::peers::share;
use crate::api::wire;
use crate::clock::{self, Instant};
use crate::error::{Code, Error, Result, Retry};
use crate::node::{Explanation, MemberInfo, PartitionInfo, PlacementTable};
use crate::types::{HybridTime, KeyCodec, MapDescriptor, MapSpec, NodeId, ValueCodec};
use bytes::Bytes;
use grid_proto::keystead::v1;
use tonic::transport::Channel;
use v1::cluster_client::ClusterClient;

impl Client {
    /// Asks the known peers by turns, as the codes advise, until one answers or the time is over.
    pub(super) async fn ask<T, F>(&self, call: impl Fn(ClusterClient<Channel>) -> F) -> Result<T>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let give_up = Instant::now() + self.shared.config.deadline;
        loop {
            let peers: Vec<Peer> = self.shared.sight.read().map(|sight| sight.peers.clone()).unwrap_or_default();
            let mut last = Error::new(Code::PeerUnreachable, "no peer is known");
            for (peer, further) in peers.iter().zip((0..peers.len()).rev()) {
                match self.shared.peers.cluster(peer, share(give_up, further), &call).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) if error.code.retry() == Retry::Never => return Err(error),
                    // What a peer knows of the grid says more than that another is not there.
                    Err(_) if last.code == Code::NoMajority => {}
                    Err(error) => last = error,
                }
            }
            if Instant::now() >= give_up {
                return Err(last);
            }
            clock::sleep(self.shared.config.backoff_max).await;
        }
    }

    /// All members, by name.
    ///
    /// # Errors
    /// What the grid answers, or `PeerUnreachable`.
    pub async fn members(&self) -> Result<Vec<MemberInfo>> {
        let reply = self.ask(|mut client| async move { client.members(v1::MembersRequest {}).await }).await?;
        reply.members.into_iter().map(wire::member_from_wire).collect()
    }

    /// Removes a member for good, named by its name or id: what it holds moves away first, if it is
    /// alive. Gives its id at once; `members` tells when it has gone.
    ///
    /// # Errors
    /// `NoSuchMember`; what else the grid answers.
    pub async fn remove_member(&self, member: &str) -> Result<NodeId> {
        let request = v1::RemoveMemberRequest { member: member.to_owned() };
        let reply = self
            .ask(|mut client| {
                let request = request.clone();
                async move { client.remove_member(request).await }
            })
            .await?;
        wire::node_id(&reply.id)
    }

    /// Empties a member, which stays one; with `undo` it holds its share again. Gives its id at once.
    ///
    /// # Errors
    /// `NoSuchMember`; what else the grid answers.
    pub async fn drain_member(&self, member: &str, undo: bool) -> Result<NodeId> {
        let request = v1::DrainMemberRequest { member: member.to_owned(), undo };
        let reply = self
            .ask(|mut client| {
                let request = request.clone();
                async move { client.drain_member(request).await }
            })
            .await?;
        wire::node_id(&reply.id)
    }

    /// All partitions.
    ///
    /// # Errors
    /// What the grid answers, or `PeerUnreachable`.
    pub async fn partitions(&self) -> Result<Vec<PartitionInfo>> {
        let reply = self.ask(|mut client| async move { client.partitions(v1::PartitionsRequest {}).await }).await?;
        reply.partitions.into_iter().map(wire::partition_from_wire).collect()
    }

    /// Where a key lives, and why there.
    ///
    /// # Errors
    /// What the grid answers, or `PeerUnreachable`.
    pub async fn explain(&self, key: impl AsRef<[u8]>, affinity: Option<Bytes>) -> Result<Explanation> {
        let request = v1::ExplainRequest { key: Bytes::copy_from_slice(key.as_ref()), affinity };
        let reply = self
            .ask(|mut client| {
                let request = request.clone();
                async move { client.explain(request).await }
            })
            .await?;
        wire::explanation_from_wire(reply)
    }

    /// Where partitions are led, as far as the asked peer knows.
    ///
    /// # Errors
    /// What the grid answers, or `PeerUnreachable`.
    pub async fn placement(&self) -> Result<PlacementTable> {
        let reply = self.ask(|mut client| async move { client.placement(v1::PlacementRequest {}).await }).await?;
        wire::placement_from_wire(reply)
    }

    /// All maps, by name.
    ///
    /// # Errors
    /// What the grid answers, or `PeerUnreachable`.
    pub async fn maps(&self) -> Result<Vec<MapDescriptor>> {
        let reply = self.ask(|mut client| async move { client.maps(v1::MapsRequest::default()).await }).await?;
        reply.maps.into_iter().map(wire::map_from_wire).collect()
    }

    /// Creates a map without options, or returns the one that is there, whatever options it has.
    ///
    /// # Errors
    /// `MapExists` when it is there with other codecs; what else the grid answers.
    pub async fn create_map(
        &self,
        name: &str,
        key_codec: KeyCodec,
        value_codec: ValueCodec,
        schema: u32,
    ) -> Result<MapDescriptor> {
        self.create_map_as(&MapSpec::new(name, key_codec, value_codec).schema(schema)).await
    }

    /// Creates a map as asked for, options included, or returns the one that is there.
    ///
    /// # Errors
    /// `MapExists` when it is there with other codecs, schema or options; `InvalidRequest` for
    /// options that make no sense; what else the grid answers.
    pub async fn create_map_as(&self, spec: &MapSpec) -> Result<MapDescriptor> {
        let request = wire::map_spec_to_wire(spec);
        let reply = self
            .ask(|mut client| {
                let request = request.clone();
                async move { client.create_map(request).await }
            })
            .await?;
        reply.map.map(wire::map_from_wire).unwrap_or_else(|| Err(Error::internal("a reply without the map")))
    }

    /// The grid's time at a peer.
    ///
    /// # Errors
    /// What the grid answers, or `PeerUnreachable`.
    pub async fn time(&self) -> Result<HybridTime> {
        let reply = self.ask(|mut client| async move { client.time(v1::TimeRequest {}).await }).await?;
        Ok(HybridTime(reply.time))
    }
}
