//! One transaction: the kernel puts all of its messages in force at once, or none.
//!
//! Every message remembers which [`Object`] it is about, so that a refusal can name it. Additions
//! succeed where the object stands already; deletions fail where it is gone.

use super::{
    attribute::PutAttribute,
    expression::{Expression, Verdict},
    set_message::{self, ElementData},
    wire::*,
};
use crate::firewall::error::{Object, Operation};
use std::time::Duration;

/// Bytes of a netlink header and the netfilter header behind it.
pub(crate) const HEADER_BYTES: usize = 20;

/// A rule that is to be appended to a chain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Rule {
    /// What the `nft` program prints beside the rule, and by which drift is noticed.
    pub(crate) comment: String,
    /// The instructions in order.
    pub(crate) expressions: Vec<Expression>,
}

/// A chain that the kernel itself calls.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hook {
    /// `filter` or `nat`.
    pub(crate) kind: &'static str,
    /// `NF_INET_…`.
    pub(crate) number: u32,
    /// Chains of one hook run in ascending order of it.
    pub(crate) priority: i32,
}

/// A set's or map's shape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SetShape {
    /// `NFT_SET_…`.
    pub(crate) flags: u32,
    /// `TYPE_…` of the key; for printing only.
    pub(crate) key_type: u32,
    /// `BYTEORDER_…` of the key; for printing only.
    pub(crate) key_order: u32,
    /// Bytes of the key.
    pub(crate) key_bytes: u32,
    /// The most elements, where there is a limit.
    pub(crate) size: Option<u32>,
}

/// Changes to one table, in order.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(super) table: String,
    pub(super) bytes: Vec<u8>,
    /// Where each message begins, and what it is about.
    messages: Vec<(usize, Operation, Object)>,
    sets: u32,
}

impl Batch {
    /// An empty transaction on the table.
    pub(crate) fn new(table: &str) -> Self {
        let mut batch = Self { table: table.to_owned(), bytes: Vec::new(), messages: Vec::new(), sets: 0 };
        batch.edge(NFNL_MSG_BATCH_BEGIN);
        batch
    }

    /// Makes the table with these flags (`NFT_TABLE_F_…`); wakes it where somebody has put it to sleep.
    pub(crate) fn add_table(&mut self, flags: u32) {
        let object = Object::Table(self.table.clone());
        self.message(NFT_MSG_NEWTABLE, NLM_F_CREATE, Operation::Add, object, |out, table| {
            out.put_text(NFTA_TABLE_NAME, table);
            out.put_u32(NFTA_TABLE_FLAGS, flags);
        });
    }

    /// Makes a chain.
    pub(crate) fn add_chain(&mut self, name: &str, hook: Option<Hook>) {
        self.message(NFT_MSG_NEWCHAIN, NLM_F_CREATE, Operation::Add, Object::Chain(name.to_owned()), |out, table| {
            out.put_text(NFTA_CHAIN_TABLE, table);
            out.put_text(NFTA_CHAIN_NAME, name);
            if let Some(hook) = hook {
                out.put_text(NFTA_CHAIN_TYPE, hook.kind);
                out.put_u32(NFTA_CHAIN_POLICY, NF_ACCEPT);
                out.nest(NFTA_CHAIN_HOOK, |out| {
                    out.put_u32(NFTA_HOOK_HOOKNUM, hook.number);
                    out.put_u32(NFTA_HOOK_PRIORITY, hook.priority as u32);
                });
            }
        });
    }

    /// Removes an empty chain to which nothing leads.
    pub(crate) fn delete_chain(&mut self, name: &str) {
        self.message(NFT_MSG_DELCHAIN, 0, Operation::Delete, Object::Chain(name.to_owned()), |out, table| {
            out.put_text(NFTA_CHAIN_TABLE, table);
            out.put_text(NFTA_CHAIN_NAME, name);
        });
    }

    /// Removes all rules of a chain.
    pub(crate) fn flush_chain(&mut self, name: &str) {
        self.message(NFT_MSG_DELRULE, 0, Operation::Flush, Object::Chain(name.to_owned()), |out, table| {
            out.put_text(NFTA_RULE_TABLE, table);
            out.put_text(NFTA_RULE_CHAIN, name);
        });
    }

