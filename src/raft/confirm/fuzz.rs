//! Fuzz target: questions about leadership, and their answers.

use super::*;
use crate::fuzzing::Fuzz;
use crate::raft::LeaderId;

#[test]
fn leadership_questions() {
    let vote = Vote { leader_id: LeaderId { term: 7, voted_for: 9 }, committed: true };
    let seeds: [&[u8]; 4] = [b"\x01", &[&[1u8][..], &[3; 28], &[9; 28]].concat(), b"\x01\x00\x01\x01", b""];
    Fuzz::new("leadership_questions", seeds).run(|input| {
        let answers = decode_answers(input, input.len().saturating_sub(1));
        if let Ok(answers) = &answers {
            assert_eq!(answers.len() + 1, input.len());
        }
        match decode_questions(Bytes::copy_from_slice(input)) {
            Ok(questions) => {
                assert_eq!(encode_questions(questions.iter()), input, "one spelling");
                let answered = answer_questions(Bytes::copy_from_slice(input), |_, _| Some(vote)).expect("answers");
                assert_eq!(decode_answers(&answered, questions.len()).expect("decodes").len(), questions.len());
                format!("questions, answers {}", answers.is_ok())
            }
            Err(error) => {
                assert_eq!(error.code, Code::ProtocolMismatch);
                format!("{} {}", error.what, answers.is_ok())
            }
        }
    });
}
