//! From an app's folder to one tree: which files there are, `.env`, variables, `extends`, `include`, and the merge.
//!
//! As in Compose, each file is interpolated, then its `extends` are followed, then its `include`s, and then it goes
//! over the files before it. Not here: what the values mean.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::compose::dotenv::{self, Format};
use crate::compose::fields::Fields;
use crate::compose::files::{Files, parent, resolve};
use crate::compose::interpolation::interpolate;
use crate::compose::merge::{merge, settle};
use crate::compose::node::{Budget, Entry, Findings, MAX_COST, MAX_FILES, Node, Place, Source, Value};
use crate::compose::yaml;
use crate::finding::{Finding, Severity};
use crate::vars::Scope;

/// The names that Compose looks for, in its order.
const MAIN: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
const OVER: [&str; 4] =
    ["compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml"];

/// Longest chain of `extends`, and of `include`.
const MAX_CHAIN: usize = 32;

/// What `COMPOSE_…` variables mean something here.
const HONOURED: [&str; 4] = ["COMPOSE_PROFILES", "COMPOSE_FILE", "COMPOSE_PATH_SEPARATOR", "COMPOSE_PROJECT_NAME"];

/// Files that services extend from, by path and by the scope that they were read with.
type Extended = HashMap<(String, usize), Option<Rc<Node>>>;

pub(super) struct Loader<'a> {
    files: &'a Files<'a>,
    findings: &'a Findings,
    folder: &'a str,
    budget: Budget,
    extended: RefCell<Extended>,
}

/// An app's files as one.
pub(super) struct Loaded {
    pub(super) root: Node,
    /// `name:`, if there is one.
    pub(super) name: Option<Node>,
    pub(super) scope: Rc<Scope>,
}

impl<'a> Loader<'a> {
    pub(super) fn new(folder: &'a str, files: &'a Files<'a>, findings: &'a Findings) -> Self {
        Self { files, findings, folder, budget: Budget::new(), extended: RefCell::default() }
    }

    /// Reads everything that the app's folder holds for Compose; `fallback` is the project's name if no file says one.
    pub(super) fn load(&self, scope: &Scope, fallback: &str) -> Option<Loaded> {
        let scope = Rc::new(self.with_dotenv(&format!("{}/.env", self.folder), scope, true));
        let paths = self.paths(&scope)?;
        let name = self.name(&paths, &scope);
        // The files may name the project that they make.
        let named = name.as_ref().and_then(Node::scalar).map_or(fallback, |scalar| scalar.text.as_str());
        let scope = Rc::new((*scope).clone().with("COMPOSE_PROJECT_NAME", named));
        let mut sources = Vec::new();
        for path in &paths {
            sources.push(self.source(path, self.folder, &scope, None)?);
        }
        let root = self.model(&sources, &mut Vec::new())?;
        // A value whose variables are missing would be called missing itself.
        if self.findings.failed() {
            return None;
        }
        Some(Loaded { root, name, scope })
    }

    /// The scope with a file of variables below it.
    fn with_dotenv(&self, path: &str, scope: &Scope, main: bool) -> Scope {
        if !self.files.exists(path) {
            return scope.clone();
        }
        let Some(text) = self.files.text(path, None) else { return scope.clone() };
        match dotenv::parse(&text, scope, Format::Compose) {
            Ok(lowest) => {
                for name in lowest.keys().filter(|name| name.starts_with("COMPOSE_") && main) {
                    let why = match name.as_str() {
                        "COMPOSE_PROJECT_NAME" => "a project's name is its name:, else the app's",
                        name if HONOURED.contains(&name) => continue,
                        _ => "it is for the docker compose command",
                    };
                    let message = format!("{name} is ignored: {why}");
                    let line = text.lines().position(|line| line.contains(name.as_str())).unwrap_or_default();
                    let line = u32::try_from(line).unwrap_or_default().saturating_add(1);
                    self.findings.add(Finding {
                        path: path.to_owned(),
                        line,
                        column: 1,
                        severity: Severity::Warning,
                        message,
                        hint: None,
                    });
                }
                scope.clone().over(lowest)
            }
            Err(error) => {
                self.findings.add(Finding {
                    path: path.to_owned(),
                    line: error.line,
                    column: error.column,
                    severity: Severity::Error,
                    message: error.message,
                    hint: None,
                });
                scope.clone()
            }
        }
    }

