//! Git's smart HTTP over the one asynchronous client of the agent.
//!
//! gix reads and writes synchronously, on a blocking thread; each read waits
//! for the next chunk through the [`Meter`]. gix's own reqwest backend is not
//! used: it neither takes a proxy, a CA or time-outs, nor can it be stopped.

use std::io::{self, BufReader, Cursor, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf as _, Bytes};
use gix::protocol::transport::client::AuthenticationRequired;
use gix::protocol::transport::client::blocking_io::http::{GetResponse, Http, PostBodyDataKind, PostResponse};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Client, Method, Response, StatusCode, Url};
use tokio::runtime::Handle;

use super::meter::{Failure, Meter};

const ADVERTISEMENT: &str = "/info/refs?service=git-upload-pack";

/// One fetch's HTTP requests.
pub(super) struct AgentHttp {
    pub(super) client: Client,
    pub(super) runtime: Handle,
    pub(super) meter: Arc<Meter>,
    /// The whole `Authorization` header; sent to the configured origin alone.
    pub(super) authorization: Option<HeaderValue>,
    pub(super) origin: reqwest::Url,
    /// Where the repository turned out to be.
    pub(super) moved_to: Option<String>,
}

impl AgentHttp {
    fn send(&self, method: Method, url: &str, headers: HeaderMap, body: Vec<u8>) -> io::Result<Response> {
        let mut request = self.client.request(method, url).headers(headers).body(body);
        let same_origin = Url::parse(url).is_ok_and(|url| url.origin() == self.origin.origin());
        if let (Some(value), true) = (&self.authorization, same_origin) {
            request = request.header(AUTHORIZATION, value);
        }
        let response = self.runtime.block_on(self.meter.watch(request.send()))?;
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED {
            self.meter.fail(Failure::Status { code: 401, location: None });
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, AuthenticationRequired::default()));
        }
        if !status.is_success() {
            let location = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).map(str::to_owned);
            return Err(self.meter.fail(Failure::Status { code: status.as_u16(), location }));
        }
        Ok(response)
    }

    fn body(&self, response: Response) -> Body {
        Body { response, chunk: Bytes::new(), runtime: self.runtime.clone(), meter: Arc::clone(&self.meter) }
    }
}

fn headers(lines: impl IntoIterator<Item = impl AsRef<str>>) -> HeaderMap {
    lines
        .into_iter()
        .filter_map(|line| {
            let (name, value) = line.as_ref().split_once(':')?;
            Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value.trim()).ok()?))
        })
        .collect()
}

/// The answer's headers as gix reads them.
fn header_lines(response: &Response) -> Vec<u8> {
    let mut lines = Vec::new();
    for (name, value) in response.headers() {
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.push(b':');
        lines.extend_from_slice(value.as_bytes());
        lines.push(b'\n');
    }
    lines
}

impl Http for AgentHttp {
    type Headers = BufReader<Headers>;
    type ResponseBody = BufReader<PostedBody>;
    type PostBody = PostBody;

    fn get(
        &mut self,
        url: &str,
        _base_url: &str,
        lines: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> gix::Result<GetResponse<Self::Headers, Self::ResponseBody>> {
        let response = self.send(Method::GET, url, headers(lines), Vec::new()).map_err(gix::Error::from_error)?;
        if response.url().as_str() != url {
            self.moved_to = moved(response.url());
        }
        let head = Headers::Ready(Cursor::new(header_lines(&response)));
        Ok(GetResponse { headers: BufReader::new(head), body: BufReader::new(PostedBody::Ready(self.body(response))) })
    }

    fn post(
        &mut self,
        url: &str,
        _base_url: &str,
        lines: impl IntoIterator<Item = impl AsRef<str>>,
        _body: PostBodyDataKind,
    ) -> gix::Result<PostResponse<Self::Headers, Self::ResponseBody, Self::PostBody>> {
        // gix writes the body after this call, drops the writer, and only then
        // reads: the first read of the headers sends the request.
        let exchange = Arc::new(Mutex::new(Exchange {
            http: Self {
                client: self.client.clone(),
                runtime: self.runtime.clone(),
                meter: Arc::clone(&self.meter),
                authorization: self.authorization.clone(),
                origin: self.origin.clone(),
                moved_to: self.moved_to.clone(),
            },
            url: url.to_owned(),
            headers: headers(lines),
            posted: Vec::new(),
            answer: None,
        }));
        Ok(PostResponse {
            post_body: PostBody(Arc::clone(&exchange)),
            headers: BufReader::new(Headers::Posted(Arc::clone(&exchange))),
            body: BufReader::new(PostedBody::Posted(exchange)),
        })
    }

    fn configure(&mut self, _config: &dyn std::any::Any) -> gix::Result {
        Ok(())
    }

    fn redirected_base_url(&self) -> Option<String> {
        self.moved_to.clone()
    }
}

/// The repository's address, from where its advertisement was found.
fn moved(url: &Url) -> Option<String> {
    url.as_str().strip_suffix(ADVERTISEMENT).map(str::to_owned)
}

/// A POST on its way.
pub(super) struct Exchange {
    http: AgentHttp,
    url: String,
    headers: HeaderMap,
    posted: Vec<u8>,
    answer: Option<Answer>,
}

struct Answer {
    head: Cursor<Vec<u8>>,
    body: Body,
}

impl Exchange {
    fn answer(&mut self) -> io::Result<&mut Answer> {
        if self.answer.is_none() {
            let (headers, posted) = (std::mem::take(&mut self.headers), std::mem::take(&mut self.posted));
            let response = self.http.send(Method::POST, &self.url, headers, posted)?;
            if response.url().as_str() != self.url {
                let location = Some(response.url().to_string());
                return Err(self.http.meter.fail(Failure::Status { code: 308, location }));
            }
            let head = Cursor::new(header_lines(&response));
            self.answer = Some(Answer { head, body: self.http.body(response) });
        }
        self.answer.as_mut().ok_or_else(|| io::Error::other("no answer"))
    }
}

fn with<T>(exchange: &Mutex<Exchange>, act: impl FnOnce(&mut Exchange) -> io::Result<T>) -> io::Result<T> {
    act(&mut exchange.lock().unwrap_or_else(PoisonError::into_inner))
}

pub(super) struct PostBody(Arc<Mutex<Exchange>>);

impl Write for PostBody {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        with(&self.0, |exchange| {
            exchange.posted.extend_from_slice(bytes);
            Ok(bytes.len())
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) enum Headers {
    Ready(Cursor<Vec<u8>>),
    Posted(Arc<Mutex<Exchange>>),
}

impl Read for Headers {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Ready(lines) => lines.read(buffer),
            Self::Posted(exchange) => with(exchange, |exchange| exchange.answer()?.head.read(buffer)),
        }
    }
}

pub(super) enum PostedBody {
    Ready(Body),
    Posted(Arc<Mutex<Exchange>>),
}

impl Read for PostedBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Ready(body) => body.read(buffer),
            Self::Posted(exchange) => with(exchange, |exchange| exchange.answer()?.body.read(buffer)),
        }
    }
}

pub(super) struct Body {
    response: Response,
    chunk: Bytes,
    runtime: Handle,
    meter: Arc<Meter>,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.runtime.block_on(self.meter.watch(self.response.chunk()))? {
                Some(chunk) => {
                    self.meter.count(chunk.len())?;
                    self.chunk = chunk;
                }
                None => return Ok(0),
            }
        }
        let count = self.chunk.len().min(buffer.len());
        self.chunk.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
