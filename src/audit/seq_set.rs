//! A set of sequence numbers: one bit each, in blocks that exist only where the set has members.

use std::collections::BTreeMap;

use convoke_core::id::Seq;

const BLOCK_WORDS: usize = 64;
#[expect(clippy::cast_possible_wrap, reason = "a small constant")]
const BLOCK_PLACES: i64 = (BLOCK_WORDS * 64) as i64;

/// A set of sequence numbers. Twenty million consecutive ones take 2.6 MB.
#[derive(Debug, Default)]
pub struct SeqSet {
    blocks: BTreeMap<i64, Box<[u64; BLOCK_WORDS]>>,
    count: u64,
}

fn position(seq: Seq) -> (i64, usize, u64) {
    let bit = usize::try_from(seq.0.rem_euclid(BLOCK_PLACES)).unwrap_or(0);
    (seq.0.div_euclid(BLOCK_PLACES), bit / 64, 1 << (bit % 64))
}

impl SeqSet {
    /// Adds a sequence number.
    pub fn insert(&mut self, seq: Seq) {
        let (block, word, bit) = position(seq);
        let word = &mut self.blocks.entry(block).or_insert_with(|| Box::new([0; BLOCK_WORDS]))[word];
        self.count += u64::from(*word & bit == 0);
        *word |= bit;
    }

    /// Removes a sequence number. Returns whether it was in the set.
    pub fn remove(&mut self, seq: Seq) -> bool {
        let (block, word, bit) = position(seq);
        let Some(words) = self.blocks.get_mut(&block) else { return false };
        let had = words[word] & bit != 0;
        words[word] &= !bit;
        self.count -= u64::from(had);
        if had && words.iter().all(|word| *word == 0) {
            self.blocks.remove(&block);
        }
        had
    }

    /// The number of members.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_places_is_a_set_and_takes_no_room_for_what_left_it() {
        let mut set = SeqSet::default();
        let some = [1, 63, 64, 4095, 4096, 1_000_000_007];
        for seq in some.iter().chain(&some) {
            set.insert(Seq(*seq));
        }
        assert_eq!((set.count(), set.blocks.len()), (6, 3));
        assert!(!set.remove(Seq(2)) && !set.remove(Seq(999_999_999_999)));
        for seq in some {
            assert!(set.remove(Seq(seq)), "{seq}");
            assert!(!set.remove(Seq(seq)), "{seq} again");
        }
        assert!(set.count() == 0 && set.blocks.is_empty());
    }
}
