//! Redis' protocol, as much of it as `SET` and `GET` need. Pure.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `+OK`.
    Done,
    /// A value, or none.
    Value(Option<Bytes>),
    /// `-ERR ...`
    Failed(String),
}

/// Appends a command.
pub fn put_command(out: &mut BytesMut, words: &[&[u8]]) {
    out.put_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.put_slice(format!("${}\r\n", word.len()).as_bytes());
        out.put_slice(word);
        out.put_slice(b"\r\n");
    }
}

/// Takes a whole answer off the front; `None` when it has not come in whole yet.
///
/// # Errors
/// What stands there, if it is no answer.
pub fn take_answer(input: &mut BytesMut) -> Result<Option<Answer>, String> {
    let Some(end) = input.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let line = String::from_utf8_lossy(&input[..end]).into_owned();
    let (kind, rest) = line.split_at(line.len().min(1));
    let answer = match kind {
        "+" => Answer::Done,
        "-" => Answer::Failed(rest.to_owned()),
        "$" if rest == "-1" => Answer::Value(None),
        "$" => {
            let length: usize = rest.parse().map_err(|_| format!("a value's length is {rest:?}"))?;
            if input.len() < end + 2 + length + 2 {
                return Ok(None);
            }
            input.advance(end + 2);
            let value = input.split_to(length).freeze();
            input.advance(2);
            return Ok(Some(Answer::Value(Some(value))));
        }
        _ => return Err(format!("an answer begins with {line:?}")),
    };
    input.advance(end + 2);
    Ok(Some(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_answers_have_their_bytes() {
        let mut out = BytesMut::new();
        put_command(&mut out, &[b"GET", b"k"]);
        assert_eq!(&out[..], b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
        let whole = b"+OK\r\n$-1\r\n$2\r\nab\r\n-ERR no\r\n";
        let mut input = BytesMut::new();
        let mut answers = Vec::new();
        for byte in whole {
            input.put_u8(*byte);
            answers.extend(take_answer(&mut input).expect("an answer"));
        }
        let value = Answer::Value(Some(Bytes::from_static(b"ab")));
        assert_eq!(answers, [Answer::Done, Answer::Value(None), value, Answer::Failed("ERR no".to_owned())]);
        assert!(take_answer(&mut BytesMut::from(&b"?\r\n"[..])).is_err());
    }
}
