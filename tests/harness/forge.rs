//! A Git host: nginx in front of `git http-backend` by way of fcgiwrap, smart
//! HTTP on loopback, with TLS and credentials where asked. What is pushed is
//! there at once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::broker::Certificates;
use crate::net::free_port;
use crate::process::{Running, output, run};
use crate::wait::until;

/// How a host is set up; by default plain HTTP that asks for nothing.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    pub certificates: Option<Certificates>,
    pub guard: Guard,
    /// A process in whose network the host listens, instead of this one's.
    pub network_of: Option<String>,
    /// Its address, where it is not loopback.
    pub address: Option<String>,
}

/// Who is let in.
#[derive(Clone, Debug, Default)]
pub enum Guard {
    #[default]
    Nobody,
    /// `Authorization: Bearer`, this token.
    Bearer(String),
    /// `Authorization: Basic`, this user and password.
    Basic(String, String),
}

/// A running host with one bare repository, `fleet.git`.
#[derive(Debug)]
pub struct Forge {
    folder: PathBuf,
    pub port: u16,
    setup: Setup,
    servers: Vec<Running>,
}

impl Forge {
    /// Starts the host in `folder`.
    pub fn start(folder: &Path) -> Self {
        Self::start_with(folder, Setup::default())
    }

    /// Starts one that is set up otherwise.
    pub fn start_with(folder: &Path, setup: Setup) -> Self {
        let folder = folder.join("forge");
        std::fs::create_dir_all(folder.join("repos")).expect("a folder");
        let bare = folder.join("repos/fleet.git");
        run(Command::new("git").args(["init", "-q", "--bare", "-b", "main"]).arg(&bare));
        let set = |key: &str, value: &str| run(Command::new("git").arg("-C").arg(&bare).args(["config", key, value]));
        set("http.receivepack", "true");
        set("uploadpack.allowAnySHA1InWant", "false");
        let mut forge = Self { folder, port: free_port(), setup, servers: Vec::new() };
        forge.up();
        forge
    }

    /// The repository's address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}/fleet.git", self.origin(self.address()))
    }

    fn address(&self) -> &str {
        self.setup.address.as_deref().unwrap_or("127.0.0.1")
    }

    /// The host by one of its names.
    #[must_use]
    pub fn origin(&self, name: &str) -> String {
        let scheme = if self.setup.certificates.is_some() { "https" } else { "http" };
        format!("{scheme}://{name}:{}", self.port)
    }

    /// A folder that is served as it is below `/files/`, and slowly (8 MB a
    /// second) below `/slow/`.
    #[must_use]
    pub fn files(&self) -> PathBuf {
        let files = self.folder.join("files");
        std::fs::create_dir_all(&files).expect("a folder");
        files
    }

    /// The bare repository's folder.
    #[must_use]
    pub fn bare(&self) -> PathBuf {
        self.folder.join("repos/fleet.git")
    }

    /// Starts the servers, on the same port as before.
    pub fn up(&mut self) {
        let socket = self.folder.join("fcgi.sock");
        let _ = std::fs::remove_file(&socket);
        let config = self.folder.join("nginx.conf");
        std::fs::write(&config, self.config(&socket)).expect("nginx.conf");
        let log = self.folder.join("forge.log");
        let mut fcgi = self.program("fcgiwrap");
        fcgi.arg("-c").arg("4").arg("-s").arg(format!("unix:{}", socket.display()));
        self.servers.push(Running::start_group(&mut fcgi, &log));
        until("fcgiwrap's socket", Duration::from_secs(10), || socket.exists().then_some(()));
        let mut nginx = self.program("nginx");
        nginx.arg("-c").arg(&config).arg("-p").arg(&self.folder).args(["-e", "error.log", "-g", "daemon off;"]);
        self.servers.push(Running::start(&mut nginx, &log));
        let ask = ["-sk", "-o", "/dev/null", &self.origin(self.address())];
        until("nginx", Duration::from_secs(10), || {
            output(self.program("curl").args(ask)).status.success().then_some(())
        });
    }

    fn program(&self, name: &str) -> Command {
        let Some(process) = &self.setup.network_of else { return Command::new(name) };
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", process, "--", name]);
        command
    }

    /// Has it listen in the network of another process from the next `up` on.
    pub fn move_to(&mut self, process: &str) {
        self.setup.network_of = Some(process.to_owned());
    }

    /// Ends the servers; the repository stays.
    pub fn down(&mut self) {
        self.servers.clear();
    }

    /// What nginx logged: a line a request.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.folder.join("access.log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    fn config(&self, socket: &Path) -> String {
        let folder = self.folder.display();
        let (mut tls, mut more) = ("", String::new());
        if let Some(Certificates { certificate, key, .. }) = &self.setup.certificates {
            tls = " ssl";
            more = format!("ssl_certificate {};\n    ssl_certificate_key {};", certificate.display(), key.display());
        }
        let guard = match &self.setup.guard {
            Guard::Nobody => String::new(),
            Guard::Bearer(token) => format!("if ($http_authorization != \"Bearer {token}\") {{ return 401; }}"),
            Guard::Basic(user, password) => {
                std::fs::write(self.folder.join("users"), format!("{user}:{{PLAIN}}{password}\n")).expect("users");
                format!("auth_basic fleet;\n      auth_basic_user_file {folder}/users;")
            }
        };
        format!(
            r#"pid {folder}/nginx.pid;
worker_processes 1;
user root;
events {{ worker_connections 64; }}
http {{
  access_log {folder}/access.log;
  client_max_body_size 0;
  client_body_temp_path {folder}/body;
  fastcgi_temp_path {folder}/fastcgi;
  proxy_temp_path {folder}/proxy;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen {address}:{port}{tls};
    {more}
    location /files/ {{
      root {folder};
    }}
    location /slow/ {{
      alias {folder}/files/;
      limit_rate 8m;
    }}
    location /dripping/ {{
      alias {folder}/files/;
      limit_rate 20k;
    }}
    location / {{
      {guard}
      fastcgi_pass unix:{socket};
      fastcgi_param SCRIPT_FILENAME /usr/lib/git-core/git-http-backend;
      fastcgi_param GIT_PROJECT_ROOT {folder}/repos;
      fastcgi_param GIT_HTTP_EXPORT_ALL "";
      fastcgi_param PATH_INFO $uri;
      fastcgi_param QUERY_STRING $query_string;
      fastcgi_param REQUEST_METHOD $request_method;
      fastcgi_param CONTENT_TYPE $content_type;
      fastcgi_param CONTENT_LENGTH $content_length;
      fastcgi_param GIT_PROTOCOL $http_git_protocol;
      fastcgi_param HTTP_CONTENT_ENCODING $http_content_encoding;
      fastcgi_param REMOTE_USER anonymous;
    }}
  }}
}}
"#,
            address = self.address(),
            port = self.port,
            socket = socket.display()
        )
    }
}
