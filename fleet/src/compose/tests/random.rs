//! Nothing that a repository can hold makes the reader panic.

use proptest::prelude::{ProptestConfig, Strategy, proptest};
use proptest::sample::select;

use super::read_files;

/// Fragments that belong to Compose files, so that random ones get past the first line.
fn fragment() -> impl Strategy<Value = String> {
    let words = [
        "services",
        "web",
        "image",
        "w",
        "ports",
        "80:80",
        "1-9:1-9/udp",
        "volumes",
        "./x:/x",
        "a:/b",
        "environment",
        "A=1",
        "$A",
        "${A:-b}",
        "${",
        "extends",
        "include",
        "compose.yaml",
        "depends_on",
        "deploy",
        "resources",
        "limits",
        "memory",
        "1g",
        "healthcheck",
        "test",
        "networks",
        "default",
        "configs",
        "secrets",
        "file",
        "<<",
        "*a",
        "&a",
        "!reset",
        "!override",
        "!!str",
        "null",
        "~",
        "[",
        "]",
        "{",
        "}",
        ":",
        "-",
        "#",
        "\n",
        "\n  ",
        "\n    ",
        "\n      - ",
        ": ",
        ", ",
        "|",
        ">",
        "'",
        "\"",
        "---\n",
        "tmpfs",
        "gpus",
        "all",
        "é",
        "\u{feff}",
        "\t",
    ];
    proptest::collection::vec(select(words.to_vec()), 0..60).prop_map(|parts| parts.concat())
}

/// One value in any shape.
fn shape() -> impl Strategy<Value = String> {
    let shapes = [
        "",
        "x",
        "5",
        "-1",
        "true",
        "[]",
        "{}",
        "[x]",
        "[[x]]",
        "{a: b}",
        "{a: {b: c}}",
        "[{a: b}]",
        "'a:b:c:d'",
        "$A",
        "'${A'",
        "[a, a]",
        "[{source: x, target: y}]",
        "[{target: 1}]",
        "{default: {}}",
        "{a: [b]}",
        "!reset x",
        "[null]",
        "{: }",
        "[/a:/b, /a:/b]",
        "service:web",
        "{disable: true, test: x}",
        "999999999999999999999999",
    ];
    select(shapes.to_vec()).prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_text(text in "\\PC*|[\\x00-\\x7f]*") {
        drop(read_files(&[("compose.yaml", &text), (".env", &text), ("compose.override.yaml", &text)], &[]));
    }

    #[test]
    fn fragments(base in fragment(), over in fragment()) {
        let files = [("compose.yaml", base.as_str()), ("compose.override.yaml", &over), ("x", "y")];
        drop(read_files(&files, &[("A", "b")]));
    }

    #[test]
    fn any_shape_for_any_key(key in select(super::schema::service_keys()), base in shape(), over in shape()) {
        let file = |shape: &str| format!("services:\n  web:\n    image: w\n    {key}: {shape}\n");
        let files = [("compose.yaml", file(&base)), ("compose.override.yaml", file(&over))];
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        drop(read_files(&files, &[("A", "b")]));
    }
}
