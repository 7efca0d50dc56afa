//! Questions about what the table holds.

use super::{
    error::{FirewallError, Object},
    netlink::{
        attribute::{Attributes, PutAttribute},
        connection::{Connection, Question},
        wire::*,
    },
};

/// An element of a set: its key, and in a verdict map the chain that it leads to.
pub(super) type Element = (Vec<u8>, Option<String>);
/// Packets and bytes.
pub(super) type Count = (u64, u64);

/// A chain that a hook calls, in whichever table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BaseChain {
    pub(super) table: String,
    pub(super) name: String,
    pub(super) hook: u32,
    pub(super) drops: bool,
}

/// The table's flags (`NFT_TABLE_F_…`); `None` where there is no such table.
pub(super) fn table_flags(connection: &mut Connection, table: &str) -> Result<Option<u32>, FirewallError> {
    let question = ask(NFT_MSG_GETTABLE, NFPROTO_INET, Object::Table(table.to_owned()), |out| {
        out.put_text(NFTA_TABLE_NAME, table);
    });
    let answer = connection.ask(vec![question])?.into_iter().flatten().next();
    Ok(answer.map(|bytes| Attributes(&bytes).u32(NFTA_TABLE_FLAGS).unwrap_or_default()))
}

/// Names of the table's chains.
pub(super) fn chain_names(connection: &mut Connection, table: &str) -> Result<Vec<String>, FirewallError> {
    let question = ask(NFT_MSG_GETCHAIN, NFPROTO_INET, Object::Table(table.to_owned()), |_| ());
    let chains = connection.list(question)?;
    let ours = |chain: &Attributes<'_>| chain.text(NFTA_CHAIN_TABLE) == Some(table);
    let chains = chains.iter().map(|bytes| Attributes(bytes)).filter(ours);
    Ok(chains.filter_map(|chain| chain.text(NFTA_CHAIN_NAME).map(str::to_owned)).collect())
}

/// Names of the table's chains that a hook calls.
pub(super) fn called_chains(connection: &mut Connection, table: &str) -> Result<Vec<String>, FirewallError> {
    let question = ask(NFT_MSG_GETCHAIN, NFPROTO_INET, Object::Table(table.to_owned()), |_| ());
    let chains = connection.list(question)?;
    let called =
        |chain: &Attributes<'_>| chain.text(NFTA_CHAIN_TABLE) == Some(table) && chain.nested(NFTA_CHAIN_HOOK).is_some();
    let chains = chains.iter().map(|bytes| Attributes(bytes)).filter(called);
    Ok(chains.filter_map(|chain| chain.text(NFTA_CHAIN_NAME).map(str::to_owned)).collect())
}

/// Every base chain of the network namespace that sees forwarded IPv4.
pub(super) fn base_chains(connection: &mut Connection) -> Result<Vec<BaseChain>, FirewallError> {
    let mut found = Vec::new();
    for family in [NFPROTO_INET, NFPROTO_IPV4] {
        let question = ask(NFT_MSG_GETCHAIN, family, Object::Table("of any name".to_owned()), |_| ());
        for bytes in connection.list(question)? {
            let chain = Attributes(&bytes);
            let hook = chain.nested(NFTA_CHAIN_HOOK).and_then(|hook| hook.u32(NFTA_HOOK_HOOKNUM));
            if let (Some(table), Some(name), Some(hook)) =
                (chain.text(NFTA_CHAIN_TABLE), chain.text(NFTA_CHAIN_NAME), hook)
            {
                let drops = chain.u32(NFTA_CHAIN_POLICY) == Some(NF_DROP);
                found.push(BaseChain { table: table.to_owned(), name: name.to_owned(), hook, drops });
            }
        }
    }
    Ok(found)
}

/// Names of the table's sets and maps.
pub(super) fn set_names(connection: &mut Connection, table: &str) -> Result<Vec<String>, FirewallError> {
    let question = ask(NFT_MSG_GETSET, NFPROTO_INET, Object::Table(table.to_owned()), |out| {
        out.put_text(NFTA_SET_TABLE, table);
    });
    let sets = connection.list(question)?;
    let names = sets.iter().map(|bytes| Attributes(bytes)).filter(|set| set.text(NFTA_SET_TABLE) == Some(table));
    Ok(names.filter_map(|set| set.text(NFTA_SET_NAME).map(str::to_owned)).collect())
}

/// The elements of a set; none where there is no such set.
pub(super) fn elements(connection: &mut Connection, table: &str, set: &str) -> Result<Vec<Element>, FirewallError> {
    let question = ask(NFT_MSG_GETSETELEM, NFPROTO_INET, Object::Set(set.to_owned()), |out| {
        out.put_text(NFTA_SET_ELEM_LIST_TABLE, table);
        out.put_text(NFTA_SET_ELEM_LIST_SET, set);
    });
    Ok(connection.list(question)?.iter().flat_map(|bytes| parse_elements(Attributes(bytes))).collect())
}

