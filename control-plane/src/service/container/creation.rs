//! What a client may ask of a new container, and the check of every field of it. All problems are named at
//! once; nothing here needs the database.

use super::{
    fields, image, kvm,
    limits::{self, SpecsInput},
    pull, ramdisk,
    ssh_key::{self, SshKey},
};
use crate::{
    config::Secret,
    error::ServiceError,
    service::{
        environment::{self, Variables},
        image::registry::{Credentials, Reference},
    },
    store::container::Attributes,
};
use hoody_protocol::{
    container::Limits,
    id::{RealmId, ServerId},
    share::RamdiskScope,
};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The colour of a container whose creation names none.
const DEFAULT_COLOR: &str = "#3B82F6";

/// A creation as clients write it.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct CreateInput {
    /// The name; absent: one is made from the image's.
    #[schema(min_length = 3, max_length = 100, pattern = "^[a-zA-Z0-9-_]+$")]
    pub name: Option<String>,
    /// Another name of `name`.
    pub alias: Option<String>,
    /// The server; absent: the scheduler chooses one.
    pub server_id: Option<String>,
    /// The image's name in the catalogue, for example `debian/12`, `debian:12` or `debian`; or an image of a
    /// registry, `docker.io/library/debian:12` or `host:port/name@sha256:…`.
    pub container_image: Option<String>,
    /// Another name of `container_image`.
    pub image: Option<String>,
    /// For an image of a registry that is not open to everybody. Kept until the image is there.
    pub registry_credentials: Option<RegistryCredentials>,
    /// `lxc`, which runs the image's own init, or `docker`, which runs the command that the image names. Without
    /// it: `docker` for an image of a registry, `lxc` otherwise.
    pub runtime: Option<String>,
    /// Resource limits; what is absent has the platform's default.
    pub specs: Option<SpecsInput>,
    /// Start it at once, and again whenever its server boots.
    pub autostart: Option<bool>,
    /// Recorded.
    pub ai: Option<bool>,
    /// Recorded.
    pub dev_kit: Option<bool>,
    /// Recorded.
    pub hoody_kit: Option<bool>,
    /// Recorded.
    pub prespawn: Option<bool>,
    /// Recorded.
    pub bypass_prespawn: Option<bool>,
    /// Recorded.
    pub cache: Option<bool>,
    /// Recorded.
    pub cache_image: Option<bool>,
    /// Virtual machines inside: `/dev/kvm` appears in it. On servers that the owner rents and that have it.
    pub kvm: Option<bool>,
    /// Another name of `kvm`.
    pub dev_kvm: Option<bool>,
    /// A file system in memory at `/ramdisk`, counted as memory of the container.
    pub ramdisk: Option<bool>,
    /// Who uses it: `container` alone (the default), or those of its `project` on the same server that say the same.
    pub ramdisk_scope: Option<String>,
    /// Colour for people, hexadecimal.
    pub color: Option<String>,
    /// A remark.
    #[schema(max_length = 16000)]
    pub comment: Option<String>,
    /// Environment of the first process.
    pub environment_vars: Option<BTreeMap<String, Value>>,
    /// The realms it belongs to; absent: the project's.
    pub realm_ids: Option<Vec<String>>,
    /// A key that may log in as root, kept in `/root/.ssh/authorized_keys`; unique among the owner's containers.
    #[schema(max_length = 4096)]
    pub ssh_public_key: Option<String>,
}

/// User and password for a registry.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct RegistryCredentials {
    /// The user.
    #[schema(max_length = 255)]
    pub username: String,
    /// The password, or a token of the registry. Never shown again.
    #[schema(value_type = String, max_length = 4096)]
    pub password: Secret,
}

/// A creation whose every field is valid.
pub(super) struct Wanted {
    pub(super) name: Option<String>,
    pub(super) server: Option<ServerId>,
    pub(super) image: Option<String>,
    pub(super) registry_credentials: Option<Credentials>,
    pub(super) runtime: &'static str,
    pub(super) limits: Limits,
    pub(super) autostart: bool,
    pub(super) env: Variables,
    pub(super) realms: Option<Vec<RealmId>>,
    pub(super) attributes: Attributes,
    pub(super) ssh_public_key: Option<SshKey>,
    pub(super) kvm: bool,
    pub(super) ramdisk: Option<RamdiskScope>,
}

