//! The bodies of messages about sets and their elements.

use super::{attribute::PutAttribute, batch::SetShape, expression::Verdict, wire::*};
use std::time::Duration;

/// An element of a set of intervals: its key, and whether an interval ends before it.
pub(super) type IntervalElement = (u16, bool);

/// The elements that stand for these ranges.
pub(super) fn port_elements(ranges: &[(u16, u16)]) -> Vec<IntervalElement> {
    let mut elements = Vec::with_capacity(ranges.len() * 2);
    for (first, last) in ranges {
        elements.push((*first, false));
        // The end is the first port outside; a range up to the last port has none.
        elements.extend(last.checked_add(1).map(|end| (end, true)));
    }
    elements
}

pub(super) fn put_set(out: &mut Vec<u8>, table: &str, name: &str, id: u32, shape: SetShape) {
    out.put_text(NFTA_SET_TABLE, table);
    out.put_text(NFTA_SET_NAME, name);
    out.put_u32(NFTA_SET_FLAGS, shape.flags);
    out.put_u32(NFTA_SET_KEY_TYPE, shape.key_type);
    out.put_u32(NFTA_SET_KEY_LEN, shape.key_bytes);
    if shape.flags & NFT_SET_MAP != 0 {
        out.put_u32(NFTA_SET_DATA_TYPE, NFT_DATA_VERDICT);
        out.put_u32(NFTA_SET_DATA_LEN, 0);
    }
    out.put_u32(NFTA_SET_ID, id);
    if let Some(size) = shape.size {
        out.nest(NFTA_SET_DESC, |out| out.put_u32(NFTA_SET_DESC_SIZE, size));
    }
    let mut userdata = vec![NFTNL_UDATA_SET_KEYBYTEORDER, size_of::<u32>() as u8];
    userdata.extend_from_slice(&shape.key_order.to_ne_bytes());
    out.put(NFTA_SET_USERDATA, &userdata);
}

pub(super) fn put_interval_elements(out: &mut Vec<u8>, table: &str, set: &str, elements: &[IntervalElement]) {
    out.put_text(NFTA_SET_ELEM_LIST_TABLE, table);
    out.put_text(NFTA_SET_ELEM_LIST_SET, set);
    out.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |out| {
        for (key, interval_end) in elements {
            out.nest(NFTA_LIST_ELEM, |out| {
                out.nest(NFTA_SET_ELEM_KEY, |out| out.put(NFTA_DATA_VALUE, &key.to_be_bytes()));
                if *interval_end {
                    out.put_u32(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
                }
            });
        }
    });
}

/// What an element is beside its key.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ElementData<'a> {
    /// Where it leads, in a verdict map.
    pub(crate) verdict: Option<&'a Verdict>,
    /// How long it is there, in a set that allows it; otherwise for good.
    pub(crate) timeout: Option<Duration>,
}

pub(super) fn put_element(out: &mut Vec<u8>, table: &str, set: &str, key: &[u8], data: ElementData<'_>) {
    out.put_text(NFTA_SET_ELEM_LIST_TABLE, table);
    out.put_text(NFTA_SET_ELEM_LIST_SET, set);
    out.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |out| {
        out.nest(NFTA_LIST_ELEM, |out| {
            out.nest(NFTA_SET_ELEM_KEY, |out| out.put(NFTA_DATA_VALUE, key));
            if let Some(verdict) = data.verdict {
                out.nest(NFTA_SET_ELEM_DATA, |out| verdict.put(out));
            }
            if let Some(timeout) = data.timeout {
                out.put(NFTA_SET_ELEM_TIMEOUT, &(timeout.as_millis() as u64).to_be_bytes());
            }
        });
    });
}
