//! The contract's numbers never change: every field of `keystead.v1`, every value of its enums and
//! every method is compared with the committed list. A new line may be added to the list; a line
//! that is there may not go or change.

use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorSet};

const COMMITTED: &str = include_str!("../proto/keystead/v1/fields.txt");

fn messages(message: &DescriptorProto, outer: &str, lines: &mut Vec<String>) {
    let name = format!("{outer}{}", message.name());
    for field in &message.field {
        let repeated =
            if field.label() == prost_types::field_descriptor_proto::Label::Repeated { "repeated " } else { "" };
        let kind = match field.type_name() {
            "" => format!("{:?}", field.r#type()).to_lowercase(),
            named => named.trim_start_matches('.').to_owned(),
        };
        lines.push(format!("{name}.{}={} {repeated}{kind}", field.name(), field.number()));
    }
    for nested in &message.nested_type {
        messages(nested, &format!("{name}."), lines);
    }
}

fn current() -> String {
    let set = FileDescriptorSet::decode(grid_proto::FILE_DESCRIPTOR_SET).expect("the embedded descriptors");
    let mut lines = Vec::new();
    for file in set.file.iter().filter(|file| file.package() == "keystead.v1") {
        for message in &file.message_type {
            messages(message, "", &mut lines);
        }
        for each in &file.enum_type {
            lines.extend(each.value.iter().map(|value| format!("{}.{}={}", each.name(), value.name(), value.number())));
        }
        for service in &file.service {
            for method in &service.method {
                let stream = |streams: bool| if streams { "stream " } else { "" };
                lines.push(format!(
                    "{}.{}({}{}) -> {}{}",
                    service.name(),
                    method.name(),
                    stream(method.client_streaming()),
                    method.input_type().trim_start_matches('.'),
                    stream(method.server_streaming()),
                    method.output_type().trim_start_matches('.'),
                ));
            }
        }
    }
    lines.sort();
    lines.join("\n") + "\n"
}

#[test]
fn numbers_are_those_that_were_committed() {
    let current = current();
    assert!(current == COMMITTED, "the contract changed; if only lines were added, commit this list:\n{current}");
}