/// For each set and key the element, where there is one.
pub(super) fn find_elements(
    connection: &mut Connection,
    table: &str,
    keys: &[(String, Vec<u8>)],
) -> Result<Vec<Option<Element>>, FirewallError> {
    let questions = keys.iter().map(|(set, key)| {
        let object = Object::Element { set: set.clone(), key: hex::encode(key) };
        ask(NFT_MSG_GETSETELEM, NFPROTO_INET, object, |out| {
            out.put_text(NFTA_SET_ELEM_LIST_TABLE, table);
            out.put_text(NFTA_SET_ELEM_LIST_SET, set);
            out.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |out| {
                out.nest(NFTA_LIST_ELEM, |out| {
                    out.nest(NFTA_SET_ELEM_KEY, |out| out.put(NFTA_DATA_VALUE, key));
                });
            });
        })
    });
    let answers = connection.ask(questions.collect())?;
    Ok(answers.into_iter().map(|answer| parse_elements(Attributes(&answer?)).into_iter().next()).collect())
}

/// The comments of a chain's rules in order, an empty one for a rule without; none where there is no
/// such chain.
pub(super) fn comments(connection: &mut Connection, table: &str, chain: &str) -> Result<Vec<String>, FirewallError> {
    let question = ask(NFT_MSG_GETRULE, NFPROTO_INET, Object::Chain(chain.to_owned()), |out| {
        out.put_text(NFTA_RULE_TABLE, table);
        out.put_text(NFTA_RULE_CHAIN, chain);
    });
    let rules = connection.list(question)?;
    Ok(rules.iter().map(|bytes| parse_comment(Attributes(bytes)).unwrap_or_default()).collect())
}

/// Names of the table's counters.
pub(super) fn counter_names(connection: &mut Connection, table: &str) -> Result<Vec<String>, FirewallError> {
    let question = ask(NFT_MSG_GETOBJ, NFPROTO_INET, Object::Table(table.to_owned()), |out| {
        out.put_text(NFTA_OBJ_TABLE, table);
        out.put_u32(NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER);
    });
    let counters = connection.list(question)?;
    let names =
        counters.iter().map(|bytes| Attributes(bytes)).filter(|counter| counter.text(NFTA_OBJ_TABLE) == Some(table));
    Ok(names.filter_map(|counter| counter.text(NFTA_OBJ_NAME).map(str::to_owned)).collect())
}

/// What each of these counters has counted; `None` for one that does not exist.
pub(super) fn counters(
    connection: &mut Connection,
    table: &str,
    names: &[String],
) -> Result<Vec<Option<Count>>, FirewallError> {
    let questions = names.iter().map(|name| {
        ask(NFT_MSG_GETOBJ, NFPROTO_INET, Object::Counter(name.clone()), |out| {
            out.put_text(NFTA_OBJ_TABLE, table);
            out.put_text(NFTA_OBJ_NAME, name);
            out.put_u32(NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER);
        })
    });
    let answers = connection.ask(questions.collect())?;
    Ok(answers.into_iter().map(|answer| parse_count(Attributes(&answer?))).collect())
}

fn ask(message: u8, family: u8, object: Object, body: impl FnOnce(&mut Vec<u8>)) -> Question {
    Question::new(NFNL_SUBSYS_NFTABLES, message, family, object, body)
}

fn parse_elements(answer: Attributes<'_>) -> Vec<Element> {
    let Some(list) = answer.nested(NFTA_SET_ELEM_LIST_ELEMENTS) else { return Vec::new() };
    let elements = list.iter().map_while(Result::ok).map(|(_, element)| Attributes(element));
    elements
        .filter_map(|element| {
            let key = element.nested(NFTA_SET_ELEM_KEY)?.find(NFTA_DATA_VALUE)?.to_vec();
            let verdict = element.nested(NFTA_SET_ELEM_DATA).and_then(|data| data.nested(NFTA_DATA_VERDICT));
            let chain = verdict.and_then(|verdict| verdict.text(NFTA_VERDICT_CHAIN)).map(str::to_owned);
            Some((key, chain))
        })
        .collect()
}

fn parse_comment(rule: Attributes<'_>) -> Option<String> {
    let userdata = rule.find(NFTA_RULE_USERDATA)?;
    let [NFTNL_UDATA_RULE_COMMENT, length, rest @ ..] = userdata else { return None };
    let text = rest.get(..usize::from(*length))?.split(|byte| *byte == 0).next()?;
    std::str::from_utf8(text).ok().map(str::to_owned)
}

fn parse_count(counter: Attributes<'_>) -> Option<Count> {
    let data = counter.nested(NFTA_OBJ_DATA)?;
    Some((data.u64(NFTA_COUNTER_PACKETS)?, data.u64(NFTA_COUNTER_BYTES)?))
}
