//! The text form of ports: `443`, `8000-8100`, `80,443,8000-8100`.

use hoody_protocol::{
    bounded::List,
    firewall::{MAX_PORT_RANGES, PortRange},
};

/// Longest text of a port list, in characters.
const MAX_TEXT: usize = 64;

/// Why a text is not a list of ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PortsError {
    /// The text is too long.
    #[error("has more than {MAX_TEXT} characters: use ranges such as 8000-8100")]
    TooLong,
    /// An item is neither a port nor a range.
    #[error("\"{0}\" is not a port: give a number from 1 to 65535, a range such as 80-90, or a list such as 80,443")]
    NotAPort(String),
    /// A range that ends before it begins.
    #[error("the range {first}-{last} ends before it begins")]
    Backwards {
        /// The number before the dash.
        first: u16,
        /// The number after it.
        last: u16,
    },
    /// More ranges than a rule can hold.
    #[error("has more than {MAX_PORT_RANGES} ports and ranges: use several rules")]
    TooMany,
}

/// Parses a list of ports. The ranges come back sorted, and those that overlap or touch merged: the
/// kernel's interval sets refuse overlaps.
pub(super) fn parse(text: &str) -> Result<List<PortRange, MAX_PORT_RANGES>, PortsError> {
    if text.chars().count() > MAX_TEXT {
        return Err(PortsError::TooLong);
    }
    let mut ranges = text.split(',').map(|item| parse_range(item.trim())).collect::<Result<Vec<_>, _>>()?;
    ranges.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if u32::from(first) <= u32::from(before.1) + 1 => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    let ranges: Vec<PortRange> =
        merged.into_iter().filter_map(|(first, last)| PortRange::new(first, last).ok()).collect();
    ranges.try_into().map_err(|_| PortsError::TooMany)
}

fn parse_range(item: &str) -> Result<(u16, u16), PortsError> {
    let not_a_port = || PortsError::NotAPort(item.to_owned());
    let (first, last) = match item.split_once('-') {
        Some((first, last)) => (first.trim_end(), last.trim_start()),
        None => (item, item),
    };
    let first = parse_port(first).ok_or_else(not_a_port)?;
    let last = parse_port(last).ok_or_else(not_a_port)?;
    if first > last { Err(PortsError::Backwards { first, last }) } else { Ok((first, last)) }
}

/// Digits only: the standard parser would also take a sign.
fn parse_port(text: &str) -> Option<u16> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|port| *port != 0)
}

/// The shortest text that [`parse`]s to `ranges`.
pub fn render(ranges: &[PortRange]) -> String {
    let texts = ranges.iter().map(|range| match (range.first(), range.last()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    });
    texts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> String {
        render(&parse(text).unwrap())
    }

    #[test]
    fn single_ports_ranges_and_lists() {
        assert_eq!(parsed("443"), "443");
        assert_eq!(parsed("80-90"), "80-90");
        assert_eq!(parsed("8000-8100, 80,443"), "80,443,8000-8100");
        assert_eq!(parsed("1-65535"), "1-65535");
    }

    #[test]
    fn overlaps_and_neighbours_merge() {
        assert_eq!(parsed("80,80,79-82,83"), "79-83");
        assert_eq!(parsed("65535,65534"), "65534-65535");
    }

    #[test]
    fn what_is_not_a_port_is_named() {
        for item in
            ["", "0", "65536", "-1", "+80", "80-", "-90", "http", "80-90-100", "0x50", "8 0", "99999999999", "٣"]
        {
            assert_eq!(parse(item), Err(PortsError::NotAPort(item.to_owned())), "{item:?}");
        }
        assert_eq!(parse("80,,90"), Err(PortsError::NotAPort(String::new())));
        assert_eq!(parse("90-80"), Err(PortsError::Backwards { first: 90, last: 80 }));
        assert_eq!(parse(&"1".repeat(65)), Err(PortsError::TooLong));
    }

    proptest! {
        #[test]
        fn any_text_is_handled(text in ".*") {
            let _ = parse(&text);
        }

        #[test]
        fn membership_is_kept(items in proptest::collection::vec((1u16..200, 0u16..20), 1..8), probe in 1u16..250) {
            let text = items.iter().map(|(first, more)| format!("{first}-{}", first + more)).collect::<Vec<_>>().join(",");
            prop_assume!(text.len() <= MAX_TEXT);
            let expected = items.iter().any(|(first, more)| (*first..=first + more).contains(&probe));
            let ranges = parse(&text).unwrap();
            prop_assert_eq!(ranges.iter().any(|r| r.first() <= probe && probe <= r.last()), expected);
            prop_assert!(ranges.windows(2).all(|pair| u32::from(pair[0].last()) + 1 < u32::from(pair[1].first())));
            prop_assert_eq!(parse(&render(&ranges)).unwrap(), ranges);
        }
    }
}
