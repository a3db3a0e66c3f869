//! Listings, page by page. A page that is not whole is an error, never an end.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::discovery::Resource;
use super::error::ApiError;
use super::meta::Meta;
use super::{Api, Request};

/// Objects to a page: a thousand must not lie in memory twice.
const PAGE: usize = 200;
/// A listing that is overtaken again and again is given up.
const RESTARTS: u32 = 3;
const METAS: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
struct Page<T> {
    metadata: PageMeta,
    /// Absent is not empty: an empty listing says so, with `[]` or `null`.
    #[serde(default, deserialize_with = "said")]
    items: Option<Vec<T>>,
}

fn said<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<Vec<T>>, D::Error> {
    Option::<Vec<T>>::deserialize(deserializer).map(|items| Some(items.unwrap_or_default()))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMeta {
    #[serde(default)]
    resource_version: String,
    #[serde(default, rename = "continue")]
    next: Option<String>,
}

impl Api {
    /// The metadata of all objects of a kind (of a namespace, where one is
    /// given) that a label selector matches, and the version to watch from.
    ///
    /// # Errors
    /// When any page can't be had whole.
    pub async fn list_meta(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        selector: &str,
    ) -> Result<(Vec<Meta>, String), ApiError> {
        let mut all = Vec::new();
        let version = self.pages(resource, namespace, selector, METAS, &mut all).await?;
        Ok((all, version))
    }

    /// The same, whole objects.
    ///
    /// # Errors
    /// When any page can't be had whole.
    pub async fn list(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        selector: &str,
    ) -> Result<Vec<Value>, ApiError> {
        let mut all = Vec::new();
        self.pages(resource, namespace, selector, "application/json", &mut all).await?;
        Ok(all)
    }

    async fn pages<T: DeserializeOwned>(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        selector: &str,
        accept: &'static str,
        all: &mut Vec<T>,
    ) -> Result<String, ApiError> {
        let base = format!("{}?limit={PAGE}&labelSelector={}", resource.path(namespace, None), encoded(selector));
        let mut next: Option<String> = None;
        let mut restarts = 0;
        loop {
            let path = match &next {
                Some(next) => format!("{base}&continue={}", encoded(next)),
                None => base.clone(),
            };
            let page: Page<T> = match self.json(Request { accept, ..Request::get(&path) }).await {
                Ok(page) => page,
                // The server forgot the version that the first page was of.
                Err(error) if error.is_gone() && next.is_some() && restarts < RESTARTS => {
                    restarts += 1;
                    next = None;
                    all.clear();
                    continue;
                }
                Err(error) => return Err(error),
            };
            let Some(items) = page.items else {
                return Err(ApiError::Unreadable { cause: format!("the list of {} has no items", resource.kind) });
            };
            all.extend(items);
            match page.metadata.next.filter(|token| !token.is_empty()) {
                Some(token) => next = Some(token),
                None if page.metadata.resource_version.is_empty() => {
                    return Err(ApiError::Unreadable {
                        cause: format!("the list of {} has no version", resource.kind),
                    });
                }
                None => return Ok(page.metadata.resource_version),
            }
        }
    }
}

/// For a query: everything but letters, digits and a few marks as `%XX`.
pub(super) fn encoded(text: &str) -> String {
    let mut query = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            query.push(char::from(byte));
        } else {
            query.push_str(&format!("%{byte:02X}"));
        }
    }
    query
}

#[cfg(test)]
mod tests {
    use super::{Page, encoded};

    #[test]
    fn absent_is_not_empty() {
        let items = |text: &str| serde_json::from_str::<Page<u8>>(text).unwrap().items;
        assert_eq!(items(r#"{"metadata":{},"items":[1]}"#), Some(vec![1]));
        assert_eq!(items(r#"{"metadata":{},"items":null}"#), Some(vec![]));
        assert_eq!(items(r#"{"metadata":{}}"#), None);
        assert!(serde_json::from_str::<Page<u8>>("{}").is_err());
        assert_eq!(encoded("a=b,c in (d)"), "a%3Db%2Cc%20in%20%28d%29");
    }
}
