//! Tests of the block map's file: what a crash or damage leaves of it is what was written.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::hasher::PrefixHasher;
use super::super::meta::tests::{any_record, plain_record};
use super::*;
use crate::content::ByteRange;

const SIZE: u64 = 64 * 1024;

fn content(offset: u64, len: u64) -> Vec<u8> {
    (offset..offset + len).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn midstate_at(position: u64) -> Midstate {
    let mut hasher = PrefixHasher::new();
    hasher.update(&content(0, position));
    hasher.midstate().unwrap()
}

fn record_of(length: Option<u64>) -> Record {
    Record { length, ..plain_record() }
}

type States = BTreeMap<u32, (u32, u32)>;

fn states(map: &BlockMap) -> States {
    map.records().map(|record| (record.block, (record.valid_len, record.crc))).collect()
}

/// A file as a fill writes it: after each append its length, the blocks and the best midstate.
struct Written {
    bytes: Vec<u8>,
    header_len: usize,
    steps: Vec<(usize, States, Option<Midstate>)>,
}

#[derive(Debug, Clone)]
enum Op {
    Extend { block: u64, len: u64 },
    Drop { block: u64 },
    Midstate,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (0u64..5, prop_oneof![1u64..SIZE, Just(SIZE)]).prop_map(|(block, len)| Op::Extend { block, len }),
        1 => (0u64..5).prop_map(|block| Op::Drop { block }),
        2 => Just(Op::Midstate),
    ];
    prop::collection::vec(op, 1..24)
}

fn write(ops: &[Op]) -> Written {
    let mut bytes = encode_header(&record_of(None), BlockSize::MIN);
    let header_len = bytes.len();
    let mut map = BlockMap::new(BlockSize::MIN);
    let mut kept: Vec<Midstate> = Vec::new();
    let mut steps = vec![(header_len, States::new(), None)];
    for op in ops {
        match op {
            Op::Extend { block, len } => {
                let offset = block * SIZE + map.block(*block).map_or(0, |state| u64::from(state.valid_len));
                let len = (*len).min((block + 1) * SIZE - offset);
                let records = map.extend(offset, &content(offset, len)).unwrap();
                records.iter().for_each(|record| bytes.extend_from_slice(&record.encode()));
            }
            Op::Drop { block } => bytes.extend_from_slice(&map.drop_block(*block).unwrap().encode()),
            Op::Midstate => {
                let midstate = midstate_at(map.contiguous() / SIZE * SIZE);
                bytes.extend_from_slice(&encode_midstate(&midstate, &map).unwrap());
                kept.push(midstate);
            }
        }
        // The same bytes come again after a drop, so a midstate holds whenever its blocks are full.
        let best = kept.iter().filter(|midstate| midstate.position <= map.contiguous()).max_by_key(|m| m.position);
        steps.push((bytes.len(), states(&map), best.copied()));
    }
    Written { bytes, header_len, steps }
}

#[test]
fn the_format_stays_as_it_was_released() {
    let record = MapRecord { block: 1, valid_len: 2, crc: 0x0403_0201 };
    assert_eq!(record.encode()[..12], [1, 0, 0, 0, 2, 0, 0, 0, 1, 2, 3, 4]);
    assert_eq!(MapRecord::decode(&record.encode()), Some(record));
    assert_eq!(MapRecord::decode(&[0; SLOT]), None, "a hole in the file is no record");
    let header = encode_header(&plain_record(), BlockSize::MAX);
    assert_eq!(header[..20], *b"WSTNMAP\0\x01\0\0\0\0\0\0\x01\x37\0\0\0");
    assert_eq!(header.len() % SLOT, 0);
}

#[test]
fn a_midstate_counts_only_over_the_blocks_it_was_taken_over() {
    let header = encode_header(&record_of(None), BlockSize::MIN);
    let mut map = BlockMap::new(BlockSize::MIN);
    let mut bytes = header.clone();
    let mut append = |part: &[u8]| {
        bytes.extend_from_slice(part);
        decode(&bytes).unwrap()
    };
    for record in map.extend(0, &content(0, 2 * SIZE)).unwrap() {
        append(&record.encode());
    }
    let (one, two) = (midstate_at(SIZE), midstate_at(2 * SIZE));
    assert_eq!(encode_midstate(&midstate_at(3 * SIZE), &map), None, "beyond what is present");
    assert_eq!(encode_midstate(&midstate_at(64), &map), None, "not at a block's begin");
    append(&encode_midstate(&two, &map).unwrap());
    assert_eq!(append(&encode_midstate(&one, &map).unwrap()).midstate, Some(two), "the farthest counts");
    assert_eq!(append(&map.drop_block(1).unwrap().encode()).midstate, Some(one));
    let other = map.extend(SIZE, &vec![0; SIZE as usize]).unwrap();
    assert_eq!(append(&other[0].encode()).midstate, Some(one), "other bytes came instead");
    map.drop_block(1);
    let same = map.extend(SIZE, &content(SIZE, SIZE)).unwrap();
    assert_eq!(append(&same[0].encode()).midstate, Some(two), "the hashed bytes are back");
}

