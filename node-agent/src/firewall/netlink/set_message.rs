//! The bodies of messages about sets and their elements.

use super::{
    attribute::PutAttribute,
    batch::SetShape,
    expression::{ANONYMOUS_NAME, Expression, Verdict},
    wire::*,
};

/// An element of an anonymous set: its key, and whether an interval ends before it.
pub(super) type AnonymousElement = (Vec<u8>, bool);

/// The set that an instruction needs beside it.
pub(super) fn anonymous(expression: &Expression) -> Option<(SetShape, Vec<AnonymousElement>)> {
    let constant = NFT_SET_ANONYMOUS | NFT_SET_CONSTANT;
    match expression {
        Expression::PortIn(ranges) => {
            let mut elements = Vec::with_capacity(ranges.len() * 2);
            for (first, last) in ranges {
                elements.push((first.to_be_bytes().to_vec(), false));
                // The end is the first port outside; a range up to the last port has none.
                if let Some(end) = last.checked_add(1) {
                    elements.push((end.to_be_bytes().to_vec(), true));
                }
            }
            let size = Some(elements.len() as u32);
            let flags = constant | NFT_SET_INTERVAL;
            Some((SetShape { flags, key_type: TYPE_INET_SERVICE, key_bytes: 2, size }, elements))
        }
        Expression::IcmpTypeIn(types) => {
            let elements: Vec<_> = types.iter().map(|icmp_type| (vec![*icmp_type], false)).collect();
            let size = Some(elements.len() as u32);
            Some((SetShape { flags: constant, key_type: TYPE_ICMP_TYPE, key_bytes: 1, size }, elements))
        }
        _ => None,
    }
}

pub(super) fn put_anonymous(out: &mut Vec<u8>, table: &str, id: u32, shape: SetShape) {
    put_set(out, table, ANONYMOUS_NAME, id, shape);
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
}

pub(super) fn put_anonymous_elements(out: &mut Vec<u8>, table: &str, id: u32, elements: &[AnonymousElement]) {
    out.put_text(NFTA_SET_ELEM_LIST_TABLE, table);
    out.put_text(NFTA_SET_ELEM_LIST_SET, ANONYMOUS_NAME);
    out.put_u32(NFTA_SET_ELEM_LIST_SET_ID, id);
    out.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |out| {
        for (key, interval_end) in elements {
            out.nest(NFTA_LIST_ELEM, |out| {
                out.nest(NFTA_SET_ELEM_KEY, |out| out.put(NFTA_DATA_VALUE, key));
                if *interval_end {
                    out.put_u32(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
                }
            });
        }
    });
}

pub(super) fn put_element(out: &mut Vec<u8>, table: &str, set: &str, key: &[u8], verdict: Option<&Verdict>) {
    out.put_text(NFTA_SET_ELEM_LIST_TABLE, table);
    out.put_text(NFTA_SET_ELEM_LIST_SET, set);
    out.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |out| {
        out.nest(NFTA_LIST_ELEM, |out| {
            out.nest(NFTA_SET_ELEM_KEY, |out| out.put(NFTA_DATA_VALUE, key));
            if let Some(verdict) = verdict {
                out.nest(NFTA_SET_ELEM_DATA, |out| verdict.put(out));
            }
        });
    });
}
