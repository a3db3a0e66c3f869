//! The table of built-in kinds, as text:
//!
//! ```text
//! version v1.34.4
//! kind apps/v1 Deployment namespaced apps.v1.Deployment
//! type apps.v1.Deployment
//!  metadata @meta.v1.ObjectMeta
//!  spec @apps.v1.DeploymentSpec
//! type meta.v1.FieldsV1 o
//! ```
//!
//! A field is `name value`, with `!` behind the name where it is required. A
//! value: `s` text, `y` base64, `t` time, `q` quantity, `x` number or text,
//! `i` and `i32` whole numbers, `n` number, `b` true or false, `o` any mapping,
//! `*` anything, `[` a list of, `{` a mapping to, `=A|B` one of, `@` a type.

use super::{BuiltIn, Field, Fields, Schemas, Type};

pub(super) fn parse(text: &str) -> Result<Schemas, usize> {
    let mut schemas = Schemas::default();
    let mut open: Option<(String, Fields)> = None;
    for (number, line) in text.lines().enumerate() {
        let wrong = number + 1;
        if let Some(field) = line.strip_prefix(' ') {
            let (_, fields) = open.as_mut().ok_or(wrong)?;
            let (name, form) = field.split_once(' ').ok_or(wrong)?;
            let required = name.ends_with('!');
            let name = name.strip_suffix('!').unwrap_or(name).to_owned();
            fields.known.insert(name, Field { required, value: value(form).ok_or(wrong)? });
            continue;
        }
        if let Some((name, fields)) = open.take() {
            schemas.types.insert(name, Type::Fields(fields));
        }
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            [] | [""] | ["#", ..] => {}
            ["version", version] => schemas.version = (*version).to_owned(),
            ["kind", api, kind, scope @ ("namespaced" | "cluster"), name] => {
                let built_in = BuiltIn { namespaced: *scope == "namespaced", name: (*name).to_owned() };
                schemas.kinds.insert(((*api).to_owned(), (*kind).to_owned()), built_in);
            }
            ["type", name] => open = Some(((*name).to_owned(), Fields::default())),
            ["type", name, form] => {
                schemas.types.insert((*name).to_owned(), value(form).ok_or(wrong)?);
            }
            _ => return Err(wrong),
        }
    }
    if let Some((name, fields)) = open {
        schemas.types.insert(name, Type::Fields(fields));
    }
    Ok(schemas)
}

fn value(form: &str) -> Option<Type> {
    if let Some(rest) = form.strip_prefix('[') {
        return value(rest).map(|inner| Type::List(Box::new(inner)));
    }
    if let Some(rest) = form.strip_prefix('{') {
        return value(rest).map(|inner| Type::Map(Box::new(inner)));
    }
    if let Some(name) = form.strip_prefix('@') {
        return Some(Type::Named(name.to_owned()));
    }
    if let Some(words) = form.strip_prefix('=') {
        return Some(Type::OneOf(words.split('|').filter(|word| !word.is_empty()).map(str::to_owned).collect()));
    }
    Some(match form {
        "s" => Type::Text,
        "y" => Type::Bytes,
        "t" => Type::Time,
        "q" => Type::Quantity,
        "x" => Type::IntOrText,
        "i" => Type::Whole(64),
        "i32" => Type::Whole(32),
        "n" => Type::Number,
        "b" => Type::Bool,
        "o" => Type::Open,
        "*" => Type::Any,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{Type, parse};

    #[test]
    fn a_table_is_read_and_what_is_none_is_refused() {
        let text =
            "# c\nversion v1\nkind v1 Pod namespaced a.Pod\ntype a.Pod\n spec! {[@a.B\n mode =A|B c\ntype a.B o\n";
        let schemas = parse(text).unwrap();
        assert_eq!(schemas.version(), "v1");
        assert!(schemas.kind("v1", "Pod").is_some_and(|kind| kind.namespaced && kind.name == "a.Pod"));
        let Some(Type::Fields(fields)) = schemas.named("a.Pod") else { panic!("{schemas:?}") };
        let list = Type::List(Box::new(Type::Named("a.B".to_owned())));
        assert_eq!(fields.known["spec"].value, Type::Map(Box::new(list)));
        assert!(fields.known["spec"].required && !fields.known["mode"].required);
        assert_eq!(fields.known["mode"].value, Type::OneOf(vec!["A".to_owned(), "B c".to_owned()]));
        for (text, line) in [("kind v1 Pod here a.Pod\n", 1), ("type a\n x ?\n", 2), (" x s\n", 1), ("x\n", 1)] {
            assert_eq!(parse(text).unwrap_err(), line, "{text:?}");
        }
    }
}