#[test]
fn the_last_word_on_a_bodys_place_counts() {
    let mut bytes = encode_header(&plain_record(), BlockSize::MIN);
    assert_eq!(decode(&bytes).unwrap().superseded, None);
    for since in [Some(UnixMillis(5)), None, Some(UnixMillis(1_795_435_200_000))] {
        bytes.extend_from_slice(&encode_superseded(since));
        let decoded = decode(&bytes).unwrap();
        assert_eq!((decoded.superseded, decoded.records_end), (since, bytes.len()));
    }
    assert_eq!(decode(&bytes[..bytes.len() - 1]).unwrap().superseded, None, "a torn one says nothing");
}

#[test]
fn a_record_beyond_the_body_is_passed_over() {
    let mut map = BlockMap::new(BlockSize::MIN);
    let mut bytes = encode_header(&record_of(Some(SIZE + 10)), BlockSize::MIN);
    for record in map.extend(0, &content(0, SIZE + 10)).unwrap() {
        bytes.extend_from_slice(&record.encode());
    }
    for (block, valid_len) in [(1, 11), (2, 1), (0, SIZE as u32 + 1), (u32::MAX, 1), (u32::MAX - 1, u32::MAX)] {
        bytes.extend_from_slice(&MapRecord { block, valid_len, crc: 0 }.encode());
    }
    assert_eq!(states(&decode(&bytes).unwrap().map), states(&map));
}

#[test]
fn a_header_that_is_not_intact_is_an_error() {
    let header = encode_header(&plain_record(), BlockSize::MIN);
    let unpadded = FIXED_HEADER + encode_record(&plain_record()).len() + 4;
    for end in 0..unpadded {
        assert!(decode(&header[..end]).is_err(), "cut at {end}");
    }
    for end in unpadded..=header.len() {
        assert_eq!(decode(&header[..end]).unwrap().records_end, header.len(), "cut in the padding, at {end}");
    }
    for at in 0..unpadded {
        let mut damaged = header.clone();
        damaged[at] ^= 0x10;
        assert!(decode(&damaged).is_err(), "changed at {at}");
    }
    let mut newer = header;
    newer[8] = 2;
    assert_eq!(decode(&newer).unwrap_err(), MapError::NewerFormat { found: 2 });
    assert_eq!(decode(&[0; 64]).unwrap_err(), MapError::NotAMap);
}

