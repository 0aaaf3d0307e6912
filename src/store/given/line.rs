//! [`Line`]: what is written down of the versions that clients were given. Each line has 64 bytes and a checksum of its
//! own, so that damage costs what it hit and nothing else.
//!
//! Numbers are little-endian.
//! ```text
//! kind u8, fields, zeros, CRC-32C u32 of the 60 bytes before it
//! 1 format    magic (8), version u32
//! 2 version   key (16), birth u64, has u8 (1 validator, 2 length, 4 digest), validator u64, length u64, digest (16)
//! 3 spoiled   key (16), birth u64, first difference u64, begin of the right digest (16); all ones: not known yet
//! 4 share     address (16), key (16), birth u64, last u32, partly u8
//! 5 more      address (16), key (16), last u32
//! ```

use crc32c::crc32c;

use crate::content::{KeyHash, PartialId, Spoiled, Version};

/// Bytes of a line.
pub(super) const LINE: usize = 64;

const MAGIC: [u8; 8] = *b"WSTNGIVN";
/// The version that is written.
const FORMAT: u32 = 1;
const UNKNOWN: u64 = u64::MAX;

/// A client address as 128 bits; those of IPv4 are mapped.
pub(super) type Address = [u8; 16];

/// One line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// Which lines there may be.
    Format(u32),
    /// What is known of a version.
    Version { key: KeyHash, version: Version },
    /// The bytes of a version turned out to be wrong.
    Spoiled { key: KeyHash, birth: PartialId, spoiled: Spoiled },
    /// An address was given bytes of a version.
    Share { address: Address, key: KeyHash, birth: PartialId, last: u32, partly: bool },
    /// An address was given more versions than are known.
    More { address: Address, key: KeyHash, last: u32 },
}

/// Puts fields one behind the other.
struct Fields {
    bytes: [u8; LINE],
    at: usize,
}

/// Takes fields one after the other.
struct Taken<'a>(&'a [u8]);

impl Line {
    /// The line that a file begins with.
    pub(super) fn format() -> Self {
        Self::Format(FORMAT)
    }

    /// Whether a file with this format can be read.
    pub(super) fn is_known_format(format: u32) -> bool {
        (1..=FORMAT).contains(&format)
    }

    /// Its bytes.
    pub(super) fn encode(&self) -> [u8; LINE] {
        let mut fields = Fields { bytes: [0; LINE], at: 0 };
        match self {
            Self::Format(format) => fields.kind(1).put(&MAGIC).put(&format.to_le_bytes()),
            Self::Version { key, version } => {
                let Version { birth, validator, length, digest } = version;
                let has =
                    u8::from(validator.is_some()) | u8::from(length.is_some()) << 1 | u8::from(digest.is_some()) << 2;
                let fields = fields.kind(2).put(key.as_bytes()).put(&birth.0.to_le_bytes()).put(&[has]);
                let numbers = [validator.unwrap_or(0), length.unwrap_or(0)];
                let fields = numbers.iter().fold(fields, |fields, number| fields.put(&number.to_le_bytes()));
                fields.put(&digest.unwrap_or_default())
            }
            Self::Spoiled { key, birth, spoiled } => {
                let (first_difference, right) = match spoiled {
                    Spoiled::Throughout => (UNKNOWN, [0; 16]),
                    Spoiled::From { first_difference, right } => (*first_difference, *right),
                };
                let fields = fields.kind(3).put(key.as_bytes()).put(&birth.0.to_le_bytes());
                fields.put(&first_difference.to_le_bytes()).put(&right)
            }
            Self::Share { address, key, birth, last, partly } => {
                let fields = fields.kind(4).put(address).put(key.as_bytes()).put(&birth.0.to_le_bytes());
                fields.put(&last.to_le_bytes()).put(&[u8::from(*partly)])
            }
            Self::More { address, key, last } => {
                fields.kind(5).put(address).put(key.as_bytes()).put(&last.to_le_bytes())
            }
        };
        let (body, check) = fields.bytes.split_at_mut(LINE - 4);
        check.copy_from_slice(&crc32c(body).to_le_bytes());
        fields.bytes
    }

