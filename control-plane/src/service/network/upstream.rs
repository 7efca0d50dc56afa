//! The text form of an upstream proxy, `[scheme://][user:password@]host[:port]`, and where its host may be.

use crate::{error::ServiceError, store::container::NetworkKind};
use hoody_protocol::{
    address::{DialRules, NotPublic},
    bounded::Text,
    egress::{Credentials, is_host},
};
use std::{net::IpAddr, time::Duration};

/// Bytes of the longest text.
const MAX_TEXT: usize = 1024;
/// The longest time that a name takes to resolve.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(5);

/// An upstream as a client wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProxyText {
    /// The scheme's kind, where there is one.
    pub(super) kind: Option<NetworkKind>,
    pub(super) host: String,
    /// Where it is written down.
    pub(super) port: Option<u16>,
    pub(super) credentials: Option<Credentials>,
    /// The text without credentials.
    pub(super) shown: String,
}

impl ProxyText {
    /// Parses the text; an error says what to write. It never repeats the text, which may hold a password.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        if text.is_empty() || text.len() > MAX_TEXT || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err("must be host:port, or a URL such as socks5://user:password@proxy.example.com:1080");
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
            None => (None, text),
        };
        let kind = match scheme.as_deref() {
            None => None,
            Some("socks5" | "socks5h" | "socks") => Some(NetworkKind::Socks5),
            Some("http") => Some(NetworkKind::Http),
            Some("https") => Some(NetworkKind::Https),
            Some(_) => return Err("has another scheme than socks5, http and https"),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        let (host, port) = split_port(place)?;
        if !is_host(host) {
            return Err("names a host that is neither a name nor an address");
        }
        let shown = match &scheme {
            Some(scheme) => format!("{scheme}://{place}"),
            None => place.to_owned(),
        };
        Ok(Self { kind, host: host.to_owned(), port, credentials: user.map(credentials).transpose()?, shown })
    }

    /// The port, or that of the kind.
    pub(super) fn port(&self, kind: NetworkKind) -> u16 {
        self.port.unwrap_or(match kind {
            NetworkKind::Socks5 | NetworkKind::Block => 1080,
            NetworkKind::Http => 80,
            NetworkKind::Https => 443,
        })
    }
}

/// A host and a port as one text.
pub(super) fn render(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn split_port(place: &str) -> Result<(&str, Option<u16>), &'static str> {
    let bad = "has a port that is not a number from 1 to 65535";
    let port = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse().ok().filter(|port| *port != 0).ok_or(bad),
        false => Err(bad),
    };
    if let Some(rest) = place.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("names a host that is neither a name nor an address")?;
        return match rest.strip_prefix(':') {
            Some(text) => Ok((host, Some(port(text)?))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(bad),
        };
    }
    match place.rsplit_once(':') {
        Some((host, text)) => Ok((host, Some(port(text)?))),
        None => Ok((place, None)),
    }
}

/// User and password of a URL (RFC 3986).
fn credentials(text: &str) -> Result<Credentials, &'static str> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    named_credentials(&decoded(user)?, &decoded(password)?)
}

/// User and password, each of 1 to 255 bytes.
pub(super) fn named_credentials(user: &str, password: &str) -> Result<Credentials, &'static str> {
    let problem = "has a user name or password that is empty, longer than 255 bytes, or malformed";
    let plain = |text: &str| !text.is_empty() && !text.chars().any(char::is_control);
    if !plain(user) || !plain(password) || user.contains(':') {
        return Err(problem);
    }
    let text = |text: &str| Text::try_from(text).map_err(|_| problem);
    Ok(Credentials { username: text(user)?, password: text(password)? })
}

fn decoded(text: &str) -> Result<String, &'static str> {
    let bad = "has a user name or password with a % that begins no escape: write it as %25";
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = match (first, tail) {
            (b'%', [a, b, tail @ ..]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(bad);
                bytes.push((digit(*a)? * 16 + digit(*b)?) as u8);
                tail
            }
            (b'%', _) => return Err(bad),
            _ => {
                bytes.push(*first);
                tail
            }
        };
    }
    String::from_utf8(bytes).map_err(|_| bad)
}

