//! KVM in a container: the server's `/dev/kvm`, granted to a container that is stopped, on a server that its owner rents.

use super::change::{Effect, Progress, change};
use crate::{
    access::Permission,
    app::App,
    caller::Caller,
    error::ServiceError,
    store::container::{ContainerRow, Status},
};
use hoody_protocol::{container::Desired, id::ContainerId};
use serde::Deserialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// What a client asks for.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
pub struct KvmInput {
    /// Whether it has KVM from the next start on.
    pub kvm: Option<bool>,
    /// Another name of `kvm`.
    pub dev_kvm: Option<bool>,
}

/// What both names say together; `None` where neither is given. The problem is `dev_kvm`'s.
pub(super) fn agreed(kvm: Option<bool>, dev_kvm: Option<bool>) -> Result<Option<bool>, String> {
    match (kvm, dev_kvm) {
        (Some(kvm), Some(dev_kvm)) if kvm != dev_kvm => {
            Err("is another name of \"kvm\" and says something else: give one of them".to_owned())
        }
        (kvm, dev_kvm) => Ok(kvm.or(dev_kvm)),
    }
}

/// 403 where KVM is wanted and the caller's token does not permit that.
pub(super) fn check_permission(caller: &Caller, wanted: bool) -> Result<(), ServiceError> {
    if wanted && !caller.may(Permission::ContainersKvm) {
        return Err(ServiceError::Forbidden("this token does not permit containers.features.kvm".to_owned()));
    }
    Ok(())
}

/// Grants it, or takes it away.
pub async fn set_kvm(
    app: &App,
    caller: &Caller,
    id: ContainerId,
    input: KvmInput,
) -> Result<(ContainerRow, Progress), ServiceError> {
    let wanted = agreed(input.kvm, input.dev_kvm).map_err(|problem| ServiceError::invalid("dev_kvm", problem))?;
    let wanted = wanted.ok_or_else(|| ServiceError::invalid("kvm", "is required: true or false"))?;
    let (row, progress, ()) = change(app, caller, id, |row| {
        if row.spec.kvm == wanted {
            return Ok((Effect::Nothing, ()));
        }
        let stopped = matches!(row.spec.desired, Desired::Stopped { .. });
        if !stopped || !matches!(row.status, Status::Stopped | Status::Failed) {
            let message = "KVM is given to and taken from stopped containers: stop it first";
            return Err(ServiceError::Conflict(message.to_owned()));
        }
        if wanted {
            may_have(row)?;
        }
        row.spec.kvm = wanted;
        Ok((Effect::Desired, ()))
    })
    .await?;
    Ok((row, progress))
}

fn may_have(row: &ContainerRow) -> Result<(), ServiceError> {
    let server = &row.server_info;
    if server.owner != Some(row.spec.owner) {
        let message = format!("server {} is rented by somebody else, and KVM is only for who rents it", server.name);
        return Err(ServiceError::Forbidden(message));
    }
    if !server.kvm {
        return Err(ServiceError::Unprocessable {
            message: format!("server {} has no KVM: put the container on one that has it", server.name),
            details: BTreeMap::from([(server.name.clone(), "it has no KVM".to_owned())]),
        });
    }
    Ok(())
}
