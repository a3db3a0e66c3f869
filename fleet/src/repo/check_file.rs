//! One check of an app's health, as it is written: a mapping with one of
//! `http`, `tcp`, `unit` and `exec`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::files::http_url;
use super::problems::Problems;
use super::value;
use crate::desired::Check;
use crate::yaml::{At, Place};

/// One of four; `status` goes with `http`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CheckFile {
    http: Option<At<String>>,
    status: Option<At<u16>>,
    tcp: Option<At<String>>,
    unit: Option<At<String>>,
    exec: Option<At<Vec<At<String>>>>,
}

impl JsonSchema for CheckFile {
    fn schema_name() -> Cow<'static, str> {
        "Check".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = |key: &str, value: serde_json::Value| serde_json::json!({"type": "object", "properties": {key: value}, "required": [key], "additionalProperties": false});
        let mut http = one(
            "http",
            serde_json::json!({"type": "string", "pattern": "^https?://", "description": "A GET that has to answer with `status`."}),
        );
        http["properties"]["status"] =
            serde_json::json!({"type": "integer", "minimum": 100, "maximum": 599, "default": 200});
        json_schema!({"oneOf": [
            http,
            one("tcp", serde_json::json!({"type": "string", "description": "`host:port` that has to accept a connection."})),
            one("unit", serde_json::json!({"type": "string", "description": "A systemd unit that has to be active."})),
            one("exec", serde_json::json!({"type": "array", "items": {"type": "string"}, "minItems": 1, "description": "A program on the host that has to exit with 0; only where agent.toml allows it."})),
        ]})
    }
}

impl CheckFile {
    pub(crate) fn check(&self, problems: &mut Problems<'_>, place: Place) -> Option<Check> {
        if let (Some(status), None) = (&self.status, &self.http) {
            problems.error(status.place, "`status` without `http`, expected the URL whose answer it is");
        }
        match (&self.http, &self.tcp, &self.unit, &self.exec) {
            (Some(url), None, None, None) => {
                let url = problems.take(url, http_url);
                let status = self.status.as_ref().map_or(200, |status| status.value);
                if let Some(given) = self.status.as_ref().filter(|given| !(100..600).contains(&given.value)) {
                    problems.error(given.place, format!("`{}` is no HTTP status, expected 100 to 599", given.value));
                }
                url.map(|url| Check::Http { url, status })
            }
            (None, Some(address), None, None) => problems.take(address, host_port).map(Check::Tcp),
            (None, None, Some(unit), None) => problems.take(unit, value::unit).map(Check::Unit),
            (None, None, None, Some(command)) => {
                let program = command.value.first();
                if !program.is_some_and(|program| program.value.starts_with('/')) {
                    let place = program.map_or(command.place, |program| program.place);
                    problems.error(place, "expected the absolute path of a program on the host first, for example [\"/usr/bin/pos-check\"]");
                    return None;
                }
                Some(Check::Exec(command.value.iter().map(|word| word.value.clone()).collect()))
            }
            _ => {
                problems.error(place, "expected exactly one of `http`, `tcp`, `unit` and `exec` in a check");
                None
            }
        }
    }
}

fn host_port(text: &str) -> Result<String, String> {
    let port = |port: &str| port.bytes().all(|c| c.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    match text.rsplit_once(':') {
        Some((host, number))
            if port(number)
                && !host.is_empty()
                && (host.starts_with('[') && host.ends_with(']') || !host.contains(':'))
                && !host.chars().any(|c| c.is_whitespace() || c == '/' || c == '$') =>
        {
            Ok(text.to_owned())
        }
        _ => Err(format!("`{text}` is no address, expected `host:port`, for example `127.0.0.1:5432`")),
    }
}