    /// The app's Compose files, in the order in which they are merged.
    fn paths(&self, scope: &Scope) -> Option<Vec<String>> {
        if let Some(listed) = scope.get("COMPOSE_FILE").filter(|listed| !listed.is_empty()) {
            let separator = scope.get("COMPOSE_PATH_SEPARATOR").filter(|text| !text.is_empty()).unwrap_or(":");
            let mut paths = Vec::new();
            for path in listed.split(separator) {
                match resolve(self.folder, path) {
                    Ok(path) => paths.push(path),
                    Err(why) => {
                        self.files.whole(&format!("{}/{}", self.folder, MAIN[0]), format!("COMPOSE_FILE: {why}"));
                        return None;
                    }
                }
            }
            return Some(paths);
        }
        let find = |names: &[&str]| -> Vec<String> {
            names.iter().map(|name| format!("{}/{name}", self.folder)).filter(|path| self.files.exists(path)).collect()
        };
        let (main, over) = (find(&MAIN), find(&OVER));
        let Some(first) = main.first() else {
            let message = format!("no such file: expected one of {}", MAIN.join(", "));
            self.files.whole(&format!("{}/{}", self.folder, MAIN[0]), message);
            return None;
        };
        for other in main.iter().skip(1).chain(over.iter().skip(1)) {
            let used = if main.contains(other) { first } else { &over[0] };
            self.findings.add(Finding {
                path: other.clone(),
                line: 1,
                column: 1,
                severity: Severity::Warning,
                message: format!("the file is ignored: {used} goes before it"),
                hint: None,
            });
        }
        Some(main.iter().take(1).chain(over.iter().take(1)).cloned().collect())
    }

    /// The last `name:` of the files. Mistakes in them are found when they are read in earnest.
    fn name(&self, paths: &[String], scope: &Rc<Scope>) -> Option<Node> {
        let (quiet, budget) = (Findings::default(), Budget::new());
        let mut name = None;
        for path in paths.iter().filter(|path| self.files.exists(path)) {
            let files = Files::new(self.files.tree(), &quiet);
            let text = files.text(path, None)?;
            let source =
                Rc::new(Source { path: path.clone(), dir: self.folder.to_owned(), text, scope: Rc::clone(scope) });
            for document in yaml::parse(&source, &budget).ok()? {
                if let Some(node) = document.get("name") {
                    let mut node = node.clone();
                    interpolate(&mut node, 1, self.folder, &quiet);
                    name = Some(node);
                }
            }
        }
        name.filter(|node| node.scalar().is_some_and(|scalar| !scalar.text.is_empty()))
    }

    fn source(&self, path: &str, dir: &str, scope: &Rc<Scope>, at: Option<&Place>) -> Option<Rc<Source>> {
        if !self.budget.file() {
            self.report(path, at, format!("more than {MAX_FILES} Compose files"));
            return None;
        }
        let text = self.files.text(path, at)?;
        if text.len() > MAX_COST {
            self.report(path, at, format!("larger than {} MiB", MAX_COST >> 20));
            return None;
        }
        Some(Rc::new(Source { path: path.to_owned(), dir: dir.to_owned(), text, scope: Rc::clone(scope) }))
    }

    fn report(&self, path: &str, at: Option<&Place>, message: String) {
        match at {
            Some(at) => self.findings.error(at, message),
            None => self.files.whole(path, message),
        }
    }

