//! What the server has of ours: listed once, then kept by a watch for each
//! kind, so that a compare with nothing to do asks nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleet::kubernetes::{Kind, ObjectId};
use fleet::name::{AppName, FleetName};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::api::{Api, ApiError, Meta, Resource, Watch, WatchEvent};
use super::owner::FLEET;
use crate::ports::runtime::Change;
use crate::retry::Backoff;

/// Between tries to list and watch again.
const AGAIN: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(60) };

/// A watch that ended sooner is not begun again at once.
const LASTED: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct Cache {
    shared: Arc<Shared>,
    /// Who lists a kind and begins to watch it: several apps that find it cold
    /// at the same time would each have a watch of their own, one of them known.
    following: tokio::sync::Mutex<()>,
    watches: Mutex<BTreeMap<Kind, JoinHandle<()>>>,
    /// Which kinds each app has; a kind that none has is no longer watched.
    used: Mutex<BTreeMap<AppName, BTreeSet<Kind>>>,
}

struct Shared {
    kinds: Mutex<BTreeMap<Kind, Tracked>>,
    /// Something of an object that matters to a compare.
    changed: Notify,
    /// Something else of it: its status, as a rule, and that all the time.
    stirred: Notify,
}

#[derive(Default)]
struct Tracked {
    objects: BTreeMap<ObjectId, Meta>,
    /// The watch is up to date; else what is here may be old.
    warm: bool,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self {
            shared: Arc::new(Shared { kinds: Mutex::default(), changed: Notify::new(), stirred: Notify::new() }),
            following: tokio::sync::Mutex::default(),
            watches: Mutex::default(),
            used: Mutex::default(),
        }
    }

    /// Has every kind's objects of this fleet at hand, and watches them.
    ///
    /// # Errors
    /// When a listing is not whole.
    pub(super) async fn follow(
        &self,
        api: &Arc<Api>,
        fleet: &FleetName,
        resources: &[Resource],
    ) -> Result<(), ApiError> {
        let selector = format!("{FLEET}={fleet}");
        if resources.iter().all(|resource| self.shared.is_warm(&resource.kind)) {
            return Ok(());
        }
        let _alone = self.following.lock().await;
        for resource in resources {
            if self.shared.is_warm(&resource.kind) {
                continue;
            }
            self.stop(&resource.kind);
            let (objects, version) = self.shared.listed(api, resource, &selector).await?;
            self.shared.fill(resource, objects);
            let (api, shared, resource, selector) =
                (Arc::clone(api), Arc::clone(&self.shared), resource.clone(), selector.clone());
            let kind = resource.kind.clone();
            let watching = tokio::spawn(async move { shared.keep(&api, &resource, &selector, version).await });
            let before = self.watches.lock().unwrap_or_else(PoisonError::into_inner).insert(kind, watching);
            // A task goes on when its handle is dropped.
            before.iter().for_each(JoinHandle::abort);
        }
        Ok(())
    }

    /// Notes which kinds an app has, and lets go of those that none has.
    pub(super) fn uses(&self, app: &AppName, kinds: BTreeSet<Kind>) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if kinds.is_empty() {
            used.remove(app);
        } else {
            used.insert(app.clone(), kinds);
        }
        self.stop_idle(&used);
    }

    /// Lets go of apps that nobody needs any more.
    pub(super) fn retain(&self, needed: &BTreeSet<&AppName>) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.retain(|app, _| needed.contains(app));
        self.stop_idle(&used);
    }

    fn stop_idle(&self, used: &BTreeMap<AppName, BTreeSet<Kind>>) {
        let all: BTreeSet<&Kind> = used.values().flatten().collect();
        let idle: Vec<Kind> = {
            let watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
            watches.keys().filter(|kind| !all.contains(kind)).cloned().collect()
        };
        idle.iter().for_each(|kind| self.stop(kind));
    }

    fn stop(&self, kind: &Kind) {
        if let Some(watching) = self.watches.lock().unwrap_or_else(PoisonError::into_inner).remove(kind) {
            watching.abort();
        }
        if let Some(tracked) = self.shared.kinds.lock().unwrap_or_else(PoisonError::into_inner).get_mut(kind) {
            tracked.warm = false;
        }
    }

    /// One of ours, as it was last seen.
    pub(super) fn get(&self, id: &ObjectId) -> Option<Meta> {
        let kinds = self.shared.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.get(&id.kind)?.objects.get(id).cloned()
    }

    /// What a write of ours came to: the watch tells it later, too.
    pub(super) fn put(&self, id: &ObjectId, meta: Meta) {
        let mut kinds = self.shared.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.entry(id.kind.clone()).or_default().insert(id.clone(), meta);
    }

    /// It is gone.
    pub(super) fn remove(&self, id: &ObjectId) {
        let mut kinds = self.shared.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tracked) = kinds.get_mut(&id.kind) {
            tracked.objects.remove(id);
        }
    }

    /// Resolves when a watch told something, or began anew.
    pub(super) async fn changed(&self) -> Change {
        tokio::select! {
            biased;
            () = self.shared.changed.notified() => Change::Object,
            () = self.shared.stirred.notified() => Change::State,
        }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        let watches = self.watches.get_mut().unwrap_or_else(PoisonError::into_inner);
        watches.values().for_each(JoinHandle::abort);
    }
}