#[test]
fn one_damage_does_not_hide_what_a_body_belongs_to() {
    let mut begin = encode_begin(&plain_record(), BlockSize::MIN);
    let header_len = encode_header(&plain_record(), BlockSize::MIN).len();
    assert_eq!(begin.len(), 2 * header_len);
    let record = MapRecord { block: 0, valid_len: 5, crc: 6 };
    begin.extend_from_slice(&record.encode());
    let says_all = |bytes: &[u8]| {
        let decoded = decode(bytes).unwrap();
        let all = encode_record(&decoded.record) == encode_record(&plain_record())
            && decoded.map.records().eq([record])
            && states_of(bytes, 0) == [record]
            && records_until(bytes, bytes.len() as u64).is_some_and(|records| records.ends_with(&record.encode()));
        (all, decoded.has_one_header)
    };
    assert_eq!(says_all(&begin), (true, false));
    for at in 0..2 * header_len {
        let mut damaged = begin.clone();
        damaged[at] ^= 0x10;
        let is_padding = decode_header(&damaged, MAGIC).is_ok() && decode_header(&damaged[header_len..], COPY).is_ok();
        assert_eq!(says_all(&damaged), (true, !is_padding), "changed at {at}");
    }
    begin[9] = 1;
    begin[header_len] ^= 1;
    assert_eq!(decode(&begin).unwrap_err(), MapError::NewerFormat { found: 0x101 });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A crash may cut the file anywhere: what it says is what it said after the last whole append.
    #[test]
    fn a_cut_file_says_what_was_written_before_the_cut(ops in ops(), cut in any::<prop::sample::Index>()) {
        let written = write(&ops);
        let cut = written.header_len + cut.index(written.bytes.len() - written.header_len + 1);
        let decoded = decode(&written.bytes[..cut]).unwrap();
        let (end, expected, midstate) = written.steps.iter().rev().find(|(end, ..)| *end <= cut).unwrap();
        prop_assert_eq!(states(&decoded.map), expected.clone());
        prop_assert_eq!(decoded.records_end, *end);
        let position = |midstate: &Option<Midstate>| midstate.map_or(0, |midstate| midstate.position);
        prop_assert_eq!(position(&decoded.midstate), position(midstate));
        for record in decoded.map.records() {
            let data = content(u64::from(record.block) * SIZE, u64::from(record.valid_len));
            prop_assert!(decoded.map.verify(u64::from(record.block), &data));
        }
        // Appending goes on where the file was cut.
        let mut again = written.bytes[..cut].to_vec();
        again.resize(decoded.records_end, 0);
        again.extend_from_slice(&written.bytes[*end..]);
        prop_assert_eq!(states(&decode(&again).unwrap().map), written.steps.last().unwrap().1.clone());
    }

    /// Damage loses records, it never makes one up.
    #[test]
    fn a_damaged_file_says_nothing_that_was_not_written(
        ops in ops(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        length in prop::option::of(0u64..6 * SIZE),
    ) {
        let written = write(&ops);
        let mut bytes = encode_header(&record_of(length), BlockSize::MIN);
        let header_len = bytes.len();
        bytes.extend_from_slice(&written.bytes[written.header_len..]);
        let intact = bytes.clone();
        for (at, to) in damage {
            let span = bytes.len() - header_len;
            if span > 0 {
                bytes[header_len + at.index(span)] = to;
            }
        }
        let decoded = decode(&bytes).unwrap();
        for record in decoded.map.records() {
            let data = content(u64::from(record.block) * SIZE, u64::from(record.valid_len));
            prop_assert!(decoded.map.verify(u64::from(record.block), &data));
            let state = Some(&(record.valid_len, record.crc));
            let was_written = written.steps.iter().any(|(_, states, _)| states.get(&record.block) == state);
            prop_assert!(was_written);
        }
        // A block whose last record was not touched has that state.
        let slots = || intact.chunks_exact(SLOT).zip(bytes.chunks_exact(SLOT)).skip(header_len / SLOT);
        for block in 0..5 {
            let last = slots().rev().find(|(slot, _)| MapRecord::decode(slot).is_some_and(|r| r.block == block));
            if let Some((slot, after)) = last.filter(|(slot, after)| slot == after) {
                let record = MapRecord::decode(slot).filter(|record| is_possible(*record, BlockSize::MIN, length));
                if let Some(record) = record {
                    let state = decoded.map.block(u64::from(block)).map_or((0, 0), |s| (s.valid_len, s.crc));
                    prop_assert_eq!(state, (record.valid_len, record.crc), "{:?}", after);
                }
            }
        }
        if let Some(midstate) = decoded.midstate {
            prop_assert!(midstate.position <= decoded.map.contiguous());
            let mut hasher = PrefixHasher::resume(&midstate).unwrap();
            hasher.update(&content(midstate.position, 10));
            prop_assert_eq!(hasher.finish(), Digest::of(&content(0, midstate.position + 10)));
        }
    }

    #[test]
    fn any_record_can_be_a_header(record in any_record(), power in 16u32..25) {
        let size = BlockSize::new(1 << power).unwrap();
        let decoded = decode(&encode_header(&record, size)).unwrap();
        prop_assert_eq!(decoded.map.block_size(), size);
        prop_assert_eq!(encode_record(&decoded.record), encode_record(&record));
        prop_assert!(!decoded.map.present().covers(ByteRange::new(0, 1).unwrap()));
    }

    #[test]
    fn any_bytes_are_a_map_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300), behind_header in any::<bool>()) {
        let mut file = if behind_header { encode_header(&plain_record(), BlockSize::MIN) } else { MAGIC.to_vec() };
        file.extend_from_slice(&bytes);
        prop_assert_eq!(decode(&file).is_ok(), behind_header);
    }
}
