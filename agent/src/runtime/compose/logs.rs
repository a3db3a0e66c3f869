//! The last lines that an app's containers wrote, merged by time.

use bollard::query_parameters::LogsOptions;
use futures_util::StreamExt;
use jiff::Timestamp;

use super::engine::{Link, READ};
use super::observe::Observed;
use crate::ports::runtime::RuntimeError;

/// The last `lines`, oldest first, each as `SERVICE-NUMBER | TEXT`.
pub(super) async fn tail(link: &Link, observed: &Observed, lines: usize) -> Result<Vec<String>, RuntimeError> {
    let mut all: Vec<(Option<Timestamp>, String)> = Vec::new();
    for seen in &observed.containers {
        let title = format!("{}-{}", seen.service, seen.number);
        let options = LogsOptions {
            stdout: true,
            stderr: true,
            timestamps: true,
            tail: lines.to_string(),
            ..LogsOptions::default()
        };
        let mut stream = std::pin::pin!(link.docker.logs(&seen.id, Some(options)));
        loop {
            let what = || format!("log of {title}");
            match tokio::time::timeout(READ, stream.next()).await {
                Err(_) => return Err(link.away(format!("no answer within {} s", READ.as_secs())).into()),
                Ok(None) => break,
                Ok(Some(Ok(piece))) => {
                    for line in piece.to_string().lines() {
                        let (at, text) = timed(line);
                        all.push((at, format!("{title} | {text}")));
                    }
                }
                // A container that never ran, or a driver that keeps no log.
                Ok(Some(Err(error))) => match link.failure(&error) {
                    failure if failure.status().is_none() => return Err(failure.reading(&what())),
                    failure => {
                        all.push((None, format!("{title} | (no log: {failure})")));
                        break;
                    }
                },
            }
        }
    }
    // Stable: lines of one moment stay in their order.
    all.sort_by_key(|(at, _)| *at);
    let skip = all.len().saturating_sub(lines);
    Ok(all.into_iter().skip(skip).map(|(_, line)| line).collect())
}

fn timed(line: &str) -> (Option<Timestamp>, &str) {
    match line.split_once(' ') {
        Some((at, text)) => match at.parse() {
            Ok(at) => (Some(at), text),
            Err(_) => (None, line),
        },
        // An empty line.
        None => match line.parse() {
            Ok(at) => (Some(at), ""),
            Err(_) => (None, line),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::timed;

    #[test]
    fn lines_with_their_time() {
        assert_eq!(timed("2026-01-02T03:04:05.000000006Z a b").1, "a b");
        assert_eq!(timed("2026-01-02T03:04:05+01:00 a").1, "a");
        assert_eq!(timed("no time"), (None, "no time"));
    }
}