impl Shared {
    fn is_warm(&self, kind: &Kind) -> bool {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner).get(kind).is_some_and(|tracked| tracked.warm)
    }

    fn set_cold(&self, kind: &Kind) {
        if let Some(tracked) = self.kinds.lock().unwrap_or_else(PoisonError::into_inner).get_mut(kind) {
            tracked.warm = false;
        }
    }

    fn fill(&self, resource: &Resource, objects: Vec<Meta>) {
        let objects = objects.into_iter().map(|meta| (id_of(resource, &meta), meta)).collect();
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.insert(resource.kind.clone(), Tracked { objects, warm: true });
    }

    async fn listed(&self, api: &Api, resource: &Resource, selector: &str) -> Result<(Vec<Meta>, String), ApiError> {
        let (objects, version) = api.list_meta(resource, None, selector).await?;
        self.suspect_nothing(api, resource, &objects).await?;
        Ok((objects, version))
    }

    /// An empty answer where objects are known is asked after: a server that
    /// has lost its sight must not look like one that has nothing.
    async fn suspect_nothing(&self, api: &Api, resource: &Resource, objects: &[Meta]) -> Result<(), ApiError> {
        if !objects.is_empty() {
            return Ok(());
        }
        let known = {
            let kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
            kinds.get(&resource.kind).and_then(|tracked| tracked.objects.keys().next().cloned())
        };
        let Some(id) = known else { return Ok(()) };
        match api.get_meta(resource, id.namespace.as_deref(), &id.name).await? {
            None => Ok(()),
            Some(meta) if !meta.labels.contains_key(FLEET) => Ok(()),
            Some(_) => {
                Err(ApiError::Unreadable { cause: format!("its list of {} is empty, and {id} exists", resource.kind) })
            }
        }
    }

    /// Watches for as long as it is let; lists anew where it lost the thread.
    async fn keep(&self, api: &Api, resource: &Resource, selector: &str, mut version: String) {
        let mut failures = 0;
        loop {
            let mut lasted = false;
            let ended = match api.watch(resource, selector, &version).await {
                Ok(watch) => {
                    let began = Instant::now();
                    let ended = self.hear(watch, resource, &mut version).await;
                    lasted = began.elapsed() > LASTED;
                    ended
                }
                // However long it took to fail: a watch that never began told nothing.
                Err(error) => Err(error),
            };
            if lasted {
                failures = 0;
            }
            match ended {
                // On from where it ended; at once only if it lasted.
                Ok(()) if lasted => {}
                Ok(()) => {
                    failures += 1;
                    tokio::time::sleep(AGAIN.delay(failures, 0)).await;
                }
                Err(error) => {
                    tracing::debug!(kind = %resource.kind, %error, "a watch broke off");
                    failures += 1;
                    if error.is_gone() || failures > 1 {
                        self.set_cold(&resource.kind);
                        // Whoever compares next finds it cold and lists; until then this waits.
                        tokio::time::sleep(AGAIN.delay(failures, 0)).await;
                        match self.listed(api, resource, selector).await {
                            Ok((objects, listed)) => {
                                self.fill(resource, objects);
                                version = listed;
                                self.changed.notify_one();
                            }
                            Err(error) => tracing::debug!(kind = %resource.kind, %error, "a kind can't be listed anew"),
                        }
                    } else {
                        tokio::time::sleep(AGAIN.delay(failures, 0)).await;
                    }
                }
            }
        }
    }

    async fn hear(&self, mut watch: Watch, resource: &Resource, version: &mut String) -> Result<(), ApiError> {
        while let Some(event) = watch.next().await? {
            let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
            let tracked = kinds.entry(resource.kind.clone()).or_default();
            let mut news = &self.changed;
            match event {
                WatchEvent::Bookmark(at) => {
                    *version = at;
                    continue;
                }
                WatchEvent::Applied(meta) => {
                    version.clone_from(&meta.resource_version);
                    let id = id_of(resource, &meta);
                    if tracked.objects.get(&id).is_some_and(|known| is_same(known, &meta)) {
                        news = &self.stirred;
                    }
                    tracked.insert(id, meta);
                }
                WatchEvent::Deleted(meta) => {
                    version.clone_from(&meta.resource_version);
                    let id = id_of(resource, &meta);
                    // One that was made anew under the name is not the one that went.
                    if tracked.objects.get(&id).is_some_and(|now| now.uid == meta.uid) {
                        tracked.objects.remove(&id);
                    }
                }
            }
            drop(kinds);
            news.notify_one();
        }
        Ok(())
    }
}

