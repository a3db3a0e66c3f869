//! Listings, page by page and item by item: no page is ever in memory as a
//! whole. One that is not whole is an error, never an end.

use serde_json::Value;

use super::discovery::Resource;
use super::error::ApiError;
use super::items::{Items, NoList};
use super::meta::Meta;
use super::transport::{Request, unreachable};
use super::{Api, LARGEST};

/// Objects to a page.
const PAGE: usize = 200;
/// A listing that is overtaken again and again is given up.
const RESTARTS: u32 = 3;
const METAS: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

/// Takes an item; `None`: the listing begins anew, and what came is void.
type Take<'a> = dyn FnMut(Option<&[u8]>) -> Result<(), serde_json::Error> + Send + 'a;

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
        let mut take = |item: Option<&[u8]>| {
            match item {
                Some(item) => all.push(serde_json::from_slice(item)?),
                None => all.clear(),
            }
            Ok(())
        };
        let version = self.pages(resource, namespace, selector, METAS, &mut take).await?;
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
        let mut take = |item: Option<Value>| match item {
            Some(item) => all.push(item),
            None => all.clear(),
        };
        self.each(resource, namespace, selector, &mut take).await?;
        Ok(all)
    }

    /// The same, handed out one by one; `None` where the listing begins anew and
    /// what came is void. Only `Ok` says that these were all.
    ///
    /// # Errors
    /// When any page can't be had whole.
    pub async fn each(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        selector: &str,
        take: &mut (dyn FnMut(Option<Value>) + Send),
    ) -> Result<(), ApiError> {
        let mut take = |item: Option<&[u8]>| {
            take(match item {
                Some(item) => Some(whole(resource, serde_json::from_slice(item)?)),
                None => None,
            });
            Ok(())
        };
        self.pages(resource, namespace, selector, "application/json", &mut take).await.map(drop)
    }

    async fn pages(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        selector: &str,
        accept: &'static str,
        take: &mut Take<'_>,
    ) -> Result<String, ApiError> {
        let base = format!("{}?limit={PAGE}&labelSelector={}", resource.path(namespace, None), encoded(selector));
        let unreadable =
            |cause: String| ApiError::Unreadable { cause: format!("the list of {}: {cause}", resource.kind) };
        let server = self.connect()?.server;
        let mut next = String::new();
        let mut restarts = 0;
        loop {
            let path = if next.is_empty() { base.clone() } else { format!("{base}&continue={}", encoded(&next)) };
            let mut response = match self.send(&Request { accept, ..Request::get(&path) }).await {
                Ok(response) => response,
                // The server forgot the version that the first page was of.
                Err(error) if error.is_gone() && !next.is_empty() && restarts < RESTARTS => {
                    restarts += 1;
                    next.clear();
                    // Nothing is read of it, so nothing can fail.
                    let _ = take(None);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut items = Items::default();
            let mut each = |item: &[u8]| take(Some(item)).map_err(|error| NoList::Item(error.to_string()));
            let mut read = 0;
            while let Some(piece) = response.chunk().await.map_err(|error| unreachable(&server, error))? {
                read += piece.len();
                if read > LARGEST {
                    return Err(unreadable(format!("a page is larger than {} MiB", LARGEST >> 20)));
                }
                items.feed(&piece, &mut each).map_err(|cause| unreadable(cause.to_string()))?;
            }
            let around = items.end().map_err(|cause| unreadable(cause.to_string()))?;
            if around.metadata.next.is_empty() {
                if around.metadata.resource_version.is_empty() {
                    return Err(unreadable("it has no version".to_owned()));
                }
                return Ok(around.metadata.resource_version);
            }
            if around.metadata.next == next {
                return Err(unreadable("its next page is the same page".to_owned()));
            }
            next = around.metadata.next;
        }
    }
}

/// With kind and version, which the server leaves out of lists.
fn whole(resource: &Resource, mut object: Value) -> Value {
    if let Some(map) = object.as_object_mut() {
        map.insert("kind".to_owned(), resource.kind.kind.as_str().into());
        map.insert("apiVersion".to_owned(), resource.api_version.as_str().into());
    }
    object
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
    use super::encoded;

    #[test]
    fn queries() {
        assert_eq!(encoded("a=b,c in (d)"), "a%3Db%2Cc%20in%20%28d%29");
    }
}
