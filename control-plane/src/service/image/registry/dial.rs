//! Where a pull may go: every URL before it is asked, every name's addresses when it is resolved. The address
//! that passed is the one that is dialled; a redirection and a token's realm are checked as the registry is.

use super::error::PullError;
use hoody_protocol::address::{DialRules, NotPublic};
use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};
use std::{
    error::Error,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// What may be dialled, and how.
#[derive(Debug, Clone)]
pub(super) struct Dialing {
    pub(super) rules: Arc<DialRules>,
    /// Registries, `host[:port]`, that are spoken to without TLS.
    pub(super) plain: Arc<[String]>,
}

/// A name all of whose addresses are refused. Not which: names of the operator's network are nobody's business.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{host} is at {why}")]
struct Refused {
    host: String,
    why: NotPublic,
}

impl Dialing {
    /// The root of the registry's API.
    pub(super) fn base(&self, api_host: &str) -> Result<Url, PullError> {
        let scheme = if self.plain.iter().any(|plain| plain == api_host) { "http" } else { "https" };
        let text = format!("{scheme}://{api_host}/v2/");
        let url = Url::parse(&text).map_err(|_| PullError::Scheme(text))?;
        self.check(&url)?;
        Ok(url)
    }

    /// An error where the URL must not be asked.
    pub(super) fn check(&self, url: &Url) -> Result<(), PullError> {
        let host = url.host_str().unwrap_or_default();
        let shown = || format!("{}://{host}", url.scheme());
        let with_port = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let secure = match url.scheme() {
            "https" => true,
            "http" => self.plain.contains(&with_port),
            _ => false,
        };
        if !secure || !url.username().is_empty() || url.password().is_some() || host.is_empty() {
            return Err(PullError::Scheme(shown()));
        }
        // Literals are dialled without being resolved. The parser has read every other way of writing them.
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            self.rules.check(address).map_err(|why| PullError::Address { host: host.to_owned(), why })?;
        }
        Ok(())
    }
}

/// Resolves names to those of their addresses that may be dialled.
#[derive(Debug)]
pub(super) struct Resolver(pub(super) Arc<DialRules>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let rules = self.0.clone();
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
            let mut refused = None;
            let mut passed = Vec::new();
            for address in found {
                let ip = address.ip().to_canonical();
                match rules.check(ip) {
                    Ok(()) => passed.push(SocketAddr::new(ip, 0)),
                    Err(why) => refused = Some(why),
                }
            }
            match (passed.is_empty(), refused) {
                (true, Some(why)) => Err(Box::new(Refused { host, why }) as Box<dyn Error + Send + Sync>),
                _ => Ok(Box::new(passed.into_iter()) as Addrs),
            }
        })
    }
}

/// The client's error in our words: a refused name is not one that may answer later.
pub(super) fn failed(host: &str, error: reqwest::Error) -> PullError {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(found) = cause {
        if let Some(Refused { host, why }) = found.downcast_ref::<Refused>() {
            return PullError::Address { host: host.clone(), why: *why };
        }
        cause = found.source();
    }
    PullError::Unreachable { host: host.to_owned(), source: error.without_url() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialing(allowed: &[&str], plain: &[&str]) -> Dialing {
        let allowed = allowed.iter().map(|range| range.parse().unwrap()).collect();
        Dialing {
            rules: Arc::new(DialRules { allowed, own: vec!["192.0.2.7/32".parse().unwrap()] }),
            plain: plain.iter().map(|host| (*host).to_owned()).collect(),
        }
    }

    #[test]
    fn only_https_to_public_addresses() {
        let strict = dialing(&[], &[]);
        for url in [
            "http://registry.example/",
            "ftp://registry.example/",
            "https://user@registry.example/",
            "https://user:word@registry.example/",
            "https://127.0.0.1/",
            "https://0x7f.1/",
            "https://2130706433/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://169.254.169.254/latest/meta-data",
            "https://[64:ff9b::7f00:1]/",
        ] {
            assert!(strict.check(&url.parse().unwrap()).is_err(), "{url}");
        }
        strict.check(&"https://registry.example:5000/v2/".parse().unwrap()).unwrap();
        strict.check(&"https://1.1.1.1/".parse().unwrap()).unwrap();
    }

    #[test]
    fn the_operator_opens_ranges_and_plain_registries_by_name() {
        let open = dialing(&["127.0.0.0/8", "192.0.2.0/24"], &["127.0.0.1:5000"]);
        assert_eq!(open.base("127.0.0.1:5000").unwrap().as_str(), "http://127.0.0.1:5000/v2/");
        assert!(open.check(&"http://127.0.0.1:5001/".parse().unwrap()).is_err(), "another port");
        assert!(open.check(&"https://127.0.0.1:5001/".parse().unwrap()).is_ok());
        assert!(open.check(&"https://10.0.0.1/".parse().unwrap()).is_err(), "another range");
        assert!(open.check(&"https://192.0.2.7/".parse().unwrap()).is_err(), "the platform's own");
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_does_not_resolve() {
        let resolver = Resolver(Arc::new(DialRules::default()));
        let refused = resolver.resolve("localhost".parse().unwrap()).await.err().unwrap();
        assert!(refused.downcast_ref::<Refused>().is_some(), "{refused}");
        let rules = DialRules { allowed: vec!["127.0.0.0/8".parse().unwrap()], own: Vec::new() };
        let found: Vec<_> = Resolver(Arc::new(rules)).resolve("localhost".parse().unwrap()).await.unwrap().collect();
        assert!(!found.is_empty() && found.iter().all(|address| address.ip().is_loopback() && address.is_ipv4()));
    }
}