impl Tracked {
    /// An older word does not replace a newer one: a watch may tell late what a
    /// write has answered already.
    fn insert(&mut self, id: ObjectId, meta: Meta) {
        let number = |meta: &Meta| meta.resource_version.parse::<u64>().ok();
        let older = self.objects.get(&id).is_some_and(|known| {
            known.uid == meta.uid && number(known).zip(number(&meta)).is_some_and(|(known, new)| new < known)
        });
        if !older {
            self.objects.insert(id, meta);
        }
    }
}

/// Whether two words on an object say the same to a compare. What the fields
/// are that were applied, `print` says: who changes one takes it.
fn is_same(known: &Meta, new: &Meta) -> bool {
    known.uid == new.uid
        && known.labels == new.labels
        && known.annotations == new.annotations
        && known.owners == new.owners
        && known.is_deleting == new.is_deleting
        && known.print == new.print
}

fn id_of(resource: &Resource, meta: &Meta) -> ObjectId {
    ObjectId { kind: resource.kind.clone(), namespace: meta.namespace.clone(), name: meta.name.clone() }
}

#[cfg(test)]
mod tests {
    use fleet::kubernetes::{Kind, ObjectId};

    use super::super::api::Owned;
    use super::{Meta, Tracked, is_same};

    #[test]
    fn status_alone_is_no_change_of_the_object() {
        let known = Meta { uid: "u".to_owned(), print: Some([1; 16]), ..Meta::default() };
        let map = || [("a".to_owned(), "b".to_owned())].into();
        let owner = Owned { kind: Kind::of("v1", "Node"), name: "n".to_owned(), uid: "n".to_owned() };
        let cases = [
            (
                "its version and a manager",
                Meta { resource_version: "9".to_owned(), managers: vec!["k".to_owned()], ..known.clone() },
                true,
            ),
            ("another object", Meta { uid: "v".to_owned(), ..known.clone() }, false),
            ("a label", Meta { labels: map(), ..known.clone() }, false),
            ("an annotation", Meta { annotations: map(), ..known.clone() }, false),
            ("an owner", Meta { owners: vec![owner], ..known.clone() }, false),
            ("on its way out", Meta { is_deleting: true, ..known.clone() }, false),
            ("a field of ours", Meta { print: Some([2; 16]), ..known.clone() }, false),
        ];
        for (name, new, same) in cases {
            assert_eq!(is_same(&known, &new), same, "{name}");
        }
    }

    #[test]
    fn a_late_word_is_no_news() {
        let id = ObjectId { kind: Kind::of("v1", "ConfigMap"), namespace: None, name: "a".to_owned() };
        let meta = |uid: &str, version: &str| Meta {
            uid: uid.to_owned(),
            resource_version: version.to_owned(),
            ..Meta::default()
        };
        let mut tracked = Tracked::default();
        tracked.insert(id.clone(), meta("u", "10"));
        tracked.insert(id.clone(), meta("u", "9"));
        assert_eq!(tracked.objects[&id].resource_version, "10");
        tracked.insert(id.clone(), meta("other", "9"));
        assert_eq!(tracked.objects[&id].uid, "other");
        tracked.insert(id.clone(), meta("other", "11"));
        assert_eq!(tracked.objects[&id].resource_version, "11");
    }
}
