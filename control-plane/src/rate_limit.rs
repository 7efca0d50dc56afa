//! Rate limits: requests per client and minute, counted in memory. Minutes are fixed windows, so that
//! counting is one map that is emptied when the next minute begins; its size is bounded by that and by
//! [`MAX_CLIENTS`]. Each replica counts for itself: that is cheap, and exact enough for what only protects the
//! process. What protects accounts is counted in the database ([`crate::service::account::attempts`]).

use crate::config::RateLimits;
use hoody_protocol::{id::UserId, time::now_ms};
use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
};

/// Length of a window, seconds.
const WINDOW_S: u64 = 60;
/// Clients counted one by one in a window; those beyond share one count.
const MAX_CLIENTS: usize = 100_000;

/// Who is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Client {
    /// A user with a valid token.
    User(UserId),
    /// An address.
    Address(IpAddr),
    /// Everybody for whom there was no room.
    Crowd,
}

impl Client {
    /// An address; of IPv6 the /64, which is what one customer usually has.
    pub fn address(address: IpAddr) -> Self {
        Self::Address(network(address))
    }
}

/// The address, or of IPv6 the /64, which is what one customer usually has.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

/// What the count says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Requests a minute.
    pub limit: u32,
    /// Requests left in this minute.
    pub remaining: u32,
    /// When the next minute begins, Unix seconds.
    pub reset_at: u64,
    /// Seconds until then; set where the request is over the limit.
    pub retry_after_s: Option<u64>,
}

#[derive(Debug, Default)]
struct Window {
    number: u64,
    counts: HashMap<Client, u32>,
}

/// Counts the requests of many clients against one limit.
#[derive(Debug)]
pub struct Limiter {
    limit: u32,
    window: Mutex<Window>,
}

impl Limiter {
    /// At most `limit` requests a minute.
    pub fn new(limit: u32) -> Self {
        Self { limit, window: Mutex::default() }
    }

    /// Counts a request.
    pub fn count(&self, client: Client) -> Allowance {
        self.count_at(client, now_ms() / 1000)
    }

    fn count_at(&self, client: Client, now_s: u64) -> Allowance {
        let number = now_s / WINDOW_S;
        let reset_at = (number + 1) * WINDOW_S;
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.number != number {
            *window = Window { number, counts: HashMap::new() };
        }
        let full = window.counts.len() >= MAX_CLIENTS && !window.counts.contains_key(&client);
        let count = window.counts.entry(if full { Client::Crowd } else { client }).or_default();
        *count = count.saturating_add(1);
        let over = *count > self.limit;
        Allowance {
            limit: self.limit,
            remaining: self.limit.saturating_sub(*count),
            reset_at,
            retry_after_s: over.then_some(reset_at - now_s),
        }
    }
}

/// The limiters of the public API.
#[derive(Debug)]
pub struct Limiters {
    /// Requests with a valid token.
    pub authenticated: Limiter,
    /// Requests without.
    pub anonymous: Limiter,
}

impl Limiters {
    /// Limiters with these limits.
    pub fn new(limits: RateLimits) -> Self {
        let RateLimits { authenticated, anonymous, .. } = limits;
        Self { authenticated: Limiter::new(authenticated), anonymous: Limiter::new(anonymous) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_over_the_limit_is_told_when_the_next_minute_begins() {
        let limiter = Limiter::new(2);
        let client = || Client::address("192.0.2.1".parse().unwrap());
        assert_eq!(limiter.count_at(client(), 130).remaining, 1);
        assert_eq!(limiter.count_at(client(), 131).retry_after_s, None);
        assert_eq!(limiter.count_at(client(), 131).retry_after_s, Some(49));
        assert_eq!(limiter.count_at(Client::address("192.0.2.2".parse().unwrap()), 131).retry_after_s, None);
        assert_eq!(limiter.count_at(client(), 180).retry_after_s, None);
    }

    #[test]
    fn addresses_of_one_customer_count_together() {
        let client = |text: &str| Client::address(text.parse().unwrap());
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:1"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
    }

    #[test]
    fn memory_is_bounded() {
        let limiter = Limiter::new(1);
        for n in 0..MAX_CLIENTS as u32 + 10 {
            limiter.count_at(Client::Address(IpAddr::V4(n.into())), 0);
        }
        assert!(limiter.window.lock().unwrap().counts.len() <= MAX_CLIENTS + 1);
    }
}
