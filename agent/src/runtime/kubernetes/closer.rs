//! A closer look at objects whose own word is not enough: a listing where they
//! are many, and the server's word on what applying would change.

use std::collections::BTreeMap;

use fleet::desired::DesiredApp;
use fleet::kubernetes::{Kind, ObjectId};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;

use super::AT_ONCE;
use super::api::{ApiError, Meta};
use super::differences::{FieldDifference, differences};
use super::ignore::transplant;
use super::managed::owner_of_field;
use super::objects::{self, Wanted};
use super::observe::{LISTED, Sight};
use super::owner::{APP, FLEET};
use super::plan::Standing;
use crate::ports::runtime::{RuntimeError, Task};

/// More differences are counted, not named.
const NAMED: usize = 4;

impl Sight<'_> {
    /// Where an object's own word is not enough, the server says what applying
    /// would change; and what drift may change is taken over as it is.
    pub(super) async fn verify(
        &self,
        task: &Task<'_>,
        app: &DesiredApp,
        wanted: &mut [Wanted],
        standing: &mut [Standing],
    ) -> Result<(), RuntimeError> {
        let ignore = &app.drift.ignore;
        let looked_at = |standing: &Standing| match standing {
            Standing::Differs(..) | Standing::Adopted(_) if !ignore.is_empty() => true,
            other => is_unsure(other),
        };
        let places: BTreeMap<ObjectId, usize> =
            (0..wanted.len()).filter(|at| looked_at(&standing[*at])).map(|at| (wanted[at].id.clone(), at)).collect();
        let mut alive = self.listed(task, wanted, standing, ignore, &places).await?;
        let looks: Vec<_> = places
            .into_values()
            .filter(|at| !matches!(standing[*at], Standing::Same))
            .map(|at| self.look(at, &wanted[at], alive.remove(&at), is_unsure(&standing[at]), ignore))
            .collect();
        let looked: Vec<_> = stream::iter(looks).buffer_unordered(AT_ONCE).try_collect().await?;
        for (at, look) in looked {
            match look {
                Look::Gone => standing[at] = Standing::Missing,
                Look::Sure(object) => wanted[at].object = object,
                Look::Tried(_, live, _) if matches!(&standing[at], Standing::Differs(meta, _) if meta.uid != live.uid) =>
                {
                    // It is not the one that was judged.
                    return Err(RuntimeError::Changed { object: objects::named(&wanted[at].id) });
                }
                Look::Tried(object, live, differs) => {
                    wanted[at].object = object;
                    if differs.is_empty() {
                        self.prints.keep(&wanted[at].id, &live);
                        standing[at] = Standing::Same;
                    } else {
                        standing[at] = Standing::Differs(*live, differs.join("; "));
                    }
                }
            }
        }
        Ok(())
    }

    /// Lists the kinds of which many objects are to be looked at, instead of
    /// asking for each. One that bears all that is wanted of it is as it should
    /// be: its digest says that it was applied, so that nothing is to be taken
    /// away either. The others, by place.
    async fn listed(
        &self,
        task: &Task<'_>,
        wanted: &[Wanted],
        standing: &mut [Standing],
        ignore: &[String],
        places: &BTreeMap<ObjectId, usize>,
    ) -> Result<BTreeMap<usize, Value>, RuntimeError> {
        let mut kinds: BTreeMap<&Kind, Vec<usize>> = BTreeMap::new();
        for at in places.values().filter(|at| is_unsure(&standing[**at])) {
            kinds.entry(&wanted[*at].id.kind).or_default().push(*at);
        }
        kinds.retain(|_, several| several.len() >= LISTED);
        let selector = format!("{FLEET}={},{APP}={}", task.fleet, task.app);
        let mut rest = BTreeMap::new();
        for (kind, several) in kinds {
            let resource = &wanted[several[0]].resource;
            let mut same: BTreeMap<usize, Meta> = BTreeMap::new();
            let mut others: BTreeMap<usize, Value> = BTreeMap::new();
            let mut take = |live: Option<Value>| {
                let Some(live) = live else {
                    same.clear();
                    others.clear();
                    return;
                };
                let Some(at) = places.get(&objects::id_in(resource, &live)) else { return };
                let mut object = wanted[*at].object.clone();
                transplant(&mut object, &live, ignore);
                match Meta::of(&live) {
                    Ok(meta) if bears(&live, &object) => drop(same.insert(*at, meta)),
                    _ => drop(others.insert(*at, live)),
                }
            };
            let list = self.api.each(resource, None, &selector, &mut take).await;
            list.map_err(|error| error.reading(&format!("the list of {kind}")))?;
            for (at, live) in same {
                // What it was when it was judged may be over.
                if matches!(&standing[at], Standing::Differs(meta, _) if meta.uid == live.uid) {
                    self.prints.keep(&wanted[at].id, &live);
                    standing[at] = Standing::Same;
                }
            }
            rest.extend(others);
        }
        Ok(rest)
    }

    /// Tries what applying would change; `live` is the object, where it was read.
    async fn look(
        &self,
        at: usize,
        it: &Wanted,
        live: Option<Value>,
        unsure: bool,
        ignore: &[String],
    ) -> Result<(usize, Look), RuntimeError> {
        let reading = |error: ApiError| error.reading(&it.id.to_string());
        let namespace = it.id.namespace.as_deref();
        let live = match live {
            Some(live) => Some(live),
            None => self.api.get(&it.resource, namespace, &it.id.name).await.map_err(reading)?,
        };
        let Some(live) = live else { return Ok((at, Look::Gone)) };
        let mut object = it.object.clone();
        transplant(&mut object, &live, ignore);
        if !unsure {
            return Ok((at, Look::Sure(object)));
        }
        let body = object.to_string();
        let tried = self.api.apply(&it.resource, namespace, &it.id.name, body.as_bytes(), true).await;
        let differs = match tried {
            Ok(applied) => words(&differences(&applied, &live), &live),
            // It can't be applied as it is (a field that became immutable): it differs, then.
            Err(error) if error.status() == Some(422) => vec![error.to_string()],
            Err(error) => return Err(reading(error)),
        };
        let meta = Meta::of(&live)
            .map_err(|error| RuntimeError::Observe { what: it.id.to_string(), source: Box::new(error) })?;
        Ok((at, Look::Tried(object, Box::new(meta), differs)))
    }
}

