//! A TCP connection that comes to be.

use std::time::Duration;

use tokio::net::TcpStream;

const LIMIT: Duration = Duration::from_secs(5);

pub(super) async fn probe(address: &str) -> Result<(), String> {
    match tokio::time::timeout(LIMIT, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("no connection to {address}: {error}")),
        Err(_) => Err(format!("no connection to {address} within {} s", LIMIT.as_secs())),
    }
}
