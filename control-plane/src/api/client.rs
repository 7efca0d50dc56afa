//! Where a request comes from.

use crate::{app::App, caller::Origin, config::Config};
use axum::extract::{ConnectInfo, FromRequestParts};
use http::{Extensions, HeaderMap, header, request::Parts};
use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

/// The client's address: the connection's, or, where that is a trusted proxy's, the last address in
/// `X-Forwarded-For` that is not one. Requests without a connection (in-process) count as unspecified.
pub fn address(headers: &HeaderMap, extensions: &Extensions, config: &Config) -> IpAddr {
    let peer = extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(address)| address.ip().to_canonical());
    let trusted = |address: &IpAddr| config.trusted_proxies.iter().any(|network| network.contains(address));
    if !trusted(&peer) {
        return peer;
    }
    let forwarded = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let chain: Vec<&str> = forwarded.flat_map(|value| value.split(',')).map(str::trim).collect();
    let mut last = peer;
    for text in chain.into_iter().rev() {
        // What stands before something that is no address was not written by a proxy of ours.
        let Ok(address) = text.parse::<IpAddr>() else { break };
        last = address.to_canonical();
        if !trusted(&last) {
            break;
        }
    }
    last
}

impl FromRequestParts<App> for Origin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        let client = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        Ok(Self { address: address(&parts.headers, &parts.extensions, &app.config), client: client.map(str::to_owned) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_are_believed() {
        let mut config = Config::in_dir("/none".into());
        config.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        let from = |peer: &str, forwarded: &str| {
            let mut extensions = Extensions::new();
            extensions.insert(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 1)));
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", forwarded.parse().unwrap());
            address(&headers, &extensions, &config).to_string()
        };
        assert_eq!(from("192.0.2.1", "198.51.100.7"), "192.0.2.1");
        assert_eq!(from("10.0.0.1", "198.51.100.7"), "198.51.100.7");
        assert_eq!(from("10.0.0.1", "203.0.113.9, 198.51.100.7, 10.2.2.2"), "198.51.100.7");
        assert_eq!(from("10.0.0.1", "nonsense"), "10.0.0.1");
    }
}