    /// Appends a rule to a chain; the sets that it looks into must stand.
    pub(crate) fn add_rule(&mut self, chain: &str, rule: &Rule) {
        let object = Object::Rule { chain: chain.to_owned(), comment: rule.comment.clone() };
        self.message(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, Operation::Add, object, |out, table| {
            out.put_text(NFTA_RULE_TABLE, table);
            out.put_text(NFTA_RULE_CHAIN, chain);
            out.nest(NFTA_RULE_EXPRESSIONS, |out| {
                rule.expressions.iter().for_each(|expression| expression.put(out));
            });
            out.put(NFTA_RULE_USERDATA, &comment_userdata(&rule.comment));
        });
    }

    /// Makes a named set or map.
    pub(crate) fn add_set(&mut self, name: &str, shape: SetShape) {
        // The id only tells sets made by one transaction apart.
        self.sets += 1;
        let id = self.sets;
        self.message(NFT_MSG_NEWSET, NLM_F_CREATE, Operation::Add, Object::Set(name.to_owned()), |out, table| {
            set_message::put_set(out, table, name, id, shape);
        });
    }

    /// Makes the set of these ports, which cannot be changed while a rule refers to it.
    pub(crate) fn add_port_set(&mut self, name: &str, ranges: &[(u16, u16)]) {
        let elements = set_message::port_elements(ranges);
        let size = Some(elements.len() as u32);
        let flags = NFT_SET_CONSTANT | NFT_SET_INTERVAL;
        self.add_set(
            name,
            SetShape { flags, key_type: TYPE_INET_SERVICE, key_order: BYTEORDER_BIG_ENDIAN, key_bytes: 2, size },
        );
        self.message(NFT_MSG_NEWSETELEM, NLM_F_CREATE, Operation::Add, Object::Set(name.to_owned()), |out, table| {
            set_message::put_interval_elements(out, table, name, &elements);
        });
    }

    /// Removes a set to which no rule refers.
    pub(crate) fn delete_set(&mut self, name: &str) {
        self.message(NFT_MSG_DELSET, 0, Operation::Delete, Object::Set(name.to_owned()), |out, table| {
            out.put_text(NFTA_SET_TABLE, table);
            out.put_text(NFTA_SET_NAME, name);
        });
    }

    /// Adds an element to a set, or with a verdict to a verdict map.
    pub(crate) fn add_element(&mut self, set: &str, key: &[u8], verdict: Option<&Verdict>) {
        let object = Object::Element { set: set.to_owned(), key: hex::encode(key) };
        self.message(NFT_MSG_NEWSETELEM, NLM_F_CREATE, Operation::Add, object, |out, table| {
            set_message::put_element(out, table, set, key, ElementData { verdict, timeout: None });
        });
    }

    /// Adds an element that is there for as long; without a time for good.
    pub(crate) fn add_passing_element(&mut self, set: &str, key: &[u8], timeout: Option<Duration>) {
        let object = Object::Element { set: set.to_owned(), key: hex::encode(key) };
        self.message(NFT_MSG_NEWSETELEM, NLM_F_CREATE, Operation::Add, object, |out, table| {
            set_message::put_element(out, table, set, key, ElementData { verdict: None, timeout });
        });
    }

    /// Removes an element.
    pub(crate) fn delete_element(&mut self, set: &str, key: &[u8]) {
        let object = Object::Element { set: set.to_owned(), key: hex::encode(key) };
        self.message(NFT_MSG_DELSETELEM, 0, Operation::Delete, object, |out, table| {
            set_message::put_element(out, table, set, key, ElementData::default());
        });
    }

    /// Makes a counter; one that stands keeps what it has counted.
    pub(crate) fn add_counter(&mut self, name: &str) {
        self.message(NFT_MSG_NEWOBJ, NLM_F_CREATE, Operation::Add, Object::Counter(name.to_owned()), |out, table| {
            out.put_text(NFTA_OBJ_TABLE, table);
            out.put_text(NFTA_OBJ_NAME, name);
            out.put_u32(NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER);
            out.nest(NFTA_OBJ_DATA, |_| ());
        });
    }

