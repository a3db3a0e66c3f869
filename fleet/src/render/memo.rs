//! Apps that were rendered already, for callers that render for many devices.
//!
//! Two devices get the same app when the variables that its files speak of
//! are the same; `BURGEE_DEVICE` alone would otherwise make every device
//! another case. An app whose files reach out of its folder counts with all
//! its variables.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::RenderedApp;
use crate::finding::Finding;
use crate::name::AppName;
use crate::repo::below;
use crate::tree::Tree;
use crate::vars::Scope;

type Key = (AppName, Vec<(String, String)>);
type Outcome = Result<RenderedApp, Vec<Finding>>;

/// What was rendered, by app and variables.
#[derive(Clone, Default)]
pub(crate) struct Memo {
    texts: RefCell<BTreeMap<AppName, Texts>>,
    rendered: RefCell<BTreeMap<Key, Outcome>>,
}

/// The files of an app, as far as they are text.
#[derive(Clone)]
struct Texts {
    whole: String,
    reaches_out: bool,
    named: BTreeMap<String, bool>,
}

impl Memo {
    /// The app with these variables, rendered by `render` where it was not before.
    pub(super) fn get(
        &self,
        tree: &dyn Tree,
        app: &AppName,
        scope: &Scope,
        render: impl FnOnce() -> Outcome,
    ) -> Outcome {
        let key = (app.clone(), self.variables(tree, app, scope));
        if let Some(outcome) = self.rendered.borrow().get(&key) {
            return outcome.clone();
        }
        let outcome = render();
        self.rendered.borrow_mut().insert(key, outcome.clone());
        outcome
    }

    /// The variables that the app's files may speak of.
    fn variables(&self, tree: &dyn Tree, app: &AppName, scope: &Scope) -> Vec<(String, String)> {
        let mut texts = self.texts.borrow_mut();
        let texts = texts.entry(app.clone()).or_insert_with(|| Texts::of(tree, app));
        scope
            .iter()
            .filter(|(name, _)| texts.speak_of(name))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }
}

impl Texts {
    fn of(tree: &dyn Tree, app: &AppName) -> Self {
        let mut whole = String::new();
        for path in below(tree, &format!("apps/{app}")) {
            // What can't be read is an error when it is rendered; nothing is decided here.
            if let Ok(bytes) = tree.read(path) {
                whole.push_str(&String::from_utf8_lossy(&bytes));
                whole.push('\n');
            }
        }
        let reaches_out = whole.contains("../");
        Self { whole, reaches_out, named: BTreeMap::new() }
    }

    /// Whether a variable can make a difference: its name stands somewhere, with a dollar sign or without (an
    /// environment that passes it on), or Compose itself reads it.
    fn speak_of(&mut self, name: &str) -> bool {
        if self.reaches_out || name.starts_with("COMPOSE_") {
            return true;
        }
        if let Some(known) = self.named.get(name) {
            return *known;
        }
        let found = self.whole.contains(name);
        self.named.insert(name.to_owned(), found);
        found
    }
}
