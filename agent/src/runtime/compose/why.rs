//! What differs between two definitions of a service, in words.

use fleet::compose::model::Service;
use serde_json::Value;

/// Such as `image, environment LOG TZ`. Names only: values may be secret.
pub(super) fn differs(had: &Service, want: &Service) -> String {
    // By way of the text: the code that reads and writes it is there already.
    let value = |service: &Service| serde_json::from_slice(&serde_json::to_vec(service).ok()?).ok();
    let (Some(Value::Object(had)), Some(Value::Object(want))) = (value(had), value(want)) else {
        return "configuration".to_owned();
    };
    let mut parts = Vec::new();
    for (key, new) in &want {
        let old = had.get(key).unwrap_or(&Value::Null);
        // These never recreate a container.
        if old == new || matches!(key.as_str(), "replicas" | "update" | "depends_on" | "pull_policy") {
            continue;
        }
        match (key.as_str(), old, new) {
            ("environment" | "labels" | "networks" | "sysctls" | "ulimits", Value::Object(old), Value::Object(new)) => {
                let mut names: Vec<&str> = old
                    .iter()
                    .filter(|(name, value)| new.get(*name) != Some(value))
                    .map(|(name, _)| name.as_str())
                    .chain(new.keys().filter(|name| !old.contains_key(*name)).map(String::as_str))
                    .collect();
                names.sort_unstable();
                parts.push(format!("{key} {}", names.join(" ")));
            }
            _ => parts.push(key.clone()),
        }
    }
    if parts.is_empty() { "an image, network or dependency behind it".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_words() {
        let plain = Service { image: "a:1".to_owned(), ..Service::default() };
        let check = |change: fn(&mut Service), want: &str| {
            let mut changed = plain.clone();
            change(&mut changed);
            assert_eq!(differs(&plain, &changed), want);
        };
        check(|it| it.image = "a:2".to_owned(), "image");
        check(
            |it| it.environment = [("B".to_owned(), "1".to_owned()), ("A".to_owned(), "2".to_owned())].into(),
            "environment A B",
        );
        check(|it| it.replicas = 2, "an image, network or dependency behind it");
    }
}
