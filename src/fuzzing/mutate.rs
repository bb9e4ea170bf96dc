//! Makes inputs from inputs: flips, cuts, splices, repeats, numbers at their ends, deep nesting. In: a pool.
//! Out: bytes that are mostly right. The same seed gives the same inputs.

use super::protobuf;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

/// Numbers at which lengths, counts and ids go wrong.
const NUMBERS: [u64; 22] = [
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x1_0000,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFE,
    0xFFFF_FFFF,
    0x1_0000_0000,
    0x0000_FFFF_FFFF_FFFF,
    0x7FFF_FFFF_FFFF_FFFF,
    0x8000_0000_0000_0000,
    0xFFFF_FFFF_FFFF_0000,
    u64::MAX - 1,
    u64::MAX,
];

/// What opens a level in some format: JSON, TOML, MessagePack, a protobuf field of length 127.
const OPENERS: [&[u8]; 9] =
    [b"[", b"{\"a\":", b"a=[", b"a={", b"\x91", b"\x81\xa1a", b"\x81\xc0", b"\x81\x91", b"\x0a\x7f"];

const DEPTHS: [usize; 7] = [64, 127, 128, 500, 1023, 1025, 6000];

/// Draws inputs.
pub(super) struct Mutator {
    pub(super) random: StdRng,
    words: &'static [&'static str],
}

impl Mutator {
    pub(super) fn new(name: &str, seed: u64, words: &'static [&'static str]) -> Self {
        let own = u64::from(crc32fast::hash(name.as_bytes()));
        Mutator { random: StdRng::seed_from_u64((own << 32) ^ seed), words }
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { self.random.random_range(0..end) }
    }

    pub(super) fn number(&mut self) -> u64 {
        match self.below(8) {
            0 => self.random.next_u64(),
            1 => self.random.next_u64() >> self.below(64),
            _ => NUMBERS[self.below(NUMBERS.len())],
        }
    }

    fn noise(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.below(most + 1)];
        self.random.fill_bytes(&mut bytes);
        bytes
    }

    fn one_of<'a>(&mut self, pool: &'a [Vec<u8>]) -> &'a [u8] {
        let at = self.below(pool.len());
        pool.get(at).map_or(&[], Vec::as_slice)
    }

    /// An input from one of the pool, or from nothing.
    pub(super) fn bytes(&mut self, pool: &[Vec<u8>]) -> Vec<u8> {
        if self.below(16) == 0 {
            return self.noise(300);
        }
        let mut input = self.one_of(pool).to_vec();
        for _ in 0..=self.below(4) {
            self.change(&mut input, pool);
        }
        input
    }

    /// A protobuf message from one of the pool.
    pub(super) fn protobuf(&mut self, pool: &[Vec<u8>]) -> Vec<u8> {
        let mut input = self.one_of(pool).to_vec();
        let other = self.one_of(pool).to_vec();
        for _ in 0..=self.below(3) {
            input = protobuf::change(self, &input, &other, 0);
        }
        input
    }

    /// Changes something.
    pub(super) fn change(&mut self, input: &mut Vec<u8>, pool: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        match self.below(13) {
            0 | 1 => {
                let bit = 1 << self.below(8);
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= bit;
                }
            }
            2 => {
                let byte = self.random.next_u32() as u8;
                if let Some(old) = input.get_mut(at) {
                    *old = byte;
                }
            }
            3 | 4 => self.put_number(input, at),
            5 => input.truncate(at),
            6 => {
                let end = (at + self.below(32)).min(input.len());
                input.drain(at..end);
            }
            7 => {
                let end = (at + self.below(64)).min(input.len());
                let piece = input[at..end].to_vec();
                let times = 1 + self.below(8);
                input.splice(at..at, piece.repeat(times));
            }
            8 => {
                let other = self.one_of(pool);
                let from = self.below(other.len() + 1);
                let piece = other[from..].to_vec();
                match self.below(2) {
                    0 => drop(input.splice(at.., piece)),
                    _ => drop(input.splice(at..at, piece)),
                }
            }
            9 => {
                let noise = self.noise(12);
                input.splice(at..at, noise);
            }
            10 => {
                let opener = OPENERS[self.below(OPENERS.len())];
                let times = DEPTHS[self.below(DEPTHS.len())];
                let keep_rest = self.below(2) == 0;
                let nest = opener.repeat(times);
                if keep_rest { drop(input.splice(at..at, nest)) } else { drop(input.splice(at.., nest)) }
            }
            11 if !self.words.is_empty() => {
                let words = self.words;
                let word = words[self.below(words.len())];
                let end = (at + self.below(2) * word.len()).min(input.len());
                input.splice(at..end, word.bytes());
            }
            _ => {
                let number = self.number().to_string();
                let end = input[at..].iter().position(|byte| !byte.is_ascii_digit()).map_or(input.len(), |n| at + n);
                input.splice(at..end, number.bytes());
            }
        }
    }

    /// Overwrites with a number, of one, two, four or eight bytes, in either order; or moves one up or down.
    fn put_number(&mut self, input: &mut [u8], at: usize) {
        let width = [1, 2, 4, 8][self.below(4)];
        let Some(place) = input.get_mut(at..at + width) else { return };
        let little = self.below(2) == 0;
        let mut old = [0; 8];
        old[..width].copy_from_slice(place);
        if !little {
            old[..width].reverse();
        }
        let new = match self.below(3) {
            0 => u64::from_le_bytes(old).wrapping_add(1),
            1 => u64::from_le_bytes(old).wrapping_sub(1),
            _ => self.number(),
        };
        let mut new = new.to_le_bytes();
        if !little {
            new[..width].reverse();
        }
        place.copy_from_slice(&new[..width]);
    }
}