    /// The documents of a file, variables put in.
    fn documents(&self, source: &Rc<Source>) -> Option<Vec<Node>> {
        let mut documents = match yaml::parse(source, &self.budget) {
            Ok(documents) => documents,
            Err(finding) => {
                self.findings.add(finding);
                return None;
            }
        };
        documents.retain(|document| !document.is_null());
        for document in &mut documents {
            if !matches!(document.value, Value::Mapping(_)) {
                self.findings.error(&document.at, format!("expected a mapping, found {}", document.kind()));
                return None;
            }
            interpolate(document, 0, self.folder, self.findings);
        }
        Some(documents)
    }

    /// The files of one model, merged: an app's own, or those of one `include`.
    fn model(&self, sources: &[Rc<Source>], includes: &mut Vec<String>) -> Option<Node> {
        let mut model: Option<Node> = None;
        for source in sources {
            for document in self.documents(source)? {
                let mut document = self.extend(document, model.as_ref(), &source.path);
                self.include(&mut document, includes)?;
                model = match model {
                    None => Some(document),
                    Some(model) => merge(model, document, &[], self.findings),
                };
            }
        }
        let Some(mut model) = model else {
            if let Some(source) = sources.first() {
                self.files.whole(&source.path, "the file is empty: expected services".to_owned());
            }
            return None;
        };
        settle(&mut model);
        self.keys(&model);
        Some(model)
    }

    /// The keys at the top of a file.
    fn keys(&self, model: &Node) {
        let Some(fields) = Fields::of("", model, self.findings) else { return };
        fields.ignore("version", "it is obsolete, and says nothing");
        fields.refuse("models", "a device has no model runner", "run the model as a service of its own");
        for key in ["name", "services", "networks", "volumes", "configs", "secrets", "include"] {
            fields.entry(key);
        }
        fields.finish();
    }

    /// The document with every `extends` followed; `before` holds the services of the files before it.
    fn extend(&self, document: Node, before: Option<&Node>, path: &str) -> Node {
        let services = document.get("services").map(Node::entries).unwrap_or_default();
        if !services.iter().any(|service| service.node.get("extends").is_some()) {
            return document;
        }
        let mut followed: HashMap<String, Node> = HashMap::new();
        for service in services.iter().filter(|service| service.node.get("extends").is_some()) {
            let mut chain = vec![(path.to_owned(), service.key.clone())];
            if let Some(node) = self.follow(&service.node, &service.key, &document, before, path, &mut chain) {
                followed.insert(service.key.clone(), node);
            }
            if self.budget.exhausted() {
                break;
            }
        }
        let mut document = document;
        if let Value::Mapping(entries) = &mut document.value
            && let Some(services) = entries.iter_mut().find(|entry| entry.key == "services")
            && let Value::Mapping(services) = &mut services.node.value
        {
            for service in services {
                if let Some(node) = followed.remove(&service.key) {
                    service.node = node;
                }
            }
        }
        document
    }

    /// A service over what it extends.
    fn follow(
        &self,
        service: &Node,
        name: &str,
        document: &Node,
        before: Option<&Node>,
        path: &str,
        chain: &mut Vec<(String, String)>,
    ) -> Option<Node> {
        let Some(extends) = service.get("extends") else { return Some(service.clone()) };
        let (base_name, file, at) = self.extends(extends, name)?;
        if chain.len() > MAX_CHAIN {
            self.findings.error(&at, format!("services.{name}.extends: a chain of more than {MAX_CHAIN}"));
            return None;
        }
        let other;
        let (document, before, path) = match file {
            None => (document, before, path.to_owned()),
            Some((file, _)) if file == path => (document, before, file),
            Some((file, file_at)) => {
                other = self.other(&file, &file_at)?;
                (&*other, None, file)
            }
        };
        let find = |document: &'_ Node| document.get("services").and_then(|services| services.get(&base_name)).cloned();
        let Some(base) = find(document).or_else(|| before.and_then(find)) else {
            self.findings.error(&at, format!("services.{name}.extends: {path} has no service {base_name:?}"));
            return None;
        };
        let link = (path.clone(), base_name.clone());
        if chain.contains(&link) {
            let names: Vec<&str> = chain.iter().chain([&link]).map(|(_, name)| name.as_str()).collect();
            self.findings.error(&at, format!("services extend each other: {}", names.join(" → ")));
            return None;
        }
        chain.push(link);
        let base = self.follow(&base, &base_name, document, before, &path, chain)?;
        if !self.budget.spend(base.cost()) {
            let limit = MAX_COST >> 20;
            self.findings.error(&at, format!("services.{name}.extends: the files grow past {limit} MiB"));
            return None;
        }
        let mut own = service.clone();
        if let Value::Mapping(entries) = &mut own.value {
            entries.retain(|entry| entry.key != "extends");
        }
        merge(base, own, &["services", name], self.findings)
    }

