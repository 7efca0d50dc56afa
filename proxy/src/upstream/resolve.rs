//! An upstream's addresses, checked.

use super::DialError;
use hoody_protocol::address::DialRules;
use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};
use tokio::sync::{Mutex, Semaphore};

/// How long a name's addresses are used for further connections: a burst of them asks once.
const FRESH: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried.
const ADDRESSES: usize = 4;
/// Names being resolved at once; each takes a thread.
static LOOKUPS: Semaphore = Semaphore::const_new(16);

/// Resolves one upstream's host. Connections that begin together wait for one resolution.
#[derive(Debug, Default)]
pub(crate) struct Resolver(Mutex<Option<(Instant, Vec<IpAddr>)>>);

impl Resolver {
    /// Addresses of `host` that may be dialled. The rules are asked every time, also of addresses that are known
    /// already; nothing is resolved again between this check and the dialling.
    pub(crate) async fn resolve(&self, host: &str, port: u16, rules: &DialRules) -> Result<Vec<SocketAddr>, DialError> {
        let mut refused = None;
        let mut allowed = Vec::new();
        for address in self.addresses(host).await.map_err(DialError::Unresolvable)? {
            match rules.check(address) {
                Ok(()) => allowed.push(SocketAddr::new(address.to_canonical(), port)),
                Err(why) => refused = Some(DialError::RefusedAddress { address, why }),
            }
        }
        match refused {
            Some(error) if allowed.is_empty() => Err(error),
            _ => Ok(allowed),
        }
    }

    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let mut known = self.0.lock().await;
        if let Some((at, addresses)) = &*known
            && at.elapsed() < FRESH
        {
            return Ok(addresses.clone());
        }
        let _turn = LOOKUPS.acquire().await.map_err(io::Error::other)?;
        let mut addresses: Vec<IpAddr> = Vec::new();
        for found in tokio::net::lookup_host((host, 0)).await? {
            if addresses.len() < ADDRESSES && !addresses.contains(&found.ip()) {
                addresses.push(found.ip());
            }
        }
        if addresses.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        *known = Some((Instant::now(), addresses.clone()));
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_may_not_be_dialled_is_left_out_and_named_where_nothing_is_left() {
        let resolver = Resolver::default();
        let rules = DialRules::default();
        let refused = resolver.resolve("127.0.0.1", 1080, &rules).await;
        assert!(matches!(refused, Err(DialError::RefusedAddress { .. })), "{refused:?}");
        let named = resolver.resolve("localhost", 1080, &rules).await;
        assert!(matches!(named, Err(DialError::RefusedAddress { .. })), "names are checked by what they resolve to");
        let allowed = DialRules { allowed: vec!["127.0.0.0/8".parse().unwrap()], own: vec![] };
        let found = resolver.resolve("::ffff:127.0.0.1", 1080, &allowed).await.unwrap();
        assert_eq!(found, ["127.0.0.1:1080".parse().unwrap()], "a mapped address is dialled as what it was judged as");
        let again = resolver.resolve("localhost", 1080, &rules).await;
        assert!(matches!(again, Err(DialError::RefusedAddress { .. })), "also addresses that are known are checked");
    }
}
