//! A Rust endpoint of muxado v2 or yamux for the interoperability tests.
//!
//! It makes exactly one session over one connection, plain or TLS, echoes what comes
//! on accepted streams, and is driven like the Go peers: a JSON object per line
//! on stdin, replies and events on stdout. README.md describes the commands.

mod session;
mod transport;

use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use serde_json::{json, Value};
use session::{Opener, Stream};
use tokio::io::AsyncBufReadExt;

type Fault = Box<dyn std::error::Error + Send + Sync>;

fn say(what: Value) {
    println!("{what}"); // whole lines: stdout is locked for each
}

/// Returns the value of a flag such as `-role`, "" if it is not given.
fn flag(name: &str) -> String {
    let mut args = std::env::args();
    args.find(|arg| arg == name);
    args.next().unwrap_or_default()
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    if let Err(fault) = runtime.block_on(run()) {
        eprintln!("peer: {fault}");
        std::process::exit(1);
    }
}

async fn run() -> Result<(), Fault> {
    let (library, role) = (flag("-library"), flag("-role"));
    let connection = transport::connect().await?;
    let opener = session::start(&library, role == "client", connection)?;
    say(json!({"event": "session", "library": library, "role": role}));
    let mut lines = tokio::io::BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let request: Value = serde_json::from_str(&line)?;
        let opener = opener.clone();
        tokio::spawn(async move {
            let mut reply = match perform(&opener, &request).await {
                Ok(result) => result,
                Err(fault) => json!({"ok": false, "error": fault.to_string()}),
            };
            reply["id"] = request["id"].clone();
            say(reply);
        });
    }
    Ok(())
}

async fn perform(opener: &Opener, request: &Value) -> Result<Value, Fault> {
    let number = |name: &str| request[name].as_u64().unwrap_or(0);
    match request["cmd"].as_str() {
        Some("check") => {
            let size = check(opener.open().await?, number("seed"), number("n")).await?;
            Ok(json!({"ok": true, "sent": size, "received": size}))
        }
        Some("many") => {
            let (count, max, seed) = (number("count"), number("max"), number("seed"));
            let checks = (0..count).map(|i| {
                let (opener, mut sizes) = (opener.clone(), Noise::new(seed + i));
                // Every order of magnitude is as likely.
                let size = 1 + sizes.next() % (1 + (max >> (sizes.next() % 20)));
                tokio::spawn(async move { check(opener.open().await?, seed + i, size).await })
            });
            let mut bytes = 0;
            for done in futures::future::join_all(checks).await {
                bytes += done??;
            }
            Ok(json!({"ok": true, "good": count, "bytes": bytes}))
        }
        Some("close-session") => {
            opener.close().await?;
            Ok(json!({"ok": true}))
        }
        _ => Err("no such command".into()),
    }
}

/// Writes so many bytes, ends that half, and compares what comes back.
async fn check(stream: Stream, seed: u64, size: u64) -> Result<u64, Fault> {
    let (reader, writer) = stream.split();
    futures::try_join!(write(writer, seed, size), compare(reader, seed, size))?;
    Ok(size)
}

async fn write(mut writer: impl AsyncWrite + Unpin, seed: u64, size: u64) -> Result<(), Fault> {
    let mut noise = Noise::new(seed);
    let mut left = size as usize;
    while left > 0 {
        let piece = noise.bytes(left.min(40_000));
        writer.write_all(&piece).await?;
        left -= piece.len();
    }
    writer.close().await?;
    Ok(())
}

async fn compare(mut reader: impl AsyncRead + Unpin, seed: u64, size: u64) -> Result<(), Fault> {
    let mut noise = Noise::new(seed);
    let mut left = size as usize;
    while left > 0 {
        let wanted = noise.bytes(left.min(40_000));
        let mut come = vec![0; wanted.len()];
        reader.read_exact(&mut come).await?;
        if come != wanted {
            return Err("what came back is not what was sent".into());
        }
        left -= wanted.len();
    }
    match reader.read(&mut [0]).await? {
        0 => Ok(()),
        _ => Err("more came back than was sent".into()),
    }
}

/// Echoes a stream to its end.
async fn echo(stream: Stream) {
    let (reader, mut writer) = stream.split();
    let done = async {
        let count = futures::io::copy(reader, &mut writer).await?;
        writer.close().await?;
        Ok::<_, std::io::Error>(count)
    };
    match done.await {
        Ok(count) => say(json!({"event": "stream-done", "read": count})),
        Err(fault) => say(json!({"event": "stream-failed", "error": fault.to_string()})),
    }
}

/// Bytes that depend on the seed only (splitmix64).
struct Noise(u64);

impl Noise {
    fn new(seed: u64) -> Self {
        Noise(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..count.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(count);
        bytes
    }
}
