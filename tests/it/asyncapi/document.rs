//! The document, as the tests read it.

use std::collections::BTreeMap;

use jsonschema::{Draft, Validator};
use serde_json::{Value, json};

use crate::packages::yaml;

/// What the document says of the messages of one type.
pub struct Message {
    /// Its key in the document.
    pub key: String,
    /// A JSON pointer to the schema of its payload.
    pub payload: String,
    /// Its examples, or null.
    pub examples: Value,
}

impl Message {
    pub fn payload_reference(&self) -> String {
        format!("#{}", self.payload)
    }
}

pub struct Document {
    pub whole: Value,
    /// By the type of the event, as the platform sends it; `other` for the rest.
    pub messages: BTreeMap<String, Message>,
    validators: BTreeMap<String, Validator>,
}

impl Document {
    pub fn load() -> Self {
        let whole = yaml("asyncapi.yaml").remove(0);
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let listed = whole["components"]["messages"].as_object().expect("messages");
        let messages = listed
            .iter()
            .map(|(key, message)| {
                let payload = text(&message["payload"]["$ref"]).trim_start_matches('#').to_owned();
                (text(&message["name"]), Message { key: key.clone(), payload, examples: message["examples"].clone() })
            })
            .collect();
        let schemas = whole["components"]["schemas"].as_object().expect("schemas");
        let validators = schemas
            .keys()
            .map(|name| {
                let reference = format!("#/components/schemas/{name}");
                let schema = json!({ "allOf": [{ "$ref": reference }], "components": whole["components"] });
                let options = jsonschema::options().with_draft(Draft::Draft7).should_validate_formats(true);
                (reference, options.build(&schema).unwrap_or_else(|error| panic!("{name}: {error}")))
            })
            .collect();
        Self { whole, messages, validators }
    }

    pub fn at(&self, pointer: &str) -> &Value {
        self.whole.pointer(pointer).unwrap_or_else(|| panic!("the document has no {pointer}"))
    }

    /// Whether `value` is valid against the schema of that name.
    pub fn fits(&self, reference: &str, value: &Value) -> bool {
        self.validators[reference].is_valid(value)
    }

    /// Panics with what is wrong unless it is.
    pub fn is_valid(&self, reference: &str, value: &Value) {
        let wrong: Vec<_> = self.validators[reference]
            .iter_errors(value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(wrong.is_empty(), "not {reference}: {wrong:#?}\n{value:#}");
    }
}
