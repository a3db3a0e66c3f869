//! The files of a new fleet repository: one app, one group, who may sign.

use fleet::name::FleetName;

/// Where the schemas lie in the repository; not a path of format 1, so devices don't look there.
const SCHEMAS: &str = ".burgee/schema";

/// The files by path.
pub(crate) fn files(fleet: &FleetName, signer: &str) -> Vec<(String, String)> {
    let mut files = vec![
        ("burgee.yaml".to_owned(), format!("{}format: 1\nfleet: {fleet}\nvars:\n  TZ: UTC\n", hint("burgee", 0))),
        ("trust/allowed_signers".to_owned(), signer.to_owned()),
        ("apps/hello/app.yaml".to_owned(), format!("{}{APP}", hint("app", 2))),
        ("apps/hello/compose.yaml".to_owned(), COMPOSE.to_owned()),
        ("apps/hello/index.html".to_owned(), INDEX.to_owned()),
        ("groups/demo.yaml".to_owned(), format!("{}{GROUP}", hint("group", 1))),
    ];
    for schema in fleet::schema::all() {
        files.push((format!("{SCHEMAS}/{}.json", schema.name), schema.text()));
    }
    files
}

/// The line that editors with the YAML language server read.
fn hint(schema: &str, depth: usize) -> String {
    format!("# yaml-language-server: $schema={}{SCHEMAS}/{schema}.json\n", "../".repeat(depth))
}

const APP: &str = "\
runtime: compose
health:
  timeout: 3m   # from the last step to healthy
  soak: 10s     # and healthy for this long
  checks:
    - {http: \"http://127.0.0.1:8080/\", status: 200}
onFailure: rollback
";

const COMPOSE: &str = "\
# The Compose specification: this file works with `docker compose up`, too.
services:
  web:
    image: nginx:1.28-alpine
    restart: unless-stopped
    environment:
      TZ: ${TZ:-UTC}
    ports:
      - \"8080:80\"
    volumes:
      - ./index.html:/usr/share/nginx/html/index.html:ro
    healthcheck:
      test: [\"CMD\", \"wget\", \"-q\", \"-O\", \"/dev/null\", \"http://127.0.0.1/\"]
      interval: 5s
      timeout: 3s
      retries: 3
";

const INDEX: &str = "<!doctype html>\n<title>hello</title>\n<p>This page came with a signed commit.</p>\n";

const GROUP: &str = "\
# Devices with these labels in their agent.toml, or in devices/<device>.yaml.
selector:
  matchLabels: {site-type: demo}
apps: [hello]
vars:
  TZ: Europe/Berlin
";

#[cfg(test)]
mod tests {
    use fleet::tree::MemoryTree;

    #[test]
    fn the_scaffold_has_no_findings_outside_trust() {
        let files = super::files(&"demo".parse().unwrap(), "");
        let tree: MemoryTree = files.iter().filter(|(path, _)| !path.starts_with("trust/")).cloned().collect();
        assert_eq!(fleet::repo::check(&tree), []);
        for (path, _) in files.iter().filter(|(path, text)| text.starts_with("# yaml-language-server") && path != "x") {
            let depth = path.matches('/').count();
            let (_, text) = files.iter().find(|(other, _)| other == path).unwrap();
            let schema = text.lines().next().unwrap().split("$schema=").nth(1).unwrap();
            let inner = schema.trim_start_matches("../");
            assert_eq!(schema.len() - inner.len(), 3 * depth, "{path}");
            assert!(files.iter().any(|(other, _)| other == inner), "{inner}");
        }
    }
}
