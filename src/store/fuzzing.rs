//! Ways in for the fuzz targets: what is read back from drives, as the private parsers see it. No serving build has
//! this.

use crc32c::{crc32c, crc32c_append};
use http::{HeaderMap, StatusCode};

use super::block_map::{BlockMap, BlockSize, MapRecord};
use super::journal_format::{Frame, Frames, encode_frame};
use super::map_file::{decode, encode_header};
use super::meta::{decode_record, encode_record};
use super::pins::Pins;
use crate::content::{BodyRef, CacheKey, PartialId, Record, UnixMillis};

/// Length of a checked record in a map's file without its checksum.
const FIELDS: usize = 12;

/// Decodes a record; one that is accepted must come back the same.
///
/// # Panics
/// When it does not.
pub fn record(bytes: &[u8]) {
    if let Ok(record) = decode_record(bytes) {
        let again = encode_record(&record);
        assert!(decode_record(&again).is_ok_and(|found| encode_record(&found) == again));
    }
}

/// Reads `bytes` as the pins of a drive, as they are and with the right checksum for each line.
///
/// # Panics
/// When what is read does not come back.
pub fn pins(bytes: &[u8]) {
    let mut text = Pins::default().encode();
    for line in bytes.split(|byte| *byte == b'\n') {
        text.extend_from_slice(format!("{:08x} ", crc32c(line)).as_bytes());
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    for text in [bytes, &text] {
        let Ok(read) = Pins::decode(text) else { continue };
        let Ok(again) = Pins::decode(&read.pins.encode()) else { panic!("pins that were written cannot be read") };
        assert!(again.damaged == 0 && again.pins == read.pins);
    }
}

/// Decodes `bytes` as a map file, and as the records behind an intact header with their checksums made right.
///
/// # Panics
/// When what was read is not possible.
pub fn map_file(bytes: &[u8], length: Option<u64>) {
    let _ = decode(bytes);
    let mut file = encode_header(&plain(length), BlockSize::MIN);
    for fields in bytes.chunks_exact(FIELDS) {
        file.extend_from_slice(fields);
        file.extend_from_slice(&crc32c(fields).to_le_bytes());
    }
    // The last bytes are a record that was cut.
    file.extend_from_slice(bytes.chunks_exact(FIELDS).remainder());
    let Ok(found) = decode(&file) else { panic!("an intact header is not accepted") };
    assert!(found.records_end <= file.len());
    let end = found.map.present().iter().last().map_or(0, |range| range.end());
    assert!(length.is_none_or(|length| end <= length), "bytes beyond the end of the body are said to be present");
    // Written anew it is the same.
    let mut again = encode_header(&found.record, found.map.block_size());
    again.extend(found.map.records().flat_map(|record| record.encode()));
    let Ok(again) = decode(&again) else { panic!("a map that was written cannot be read") };
    assert!(again.map.records().eq(found.map.records()));
}

/// Reads `bytes` as a journal, as it is and as one frame with the right checksum.
///
/// # Panics
/// When an entry that is accepted does not come back, or frames lie outside of the bytes.
pub fn journal(bytes: &[u8]) {
    frames(bytes);
    let mut frame = vec![0x00, 0xa7, b'J', 0xf1];
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    frame.extend_from_slice(&length);
    frame.extend_from_slice(&crc32c_append(crc32c(&length), bytes).to_le_bytes());
    frame.extend_from_slice(bytes);
    frames(&frame);
}

fn frames(bytes: &[u8]) {
    let mut frames = Frames::new(bytes, 0);
    let mut position = 0;
    for frame in &mut frames {
        let (Frame::Entry { offset, end, .. } | Frame::Damage { offset, end }) = frame;
        assert!(offset == position && end > offset && end <= bytes.len());
        position = end;
        if let Frame::Entry { entry, .. } = frame {
            let again = encode_frame(&entry);
            let read: Vec<_> = Frames::new(&again, 0).collect();
            assert!(matches!(&read[..], [Frame::Entry { entry, .. }] if encode_frame(entry) == again));
        }
    }
    assert!(frames.intact_end() <= bytes.len());
}

/// Plays pieces of a body into a map in the order that `bytes` say, and compares it with a list of its bytes in
/// units of 4 KiB.
///
/// # Panics
/// When the two differ.
pub fn block_map(bytes: &[u8]) {
    const UNIT: usize = 4096;
    const UNITS: usize = 64;
    let per_block = BlockSize::MIN.bytes() as usize / UNIT;
    let content: Vec<u8> = (0..UNIT * UNITS).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
    let mut present = [false; UNITS];
    let mut map = BlockMap::new(BlockSize::MIN);
    let mut written: Vec<MapRecord> = Vec::new();
    for step in bytes.chunks_exact(2) {
        let (begin, count) = (usize::from(step[0]) % UNITS, usize::from(step[1] & 0x7f));
        if step[1] & 0x80 == 0 {
            let end = (begin + count).min(UNITS);
            if let Ok(records) = map.extend((begin * UNIT) as u64, &content[begin * UNIT..end * UNIT]) {
                assert!(present[begin..end].iter().all(|unit| !unit), "bytes were taken twice");
                present[begin..end].fill(true);
                written.extend(records);
            }
        } else if let Some(record) = map.drop_block((begin / per_block) as u64) {
            present[begin / per_block * per_block..][..per_block].fill(false);
            written.push(record);
        }
    }
    let mut read = BlockMap::new(BlockSize::MIN);
    written.iter().for_each(|record| assert!(read.apply(*record)));
    assert!(read.records().eq(map.records()));
    let end = present.iter().take_while(|unit| **unit).count();
    assert_eq!(map.contiguous(), (end * UNIT) as u64);
    assert_eq!(map.present().total(), (present.iter().filter(|unit| **unit).count() * UNIT) as u64);
    for block in 0..UNITS / per_block {
        let units = present[block * per_block..][..per_block].iter().take_while(|unit| **unit).count();
        let data = &content[block * per_block * UNIT..][..units * UNIT];
        assert!(units == 0 || map.verify(block as u64, data), "a block's sum is wrong");
    }
}

fn plain(length: Option<u64>) -> Record {
    Record {
        key: CacheKey::new("http://origin.example/a"),
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        request_time: UnixMillis(1),
        response_time: UnixMillis(2),
        vary: Vec::new(),
        length,
        expected: None,
        token_protected: false,
        body: BodyRef::Partial(PartialId(1)),
    }
}
