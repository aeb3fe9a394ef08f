//! What the two libraries have in common: a session that opens and accepts streams.

use std::future::poll_fn;
use std::task::Poll;

use futures::io::{AsyncRead, AsyncWrite};
use muxado::{Accept, OpenClose, Session, SessionBuilder};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::TokioAsyncReadCompatExt;

use crate::transport::Connection;
use crate::{echo, say, Fault};

pub trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}
pub type Stream = Box<dyn Bytes>;

/// Opens streams, and ends the session.
#[derive(Clone)]
pub enum Opener {
    Muxado(muxado::MuxadoOpen),
    Yamux(mpsc::Sender<Order>),
}

pub enum Order {
    Open(oneshot::Sender<Stream>),
    Close,
}

pub fn start(library: &str, client: bool, connection: Connection) -> Result<Opener, Fault> {
    match library {
        "muxado" => Ok(start_muxado(client, connection)),
        "yamux" => Ok(start_yamux(client, connection)),
        _ => Err("-library is muxado or yamux".into()),
    }
}

impl Opener {
    pub async fn open(&self) -> Result<Stream, Fault> {
        match self {
            Opener::Muxado(session) => Ok(Box::new(session.clone().open().await?.compat())),
            Opener::Yamux(orders) => {
                let (give, take) = oneshot::channel();
                orders.send(Order::Open(give)).await?;
                Ok(take.await?)
            }
        }
    }

    pub async fn close(&self) -> Result<(), Fault> {
        match self {
            Opener::Muxado(_) => Err("its close() sends nothing while it is idle".into()),
            Opener::Yamux(orders) => Ok(orders.send(Order::Close).await?),
        }
    }
}

fn start_muxado(client: bool, connection: Connection) -> Opener {
    let builder = SessionBuilder::new(connection).stream_limit(10_000);
    let builder = if client { builder.client() } else { builder.server() };
    let (opener, mut incoming) = builder.start().split();
    tokio::spawn(async move {
        while let Some(stream) = incoming.accept().await {
            tokio::spawn(echo(Box::new(stream.compat())));
        }
        say(json!({"event": "session-end"}));
    });
    Opener::Muxado(opener)
}

fn start_yamux(client: bool, transport: Connection) -> Opener {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(4096);
    let mode = if client { yamux::Mode::Client } else { yamux::Mode::Server };
    let mut connection = yamux::Connection::new(transport.compat(), config, mode);
    let (orders, mut ordered) = mpsc::channel(16);
    tokio::spawn(async move {
        let mut wanted: Option<oneshot::Sender<Stream>> = None;
        // Nothing moves on the connection but while one of its calls is polled.
        poll_fn(|cx| loop {
            if wanted.is_none() {
                match ordered.poll_recv(cx) {
                    Poll::Ready(Some(Order::Open(give))) => wanted = Some(give),
                    Poll::Ready(Some(Order::Close) | None) => return Poll::Ready(()),
                    Poll::Pending => {}
                }
            }
            if wanted.is_some() {
                match connection.poll_new_outbound(cx) {
                    Poll::Ready(Ok(stream)) => {
                        let give = wanted.take().unwrap();
                        let _ = give.send(Box::new(stream));
                        continue;
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => {}
                }
            }
            match connection.poll_next_inbound(cx) {
                Poll::Ready(Some(Ok(stream))) => drop(tokio::spawn(echo(Box::new(stream)))),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        })
        .await;
        let _ = poll_fn(|cx| connection.poll_close(cx)).await;
        say(json!({"event": "session-end"}));
    });
    Opener::Yamux(orders)
}