/// What a closer look at an object came to.
enum Look {
    Gone,
    /// As it is applied, with what drift may change; that it differs was known.
    Sure(Value),
    /// The same; how the object is, and in what it differs.
    Tried(Value, Box<Meta>, Vec<String>),
}

/// Ours by its marks, but somebody may have changed a field.
fn is_unsure(standing: &Standing) -> bool {
    matches!(standing, Standing::Differs(_, why) if why.is_empty())
}

/// Whether an object has every field that is wanted of it, with that very
/// value. Where it doesn't, it may still be the same to the server (`1000m` is
/// `1`), which is asked, then.
fn bears(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| live.get(key).is_some_and(|live| bears(live, value)))
        }
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| bears(live, wanted))
        }
        (live, wanted) => live == wanted,
    }
}

/// What differs, and by whom, in a few words.
fn words(differences: &[FieldDifference], live: &Value) -> Vec<String> {
    let managers = &live["metadata"]["managedFields"];
    let said = differences.iter().take(NAMED).map(|it| match owner_of_field(managers, &it.path) {
        Some(manager) => format!("{it}, by {manager}"),
        None => it.to_string(),
    });
    let more = differences.len().saturating_sub(NAMED);
    said.chain((more > 0).then(|| format!("{more} more"))).collect()
}

#[cfg(test)]
mod tests {
    use super::bears;
    use serde_json::json;

    #[test]
    fn what_is_wanted_and_more() {
        let live = json!({"a": {"b": 1, "c": "x"}, "l": [{"n": 1, "d": 2}], "e": {}});
        for (wanted, want) in [
            (json!({"a": {"b": 1}}), true),
            (json!({"l": [{"n": 1}], "e": {}}), true),
            (json!({"a": {"b": 2}}), false),
            (json!({"a": {"z": 1}}), false),
            (json!({"z": null}), false),
            (json!({"l": []}), false),
            (json!({"l": [{"n": 1}, {"n": 2}]}), false),
            (json!({"a": {"b": "1"}}), false),
        ] {
            assert_eq!(bears(&live, &wanted), want, "{wanted}");
        }
    }
}