    /// What `extends` names: the service, the file if another one, and the place of the service's name.
    #[expect(clippy::type_complexity, reason = "three parts of one answer")]
    fn extends(&self, node: &Node, name: &str) -> Option<(String, Option<(String, Place)>, Place)> {
        if let Some(scalar) = node.scalar() {
            return Some((scalar.text.clone(), None, node.at.clone()));
        }
        let fields = Fields::of(format!("services.{name}.extends"), node, self.findings)?;
        let service = fields.text("service");
        let file = fields.text("file").zip(fields.node("file"));
        let at = fields.node("service").unwrap_or(node).at.clone();
        if fields.node("service").is_none() {
            fields.error("service", &node.at, "is missing");
        }
        fields.finish();
        let file = match file {
            None => None,
            Some((text, node)) => {
                let path = resolve(&node.at.source.dir, &text);
                let path =
                    path.map_err(|why| self.findings.error(&node.at, format!("services.{name}.extends.file: {why}")));
                Some((path.ok()?, node.at.clone()))
            }
        };
        Some((service?, file, at))
    }

    /// Another file that a service extends from; its relative paths start from its own folder.
    fn other(&self, path: &str, at: &Place) -> Option<Rc<Node>> {
        let scope = &at.source.scope;
        let key = (path.to_owned(), Rc::as_ptr(scope) as usize);
        if let Some(known) = self.extended.borrow().get(&key) {
            return known.clone();
        }
        let read = self.source(path, parent(path), scope, Some(at)).and_then(|source| {
            let documents = self.documents(&source)?.into_iter();
            documents.reduce(|model, document| merge(model.clone(), document, &[], self.findings).unwrap_or(model))
        });
        let read = read.map(Rc::new);
        self.extended.borrow_mut().insert(key, read.clone());
        read
    }

    /// Takes the models that a document includes into it.
    fn include(&self, document: &mut Node, includes: &mut Vec<String>) -> Option<()> {
        let Value::Mapping(entries) = &mut document.value else { return Some(()) };
        let Some(at) = entries.iter().position(|entry| entry.key == "include") else { return Some(()) };
        let entry = entries.remove(at);
        let items = match entry.node.value {
            Value::Sequence(items) => items,
            Value::Null => Vec::new(),
            _ => {
                self.findings.error(&entry.node.at, format!("include: expected a list, found {}", entry.node.kind()));
                return None;
            }
        };
        for item in items {
            let included = self.included(&item, includes)?;
            self.import(document, included);
        }
        Some(())
    }

