//! Mutates protobuf messages and keeps them whole: fields are dropped, doubled, renumbered, taken from
//! another message, and their contents changed, with all lengths put right.

use super::mutate::Mutator;

/// A field: its number, and what it holds.
#[derive(Clone)]
struct Field {
    number: u64,
    content: Content,
}

#[derive(Clone)]
enum Content {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(Vec<u8>),
    Fixed32([u8; 4]),
}

fn take_varint(input: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        number |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// The fields of a message; `None` for what is none.
fn parse(mut input: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !input.is_empty() {
        let tag = take_varint(&mut input)?;
        let content = match tag & 7 {
            0 => Content::Varint(take_varint(&mut input)?),
            1 => {
                let (fixed, rest) = input.split_first_chunk()?;
                input = rest;
                Content::Fixed64(*fixed)
            }
            2 => {
                let length = usize::try_from(take_varint(&mut input)?).ok()?;
                let (bytes, rest) = input.split_at_checked(length)?;
                input = rest;
                Content::Bytes(bytes.to_vec())
            }
            5 => {
                let (fixed, rest) = input.split_first_chunk()?;
                input = rest;
                Content::Fixed32(*fixed)
            }
            _ => return None,
        };
        fields.push(Field { number: tag >> 3, content });
    }
    Some(fields)
}

fn encode(fields: &[Field]) -> Vec<u8> {
    let mut out = Vec::new();
    for Field { number, content } in fields {
        let kind = match content {
            Content::Varint(_) => 0,
            Content::Fixed64(_) => 1,
            Content::Bytes(_) => 2,
            Content::Fixed32(_) => 5,
        };
        put_varint(&mut out, number << 3 | kind);
        match content {
            Content::Varint(value) => put_varint(&mut out, *value),
            Content::Fixed64(value) => out.extend_from_slice(value),
            Content::Fixed32(value) => out.extend_from_slice(value),
            Content::Bytes(value) => {
                put_varint(&mut out, value.len() as u64);
                out.extend_from_slice(value);
            }
        }
    }
    out
}

/// The message with one change somewhere in it; bytes that are no message are changed as bytes.
pub(super) fn change(by: &mut Mutator, input: &[u8], other: &[u8], depth: usize) -> Vec<u8> {
    let Some(mut fields) = parse(input).filter(|fields| !fields.is_empty()) else {
        let mut bytes = input.to_vec();
        by.change(&mut bytes, &[other.to_vec()]);
        return bytes;
    };
    let at = by.below(fields.len());
    match by.below(10) {
        0 => drop(fields.remove(at)),
        1 => {
            let times = [1, 1, 2, 40][by.below(4)];
            let field = fields[at].clone();
            fields.extend(std::iter::repeat_n(field, times));
        }
        2 => fields[at].number = 1 + by.below(20) as u64,
        3 => fields.extend(parse(other).unwrap_or_default().into_iter().take(4)),
        _ => match &mut fields[at].content {
            Content::Varint(value) => *value = by.number(),
            Content::Fixed64(value) => *value = by.number().to_le_bytes(),
            Content::Fixed32(value) => *value = (by.number() as u32).to_le_bytes(),
            Content::Bytes(bytes) if depth < 6 && by.below(8) != 0 => *bytes = change(by, bytes, other, depth + 1),
            Content::Bytes(bytes) => by.change(bytes, &[other.to_vec()]),
        },
    }
    encode(&fields)
}
