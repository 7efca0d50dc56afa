//! What the agent was told of names that firewall rules speak of. A container that asks for one of them gets the same
//! answer, so that the addresses that it is let to are the ones that it is given, also where a name has many.

use super::Query;
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How long an answer is given on. The agent asks again within five minutes.
const HOLDS: Duration = Duration::from_secs(360);
/// Names of one container.
const MOST: usize = 256;

/// The agent's answers, of one policy of a container.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<HashMap<Vec<u8>, (Instant, Vec<u8>)>>);

impl Told {
    fn answers(&self) -> MutexGuard<'_, HashMap<Vec<u8>, (Instant, Vec<u8>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of what the agent was told; `None`: nothing, and whoever asks is on their own.
    pub(crate) fn note(&self, query: &Query, answer: Option<&[u8]>) {
        let (now, mut answers) = (Instant::now(), self.answers());
        answers.retain(|_, (until, _)| *until > now);
        match answer {
            Some(answer) if answers.len() < MOST => {
                answers.insert(query.asked(), (now + HOLDS, answer.to_vec()));
            }
            _ => _ = answers.remove(&query.asked()),
        }
    }

    /// The answer that the agent had to the same question.
    pub(crate) fn answer(&self, query: &Query) -> Option<Vec<u8>> {
        let answers = self.answers();
        let (until, answer) = answers.get(&query.asked())?;
        if *until <= Instant::now() {
            return None;
        }
        query.accept(answer.clone()).map(|answer| query.in_its_letters(answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_question_gets_the_same_answer_and_no_other_does() {
        let told = Told::default();
        let query = |name, id| Query::for_addresses(name, id).unwrap();
        let mut answer = query("a.example", 1).bytes().to_vec();
        answer[2] |= 0x80;
        told.note(&query("a.example", 1), Some(&answer));
        let found = told.answer(&query("A.Example", 9)).unwrap();
        assert_eq!(found[..2], 9_u16.to_be_bytes(), "with the asker's own id");
        assert_eq!(&found[13..14], b"A", "and letters");
        assert_eq!(told.answer(&query("b.example", 9)), None);
        told.note(&query("a.example", 2), None);
        assert_eq!(told.answer(&query("a.example", 9)), None, "the agent was told nothing since");
    }
}