    fn included(&self, item: &Node, includes: &mut Vec<String>) -> Option<Node> {
        let local = |text: &str| {
            if text.contains("://") || text.starts_with("git@") || text.starts_with("oci:") {
                return Err(format!("{text:?} is not in the repository, where it could be verified"));
            }
            resolve(&item.at.source.dir, text)
        };
        let (mut paths, mut env_files, mut dir) = (Vec::new(), None, None);
        if item.scalar().is_some() {
            let path = item.scalar().map(|scalar| local(&scalar.text))?;
            paths.push(path.map_err(|why| self.findings.error(&item.at, format!("include: {why}"))).ok()?);
        } else {
            let fields = Fields::of("include", item, self.findings)?;
            let list = |key: &str| -> Option<Vec<String>> {
                let texts = fields.text_or_texts(key);
                let at = fields.node(key).map_or(&item.at, |node| &node.at);
                let mut found = Vec::new();
                for text in texts {
                    found.push(local(&text).map_err(|why| fields.error(key, at, &why)).ok()?);
                }
                Some(found)
            };
            paths = list("path")?;
            env_files = fields.node("env_file").map(|node| list("env_file").map(|files| (files, node.at.clone())));
            dir = fields.parse("project_directory", local);
            if paths.is_empty() {
                fields.error("path", &item.at, "is missing");
            }
            fields.finish();
        }
        let first = paths.first()?.clone();
        if includes.contains(&first) || includes.len() > MAX_CHAIN {
            self.findings.error(&item.at, format!("include: {} → {first} is a circle", includes.join(" → ")));
            return None;
        }
        let dir = dir.unwrap_or_else(|| parent(&first).to_owned());
        let mut scope = (*item.at.source.scope).clone();
        match env_files {
            None => scope = self.with_dotenv(&format!("{dir}/.env"), &scope, false),
            Some(files) => {
                let (files, at) = files?;
                // The later file wins, so that it goes under the variables first.
                for file in files.iter().rev() {
                    if !self.files.exists(file) {
                        self.findings.error(&at, format!("include.env_file: {file} is not in the repository"));
                        return None;
                    }
                    scope = self.with_dotenv(file, &scope, false);
                }
            }
        }
        let scope = Rc::new(scope);
        let mut sources = Vec::new();
        for path in &paths {
            sources.push(self.source(path, &dir, &scope, Some(&item.at))?);
        }
        includes.push(first);
        let model = self.model(&sources, includes);
        includes.pop();
        model
    }

    /// Adds what an included model declares; what is there already must say the same.
    fn import(&self, document: &mut Node, included: Node) {
        let (Value::Mapping(entries), Value::Mapping(included)) = (&mut document.value, included.value) else { return };
        for section in included {
            if !matches!(section.key.as_str(), "services" | "networks" | "volumes" | "configs" | "secrets") {
                continue;
            }
            let Value::Mapping(declared) = section.node.value else { continue };
            let at = match entries.iter().position(|entry| entry.key == section.key) {
                Some(at) => at,
                None => {
                    let node = Node::new(&section.at, Value::Null);
                    entries.push(Entry { key: section.key.clone(), at: section.at.clone(), node });
                    entries.len() - 1
                }
            };
            let own = &mut entries[at].node;
            if own.is_null() {
                own.value = Value::Mapping(Vec::new());
            }
            let Value::Mapping(own) = &mut own.value else { continue };
            for entry in declared {
                match own.iter().find(|known| known.key == entry.key) {
                    None => own.push(entry),
                    Some(known) if known.node.same(&entry.node) => {}
                    Some(known) => {
                        let what = format!("{}.{}", section.key, entry.key);
                        let other = format!("{}:{}", entry.at.source.path, entry.at.line);
                        let hint = "change what is included in an override file, or in a second path of the include";
                        self.findings.hint(
                            &known.at,
                            format!("{what}: {other}, which is included, declares it, too"),
                            hint,
                        );
                    }
                }
            }
        }
    }
}

/// The profiles that are active, from `COMPOSE_PROFILES`.
pub(super) fn active(scope: &Scope) -> Vec<String> {
    let listed = scope.get("COMPOSE_PROFILES").unwrap_or_default().split(',');
    listed.map(str::trim).filter(|profile| !profile.is_empty()).map(str::to_owned).collect()
}
