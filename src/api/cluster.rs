//! The `Cluster` service.

use super::authorize::{Action, Principal, authorize};
use super::{Edge, wire};
use crate::error::{Error, Result};
use crate::meta::MemberIntent;
use crate::types::MapId;
use grid_proto::keystead::v1;
use tonic::{Request, Response, Status};

type Call<T> = Result<Response<T>, Status>;

fn answer<T>(outcome: Result<T>) -> Call<T> {
    outcome.map(Response::new).map_err(|error: Error| wire::status(&error))
}

fn may_inspect() -> Result<()> {
    authorize(&Principal::Anonymous, Action::Inspect, "")
}

impl Edge {
    async fn explain_key(&self, request: v1::ExplainRequest) -> Result<v1::ExplainReply> {
        may_inspect()?;
        wire::check_key("key", &request.key, &self.limits)?;
        if let Some(affinity) = &request.affinity {
            wire::check_key("affinity", affinity, &self.limits)?;
        }
        self.service.explain(request.key, request.affinity).await.map(wire::explanation_to_wire)
    }

    async fn ensure_map(&self, request: v1::CreateMapRequest) -> Result<v1::CreateMapReply> {
        wire::check_name("map", &request.name)?;
        authorize(&Principal::Anonymous, Action::CreateMap, &request.name)?;
        let map = self.service.ensure_map(wire::map_spec_from_wire(request)?).await?;
        Ok(v1::CreateMapReply { map: Some(wire::map_to_wire(map)) })
    }

    async fn drop_named(&self, request: v1::DropMapRequest) -> Result<v1::DropMapReply> {
        wire::check_name("map", &request.name)?;
        authorize(&Principal::Anonymous, Action::DropMap, &request.name)?;
        let (map, pending_partitions) = self.service.drop_map(&request.name, request.id.map(MapId)).await?;
        Ok(v1::DropMapReply { map: Some(wire::map_to_wire(map)), pending_partitions })
    }

    async fn all_maps(&self, fresh: bool) -> Result<v1::MapsReply> {
        may_inspect()?;
        let maps = if fresh { self.service.fresh_maps().await? } else { self.service.maps() };
        Ok(v1::MapsReply { maps: maps.into_iter().map(wire::map_to_wire).collect() })
    }

    async fn all_members(&self) -> Result<v1::MembersReply> {
        may_inspect()?;
        let members = self.service.members().await?;
        Ok(v1::MembersReply { members: members.into_iter().map(wire::member_to_wire).collect() })
    }

    async fn intend(&self, member: &str, intent: MemberIntent) -> Result<String> {
        authorize(&Principal::Anonymous, Action::ChangeMember, member)?;
        self.service.intend(member, intent).await.map(|node| node.to_string())
    }

    async fn all_partitions(&self) -> Result<v1::PartitionsReply> {
        may_inspect()?;
        let partitions = self.service.partitions().await?;
        Ok(v1::PartitionsReply { partitions: partitions.into_iter().map(wire::partition_to_wire).collect() })
    }
}

#[tonic::async_trait]
impl v1::cluster_server::Cluster for Edge {
    async fn members(&self, _request: Request<v1::MembersRequest>) -> Call<v1::MembersReply> {
        answer(self.all_members().await)
    }

    async fn partitions(&self, _request: Request<v1::PartitionsRequest>) -> Call<v1::PartitionsReply> {
        answer(self.all_partitions().await)
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Call<v1::ExplainReply> {
        answer(self.explain_key(request.into_inner()).await)
    }

    async fn placement(&self, _request: Request<v1::PlacementRequest>) -> Call<v1::PlacementReply> {
        answer(may_inspect().map(|()| wire::placement_to_wire(self.service.placement())))
    }

    async fn maps(&self, request: Request<v1::MapsRequest>) -> Call<v1::MapsReply> {
        answer(self.all_maps(request.into_inner().fresh).await)
    }

    async fn create_map(&self, request: Request<v1::CreateMapRequest>) -> Call<v1::CreateMapReply> {
        answer(self.ensure_map(request.into_inner()).await)
    }

    async fn drop_map(&self, request: Request<v1::DropMapRequest>) -> Call<v1::DropMapReply> {
        answer(self.drop_named(request.into_inner()).await)
    }

    async fn remove_member(&self, request: Request<v1::RemoveMemberRequest>) -> Call<v1::RemoveMemberReply> {
        let id = self.intend(&request.into_inner().member, MemberIntent::Removing).await;
        answer(id.map(|id| v1::RemoveMemberReply { id }))
    }

    async fn drain_member(&self, request: Request<v1::DrainMemberRequest>) -> Call<v1::DrainMemberReply> {
        let v1::DrainMemberRequest { member, undo } = request.into_inner();
        let intent = if undo { MemberIntent::Active } else { MemberIntent::Draining };
        answer(self.intend(&member, intent).await.map(|id| v1::DrainMemberReply { id }))
    }

    async fn time(&self, _request: Request<v1::TimeRequest>) -> Call<v1::TimeReply> {
        Ok(Response::new(v1::TimeReply { time: self.service.time().0 }))
    }
}