    /// Reads a line; `None` when it is damaged or of a kind that is not known.
    pub(super) fn decode(bytes: &[u8; LINE]) -> Option<Self> {
        let (body, check) = bytes.split_at(LINE - 4);
        if *check != crc32c(body).to_le_bytes() {
            return None;
        }
        let mut taken = Taken(body);
        match taken.take()? {
            [1] => (taken.take()? == MAGIC).then(|| Some(Self::Format(u32::from_le_bytes(taken.take()?))))?,
            [2] => {
                let (key, birth) = (taken.key()?, taken.birth()?);
                let [has] = taken.take()?;
                let (validator, length, digest) = (taken.u64()?, taken.u64()?, taken.take()?);
                let version = Version {
                    birth,
                    validator: (has & 1 > 0).then_some(validator),
                    length: (has & 2 > 0).then_some(length),
                    digest: (has & 4 > 0).then_some(digest),
                };
                Some(Self::Version { key, version })
            }
            [3] => {
                let (key, birth, first_difference, right) = (taken.key()?, taken.birth()?, taken.u64()?, taken.take()?);
                let spoiled = match first_difference {
                    UNKNOWN => Spoiled::Throughout,
                    first_difference => Spoiled::From { first_difference, right },
                };
                Some(Self::Spoiled { key, birth, spoiled })
            }
            [4] => {
                let (address, key, birth) = (taken.take()?, taken.key()?, taken.birth()?);
                let last = u32::from_le_bytes(taken.take()?);
                let [partly] = taken.take()?;
                Some(Self::Share { address, key, birth, last, partly: partly != 0 })
            }
            [5] => {
                let (address, key) = (taken.take()?, taken.key()?);
                Some(Self::More { address, key, last: u32::from_le_bytes(taken.take()?) })
            }
            _ => None,
        }
    }
}

impl Fields {
    fn kind(&mut self, kind: u8) -> &mut Self {
        self.put(&[kind])
    }

    /// The fields of every kind fit before the checksum, as the tests show.
    fn put(&mut self, field: &[u8]) -> &mut Self {
        let rest = self.bytes.get_mut(self.at..).unwrap_or_default();
        rest.iter_mut().zip(field).for_each(|(to, from)| *to = *from);
        self.at += field.len();
        self
    }
}

impl Taken<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take()?))
    }

    fn key(&mut self) -> Option<KeyHash> {
        Some(KeyHash::from_bytes(self.take()?))
    }

    fn birth(&mut self) -> Option<PartialId> {
        Some(PartialId(self.u64()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_line() -> impl Strategy<Value = Line> {
        let key = || any::<[u8; 16]>().prop_map(KeyHash::from_bytes);
        let birth = || any::<u64>().prop_map(PartialId);
        let facts = (any::<Option<u64>>(), any::<Option<u64>>(), any::<Option<[u8; 16]>>());
        let spoiled = prop_oneof![
            Just(Spoiled::Throughout),
            (0..UNKNOWN, any::<[u8; 16]>())
                .prop_map(|(first_difference, right)| Spoiled::From { first_difference, right })
        ];
        prop_oneof![
            any::<u32>().prop_map(Line::Format),
            (key(), birth(), facts).prop_map(|(key, birth, (validator, length, digest))| Line::Version {
                key,
                version: Version { birth, validator, length, digest }
            }),
            (key(), birth(), spoiled).prop_map(|(key, birth, spoiled)| Line::Spoiled { key, birth, spoiled }),
            (any::<[u8; 16]>(), key(), birth(), any::<u32>(), any::<bool>())
                .prop_map(|(address, key, birth, last, partly)| Line::Share { address, key, birth, last, partly }),
            (any::<[u8; 16]>(), key(), any::<u32>()).prop_map(|(address, key, last)| Line::More { address, key, last }),
        ]
    }

    #[test]
    fn the_format_stays_as_it_was_released() {
        let share = Line::Share {
            address: [1; 16],
            key: KeyHash::from_bytes([2; 16]),
            birth: PartialId(3),
            last: 4,
            partly: true,
        };
        let expected = [&[4][..], &[1; 16], &[2; 16], &[3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1], &[0; 14]].concat();
        assert_eq!(share.encode()[..60], expected);
        assert_eq!(Line::format().encode()[..13], *b"\x01WSTNGIVN\x01\0\0\0");
        assert_eq!(Line::decode(&[0; LINE]), None, "a hole in the file is no line");
    }

    proptest! {
        #[test]
        fn lines_come_back_and_damaged_ones_do_not(line in any_line(), at in 0..LINE, bit in 0u8..8) {
            let mut bytes = line.encode();
            prop_assert_eq!(Line::decode(&bytes), Some(line));
            bytes[at] ^= 1u8 << bit;
            prop_assert_eq!(Line::decode(&bytes), None);
        }

        #[test]
        fn any_bytes_are_a_line_or_none(mut bytes in any::<[u8; LINE]>(), kind in 0u8..7) {
            bytes[0] = kind;
            let check = crc32c(&bytes[..LINE - 4]).to_le_bytes();
            bytes[LINE - 4..].copy_from_slice(&check);
            if let Some(line) = Line::decode(&bytes) {
                prop_assert!(Line::decode(&line.encode()) == Some(line));
            }
        }
    }
}