    /// Removes a counter to which no rule refers.
    pub(crate) fn delete_counter(&mut self, name: &str) {
        self.message(NFT_MSG_DELOBJ, 0, Operation::Delete, Object::Counter(name.to_owned()), |out, table| {
            out.put_text(NFTA_OBJ_TABLE, table);
            out.put_text(NFTA_OBJ_NAME, name);
            out.put_u32(NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER);
        });
    }

    /// Messages so far, the opening one included.
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// True where nothing would change.
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.len() == 1
    }

    /// The first change as it is sent.
    #[cfg(test)]
    pub(crate) fn bytes_of_first_change(&self) -> Vec<u8> {
        let end = self.messages.get(2).map_or(self.bytes.len(), |(at, ..)| *at);
        self.bytes[self.messages[1].0..end].to_vec()
    }

    /// Ends the transaction and numbers its messages from `first` on. The last change asks for an
    /// acknowledgement; what is refused is answered unasked.
    pub(super) fn finish(mut self, first: u32) -> Finished {
        let (last, ..) = self.messages[self.messages.len() - 1];
        let flags = u16::from_ne_bytes([self.bytes[last + 6], self.bytes[last + 7]]) | NLM_F_ACK;
        self.bytes[last + 6..last + 8].copy_from_slice(&flags.to_ne_bytes());
        self.edge(NFNL_MSG_BATCH_END);
        for (sequence, (at, ..)) in (first..).zip(&self.messages) {
            self.bytes[at + 8..at + 12].copy_from_slice(&sequence.to_ne_bytes());
        }
        Finished {
            acknowledged: first + self.messages.len() as u32 - 2,
            bytes: self.bytes,
            about: self.messages.into_iter().map(|(_, operation, object)| (operation, object)).collect(),
        }
    }

    fn edge(&mut self, kind: u16) {
        let start = self.bytes.len();
        self.messages.push((start, Operation::Commit, Object::Table(self.table.clone())));
        put_header(&mut self.bytes, kind, NLM_F_REQUEST, 0, NFNL_SUBSYS_NFTABLES);
        close(&mut self.bytes, start);
    }

    fn message(
        &mut self,
        kind: u8,
        flags: u16,
        operation: Operation,
        object: Object,
        content: impl FnOnce(&mut Vec<u8>, &str),
    ) {
        let start = self.bytes.len();
        self.messages.push((start, operation, object));
        let kind = NFNL_SUBSYS_NFTABLES << 8 | u16::from(kind);
        put_header(&mut self.bytes, kind, NLM_F_REQUEST | flags, NFPROTO_INET, 0);
        content(&mut self.bytes, &self.table);
        close(&mut self.bytes, start);
    }
}

/// A transaction ready to be sent.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) bytes: Vec<u8>,
    /// The sequence number whose answer is the last one.
    pub(super) acknowledged: u32,
    /// In the order of the sequence numbers.
    pub(super) about: Vec<(Operation, Object)>,
}

/// Writes a netlink header with room for length and sequence number, and the netfilter header.
pub(super) fn put_header(out: &mut Vec<u8>, kind: u16, flags: u16, family: u8, resource: u16) {
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&flags.to_ne_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&[family, 0]);
    out.extend_from_slice(&resource.to_be_bytes());
}

/// Fills in the length of the message that begins at `start`.
pub(super) fn close(bytes: &mut [u8], start: usize) {
    let length = (bytes.len() - start) as u32;
    bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
}

/// The userdata that carries a comment, as the `nft` program reads it.
fn comment_userdata(comment: &str) -> Vec<u8> {
    // Our comments are short fixed words and ids; a length of one byte always holds them.
    let length = u8::try_from(comment.len() + 1).expect("a rule's comment is shorter than 255 bytes");
    let mut userdata = vec![NFTNL_UDATA_RULE_COMMENT, length];
    userdata.extend_from_slice(comment.as_bytes());
    userdata.push(0);
    userdata
}
