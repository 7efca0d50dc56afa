//! A firewall rule as clients write it. Everything is optional here: which fields are needed depends
//! on the request, and every bad field is reported at once.

use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// A rule, or the fields of the rules that are meant.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct RuleInput {
    /// `allow`, `reject` or `drop`.
    pub action: Option<String>,
    /// `tcp`, `udp` or `icmp4`.
    pub protocol: Option<String>,
    /// `enabled` (the default) or `disabled`.
    pub state: Option<String>,
    /// The owner's remark.
    #[schema(max_length = 255)]
    pub description: Option<String>,
    /// Ingress: IPv4 address or CIDR of the sender; absent: any.
    #[schema(max_length = 512)]
    pub source: Option<String>,
    /// Egress: IPv4 address, CIDR or host name of the receiver; absent: any.
    #[schema(max_length = 512)]
    pub destination: Option<String>,
    /// The sender's ports: `443`, `8000-8100` or `80,443`.
    pub source_port: Option<Scalar>,
    /// The receiver's ports: `443`, `8000-8100` or `80,443`.
    pub destination_port: Option<Scalar>,
    /// Another name of `destination_port`.
    pub port: Option<Scalar>,
    /// Another name of `destination_port`.
    pub port_range: Option<Scalar>,
    /// ICMP type, 0 to 255.
    pub icmp_type: Option<Scalar>,
    /// ICMP code, 0 to 255; only together with a type.
    pub icmp_code: Option<Scalar>,
    /// Removal: every rule of the direction.
    pub all: Option<bool>,
}

/// A number or a text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Scalar {
    /// A number.
    Number(u64),
    /// A text.
    Text(String),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}