/// Checks every field; `default_limits` hold where it names none.
pub(super) fn validate(default_limits: Limits, input: CreateInput) -> Result<Wanted, ServiceError> {
    let mut problems = BTreeMap::new();
    let mut check = |field: &str, outcome: Result<(), String>| {
        if let Err(problem) = outcome {
            problems.insert(field.to_owned(), problem);
        }
    };
    if input.name.is_some() && input.alias.is_some() && input.name != input.alias {
        check("alias", Err("is another name of \"name\": give one of them".to_owned()));
    }
    let name_field = if input.name.is_some() { "name" } else { "alias" };
    let name = input.name.or(input.alias);
    if let Some(name) = &name {
        check(name_field, fields::check_name(name, fields::MIN_NEW_NAME_CHARS));
    }
    if input.image.is_some() && input.container_image.is_some() && input.image != input.container_image {
        check("image", Err("is another name of \"container_image\": give one of them".to_owned()));
    }
    let image_field = if input.container_image.is_some() { "container_image" } else { "image" };
    let image = input.container_image.or(input.image);
    if let Some(image) = &image {
        check(image_field, image::check_name(image));
    }
    let mut server = None;
    if let Some(text) = &input.server_id {
        match text.parse() {
            Ok(id) => server = Some(id),
            Err(error) => check("server_id", Err(format!("{error}"))),
        }
    }
    let runtime = match input.runtime.as_deref() {
        None if image.as_deref().is_some_and(Reference::has_registry) => "docker",
        None | Some("lxc") => "lxc",
        Some("docker") => "docker",
        Some(_) => {
            check("runtime", Err("must be lxc or docker".to_owned()));
            "lxc"
        }
    };
    let registry_credentials = input.registry_credentials.and_then(|given| {
        let checked = pull::check_credentials(given, image.as_deref());
        checked.map_err(|problem| check("registry_credentials", Err(problem))).ok()
    });
    if let Some(color) = &input.color {
        check("color", fields::check_color(color));
    }
    if let Some(comment) = &input.comment {
        check("comment", fields::check_comment(comment));
    }
    let mut realms = None;
    if let Some(texts) = &input.realm_ids {
        match fields::parse_realms(texts) {
            Ok(ids) => realms = Some(ids),
            Err(problem) => check("realm_ids", Err(problem)),
        }
    }
    let ssh_public_key =
        ssh_key::parse(input.ssh_public_key.as_deref().unwrap_or_default()).unwrap_or_else(|problem| {
            check("ssh_public_key", Err(problem));
            None
        });
    let kvm = kvm::agreed(input.kvm, input.dev_kvm).unwrap_or_else(|problem| {
        check("dev_kvm", Err(problem));
        None
    });
    if let Some(scope) = &input.ramdisk_scope {
        check("ramdisk_scope", ramdisk::check_scope(scope));
    }
    let specs = input.specs.unwrap_or_default();
    let limits = limits::apply(default_limits, specs, default_limits.network_mbit, &mut check);
    let env = environment::parse_all(input.environment_vars.unwrap_or_default(), "environment_vars.");
    let env = env.unwrap_or_else(|found| {
        problems.extend(found);
        BTreeMap::new()
    });
    if !problems.is_empty() {
        return Err(ServiceError::Invalid(problems));
    }
    let scope = input.ramdisk_scope.unwrap_or_default();
    Ok(Wanted {
        name,
        server,
        image,
        registry_credentials,
        runtime,
        limits,
        autostart: input.autostart.unwrap_or(false),
        env,
        realms,
        attributes: Attributes {
            color: input.color.unwrap_or_else(|| DEFAULT_COLOR.to_owned()),
            comment: input.comment,
            ai: input.ai.unwrap_or(false),
            dev_kit: input.dev_kit.unwrap_or(false),
            hoody_kit: input.hoody_kit.unwrap_or(false),
            prespawn: input.prespawn.unwrap_or(false),
            bypass_prespawn: input.bypass_prespawn.unwrap_or(false),
            cache: input.cache.unwrap_or(false),
            cache_image: input.cache_image.unwrap_or(false),
            ramdisk_scope: scope.clone(),
            ..Attributes::default()
        },
        ssh_public_key,
        kvm: kvm.unwrap_or(false),
        ramdisk: input.ramdisk.unwrap_or(false).then(|| ramdisk::scope(&scope)),
    })
}