/// 400 where the host has no address that a node may dial. The node asks again at every dial: what a name
/// resolves to can change.
pub(super) async fn check_host(rules: &DialRules, host: &str, port: u16) -> Result<(), ServiceError> {
    let problem = |text: String| ServiceError::invalid("proxy", text);
    let literal = host.parse::<IpAddr>().ok();
    let addresses: Vec<IpAddr> = match literal {
        Some(address) => vec![address],
        None => {
            let lookup = tokio::time::timeout(RESOLVE_DEADLINE, tokio::net::lookup_host((host, port))).await;
            let Ok(Ok(found)) = lookup else {
                return Err(problem("names a host that does not resolve".to_owned()));
            };
            found.map(|found| found.ip()).collect()
        }
    };
    let mut refused: Option<NotPublic> = None;
    for address in addresses {
        match rules.check(address) {
            Ok(()) => return Ok(()),
            Err(why) => refused = Some(why),
        }
    }
    // Not which address: names of the operator's network are nobody's business.
    Err(problem(match refused {
        Some(why) => format!("names a host at {why}: it must be one of the public internet"),
        None => "names a host that does not resolve".to_owned(),
    }))
}

/// Any text as an upstream, for fuzzing: what is taken is a host that can be dialled, and is shown without its
/// password.
pub(crate) fn fuzzing(text: &str) {
    let Ok(proxy) = ProxyText::parse(text) else { return };
    assert!(is_host(&proxy.host) && proxy.port != Some(0));
    let shown = ProxyText::parse(&proxy.shown).expect("what is shown is an upstream");
    assert_eq!((&shown.host, shown.port, shown.kind), (&proxy.host, proxy.port, proxy.kind));
    assert!(shown.credentials.is_none(), "credentials are shown");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Kind, host, port, user and password, what is shown.
    type Parsed = (Option<&'static str>, String, Option<u16>, Option<(String, String)>, String);

    fn parsed(text: &str) -> Parsed {
        let proxy = ProxyText::parse(text).unwrap();
        let credentials = proxy.credentials.map(|given| (given.username.to_string(), given.password.to_string()));
        (proxy.kind.map(NetworkKind::as_str), proxy.host, proxy.port, credentials, proxy.shown)
    }

    #[test]
    fn every_form_of_an_upstream() {
        let given = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(parsed("a.example:1080"), (None, "a.example".into(), Some(1080), None, "a.example:1080".into()));
        assert_eq!(
            parsed("socks5://u:p%40ss@1.1.1.1:9/"),
            (Some("socks5"), "1.1.1.1".into(), Some(9), given("u", "p@ss"), "socks5://1.1.1.1:9".into())
        );
        assert_eq!(
            parsed("HTTPS://u:a:b@[2606::1]:443"),
            (Some("https"), "2606::1".into(), Some(443), given("u", "a:b"), "https://[2606::1]:443".into())
        );
        assert_eq!(parsed("http://p@q:r@a.example").3, given("p@q", "r"));
        assert_eq!(ProxyText::parse("a.example").unwrap().port(NetworkKind::Https), 443);
    }

    #[test]
    fn what_is_no_upstream_is_refused() {
        for text in [
            "",
            " ",
            "http://",
            "ftp://a",
            "a:0",
            "a:70000",
            "a:1:2",
            "a:+1",
            "[::1",
            "[::1]x",
            "a b",
            "a\nb",
            "u:p@",
            "u@a:1",
            ":p@a:1",
            "%zz:p@a:1",
            "u%:p@a:1",
            "u:p@a/path",
            "u%3A:p@a",
            "u:%0A@a",
            "1.2.3:4",
        ] {
            assert!(ProxyText::parse(text).is_err(), "{text:?}");
        }
    }

    #[tokio::test]
    async fn hosts_of_other_networks_need_the_operator() {
        let rules = |allowed: &[&str]| DialRules {
            allowed: allowed.iter().map(|network| network.parse().unwrap()).collect(),
            own: Vec::new(),
        };
        for host in
            ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1", "localhost", "nothing.invalid"]
        {
            assert!(check_host(&rules(&[]), host, 1).await.is_err(), "{host}");
        }
        assert!(check_host(&rules(&["10.0.0.0/8"]), "10.0.0.1", 1).await.is_ok());
        assert!(check_host(&rules(&[]), "1.1.1.1", 1).await.is_ok());
    }

    proptest! {
        #[test]
        fn any_text_is_handled_and_no_password_is_shown(text in ".*", password in "[a-z]{12}") {
            let _ = ProxyText::parse(&text);
            let shown = ProxyText::parse(&format!("http://u:{password}@a.example:1")).unwrap().shown;
            prop_assert!(!shown.contains(&password));
        }
    }
}
